#!/usr/bin/env python3
"""Runs attache with slow transfers in a memory control group of 256 MiB: how much memory it uses over time, what it does about that, and whether it survives.

    python3 benches/memory.py [PATTERN …]

attache has all its defaults. ATTACHE names the binary, N is the number of transfers (1000), MIB the limit (256), SECONDS_EACH the duration of each pattern (20). It needs Linux,
root (control groups of version 1 or 2, a network namespace of its own) and Python's hpack.

Patterns:
    upload          the upstream reads 100 kB/s of each transfer
    upload-unread   the upstream reads nothing
    download        the clients read 512 bytes now and then
    download-unread the clients read nothing
    h2-upload       100 streams on each client connection, filled up to their windows; the upstream reads nothing
    h2-download     100 streams on each client connection; the clients open no window
    h2-upstream     answers over HTTP/2 from the upstream; the clients read nothing
    mirror          copies of uploads go to a mirror that reads nothing
    tunnel          opaque bytes in both directions that neither side reads
"""
import asyncio, os, re, resource, socket, struct, subprocess, sys, tempfile, threading, time, urllib.request

if os.environ.get("MEMORY_INSIDE") != "1":
    os.environ["MEMORY_INSIDE"] = "1"
    os.execvp("unshare", ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "x", sys.executable] + sys.argv)

import hpack

ATTACHE = os.environ.get("ATTACHE", "target/release/attache")
N, MIB, SECONDS = int(os.environ.get("N", "1000")), int(os.environ.get("MIB", "256")), float(os.environ.get("SECONDS_EACH", "20"))
APP, APP2, MIRROR, LISTEN, METRICS, ADMIN = 35600, 35605, 35604, 35603, 35602, 35601
SIZE = 10 << 20
PATTERNS = ("upload", "upload-unread", "download", "download-unread", "h2-upload", "h2-download", "h2-upstream", "mirror", "tunnel")
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))


def frame(kind, flags, stream, payload=b""):
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


async def app(reader, writer):
    """Sends a long response to a GET. Reads a little or nothing of a POST."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST"):
            while b"unread" not in head:
                if not await reader.read(4096):
                    return
                await asyncio.sleep(.04)
            await asyncio.sleep(1e6)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % SIZE)
        for _ in range(SIZE >> 16):
            writer.write(b"x" * 65536)
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()


async def silent(reader, writer):
    """Reads nothing, and writes as long as its bytes are accepted."""
    writer.transport.pause_reading()
    try:
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
    except OSError:
        pass


async def mute(_, writer):
    writer.transport.pause_reading()
    await asyncio.sleep(1e6)


async def app_h2(reader, writer):
    """Fills the window of each stream."""
    try:
        await reader.readexactly(24)
        writer.write(frame(4, 0, 0))
        window, streams = 65535, 0
        while True:
            head = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
            kind, stream = head[3], int.from_bytes(head[5:], "big")
            if kind == 4 and not head[4] & 1:
                window = dict(struct.iter_unpack("!HI", payload)).get(4, window)
                writer.write(frame(4, 1, 0))
            elif kind == 1:
                writer.write(frame(1, 4, stream, hpack.Encoder().encode([(":status", "200")])))
                for _ in range(window // 16384):
                    writer.write(frame(0, 0, stream, b"x" * 16384))
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass


def servers(tunnel):
    async def main():
        for port, handle in ((APP, silent if tunnel else app), (APP2, app_h2), (MIRROR, mute)):
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Unread bytes must wait in attache, not in the kernel.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            listener.bind(("127.0.0.1", port))
            await asyncio.start_server(handle, sock=listener, backlog=4096, limit=8192)
        await asyncio.sleep(1e6)
    threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()


class Group:
    """A control group below that of this process."""
    def __init__(self):
        lines = [line.strip().split(":", 2) for line in open("/proc/self/cgroup")]
        old = [path for _, controllers, path in lines if "memory" in controllers.split(",")]
        new = [path for _, controllers, path in lines if not controllers]
        mount, own = ("/sys/fs/cgroup/memory", old[0]) if old else ("/sys/fs/cgroup", new[0])
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else ("memory.max", "memory.current")
        self.path = f"{mount}{own.rstrip('/')}/attache-{os.getpid()}"
        os.makedirs(self.path)
        open(f"{self.path}/{names[0]}", "w").write(str(MIB << 20))
        self.usage = lambda: int(open(f"{self.path}/{names[1]}").read()) / (1 << 20)

    def remove(self):
        for _ in range(50):
            try:
                return os.rmdir(self.path)
            except OSError:
                time.sleep(.1)


class Transfer:
    """One client connection of a pattern."""
    def __init__(self, pattern):
        self.pattern, self.socket = pattern, socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF if "download" in pattern else socket.SO_SNDBUF, 8192 if "download" in pattern else 65536)
        self.socket.settimeout(.2)
        self.socket.connect(("127.0.0.1", LISTEN))
        self.socket.setblocking(False)
        if pattern in ("h2-upload", "h2-download"):
            # The latter has a window of 0; the other sends what attache's first window allows.
            self.socket.settimeout(2)
            self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, struct.pack("!HI", 4, 0)))
            # attache's windows apply from the moment when they are acknowledged.
            self.socket.recv(4096)
            self.socket.setblocking(False)
            out = bytearray(frame(4, 1, 0))
            for stream in range(1, 201, 2):
                post = pattern == "h2-upload"
                head = [(":method", "POST" if post else "GET"), (":scheme", "http"), (":path", "/unread"), (":authority", "a")]
                out += frame(1, 4 if post else 5, stream, hpack.Encoder().encode(head))
                if post:
                    out += frame(0, 0, stream, b"z" * 16384) * 15
            self.out = memoryview(bytes(out))
        elif pattern in ("upload", "upload-unread", "mirror"):
            path = b"/unread" if pattern == "upload-unread" else b"/"
            self.out, self.more = b"POST %s HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (path, SIZE), b"z" * 65536
        elif pattern == "tunnel":
            self.out, self.more = b"x" * 65536, b"x" * 65536
        else:
            self.out = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"

    def turn(self):
        try:
            if self.out:
                self.out = self.out[self.socket.send(self.out):]
            elif hasattr(self, "more"):
                self.socket.send(self.more)
            elif self.pattern == "download":
                self.socket.recv(512)
        except OSError:
            pass


def metrics():
    try:
        page = urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics", timeout=1).read().decode()
    except OSError:
        return "?", [], {}
    pressure = re.findall(r'pressure\{resource="memory"\} (\S+)', page)
    ended = {}
    for reason, count in re.findall(r'attache_requests_total\{[^}]*reason="([\w-]+)"[^}]*\} (\d+)', page):
        ended[reason] = ended.get(reason, 0) + int(count)
    return (pressure or ["?"])[0], re.findall(r'action="([\w-]+)"\} 1', page), ended


def run(pattern):
    folder, group = tempfile.mkdtemp(), Group()
    address = f"h2c://127.0.0.1:{APP2}" if pattern == "h2-upstream" else f"{'tcp' if pattern == 'tunnel' else 'http'}://127.0.0.1:{APP}"
    route = "to: app" if pattern != "mirror" else "routes: [{ to: app, mirror: shadow }]"
    speaks = "protocol: tcp, " if pattern == "tunnel" else ""
    open(f"{folder}/c.yaml", "w").write(
        f"access_log: {{ to: {folder}/access.log, filter: {{ errors: true }} }}\nadmin: 127.0.0.1:{ADMIN}\nmetrics: 127.0.0.1:{METRICS}\nlisteners: {{ l: {{ bind: 127.0.0.1:{LISTEN}, {speaks}{route} }} }}\n"
        f"upstreams: {{ app: \"{address}\", shadow: \"http://127.0.0.1:{MIRROR}\" }}\n")
    enter = f'echo $$ > {group.path}/cgroup.procs; exec "$@"'
    process = subprocess.Popen(["sh", "-c", enter, "x", ATTACHE, "run", "-c", f"{folder}/c.yaml"], stderr=open(f"{folder}/log", "w"))
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", LISTEN), 1).close()
            break
        except OSError:
            time.sleep(.1)
    begun, told, peak, refused, transfers = time.time(), 0, 0, 0, []
    idle = group.usage()
    many = N // 100 + 1 if pattern in ("h2-upload", "h2-download") else N
    while time.time() - begun < SECONDS and process.poll() is None:
        if len(transfers) + refused < many:
            for _ in range(max(1, many // 100)):
                try:
                    transfers.append(Transfer(pattern))
                except OSError:
                    refused += 1
        for transfer in transfers:
            transfer.turn()
        peak = max(peak, group.usage())
        if time.time() - told > 2:
            told = time.time()
            pressure, acting, ended = metrics()
            print(f"{pattern}: {told - begun:4.1f} s, {len(transfers)} connections, {group.usage():.0f} MiB, pressure {pressure}, acting {acting}, ended {ended}", flush=True)
        time.sleep(.02)
    lives = process.poll() is None
    # New clients must be served after the others have left.
    for transfer in transfers:
        transfer.socket.close()
    answered = "-"
    if lives and pattern not in ("tunnel", "h2-upstream"):
        for _ in range(30):
            time.sleep(.5)
            try:
                with socket.create_connection(("127.0.0.1", LISTEN), 2) as client:
                    client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                    answered = client.recv(12)[9:12].decode()
                if answered == "200":
                    break
            except OSError as error:
                answered = type(error).__name__
    _, _, ended = metrics() if lives else ("", [], {})
    after = group.usage()
    process.kill()
    process.wait()
    group.remove()
    return f"| {pattern} | {'lives' if lives else 'KILLED'} | {idle:.0f} | {peak:.0f} | {after:.0f} | {answered} | {', '.join(f'{k}: {v}' for k, v in sorted(ended.items()))} |"


if __name__ == "__main__":
    wanted = sys.argv[1:] or PATTERNS
    rows = []
    if wanted == ["tunnel"] or len(wanted) == 1:
        servers(wanted[0] == "tunnel")
        rows.append(run(wanted[0]))
    else:
        # Each pattern has its own process: its servers must not be slowed down by those of another pattern.
        for pattern in wanted:
            done = subprocess.run([sys.executable, __file__, pattern], capture_output=True, text=True)
            lines = done.stdout.splitlines()
            print("\n".join(lines[:-3]) if lines else done.stderr, flush=True)
            rows.append(lines[-1] if lines else f"| {pattern} | failed |")
    print("| pattern | attache | idle, MiB | peak, MiB | after, MiB | then a new call | ended |\n| --- | --- | --- | --- | --- | --- | --- |")
    print("\n".join(rows))
