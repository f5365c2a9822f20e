#!/usr/bin/env python3
"""What a caller sees while endpoints are dead or restarted, beside nginx and HAProxy.

    python3 benches/outage.py dead [attache nginx haproxy]        n of 10 endpoints dead, by kind, protocol and method
    python3 benches/outage.py restart [attache nginx haproxy]     10 endpoints restarted one after the other under load

Each proxy has its defaults: attache as `attache run` has it, nginx and HAProxy with an upstream of ten servers and HAProxy's `option redispatch`.
ATTACHE names the binary, KINDS some of the kinds (`refused,black-holed,TLS-broken`). Wants Linux, root (it makes a network namespace of its own) and Python's h2; nginx and HAProxy where they are asked for.
"""
import asyncio, os, re, shutil, socket, ssl, subprocess, sys, tempfile, time, urllib.request

if os.environ.get("OUTAGE_INSIDE") != "1":
    os.environ["OUTAGE_INSIDE"] = "1"
    inside = 'ip link set lo up; exec "$@"'
    os.execvp("unshare", ["unshare", "-n", "sh", "-c", inside, "x", sys.executable] + sys.argv)

import h2.config, h2.connection, h2.events

ATTACHE = os.environ.get("ATTACHE", "target/release/attache")
DIR = tempfile.mkdtemp()
HOSTS = [f"127.0.1.{n}" for n in range(1, 11)]
PORT, LISTEN, METRICS, ADMIN = 8000, 9000, 9002, 9003
CALLERS, CALLS = 8, 25


def certificates():
    """Two authorities that know nothing of each other, and a server's certificate of each."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    open(f"{DIR}/names", "w").write("subjectAltName=DNS:svc\nbasicConstraints=CA:FALSE\n")
    for name in ("good", "bad"):
        at = f"{DIR}/{name}"
        for command in (["req", "-x509", *key, "-keyout", f"{at}-ca.key", "-out", f"{at}-ca.pem", "-days", "9", "-subj", f"/CN={name} authority"],
                        ["req", "-new", *key, "-keyout", f"{at}.key", "-out", f"{at}.csr", "-subj", "/CN=svc"],
                        ["x509", "-req", "-in", f"{at}.csr", "-CA", f"{at}-ca.pem", "-CAkey", f"{at}-ca.key", "-CAcreateserial",
                         "-out", f"{at}.pem", "-days", "9", "-extfile", f"{DIR}/names"]):
            subprocess.run(["openssl", *command], capture_output=True, check=True)


def tls(name):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{DIR}/{name}.pem", f"{DIR}/{name}.key")
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


async def serve_http1(reader, writer, first=b""):
    buffer = first
    while True:
        while b"\r\n\r\n" not in buffer:
            piece = await reader.read(65536)
            if not piece:
                return
            buffer += piece
        head, _, buffer = buffer.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.I)
        missing = int(length[1]) - len(buffer) if length else 0
        while missing > 0:
            piece = await reader.read(65536)
            if not piece:
                return
            buffer += piece
            missing -= len(piece)
        buffer = buffer[int(length[1]):] if length else buffer
        closing = DRAINING.get(writer.get_extra_info("sockname")[0])
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n" + (b"connection: close\r\n" if closing else b"") + b"\r\nok")
        await writer.drain()
        if closing:
            return


async def serve_http2(reader, writer, first=b""):
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
    connection.initiate_connection()
    piece = first
    while True:
        for event in connection.receive_data(piece):
            if isinstance(event, h2.events.DataReceived):
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                connection.send_headers(event.stream_id, [(":status", "200"), ("content-type", "application/grpc")])
                connection.send_data(event.stream_id, b"\0\0\0\0\0")
                connection.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)
        writer.write(connection.data_to_send())
        await writer.drain()
        piece = await reader.read(65536)
        if not piece:
            return


async def serve_echo(reader, writer, first=b""):
    while first:
        writer.write(first)
        await writer.drain()
        first = await reader.read(65536)


DRAINING = {}


async def handle(kind, reader, writer):
    OPEN.setdefault(writer.get_extra_info("sockname")[0], set()).add(writer)
    try:
        first = await reader.read(65536)
        if kind == "echo":
            await serve_echo(reader, writer, first)
        elif first.startswith(b"PRI "):
            await serve_http2(reader, writer, first)
        else:
            await serve_http1(reader, writer, first)
    except (OSError, ssl.SSLError, h2.exceptions.ProtocolError, asyncio.IncompleteReadError):
        pass
    finally:
        OPEN.get(writer.get_extra_info("sockname")[0], set()).discard(writer) if writer.get_extra_info("sockname") else None
        writer.close()


OPEN = {}


async def start(host, kind, context=None):
    return await asyncio.start_server(lambda r, w: handle(kind, r, w), host, PORT, ssl=context, backlog=1024, reuse_address=True)


def black_hole(host):
    """A socket whose queue is full: further SYNs are dropped."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, PORT))
    listener.listen(0)
    held = [listener]
    for _ in range(4):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex((host, PORT))
        held.append(client)
    return held


def configure(proxy, protocol, secure):
    scheme = {"opaque": "tls" if secure else "tcp", "connect": "tls" if secure else "tcp"}.get(protocol)
    scheme = scheme or ("https" if secure else ("http" if protocol == "http1" else "h2c"))
    addresses = ", ".join(f'"{scheme}://{host}:{PORT}"' for host in HOSTS)
    trust = f", tls: {{ ca: {DIR}/good-ca.pem, name: svc }}" if secure else ""
    route, speaks = "to: svc", "protocol: tcp, " if protocol == "opaque" else ""
    if protocol == "connect":
        route = "routes: [{ match: { methods: CONNECT }, to: svc }]"
    text = (f"admin: 127.0.0.1:{ADMIN}\nmetrics: 127.0.0.1:{METRICS}\nlisteners: {{ l: {{ bind: 127.0.0.1:{LISTEN}, {speaks}{route} }} }}\n"
            f"upstreams: {{ svc: {{ address: [{addresses}]{trust} }} }}\n")
    servers = "\n".join(f" server s{n} {host}:{PORT}" + (f" ssl verify required ca-file {DIR}/good-ca.pem verifyhost svc" if secure else "")
                        for n, host in enumerate(HOSTS))
    mode = "tcp" if protocol == "opaque" else "http"
    haproxy = (f"defaults\n mode {mode}\n option redispatch\n retries 3\n timeout connect 1s\n timeout client 15s\n timeout server 15s\n"
               f"frontend f\n bind 127.0.0.1:{LISTEN}\n default_backend b\nbackend b\n{servers}\n")
    tls_lines = f"proxy_ssl_verify on; proxy_ssl_trusted_certificate {DIR}/good-ca.pem; proxy_ssl_name svc;" if secure else ""
    nginx = (f"daemon off; pid {DIR}/nginx.pid; error_log {DIR}/error.log; worker_processes 2; events {{ worker_connections 4096; }}\n"
             f"http {{ access_log off; upstream svc {{ keepalive 32; {' '.join(f'server {host}:{PORT};' for host in HOSTS)} }}\n"
             f"server {{ listen 127.0.0.1:{LISTEN}; location / {{ proxy_pass {'https' if secure else 'http'}://svc; proxy_http_version 1.1; "
             f"proxy_set_header Connection ''; proxy_connect_timeout 1s; {tls_lines} }} }} }}\n")
    path = f"{DIR}/{proxy}.conf"
    open(path, "w").write({"attache": text, "haproxy": haproxy, "nginx": nginx}[proxy])
    return {"attache": [ATTACHE, "run", "-c", path], "haproxy": ["haproxy", "-db", "-f", path], "nginx": ["nginx", "-p", DIR, "-c", path]}[proxy]


async def until_listening(process):
    for _ in range(200):
        try:
            (await asyncio.open_connection("127.0.0.1", LISTEN))[1].close()
            return True
        except OSError:
            if process.poll() is not None:
                return False
            await asyncio.sleep(.05)
    return False


def stop(proxy, process):
    """attache would drain its tunnels first; nginx's workers would outlive a kill."""
    process.kill() if proxy == "attache" else process.terminate()


class Caller:
    """One client with one connection, which it opens anew where the proxy has closed it."""
    def __init__(self, protocol, method):
        self.protocol, self.method, self.reader, self.writer = protocol, method, None, None

    async def call(self):
        try:
            return await asyncio.wait_for(self.once(), 10)
        except (OSError, asyncio.TimeoutError, EOFError, h2.exceptions.ProtocolError) as error:
            self.reader = None
            return type(error).__name__

    async def once(self):
        if self.reader is None or self.protocol in ("opaque", "connect"):
            if self.writer:
                self.writer.close()
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", LISTEN)
            self.h2 = None
        if self.protocol == "opaque":
            return await self.echo()
        if self.protocol == "connect":
            self.writer.write(b"CONNECT svc:80 HTTP/1.1\r\nhost: svc:80\r\n\r\n")
            head = await self.reader.readuntil(b"\r\n\r\n")
            return await self.echo() if b" 200" in head[:13] else head[9:12].decode() + self.reason(head)
        body = b"x" * 1000 if self.method == "POST" else b""
        if self.protocol == "http1":
            length = f"content-length: {len(body)}\r\n" if body else ""
            self.writer.write(f"{self.method} / HTTP/1.1\r\nhost: svc\r\n{length}\r\n".encode() + body)
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head, re.I)
            if length:
                await self.reader.readexactly(int(length[1]))
            if not length or re.search(rb"connection: *close", head, re.I):
                self.reader = None
            return "ok" if b" 200" in head[:13] else head[9:12].decode() + self.reason(head)
        if self.h2 is None:
            self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
            self.h2.initiate_connection()
        stream = self.h2.get_next_available_stream_id()
        headers = [(":method", self.method), (":scheme", "http"), (":path", "/"), (":authority", "svc")]
        if self.protocol == "grpc":
            headers += [("content-type", "application/grpc"), ("te", "trailers")]
        self.h2.send_headers(stream, headers, end_stream=not body)
        if body:
            self.h2.send_data(stream, body, end_stream=True)
        self.writer.write(self.h2.data_to_send())
        seen = {}
        while True:
            piece = await self.reader.read(65536)
            if not piece:
                raise EOFError
            for event in self.h2.receive_data(piece):
                if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                    seen.update(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamReset):
                    return "reset"
                elif isinstance(event, h2.events.StreamEnded):
                    self.writer.write(self.h2.data_to_send())
                    good = seen.get(":status") == "200" and seen.get("grpc-status", "0") == "0"
                    return "ok" if good else seen.get(":status", "") + " " + seen.get("x-attache-reason", "")
            self.writer.write(self.h2.data_to_send())

    async def echo(self):
        self.writer.write(b"hello")
        back = await self.reader.read(5)
        return "ok" if back == b"hello" else "cut"

    @staticmethod
    def reason(head):
        found = re.search(rb"x-attache-reason: *(\S+)", head, re.I)
        return " " + found[1].decode() if found else ""


def tally(results):
    failed = [result for result in results if result != "ok"]
    kinds = {kind: failed.count(kind) for kind in sorted(set(failed))}
    return f"{len(failed)} of {len(results)}" + (f" {kinds}" if kinds else "")


def connection_failures():
    """Of all workers; "?" where the proxy has ended."""
    try:
        return connection_failures_or_raise()
    except OSError:
        return "?"


def connection_failures_or_raise():
    page = urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics", timeout=2).read().decode()
    return sum(int(n) for n in re.findall(r"attache_upstream_connection_failures_total\{[^}]*\} (\d+)", page))


def can(proxy, protocol):
    return proxy == "attache" or protocol == "http1" or (proxy == "haproxy" and protocol == "opaque")


async def dead(proxies):
    print("| dead | kind | protocol | " + " | ".join(f"{proxy}: failed calls" for proxy in proxies) + " | longest call (attache) | connections that failed (attache) |")
    print("| --- | --- | --- |" + " --- |" * (len(proxies) + 2))
    for kind in os.environ.get("KINDS", "refused,black-holed,TLS-broken").split(","):
        secure = kind == "TLS-broken"
        for protocol, method in (("http1", "GET"), ("http1", "POST"), ("http2", "GET"), ("http2", "POST"), ("grpc", "POST"), ("opaque", ""), ("connect", "")):
            for count in (1, 5, 9):
                row, longest, attempts = [], "", ""
                for proxy in proxies:
                    if not can(proxy, protocol) or (secure and protocol == "opaque" and proxy != "attache"):
                        row.append("-")
                        continue
                    servers = [await start(host, "echo" if protocol in ("opaque", "connect") else "http", tls("good") if secure else None) for host in HOSTS[count:]]
                    held = []
                    for host in HOSTS[:count]:
                        if kind == "black-holed":
                            held += black_hole(host)
                        elif secure:
                            servers.append(await start(host, "http", tls("bad")))
                    process = subprocess.Popen(configure(proxy, protocol, secure), stderr=subprocess.DEVNULL)
                    if not await until_listening(process):
                        row.append("did not start")
                    else:
                        slowest = [0.0]

                        async def caller():
                            one, results = Caller(protocol, method), []
                            for _ in range(CALLS):
                                begun = time.monotonic()
                                results.append(await one.call())
                                slowest[0] = max(slowest[0], time.monotonic() - begun)
                                await asyncio.sleep(.01)
                            return results
                        results = sum(await asyncio.gather(*[caller() for _ in range(CALLERS)]), [])
                        row.append(tally(results))
                        if proxy == "attache":
                            longest, attempts = f"{slowest[0] * 1000:.0f} ms", connection_failures()
                    stop(proxy, process)
                    process.wait()
                    for server in servers:
                        server.close()
                    for one in held:
                        one.close()
                    for writers in OPEN.values():
                        for writer in list(writers):
                            writer.transport.abort()
                    OPEN.clear()
                    await asyncio.sleep(.05)
                print(f"| {count} of 10 | {kind} | {protocol} {method} | " + " | ".join(row) + f" | {longest} | {attempts} |", flush=True)


async def restart(proxies):
    print("| way | protocol | " + " | ".join(f"{proxy}: failed calls" for proxy in proxies) + " |")
    print("| --- | --- |" + " --- |" * len(proxies))
    for way in ("drain", "close", "kill"):
        for protocol, method in (("http1", "GET"), ("http1", "POST"), ("http2", "POST"), ("grpc", "POST"), ("opaque", "")):
            row = []
            for proxy in proxies:
                if not can(proxy, protocol):
                    row.append("-")
                    continue
                kind = "echo" if protocol == "opaque" else "http"
                servers = {host: await start(host, kind) for host in HOSTS}
                process = subprocess.Popen(configure(proxy, protocol, False), stderr=subprocess.DEVNULL)
                await until_listening(process)
                over = asyncio.Event()

                async def caller():
                    one, results = Caller(protocol, method), []
                    while not over.is_set():
                        results.append(await one.call())
                        await asyncio.sleep(1 / 15)
                    return results
                callers = [asyncio.ensure_future(caller()) for _ in range(20)]
                for host in HOSTS:
                    await asyncio.sleep(.4)
                    if way == "drain":
                        # It answers what runs, says `connection: close`, and then no longer listens.
                        DRAINING[host] = True
                        servers[host].close()
                        await asyncio.sleep(.3)
                    servers[host].close()
                    for writer in list(OPEN.get(host, ())):
                        writer.transport.abort() if way == "kill" else writer.close()
                    # The address answers nothing until the pod is back, and DNS names it all the while.
                    await asyncio.sleep(.4)
                    DRAINING.pop(host, None)
                    servers[host] = await start(host, kind)
                await asyncio.sleep(.5)
                over.set()
                row.append(tally(sum(await asyncio.gather(*callers), [])))
                stop(proxy, process)
                process.wait()
                for server in servers.values():
                    server.close()
                for writers in OPEN.values():
                    for writer in list(writers):
                        writer.transport.abort()
                OPEN.clear()
                await asyncio.sleep(.1)
            print(f"| {way} | {protocol} {method} | " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    certificates()
    wanted = sys.argv[2:] or [proxy for proxy in ("attache", "nginx", "haproxy") if proxy == "attache" or shutil.which(proxy)]
    asyncio.run({"dead": dead, "restart": restart}[sys.argv[1]](wanted))
