"""A total outage is never green: of each kind `attache status` ends with 2 and names it, and the log has a warning.

outages.py ATTACHE
"""

import socket
import struct
import subprocess
import sys
import time

from trouble import FOLDER, Proxy, Server, answers, certificate, command, issue, one, port, request, tls, write

WRONG = []


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def says_grpc_status(code, with_data):
    """HTTP/2 by hand: answers each call with this grpc-status, alone or behind a message."""
    def do(connection):
        data = connection.recv(65536)
        connection.sendall(frame(4, 0, 0))
        time.sleep(0.2)
        connection.sendall(frame(4, 1, 0))
        head = b"\x88" + literal(b"content-type", b"application/grpc")
        status = literal(b"grpc-status", str(code).encode())
        if with_data:
            connection.sendall(frame(1, 4, 1, head) + frame(0, 0, 1, b"\0\0\0\0\0") + frame(1, 5, 1, status))
        else:
            connection.sendall(frame(1, 5, 1, head + status))
        time.sleep(0.3)
        return bool(data) and False
    return do


def hangs(connection):
    request(connection)
    time.sleep(5)
    return False


def opaque(proxy):
    with socket.create_connection(("127.0.0.1", proxy.at), 10) as s:
        s.settimeout(5)
        try:
            s.sendall(b"PING\r\n")
            return s.recv(100)
        except OSError:
            return b""


def connect_by_http2(authority):
    def call(proxy):
        with socket.create_connection(("127.0.0.1", proxy.at), 10) as s:
            s.settimeout(5)
            s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0)
                      + frame(1, 4, 1, literal(b":method", b"CONNECT") + literal(b":authority", authority.encode())))
            time.sleep(0.5)
            return s.recv(4096)
    return call


def impatient(proxy):
    with socket.create_connection(("127.0.0.1", proxy.at), 5) as s:
        s.sendall(b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n")
        time.sleep(0.1)
        # A reset: an end of the stream alone would be a client that still waits for its answer.
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def grpc(proxy):
    return proxy.get("/shop.Orders/List", headers={"content-type": "application/grpc", "te": "trailers"}, data=b"\0\0\0\0\0")


def outage(what, config, whose, call=lambda proxy: proxy.get(), calls=6, logged=True, before=None, change=None):
    proxy = Proxy(config)
    if before:
        before(proxy)
    for _ in range(calls):
        call(proxy)
    if change:
        with open(proxy.file) as file:
            write("attache.yaml", change(file.read()))
        done = command("reload", "--admin", str(proxy.admin))
        assert done.returncode == 0, done.stderr
    time.sleep(0.5)
    said = command("status", "--admin", str(proxy.admin))
    top = command("top", "--once", "--admin", str(proxy.admin)).stdout
    proxy.stop()
    proxy.log.seek(0)
    log = proxy.log.read()
    first = said.stdout.partition("look at this first")[2].strip().split("\n")[0].strip()
    named = whose in first
    warned = any(" WARN " in line and whose in line for line in log.splitlines())
    right = said.returncode == 2 and named and (warned or not logged)
    print(f"{'ok  ' if right else 'MISS'} {what}: exit code {said.returncode}, {first or 'green'}", flush=True)
    if not right:
        WRONG.append(f"--- {what}: named {named}, warned {warned}\n{said.stdout}{said.stderr}\n{top}\n{log}")


certificate("ca", "Shop CA", "DNS:ca", ca=True)
issue("server", "ca", "localhost", "DNS:localhost,IP:127.0.0.1")
closed, good = port(), Server(answers())
DEAD, GOOD = f"http://127.0.0.1:{closed}", f"http://127.0.0.1:{good.port}"
LISTENER = "listeners: {{ out: {{ bind: '127.0.0.1:$PORT', {more}routes: [{routes}] }} }}\nupstreams: {{ {upstreams} }}\n"


def many(proxy, path="/ok", calls=300):
    """Calls that succeed, over one connection."""
    with socket.create_connection(("127.0.0.1", proxy.at), 5) as s:
        for _ in range(calls):
            s.sendall(f"GET {path} HTTP/1.1\r\nhost: orders\r\n\r\n".encode())
            while not s.recv(65536).endswith(b"hello\n"):
                pass


outage("HTTP/1", one(DEAD), "upstream orders")
outage("a single call", one(DEAD), "upstream orders", calls=1)
outage("TCP", f"listeners: {{ out: {{ bind: '127.0.0.1:$PORT', protocol: tcp, to: db }} }}\nupstreams: {{ db: 'tcp://127.0.0.1:{closed}' }}\n",
       "upstream db", call=opaque)
outage("gRPC, the status alone", one(f"h2c://127.0.0.1:{Server(says_grpc_status(14, False)).port}"), "upstream orders", call=grpc)
outage("gRPC, the status behind a message", one(f"h2c://127.0.0.1:{Server(says_grpc_status(13, True)).port}"), "upstream orders", call=grpc)
outage("mutual TLS without a certificate", one(f"https://127.0.0.1:{Server(answers(), tls('server', client_ca='ca')).port}", ", tls: { ca: ca.crt }"),
       "upstream orders")
outage("the application behind an inbound listener", f"listeners: {{ inbound: {{ bind: '127.0.0.1:$PORT', to: app }} }}\nupstreams: {{ app: '{DEAD}' }}\n",
       "upstream app")
tunnels = "listeners: { out: { bind: '127.0.0.1:$PORT', to: net } }\nupstreams: { net: { address: authority } }\n"
outage("CONNECT by HTTP/1", tunnels, "upstream net",
       call=lambda p: p.raw(f"CONNECT 127.0.0.1:{closed} HTTP/1.1\r\nhost: 127.0.0.1:{closed}\r\n\r\n"))
outage("CONNECT by HTTP/2", tunnels, "upstream net", call=connect_by_http2(f"127.0.0.1:{closed}"))
outage("one endpoint of two, without retries", one(f"['http://127.0.0.1:{closed}', '{GOOD}']").replace("'[", "[").replace("]'", "]"), "upstream orders",
       calls=20, logged=False)
outage("what is mirrored", LISTENER.format(more="", routes="{ to: orders, mirror: shadow, retry: off }",
                                           upstreams=f"orders: '{GOOD}', shadow: '{DEAD}'"), "upstream shadow")
outage("a body that is cut", one(f"http://127.0.0.1:{Server(answers(length=1000)).port}"), "upstream orders")
outage("after a reload", one(DEAD), "upstream orders", change=lambda text: text.replace("retry: off", "retry: off, timeout: 3s"))
outage("a TLS listener that no client believes", "listeners: { inbound: { bind: '127.0.0.1:$PORT', tls: { certificate: server.crt, key: server.key }, to: app } }\n"
       f"upstreams: {{ app: '{GOOD}' }}\n", "listener inbound",
       call=lambda p: subprocess.run(["curl", "-s", "--max-time", "5", f"https://localhost:{p.at}/"], capture_output=True))
outage("every call is denied", f"listeners: {{ inbound: {{ bind: '127.0.0.1:$PORT', to: app, authorization: {{ deny: [{{ }}] }} }} }}\nupstreams: {{ app: '{GOOD}' }}\n"
       .replace("deny: [{ }]", "allow: [{ client: 192.0.2.0/24 }]"), "listener inbound")
outage("every client gives up", one(f"http://127.0.0.1:{Server(hangs).port}"), "upstream orders", call=impatient, logged=False)
slow = Server(lambda connection: paths(connection))


def paths(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            raise OSError
        data += more
    status = "500 Internal Server Error" if data.startswith(b"GET /pay") else "200 OK"
    connection.sendall(f"HTTP/1.1 {status}\r\ncontent-length: 6\r\n\r\nhello\n".encode())
    return True


outage("one route of many calls", LISTENER.format(
    more="", routes="{ name: pay, match: { path: /pay }, to: orders, retry: off }, { to: orders, retry: off }",
    upstreams=f"orders: 'http://127.0.0.1:{slow.port}'"), "route", call=lambda p: p.get("/pay"), calls=4, before=many, logged=False)


def quiet(proxy):
    many(proxy, "/ok")
    time.sleep(32)


outage("a call after half a minute of quiet, and a quarter of one later", LISTENER.format(
    more="", routes="{ to: orders, retry: off }", upstreams=f"orders: 'http://127.0.0.1:{slow.port}'"), "upstream orders",
    call=lambda p: (p.get("/pay"), time.sleep(16)), calls=1, before=quiet)
print(f"\n{'every outage was seen' if not WRONG else f'{len(WRONG)} outages were missed'}")
print("\n".join(WRONG))
sys.exit(bool(WRONG))
