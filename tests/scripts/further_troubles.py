"""Failures that no other script provokes: answers that are all a 4xx, limits, budgets, tokens, authorizers, revocation, tunnels, HTTP/2, and what a
listener refuses. As `troubles.py`.

further_troubles.py ATTACHE [--markdown FILE]
"""

import socket
import ssl
import struct
import subprocess
import threading
import time
import warnings

from free_port import free_port
from trouble import (FOLDER, Proxy, Server, answers, certificate, command, dns, end, first_call, frame, issue, one, row, running, says,
                     says_grpc_status, tls, write)

warnings.simplefilter("ignore", DeprecationWarning)  # of old TLS, which is wanted here
OUT = "listeners: {{ out: {{ bind: '127.0.0.1:$PORT', {listener} }} }}\nupstreams: {{ {upstreams} }}\n"


def out(listener, upstreams, more=""):
    return more + OUT.format(listener=listener, upstreams=upstreams)


def grpc(proxy):
    return proxy.get("/shop.Orders/List", headers={"content-type": "application/grpc", "te": "trailers"}, data=b"\0\0\0\0\0")


def beside(calls):
    """So many calls at once; the status of the last."""
    def call(proxy):
        for _ in range(calls - 1):
            threading.Thread(target=proxy.get, daemon=True).start()
            time.sleep(0.1)
        time.sleep(0.2)
        return proxy.get()
    return call


def refuses_streams(connection):
    """HTTP/2 that refuses each stream (RFC 9113 section 8.7)."""
    if not first_call(connection):
        return False
    connection.sendall(frame(4, 1, 0) + frame(3, 0, 1, struct.pack(">I", 7)))
    time.sleep(0.3)
    return False


def goes_away(connection):
    """HTTP/2 that sends each client away (ENHANCE_YOUR_CALM)."""
    connection.recv(65536)
    connection.sendall(frame(4, 0, 0) + frame(7, 0, 0, struct.pack(">II", 0, 11) + b"too_many_pings"))
    time.sleep(0.3)
    return False


def handshake(proxy, name="a.test", maximum=None, alpn=None):
    """What a client of TLS sees that asks for this name."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if maximum:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = maximum
    if alpn:
        context.set_alpn_protocols(alpn)
    try:
        with socket.create_connection(("127.0.0.1", proxy.at), 10) as plain, context.wrap_socket(plain, server_hostname=name) as s:
            s.settimeout(5)
            s.sendall(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n")
            return "closed" if not s.recv(100) else "bytes"
    except (OSError, ssl.SSLError) as error:
        return type(error).__name__


def sends(text):
    return lambda proxy: proxy.raw(text)


good, closed = Server(answers()), free_port()
GOOD = f"http://127.0.0.1:{good.port}"
certificate("ca", "Shop CA", "DNS:ca", ca=True)
issue("server", "ca", "localhost", "DNS:localhost,IP:127.0.0.1")
issue("revoked", "ca", "localhost", "DNS:localhost,IP:127.0.0.1")
run = lambda *a: subprocess.run(["openssl", *a], capture_output=True, check=True, cwd=FOLDER)
write("crl.cnf", "[ca]\ndefault_ca=c\n[c]\ndatabase=crldb\ncrlnumber=crlnumber\ndefault_md=sha256\ndefault_crl_days=30\n")
write("crldb", "")
write("crlnumber", "01")
run("ca", "-config", "crl.cnf", "-cert", "ca.crt", "-keyfile", "ca.key", "-revoke", "revoked.crt")
run("ca", "-config", "crl.cnf", "-cert", "ca.crt", "-keyfile", "ca.key", "-gencrl", "-out", "ca.crl")

# Answers that are all a 4xx.
for status, remedy in [("404 Not Found", "Host and path.*attache explain"), ("401 Unauthorized", "credential"), ("403 Forbidden", "its log"),
                       ("421 Misdirected Request", "`host` of the upstream"), ("431 Request Header Fields Too Large", "shorten its headers"),
                       ("405 Method Not Allowed", "method"), ("429 Too Many Requests", "limit"), ("400 Bad Request", "expect TLS")]:
    running(f"every answer is a {status[:3]}", one(f"http://127.0.0.1:{Server(answers(status)).port}"), f"was the upstream's own 4xx.*status {status[:3]}", remedy,
            calls=5)
running("every gRPC call is answered UNAUTHENTICATED", one(f"h2c://127.0.0.1:{Server(says_grpc_status(16, with_data=True)).port}"),
        "was the upstream's own 4xx.*status 401", "credential", call=lambda p: (grpc(p), time.sleep(0.4))[0], calls=6)

# Limits and budgets.
slow = Server(answers(wait=1.5))
running("one client has too many calls at once", one(f"http://127.0.0.1:{slow.port}", ", circuit_breaker: { max_requests_per_client: 1 }"),
        "overflow-client", "max_requests_per_client", call=beside(3))
running("calls wait too long in a queue", one(f"http://127.0.0.1:{slow.port}", ", circuit_breaker: { max_requests: 1 }, queue: { max: 1, target: 5ms, interval: 50ms }"),
        "overflow-queue", "more calls than it can process", call=beside(4))
running("the retries' budget is used up", one(f"http://127.0.0.1:{closed}", ", circuit_breaker: { max_retries: 0 }").replace(
    "retry: off", "retry: { attempts: 3, budget: 0% }"), "retry-budget-exhausted|connect-refused", "Repair the upstream|listening", calls=3)
running("each attempt takes too long", one(f"http://127.0.0.1:{Server(answers(wait=3)).port}").replace(
    "retry: off", "retry: { attempts: 1, per_try_timeout: 200ms, on: [reset] }"), "per-try-timeout", "per_try_timeout|slow")
running("the caller's own deadline is short", out(f"routes: [{{ to: orders, retry: off, deadline_header: x-deadline }}]",
        f"orders: 'http://127.0.0.1:{Server(answers(wait=3)).port}'"), "request-timeout", "slow|timeout", call=lambda p: p.get(headers={"x-deadline": "200"}))
running("a fault that was injected on purpose", out("routes: [{ to: orders, fault: { abort: { status: 503 } } }]", f"orders: '{GOOD}'"), "fault-injected",
        "`fault`|on purpose")

# Which upstream and endpoint.
running("the header that names the upstream is missing", out("routes: [{ to: [a, b], upstream_header: x-upstream }]", f"a: '{GOOD}', b: '{GOOD}'"),
        "no-upstream", "Send the header")
running("every endpoint is out, and none is used in panic", one(f"http://127.0.0.1:{Server(answers('500 Sick')).port}",
        ", health_check: { path: /healthz, interval: 200ms, unhealthy: 1 }, balance: { panic_threshold: 0% }"), "no-healthy-endpoint", "health", before=1.5)
running("no endpoint has the labels of the route", out("routes: [{ to: orders, retry: off, subset: { labels: { version: v2 } } }]",
        f"orders: {{ address: [{{ address: '{GOOD}', labels: {{ version: v1 }} }}, {{ address: 'http://v2.shop.test', labels: {{ version: v2 }} }}] }}",
        f"dns: {{ servers: ['127.0.0.1:{dns(3)}'], timeout: 300ms }}\n"), "empty-subset", "subset.labels", before=1.0)
running("the first look-up has not ended", f"dns: {{ servers: ['127.0.0.1:{dns(None)}'], timeout: 5s }}\n" + one("http://orders.shop.test"),
        "dns-pending", "DNS server answers")
running("the Kubernetes API server can't be asked", one("kubernetes://orders.shop:http"), "discovery-(failed|pending)|KUBERNETES|service account",
        "pod|Role|token", before=1.0)

# TLS.
running("the upstream's certificate is revoked", one(f"https://127.0.0.1:{Server(answers(), tls('revoked')).port}", ", tls: { ca: ca.crt, crls: ca.crl }"),
        "tls-revoked", "Issue a new")
SECURE = "tls: { certificate: server.crt, key: server.key }"
running("the client's TLS is too old", out(SECURE + ", to: app", f"app: '{GOOD}'"), "tls-version|protocol version|version",
        "version", call=lambda p: handshake(p, maximum=ssl.TLSVersion.TLSv1_1))
running("no route takes the TLS server name", out("protocol: tls, routes: [{ match: { sni: b.test }, to: app }]", f"app: 'tcp://127.0.0.1:{good.port}'"),
        "no-route.*a.test", "attache explain|route", call=handshake)
running("client and listener have no protocol in common", out(SECURE + ", protocol: http2, to: app", f"app: '{GOOD}'"), "alpn|ALPN", "protocol",
        call=lambda p: handshake(p, alpn=["http/1.1"]))

# HTTP.
running("the upstream refuses each stream of HTTP/2", one(f"h2c://127.0.0.1:{Server(refuses_streams).port}"), "upstream-refused-stream", "sheds load or restarts")
running("the upstream sends HTTP/2 clients away", one(f"h2c://127.0.0.1:{Server(goes_away).port}"), "too_many_pings|ENHANCE_YOUR_CALM|upstream-refused-stream",
        "sheds load|log")
running("a request has a transfer coding that nobody knows", one(GOOD), "unknown-transfer-coding|transfer", "chunked|client",
        call=sends("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n"))
running("a request has no Host", one(GOOD), "bad-request.*Host", "correct the client", call=sends("GET / HTTP/1.1\r\n\r\n"))
running("the answer's status is no status", one(f"http://127.0.0.1:{Server(says(b'HTTP/1.1 9999 What' + bytes([13, 10, 13, 10]))).port}"),
        "upstream-protocol-error", "right port")
running("an upgrade is answered with a plain answer", one(f"http://127.0.0.1:{Server(answers('426 Upgrade Required')).port}"), "was the upstream's own 4xx.*status 426",
        "Its log says more", calls=5)

# Who may.
running("the authorizer says no", "authorizers: { gate: { service: opa, protocol: http } }\n" + out("to: app, authorization: { external: gate }",
        f"app: '{GOOD}', opa: 'http://127.0.0.1:{Server(answers('403 Forbidden')).port}'"), "denied-by-authorizer", "authorizer")
running("a request's body is too long for its authorizer", "authorizers: { gate: { service: opa, protocol: http, body: { max: 10B } } }\n" + out(
        "to: app, authorization: { external: gate }", f"app: '{GOOD}', opa: '{GOOD}'"), "body-too-large", "body.max", call=lambda p: p.get(data=b"x" * 1000))
running("nobody says which keys sign tokens", "jwt: { id: { issuer: https://id.test, keys: { upstream: keys, path: /jwks } } }\n" + out(
        "to: app, authorization: { jwt: { issuers: id } }", f"app: '{GOOD}', keys: 'http://127.0.0.1:{closed}'"), "no-token-keys|keys", "issuer|keys|upstream",
        call=lambda p: p.get(headers={"authorization": "Bearer e30.e30.AAAA"}), before=0.5)
running("the service that counts is away", out("routes: [{ to: app, global_rate_limit: { service: limits, domain: shop, failure_mode: deny, "
        "descriptors: { actions: { generic_key: { descriptor_value: all } } } } }]", f"app: '{GOOD}', limits: 'h2c://127.0.0.1:{closed}'"),
        "rate-limit-service-error", "service")


# States of the process.
def told(what, config, do, cause, remedy, call=lambda p: p.get()):
    proxy = Proxy(config)
    call(proxy)
    do(proxy)
    saw = call(proxy)
    began = time.monotonic()
    said = command("status", "--admin", str(proxy.admin))
    row(what, saw, "attache status", said.stdout + said.stderr, cause, remedy, began)
    proxy.stop()


told("attache was told to drain", one(GOOD), lambda p: (command("drain", "--admin", str(p.admin)), time.sleep(0.3)), "not ready: .*drain|draining", "drain")
write("own.crt", open(f"{FOLDER}/ca.crt").read())
told("a CA's file turns into nonsense", one(f"https://127.0.0.1:{Server(answers(), tls('server')).port}", ", tls: { ca: own.crt }"),
     lambda p: (write("own.crt", "nonsense\n"), time.sleep(3)), "own.crt", "PEM|BEGIN CERTIFICATE")
collector = Proxy(f"otlp: {{ to: 'http://127.0.0.1:{closed}', interval: 1s }}\n" + one(GOOD))
collector.get()
time.sleep(12)
began = time.monotonic()
said = command("status", "--admin", str(collector.admin))
row("the OpenTelemetry collector is away", "nothing", "attache status", said.stdout + said.stderr, f"exported.*collector=127.0.0.1:{closed}", "refused", began)
collector.stop()
end()
