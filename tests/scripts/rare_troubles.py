"""Failures that one meets seldom: certificates' chains, DNS, other protocols, sockets, files. As `troubles.py`.

rare_troubles.py ATTACHE [--markdown FILE]
"""

import os
import socket
import struct
import subprocess
import time

from trouble import (ATTACHE, FOLDER, Proxy, Server, answers, certificate, command, dns, end, hangs, issue, one, opaque, request, row, running, says, tls, will_reset,
                     write)


def curl(*arguments):
    """The status that curl sees, or its exit code."""
    def call(proxy):
        done = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "20",
                               *[a.replace("$AT", f"127.0.0.1:{proxy.at}") for a in arguments]], capture_output=True, text=True)
        return done.stdout if done.stdout != "000" else f"curl exit code {done.returncode}"
    return call


def sends(text, wait=0.3):
    """What a client sees that sends these bytes."""
    def call(proxy):
        with socket.create_connection(("127.0.0.1", proxy.at), 10) as s:
            try:
                s.sendall(text)
                time.sleep(wait)
                line = s.recv(4096).split(b"\r\n")[0].decode("latin-1")
                return line.split(" ")[1] if line.startswith("HTTP/") else "closed"
            except OSError as error:
                return type(error).__name__
    return call


def hello_then(reset):
    """Reads a ClientHello and goes away."""
    def do(connection):
        connection.recv(4096)
        if reset:
            will_reset(connection)
        return False
    return do


def closes(connection):
    request(connection)
    return False


def in_a_loop(id, question):
    """The name is an alias of itself."""
    alias = b"\xc0\x0c" + struct.pack(">HHIH", 5, 1, 30, 2) + b"\xc0\x0c"
    return id + struct.pack(">HHHHH", 0x8180, 1, 1, 0, 0) + question + alias


def nonsense(id, question):
    return id + b"\x81\x80\xff\xff\xff\xff\xff\xff\xff\xffgarbage"


def chain(name, intermediate_old=False, send_intermediate=True):
    """A certificate that an intermediate authority signed, with the chain that its server sends."""
    inter = f"{name}-inter"
    issue(inter, "ca", "Intermediate", "DNS:inter", old=intermediate_old, ca=True)
    issue(name, inter, "localhost", "DNS:localhost,IP:127.0.0.1")
    if send_intermediate:
        with open(f"{FOLDER}/{name}.crt", "a") as leaf, open(f"{FOLDER}/{inter}.crt") as more:
            leaf.write(more.read())
    return tls(name)


CA = ", tls: { ca: ca.crt }"
certificate("ca", "Shop CA", "DNS:ca", ca=True)
certificate("ca2", "Other CA", "DNS:ca", ca=True)
issue("server", "ca", "localhost", "DNS:localhost,IP:127.0.0.1")
issue("web", "ca", "web", "DNS:web.shop")
issue("stranger", "ca2", "stranger", "DNS:stranger.shop")
good = Server(answers())
GOOD = f"http://127.0.0.1:{good.port}"
GRPC = ["--http2-prior-knowledge", "-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary", "@/dev/null", "http://$AT/shop.Orders/List"]

# TLS.
running("the upstream closes in the TLS handshake", one(f"https://127.0.0.1:{Server(hello_then(False)).port}"), "tls-handshake-failed.*closed",
        "TLS|https|log")
running("the upstream resets in the TLS handshake", one(f"https://127.0.0.1:{Server(hello_then(True)).port}"), "tls-handshake-failed.*reset",
        "TLS|https|log")
running("the upstream's intermediate certificate has expired", one(f"https://127.0.0.1:{Server(answers(), chain('late', intermediate_old=True)).port}", CA),
        "expired .* ago", "Renew")
running("the upstream does not send its intermediate certificate", one(f"https://127.0.0.1:{Server(answers(), chain('short', send_intermediate=False)).port}", CA),
        "Intermediate", "chain|intermediate")
running("the upstream does not trust the client certificate",
        one(f"https://127.0.0.1:{Server(answers(), tls('server', client_ca='ca')).port}",
            ", tls: { ca: ca.crt, certificate: stranger.crt, key: stranger.key }"),
        "alert|does not accept", "certificate")
running("h2c:// to a port that speaks TLS", one(f"h2c://127.0.0.1:{Server(answers(), tls('server')).port}"), "upstream-reset|TLS", "https://")
running("a client speaks TLS to a plaintext listener", one(GOOD), "TLS", "http://|`tls`", call=curl("-k", "https://$AT/"))

# HTTP and gRPC.
running("the upstream closes without an answer", one(f"http://127.0.0.1:{Server(closes).port}"), "closed .*before|without an answer", "log|https")
running("a gRPC call to a service of HTTP/1", one(f"http://127.0.0.1:{good.port}"), "response is HTTP/1, and gRPC", "http://", call=curl(*GRPC))
no_size = Server(says(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc"))
two_lengths = Server(says(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"))
running("a chunk's size is no number", one(f"http://127.0.0.1:{no_size.port}"), "chunk", "right port")
running("the answer has two lengths", one(f"http://127.0.0.1:{two_lengths.port}"), "Content-Length", "right port")
running("another protocol's client calls the HTTP listener", one(GOOD), "bad-request", "protocol: tcp|no HTTP|mend the client", call=sends(b"PING\r\n\r\n"))
running("a URL of 100 KiB", one(GOOD), "too-large|too-long|URI|target", "limits", call=curl("http://$AT/" + "a" * 100_000))
running("the PROXY protocol is wanted and not sent", f"listeners: {{ in: {{ bind: '127.0.0.1:$PORT', proxy_protocol: require, to: o }} }}\n"
        f"upstreams: {{ o: '{GOOD}' }}\n", "PROXY|proxy-protocol", "proxy_protocol", call=curl("http://$AT/"))

running("the upstream hangs and its clients give up", one(f"http://127.0.0.1:{Server(hangs).port}"), "client-closed.*left after", "hangs|slower",
        call=curl("--max-time", "1", "http://$AT/"), calls=2)
running("the upstream takes a TCP connection and closes it", "listeners: { out: { bind: '127.0.0.1:$PORT', protocol: tcp, to: db } }\n"
        f"upstreams: {{ db: 'tcp://127.0.0.1:{Server(lambda connection: not connection.recv(100)).port}' }}\n",
        "took the connection and closed it", "upstream's log", call=opaque)

# DNS and addresses.
running("a name is an alias of itself", f"dns: {{ servers: ['127.0.0.1:{dns(in_a_loop)}'] }}\n" + one("http://orders.shop.test"), "dns-failed.*no such record",
        "dig.*alias", before=1.0)
running("the DNS server refuses", f"dns: {{ servers: ['127.0.0.1:{dns(5)}'] }}\n" + one("http://orders.shop.test"), "REFUSED", "dig|server", before=1.0)
running("the DNS server answers nonsense", f"dns: {{ servers: ['127.0.0.1:{dns(nonsense)}'], timeout: 500ms }}\n" + one("http://orders.shop.test"),
        "dns-(failed|timeout).*127.0.0.1", "dig|resolv", before=3.0)
stale = socket.socket(socket.AF_UNIX)
stale.bind(f"{FOLDER}/stale.sock")
stale.close()
running("nothing listens on the upstream's socket file", one(f"unix:{FOLDER}/stale.sock"), "connect-refused.*stale.sock", "listening")

# Limits, files and rights.
few = Proxy(f"listeners: {{ out: {{ bind: '127.0.0.1:$PORT', max_connections: 2, to: o }} }}\nupstreams: {{ o: '{GOOD}' }}\n")
held = [socket.create_connection(("127.0.0.1", few.at), 5) for _ in range(2)]
time.sleep(0.3)
saw, began = few.get(), time.monotonic()
said = command("status", "--admin", str(few.admin))
row("a listener's connections are used up", saw, "attache status", said.stdout + said.stderr, "connections", "max_connections", began)
few.stop()


def as_nobody(what, config, cause, remedy, shown):
    if os.geteuid():
        return
    os.chmod(FOLDER, 0o755)
    path = write("nobody.yaml", config)
    began = time.monotonic()
    said = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--no-new-privs", ATTACHE, *shown,
                           "-c", path], capture_output=True, text=True, timeout=20, cwd=FOLDER)
    row(what, f"exit code {said.returncode}", f"attache {shown[0]}", said.stdout + said.stderr, cause, remedy, began)


os.chmod(f"{FOLDER}/server.key", 0o600)
TLS = "admin: off\nmetrics: off\nlisteners: { in: { bind: ':1', tls: { certificate: server.crt, key: server.key }, to: o } }\nupstreams: { o: 'http://a.test' }\n"
as_nobody("the key file may not be read", TLS, "server.key.*Permission denied", "must be able to read it", ["check"])
as_nobody("the key file may not be read, at the start", TLS, "server.key.*Permission denied", "must be able to read it", ["run"])
began = time.monotonic()
said = command("check", "atache.yaml")
row("the config's name is misspelt", f"exit code {said.returncode}", "attache check", said.stdout + said.stderr, "No such file", "did you mean `attache.yaml`", began)
end()
