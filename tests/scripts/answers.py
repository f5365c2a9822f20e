#!/usr/bin/env python3
"""The answers of curl's test suite, directly and through attache: the client must see the same.

    git clone --depth 1 https://github.com/curl/curl
    python3 tests/scripts/answers.py curl/tests/data target/release/attache [--all]

Every `<data>` of a reply that begins with `HTTP/1.` is sent as it stands by a server that then closes. curl asks for it directly and
through attache. Compared are curl's success, the status, the fields without those of one hop, and the body.

An answer that curl can't use by itself must not become a good one. One that curl can use is the same; or it is refused by attache, and those
are listed with the rule; or its chunks' lines end in LF alone, and the answer is cut where they do.
"""
import base64
import collections
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

from free_port import free_port

HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "via", "date", "server-timing"}
MACROS = {b"%CR": b"\r", b"%LF": b"\n", b"%SP": b" ", b"%TAB": b"\t", b"%AMP": b"&", b"%GT": b">", b"%LT": b"<"}


def expand(data):
    data = re.sub(rb"%hex\[(.*?)\]hex%", lambda m: re.sub(rb"%([0-9a-fA-F]{2})", lambda h: bytes([int(h[1], 16)]), m[1]), data, flags=re.S)
    data = re.sub(rb"%b64\[(.*?)\]b64%", lambda m: base64.b64encode(m[1]), data, flags=re.S)
    again = lambda m: re.sub(rb"%([0-9a-fA-F]{2})", lambda h: bytes([int(h[1], 16)]), m[2]) * int(m[1])
    data = re.sub(rb"%repeat\[(\d+) x (.*?)\]%", again, data, flags=re.S)
    for macro, text in MACROS.items():
        data = data.replace(macro, text)
    return data


def answers(folder):
    for name in sorted(os.listdir(folder), key=lambda n: (len(n), n)):
        if not re.fullmatch(r"test\d+", name):
            continue
        text = open(os.path.join(folder, name), "rb").read()
        reply = re.search(rb"<reply>(.*?)</reply>", text, re.S)
        if not reply:
            continue
        for tag, attributes, data in re.findall(rb"<(data\d*)\b([^>]*)>\n?(.*?)</\1>", reply[1], re.S):
            data = base64.b64decode(data) if b"base64" in attributes else expand(data)
            if not data.startswith(b"HTTP/1."):
                continue
            head, empty, body = data.partition(b"\n\n")
            if empty and b"\r\n" not in head:
                # Written with LF for the editor's sake; on the wire a line ends in CRLF.
                data = head.replace(b"\n", b"\r\n") + b"\r\n\r\n" + (body.replace(b"\n", b"\r\n") if b'crlf="yes"' in attributes else body)
            yield f"{name}/{tag.decode()}", data


def upstream():
    server = socket.create_server(("127.0.0.1", 0), backlog=64)
    current = {}

    def serve(connection):
        connection.settimeout(5)
        try:
            got = b""
            while b"\r\n\r\n" not in got:
                piece = connection.recv(65536)
                if not piece:
                    return
                got += piece
            connection.sendall(current["data"])
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        except OSError:
            pass
        finally:
            connection.close()

    def accept():
        while True:
            connection, _ = server.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return server.getsockname()[1], current


def ask(url):
    with tempfile.TemporaryDirectory() as folder:
        head, body = os.path.join(folder, "head"), os.path.join(folder, "body")
        run = subprocess.run(["curl", "-sS", "--max-time", "8", "--http1.1", "-D", head, "-o", body, "-H", "Host: app", url], capture_output=True, text=True)
        read = lambda path: open(path, "rb").read() if os.path.exists(path) else b""
        head, body = read(head), read(body)
    blocks = [block for block in re.split(rb"\r?\n\r?\n", head) if block.startswith(b"HTTP/")]
    final = next((block for block in reversed(blocks) if not re.match(rb"HTTP/1\.\d 1\d\d", block)), b"")
    status = (re.match(rb"HTTP/\S+ (\d{3})", final) or [b"", b""])[1]
    fields = collections.Counter()
    nominated, lengths, reason = set(), set(), None
    lines = [line.partition(b":") for line in re.split(rb"\r?\n", final)[1:]]
    for name, _, value in lines:
        if name.strip().lower() == b"connection":
            nominated |= {token.strip().lower().decode("latin1") for token in value.split(b",")}
    for name, _, value in lines:
        name = name.strip().lower().decode("latin1")
        if name == "x-attache-reason":
            reason = value.strip().decode("latin1")
        elif name == "content-length":
            lengths |= {length.strip() for length in value.split(b",")}
        elif name and name not in HOP | nominated:
            fields[name, value.strip()] += 1
    if not any(name.strip().lower() == b"transfer-encoding" for name, _, _ in lines):
        # Equal lengths are one; none counts beside a transfer-coding (RFC 9112 section 6.3).
        fields.update(("content-length", length) for length in lengths)
    return run.returncode, status, fields, body, reason


def main():
    folder, attache = sys.argv[1], sys.argv[2]
    upstream_port, current = upstream()
    listener = free_port()
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as config:
        config.write(f"""
admin: off
metrics: off
listeners: {{ outbound: {{ bind: '127.0.0.1:{listener}', routes: [ {{ match: {{ path: /* }}, to: app, retry: off }} ] }} }}
upstreams: {{ app: {{ address: 'http://127.0.0.1:{upstream_port}', retry: off, outlier_ejection: off, circuit_breaker: off }} }}
""")
        config.flush()
        process = subprocess.Popen([attache, "run", "-c", config.name], stderr=subprocess.DEVNULL)
        try:
            while True:
                if process.poll() is not None:
                    sys.exit("attache ended: " + subprocess.run([attache, "check", config.name], capture_output=True, text=True).stderr)
                try:
                    socket.create_connection(("127.0.0.1", listener)).close()
                    break
                except OSError:
                    time.sleep(0.05)
            compare(folder, current, upstream_port, listener)
        finally:
            process.terminate()
            process.wait()


def compare(folder, current, upstream_port, listener):
    counts, notes = collections.Counter(), []
    for name, data in answers(folder):
        current["data"] = data
        direct = ask(f"http://127.0.0.1:{upstream_port}/")
        proxied = ask(f"http://127.0.0.1:{listener}/")
        good, refused = direct[0] == 0, proxied[4] is not None
        if data.startswith(b"HTTP/1.1 101"):
            kind = "101 that nobody asked for" if refused else "OTHERWISE"
        elif good and not refused and direct[:4] == proxied[:4]:
            kind = "the same"
        elif good and refused:
            kind = "refused"
        elif not good and (refused or proxied[0] != 0):
            kind = "no good answer, directly or not"
        elif good and proxied[0] != 0:
            kind = "cut"
        elif not good:
            kind = "BETTER THAN DIRECTLY"
        else:
            kind = "OTHERWISE"
        counts[kind] += 1
        if kind not in ("the same", "no good answer, directly or not", "101 that nobody asked for") or "--all" in sys.argv:
            differences = f"{direct[0]} {direct[1]} -> {proxied[0]} {proxied[1]} {proxied[4] or ''}"
            if kind == "OTHERWISE":
                differences += f" fields -{dict(direct[2] - proxied[2])} +{dict(proxied[2] - direct[2])}" + (" body" if direct[3] != proxied[3] else "")
            if refused:
                differences += " " + " ".join(proxied[3].decode("utf-8", "replace").split())
            notes.append(f"{kind}: {name}: {differences}")
    print("\n".join(notes))
    print(sum(counts.values()), "answers:", dict(counts))


main()
