"""Outages that begin while attache runs, and end: when one command says cause and remedy, its exit codes, and the log's first and last line.

recoveries.py ATTACHE [--markdown FILE] [--only WORDS]: a table, and exit code 1 where something is missing. FILE gets the table of
docs/troubleshooting.md. Everything is on loopback; needs openssl, and root for a small disk (`unshare --mount`).
"""

import concurrent.futures
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time

from trouble import (FOLDER, Proxy, Server, certificate, command, first_call, frame, issue, literal, one, opaque, request, says_grpc_status,
                     tls, will_reset, write)

OK = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 6\r\n\r\nhello\n"


def says(answer=OK, wait=0.0):
    def do(connection):
        request(connection)
        time.sleep(wait)
        connection.sendall(answer)
        return False
    return do


def status(line):
    return says(f"HTTP/1.1 {line}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode())


def cut(connection):
    request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhello")
    will_reset(connection)
    return False


def grpc_ok(connection):
    """A call that succeeds, and the connection's end in order."""
    if first_call(connection):
        head = b"\x88" + literal(b"content-type", b"application/grpc")
        connection.sendall(frame(4, 1, 0) + frame(1, 4, 1, head) + frame(0, 0, 1, b"\0\0\0\0\0") + frame(1, 5, 1, literal(b"grpc-status", b"0"))
                           + frame(7, 0, 0, struct.pack(">II", 1, 0)))
        time.sleep(0.2)
    return False


def goes_away(connection):
    connection.recv(65536)
    connection.sendall(frame(4, 0, 0) + frame(7, 0, 0, struct.pack(">II", 0, 11) + b"too_many_pings"))
    time.sleep(0.2)
    return False


def h2_ok(connection):
    if first_call(connection):
        connection.sendall(frame(4, 1, 0) + frame(1, 5, 1, b"\x88"))
        time.sleep(0.3)
    return False


def websocket(connection):
    request(connection)
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
                       b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
    time.sleep(0.1)
    return False


def echo(connection):
    connection.sendall(connection.recv(100))
    return False


class Dns:
    """A DNS server whose answers can be changed: `code` is None (silence), 0 (127.0.0.1) or a response code."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port, self.code = self.socket.getsockname()[1], 0
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            query, who = self.socket.recvfrom(4096)
            if self.code is None:
                continue
            end = 12
            while query[end]:
                end += 1 + query[end]
            question, is_a = query[12:end + 5], query[end + 2] == 1
            answers = 1 if self.code == 0 and is_a else 0
            record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x01\x00\x04\x7f\x00\x00\x01" if answers else b""
            self.socket.sendto(query[:2] + struct.pack(">HHHHH", 0x8180 | self.code, 1, answers, 0, 0) + question + record, who)


def closes(server):
    """Nothing listens any more; a `reopen` listens again."""
    server.socket.shutdown(socket.SHUT_RDWR)
    server.socket.close()


def reopens(server):
    server.socket = socket.socket()
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.socket.bind(("127.0.0.1", server.port))
    server.socket.listen(64)
    threading.Thread(target=server.run, daemon=True).start()


def grpc(proxy):
    """The status that a client of gRPC goes by is in the trailers, or the header; urllib sees the header alone."""
    return proxy.get("/shop.Orders/List", headers={"content-type": "application/grpc", "te": "trailers"}, data=b"\0\0\0\0\0")


def upgrades(proxy):
    return proxy.raw("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
                     "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")


CASES, PROXIES = [], {}


def case(what, config, fail, mend, cause, remedy, seen=lambda saw: saw not in ("200", "bytes", "101"), call=lambda proxy: proxy.get(), code=2,
         logged=True, pause=0.2, burst=1, patience=15, unseen=False, files=None):
    CASES.append(dict(what=what, config=config, fail=fail, mend=mend, cause=cause, remedy=remedy, seen=seen, call=call, code=code, logged=logged,
                      pause=pause, burst=burst, patience=patience, unseen=unseen, files=files))


def switched(what, cause, remedy, before=says(), after=says(), tls_before=None, tls_after=None, scheme="http", more="", route="", whole=None, **rest):
    """A server that does another thing, or shows another certificate, from some moment on."""
    server = Server(before, tls_before)
    config = (whole or one(f"{scheme}://127.0.0.1:$SERVER", more, route)).replace("$SERVER", str(server.port))

    def fail():
        server.do, server.tls = after, tls_after

    def mend():
        server.do, server.tls = before, tls_before
    case(what, config, fail, mend, cause, remedy, **rest)


def timed(wait, condition):
    """Seconds until it holds; None where it never does."""
    began = time.monotonic()
    while time.monotonic() - began < wait:
        if condition():
            return time.monotonic() - began
        time.sleep(0.05)
    return None


def walk(number, what, config, fail, mend, cause, remedy, seen, call, code, logged, pause, burst, patience, unseen, files):
    proxy = PROXIES[what] = Proxy(config, name=f"case{number}", files=files)
    told = lambda: command("status", "--admin", str(proxy.admin))
    log = lambda: open(proxy.log.name).read()
    wrong, last, broken = [], [None], lambda: last[0] is not None and seen(last[0])
    stop, mended = threading.Event(), threading.Event()

    def calls():
        while not stop.is_set():
            for _ in range(0 if mended.is_set() else burst - 1):
                threading.Thread(target=call, args=(proxy,), daemon=True).start()
            last[0] = call(proxy)
            time.sleep(pause)

    try:
        if timed(5, lambda: not seen(call(proxy))) is None:
            wrong.append(f"it fails from the start: {call(proxy)}")
        # On a busy machine the first call may have been a failure too: that must be over.
        if timed(40, lambda: told().returncode == 0) is None:
            wrong.append(f"status is {(first := told()).returncode} before the outage:\n{first.stdout}{first.stderr}")
        before = len(log())
        fail()
        threading.Thread(target=calls, daemon=True).start()
        if not unseen and timed(15, broken) is None:
            wrong.append(f"no client sees it: {last[0]}")
        found = lambda said: re.search(cause, said.stdout, re.I | re.S) and re.search(remedy, said.stdout, re.I | re.S)
        took = timed(patience, lambda: found(told()) and told().returncode == code)
        during, saw = told(), last[0] or "-"
        if took is None:
            wrong.append(f"status never says it, or not with {code} but {during.returncode}:\n{during.stdout}{during.stderr}")
        warned = timed(5, lambda: " WARN " in log()[before:] or " ERROR " in log()[before:])
        if logged and warned is None:
            wrong.append("nothing is logged")
        mend()
        mended.set()
        at = time.monotonic()
        healed = timed(40, lambda: not broken())
        if healed is None:
            wrong.append(f"it never heals: {last[0]}\n{told().stdout}")
        green = timed(60, lambda: told().returncode == 0) and time.monotonic() - at
        if green is None:
            wrong.append(f"status stays at {told().returncode}:\n{told().stdout}")
        ended = timed(60, lambda: re.search(r"no (call|connection|client) failed with|again|any longer|works|the config has not changed", log()[before:])) is not None and time.monotonic() - at
        if logged and not ended:
            wrong.append("no line says that it is over")
    finally:
        stop.set()
        proxy.stop()
    line = next((line.strip() for line in during.stdout.splitlines() if re.search(cause, line, re.I)), "-")
    line = re.sub(r"(127\.0\.0\.1|orders\.test):\d{4,5}", r"\1:PORT", line.replace(FOLDER + "/", "")).replace("|", "\\|")
    shown = lambda seconds: "-" if seconds in (None, False) else f"{seconds:.1f} s"
    print(f"{'ok  ' if not wrong else 'MISS'} {what}: {saw}; said after {shown(took)} ({during.returncode}), logged {shown(warned)}, healed "
          f"{shown(healed)}, green {shown(green)}, end logged {shown(ended)}: {line[:140]}", flush=True)
    if wrong:
        wrong.append(log()[before:][-3000:])
    return (what, saw, line, shown(took), shown(green), shown(ended)), wrong


certificate("ca", "Shop CA", "DNS:ca", ca=True)
certificate("other-ca", "Other CA", "DNS:ca", ca=True)
certificate("self", "localhost", "DNS:localhost,IP:127.0.0.1")
issue("good", "ca", "localhost", "DNS:localhost,IP:127.0.0.1,URI:spiffe://shop/orders")
issue("wrong-name", "ca", "other", "DNS:other.test")
issue("old", "ca", "localhost", "DNS:localhost,IP:127.0.0.1", old=True)
issue("unknown", "other-ca", "localhost", "DNS:localhost,IP:127.0.0.1")
issue("another", "ca", "localhost", "DNS:localhost,IP:127.0.0.1,URI:spiffe://shop/billing")
issue("client", "ca", "client", "DNS:client")
GOOD = tls("good")
CA = ", tls: { ca: ca.crt }"

for code, name, words in [(2, "SERVFAIL", "SERVFAIL from"), (5, "REFUSED", "refused"), (None, "no answer", "no answer"), (3, "NXDOMAIN", "NXDOMAIN|does not exist")]:
    dns, server = Dns(), Server(says())
    # Endpoints keep serving, so no client sees it.
    case(f"the DNS server answers {name} (endpoints serve on)" if code else "the DNS server falls silent (endpoints serve on)",
         f"dns: {{ servers: ['127.0.0.1:{dns.port}'], timeout: 300ms }}\n" + one(f"http://orders.test:{server.port}"),
         lambda dns=dns, code=code: setattr(dns, "code", code), lambda dns=dns: setattr(dns, "code", 0), words, "dig|search domains|resolv.conf", unseen=True)

switched("the certificate expires", r"expired .* ago", "renew", tls_before=GOOD, tls_after=tls("old"), scheme="https", more=CA)
switched("the certificate is for another name", "certificate is for `?other.test", "tls.name", tls_before=GOOD, tls_after=tls("wrong-name"), scheme="https", more=CA)
switched("the certificate is self-signed", "self-signed", "add it as `ca:`", tls_before=GOOD, tls_after=tls("self"), scheme="https", more=CA)
switched("an unknown authority signed the certificate", "tls-untrusted", "tls.ca", tls_before=GOOD, tls_after=tls("unknown"), scheme="https", more=CA)
switched("the upstream asks for a client certificate", "certificate required|tls-no-client-certificate", "client certificate|tls.certificate", tls_before=GOOD,
         tls_after=tls("good", client_ca="ca"), scheme="https", more=CA)
switched("the upstream refuses the client certificate", "tls-", "certificate", tls_before=tls("good", client_ca="ca"),
         tls_after=tls("good", client_ca="other-ca"), scheme="https", more=", tls: { ca: ca.crt, certificate: client.crt, key: client.key }")
switched("the upstream has another identity", "spiffe://shop/billing|identity", "peers|identity", tls_before=GOOD, tls_after=tls("another"), scheme="https",
         more=", tls: { ca: ca.crt, peers: ['spiffe://shop/orders'] }")
switched("the port speaks TLS from now on", "TLS|upstream-", "https://", tls_after=GOOD)
switched("the port speaks no TLS any more", "tls-", "http://|really TLS|plain", tls_before=GOOD, scheme="https", more=CA)
server = Server(says())
case("the upstream ends", one(f"http://127.0.0.1:{server.port}"), lambda server=server: closes(server), lambda server=server: reopens(server), "connect-refused",
     "listening on that port")
switched("answers are too slow", "request-timeout", "timeout", after=says(wait=2), route=", timeout: 400ms")
switched("bodies are reset in the middle", "upstream-closed-mid-body|upstream-reset", "upstream", after=cut)
switched("the upstream answers 500", "status 500", "look at its log", after=status("500 Oops"))
switched("gRPC calls fail with UNAVAILABLE", "grpc|UNAVAILABLE|status 503", "log|upstream", before=grpc_ok, after=says_grpc_status(14, b"no leader"),
         scheme="h2c", call=grpc, unseen=True)
switched("HTTP/2 connections are sent away (GOAWAY)", "too_many_pings|ENHANCE_YOUR_CALM|upstream-refused-stream", "sheds load|log", before=h2_ok, after=goes_away,
         scheme="h2c")
switched("the breaker opens", "breaker is open|circuit-open", "connect-refused|500|circuit-open|upstream", after=status("500 Oops"),
         more=", circuit_breaker: { failures: { consecutive: 3, open: 1s } }")
switched("the upstream is unhealthy", "unhealthy", "health", after=status("500 Sick"),
         more=", health_check: { path: /healthz, interval: 200ms, unhealthy: 1, healthy: 1 }")
switched("more calls than the limit", "overflow-requests", "max_requests|raise", after=says(wait=1.0), more=", circuit_breaker: { max_requests: 1 }", burst=4, pause=0.5)
switched("WebSocket is refused", "own 4xx.*status 403|status 403", "log|forbids", before=websocket, after=status("403 Forbidden"), call=upgrades,
         patience=45)
switched("the TCP upstream closes at once", "upstream-closed|closed", "upstream|log", before=echo, after=lambda c: False, call=opaque,
         whole="listeners: { out: { bind: '127.0.0.1:$PORT', protocol: tcp, to: db } }\nupstreams: { db: 'tcp://127.0.0.1:$SERVER' }\n")
server = Server(echo)
case("the TCP upstream ends", f"listeners: {{ out: {{ bind: '127.0.0.1:$PORT', protocol: tcp, to: db }} }}\nupstreams: {{ db: 'tcp://127.0.0.1:{server.port}' }}\n",
     lambda server=server: closes(server), lambda server=server: reopens(server), "connect-refused", "listening on that port", call=opaque)
app = Server(says())
switched("the external authorizer ends", "authorizer", "authorizer|service", after=status("500 Oops"),
         whole="authorizers: { gate: { service: opa, protocol: http } }\nlisteners: { out: { bind: '127.0.0.1:$PORT', to: app, authorization: { external: gate } } }\n"
         f"upstreams: {{ app: 'http://127.0.0.1:{app.port}', opa: 'http://127.0.0.1:$SERVER' }}\n")



class Hole:
    """A server whose queue of connections is full for a while: what a firewall that drops packets looks like."""

    def __init__(self):
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(0)
        self.port, self.held, self.takes = self.socket.getsockname()[1], [], threading.Event()
        self.takes.set()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            self.takes.wait()
            connection, _ = self.socket.accept()
            threading.Thread(target=self.one, args=(connection,), daemon=True).start()

    def one(self, connection):
        try:
            says()(connection)
        except OSError:
            pass
        connection.close()

    def swallows(self):
        self.takes.clear()
        # One more is accepted, because it was waited for already.
        self.held.append(socket.create_connection(("127.0.0.1", self.port), 2))
        time.sleep(0.2)
        for _ in range(8):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", self.port))
            self.held.append(one)

    def serves(self):
        for one in self.held:
            one.close()
        self.takes.set()


hole = Hole()
case("packets to the upstream are lost", one(f"http://127.0.0.1:{hole.port}", ", connect_timeout: 300ms"), hole.swallows, hole.serves, "connect-timeout",
     "firewall", patience=30)
# A limit that refuses some of the calls does what it is for: status names it and ends with 0.
case("more calls than the rate limit", one(f"http://127.0.0.1:{Server(says()).port}", route=", rate_limit: 5/s"), lambda: None, lambda: None, "rate-limited",
     "raise the limit", burst=6, pause=0.5, code=0)


def impatient(proxy):
    """A client that waits for a second."""
    try:
        with socket.create_connection(("127.0.0.1", proxy.at), 1) as s:
            s.settimeout(1)
            s.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            return s.recv(4096).split(b" ")[1].decode()
    except (OSError, IndexError) as error:
        return type(error).__name__


def slow_paths(connection):
    head = request(connection)
    if head.startswith(b"GET /slow"):
        time.sleep(8)
    connection.sendall(OK)
    return False


HELD = []


def asks(what, number):
    """Requests that hold two descriptors each for a while: an idle connection would be closed."""
    for _ in range(number):
        one = socket.create_connection(("127.0.0.1", PROXIES[what].at), 2)
        one.sendall(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
        HELD.append(one)


EXHAUSTED = "the file descriptors are used up"
case(EXHAUSTED, "workers: 1\n" + one(f"http://127.0.0.1:{Server(slow_paths).port}", ", outlier_ejection: off"), lambda: asks(EXHAUSTED, 24),
     lambda: [one.close() for one in HELD], "overload: .*file-descriptors at", "ulimit -n", call=impatient, files=64, unseen=True)
JWKS = b'{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'
switched("the keys of tokens can't be loaded", "`jwt` id: its keys can't be loaded .*500", "last good ones stay", patience=30, unseen=True, call=lambda proxy: "200",
         before=says(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(JWKS), JWKS)), after=status("500 Oops"),
         whole="jwt: { id: { issuer: 'https://id.test', audiences: shop, keys: { upstream: keys, path: /jwks, refresh: 1s } } }\n"
         "listeners: { in: { bind: '127.0.0.1:$PORT', to: app, authorization: { jwt: { issuers: id } } } }\n"
         f"upstreams: {{ app: 'http://127.0.0.1:{app.port}', keys: 'http://127.0.0.1:$SERVER' }}\n")
write("secret", "abc\n")
case("the file of a secret vanishes", one(f"https://127.0.0.1:{Server(says(), GOOD).port}", CA + ", credential: { bearer: { file: secret } }"),
     lambda: os.remove(f"{FOLDER}/secret"), lambda: write("secret", "abc\n"), "the file of a secret can't be used.*secret: No such file", "check the path",
     unseen=True)
write("own.crt", open(f"{FOLDER}/client.crt").read())
case("a certificate is replaced by nonsense", f"listeners: {{ in: {{ bind: '127.0.0.1:$PORT', tls: {{ mode: permissive, certificate: own.crt, key: client.key }}, "
     f"to: app }} }}\nupstreams: {{ app: 'http://127.0.0.1:{app.port}' }}\n", lambda: write("own.crt", "nonsense\n"),
     lambda: write("own.crt", open(f"{FOLDER}/client.crt").read()), "certificate files can't be used.*own.crt", "BEGIN CERTIFICATE", unseen=True)


def disk(size="64k"):
    """A small disk of this process and its children alone: `unshare --mount` is around it."""
    os.makedirs(f"{FOLDER}/disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", f"{FOLDER}/disk"], check=True)


def fills():
    with open(f"{FOLDER}/disk/other", "wb", 0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass  # now it is full


disk()
# It has a network of its own, too (`unshare --net`).
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
case("the access log's disk is full", "access_log: { to: disk/access.log }\n" + one(f"http://127.0.0.1:{Server(says()).port}"), fills,
     lambda: os.remove(f"{FOLDER}/disk/other"), "the access log can't be written .*No space left", "until this works again", unseen=True, pause=0.02)


def reload():
    """A config that is refused, while calls go on."""
    at, server = len(CASES), Server(says())
    config = one(f"http://127.0.0.1:{server.port}")
    path = os.path.join(FOLDER, f"case{at}.yaml")

    def rewrite(old, new):
        with open(path) as file:
            text = file.read()
        write(f"case{at}.yaml", text.replace(old, new))
    case("a changed config is refused", config, lambda: rewrite("routes:", "ruotes:"), lambda: rewrite("ruotes:", "routes:"), "was refused", "did you mean `routes`",
         unseen=True)


reload()
print(f"{len(CASES)} outages", flush=True)
chosen = list(enumerate(CASES))
if "--only" in sys.argv:
    chosen = [one for one in chosen if re.search(sys.argv[sys.argv.index("--only") + 1], one[1]["what"])]
with concurrent.futures.ThreadPoolExecutor(13) as pool:
    results = list(pool.map(lambda numbered: walk(numbered[0], **numbered[1]), chosen))
missed = [(row[0], wrong) for row, wrong in results if wrong]
for what, wrong in missed:
    print(f"\n--- {what}\n" + "\n".join(wrong))
if "--markdown" in sys.argv:
    with open(sys.argv[sys.argv.index("--markdown") + 1], "w") as out:
        out.write("| outage | the client sees | `attache status` says | after | exit code 0 again after | last line of the log after |\n| --- | --- | --- | --- | --- | --- |\n")
        out.writelines(f"| {' | '.join(row)} |\n" for row, _ in results)
print(f"\n{'each outage has a cause, a remedy, a beginning and an end' if not missed else f'{len(missed)} of {len(results)} lack something'}")
sys.exit(bool(missed))
