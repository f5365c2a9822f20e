"""A total outage is never green: of each kind `attache status` ends with 2 and names it, and the log has a warning. What only looks like one is.

outages.py ATTACHE
"""

import socket
import subprocess
import sys
import time

from free_port import free_port
from trouble import (Proxy, Server, answers, certificate, command, frame, hangs, issue, literal, one, opaque, request, says_grpc_status, tls,
                     will_reset, write)

WRONG = []


def connect_by_http2(authority):
    def call(proxy):
        with socket.create_connection(("127.0.0.1", proxy.at), 10) as s:
            s.settimeout(5)
            s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0)
                      + frame(1, 4, 1, literal(b":method", b"CONNECT") + literal(b":authority", authority.encode())))
            time.sleep(0.5)
            return s.recv(4096)
    return call


def tunnel(proxy, to):
    with socket.create_connection(("127.0.0.1", proxy.at), 10) as s:
        s.settimeout(5)
        s.sendall(f"CONNECT 127.0.0.1:{to} HTTP/1.1\r\nhost: 127.0.0.1:{to}\r\n\r\n".encode())
        try:
            s.recv(4096)
            s.sendall(b"PING\r\n")
            s.recv(4096)
        except OSError:
            pass


def impatient(proxy, waits=0.1, path="/"):
    with socket.create_connection(("127.0.0.1", proxy.at), 5) as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nhost: orders\r\n\r\n".encode())
        time.sleep(waits)
        will_reset(s)


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


def well(what, config, call, calls=6, after=0.5):
    """The same of what is none: it is green, and the log has no warning."""
    proxy = Proxy(config)
    for _ in range(calls):
        call(proxy)
    time.sleep(after)
    said = command("status", "--admin", str(proxy.admin))
    proxy.stop()
    proxy.log.seek(0)
    log = proxy.log.read()
    right = said.returncode == 0 and "failed with" not in log
    print(f"{'ok  ' if right else 'MISS'} {what}: exit code {said.returncode}", flush=True)
    if not right:
        WRONG.append(f"--- {what}: is none\n{said.stdout}{said.stderr}\n{log}")


def tcp(do):
    return ("listeners: { out: { bind: '127.0.0.1:$PORT', protocol: tcp, to: db } }\n"
            f"upstreams: {{ db: 'tcp://127.0.0.1:{Server(do).port}' }}\n")


def takes(wait=0.0, until_the_end=False):
    """A server of TCP that reads and says nothing."""
    def do(connection):
        if wait:
            time.sleep(wait)
            return False
        while connection.recv(4096) and until_the_end:
            pass
        return False
    return do


def silent(proxy):
    """A client that waits for the server to speak first."""
    with socket.create_connection(("127.0.0.1", proxy.at), 10) as s:
        s.settimeout(5)
        try:
            s.recv(100)
        except OSError:
            pass


def ships(half_close):
    """A client that sends lines and wants no answer."""
    def call(proxy):
        with socket.create_connection(("127.0.0.1", proxy.at), 10) as s:
            s.sendall(b"<13>a line for the log\n" * 100)
            if half_close:
                s.shutdown(socket.SHUT_WR)
                s.settimeout(5)
                s.recv(1)
    return call


def by_curl(seconds, *more):
    return lambda p: subprocess.run(["curl", "-s", *more, "--max-time", str(seconds), f"http://127.0.0.1:{p.at}/"], capture_output=True)


def half_closes(proxy):
    """A client that ends its writing with its request, and waits for its answer."""
    with socket.create_connection(("127.0.0.1", proxy.at), 5) as s:
        s.sendall(b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n")
        s.shutdown(socket.SHUT_WR)
        assert s.recv(4096).startswith(b"HTTP/1.1 200"), "no answer"


certificate("ca", "Shop CA", "DNS:ca", ca=True)
issue("server", "ca", "localhost", "DNS:localhost,IP:127.0.0.1")
closed, good = free_port(), Server(answers())
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
outage("TCP that is taken and closed", tcp(lambda connection: False), "upstream db", call=opaque)
outage("TCP that is closed behind the first bytes", tcp(takes()), "upstream db", call=opaque)
outage("TCP that is closed while its client waits for the server", tcp(lambda connection: False), "upstream db", call=silent, calls=3)
outage("gRPC, the status alone", one(f"h2c://127.0.0.1:{Server(says_grpc_status(14)).port}"), "upstream orders", call=grpc)
outage("gRPC, the status behind a message", one(f"h2c://127.0.0.1:{Server(says_grpc_status(13, with_data=True)).port}"), "upstream orders", call=grpc)
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


def paths(connection):
    head = request(connection)
    if head.startswith(b"GET /hang"):
        time.sleep(60)
    status = "500 Internal Server Error" if head.startswith(b"GET /pay") else "200 OK"
    connection.sendall(f"HTTP/1.1 {status}\r\ncontent-length: 6\r\n\r\nhello\n".encode())
    return True


slow = Server(paths)
outage("calls hang", one(f"http://127.0.0.1:{Server(hangs).port}"), "upstream orders", call=lambda p: impatient(p, 0.7), calls=2)
outage("calls of HTTP/2 hang", one(f"http://127.0.0.1:{Server(hangs).port}"), "upstream orders", call=by_curl(0.7, "--http2-prior-knowledge"), calls=3)
outage("calls hang behind others that were served", LISTENER.format(
    more="", routes="{ match: { path: /ok }, to: good, retry: off }, { to: orders, retry: off }",
    upstreams=f"good: '{GOOD}', orders: 'http://127.0.0.1:{Server(hangs).port}'"), "upstream orders",
    call=lambda p: impatient(p, 0.7), calls=3, before=many)
outage("a tunnel (CONNECT) to what closes at once", tunnels, "upstream net",
       call=lambda p, at=Server(lambda connection: False): tunnel(p, at.port))
well("clients that change their mind", one(f"http://127.0.0.1:{Server(answers(wait=0.3)).port}"),
     lambda p: (p.get(), impatient(p), impatient(p)), calls=4)
outage("calls hang, and their clients end in order", one(f"http://127.0.0.1:{Server(hangs).port}"), "upstream orders", call=by_curl(1), calls=2)
outage("answers come later than clients wait", one(f"http://127.0.0.1:{Server(answers(wait=1.5)).port}"), "upstream orders", call=by_curl(1), calls=3)
outage("the only call hangs", one(f"http://127.0.0.1:{Server(hangs).port}"), "upstream orders", call=lambda p: impatient(p, 0.7), calls=1, logged=False)
well("one client that loses its patience", one(f"http://127.0.0.1:{Server(paths).port}"), lambda p: (p.get("/ok"), impatient(p, 0.8, "/hang")), calls=1)
well("clients that end their writing with their request", one(f"http://127.0.0.1:{Server(answers(wait=1.0)).port}"), half_closes, calls=3)
well("probes of an HTTP port", one(GOOD), lambda p: socket.create_connection(("127.0.0.1", p.at), 5).close())
well("probes of a TCP port", tcp(takes(until_the_end=True)), lambda p: socket.create_connection(("127.0.0.1", p.at), 5).close())
well("lines for a log, one way", tcp(takes(until_the_end=True)), ships(half_close=True))
well("lines for a log, and the client is gone", tcp(takes(until_the_end=True)), ships(half_close=False))
well("a connection made ahead that its server closes after a while", tcp(takes(wait=1.5)), silent, calls=1)
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
