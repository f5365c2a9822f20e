"""Failures of the kinds that the other scripts leave out: forged and odd answers of DNS, weak certificates, greetings and answers of other
protocols, loops, probes, signals, and configs as editors and templates spoil them. As `troubles.py`.

odd_troubles.py ATTACHE [--markdown FILE]
"""

import os
import signal
import socket
import ssl
import struct
import subprocess
import time

from free_port import free_port
from trouble import (ATTACHE, FOLDER, MISSING, Proxy, Server, answers, certificate, command, dns, end, file, frame, one, request, row, running, says,
                     write)

SAN = "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n"
CA = ", tls: { ca: ca.crt }"


def issue(name, extensions, start="20200101000000Z", key=("ec", "-pkeyopt", "ec_paramgen_curve:P-256"), digest="sha256"):
    run = lambda *a: subprocess.run(["openssl", *a], capture_output=True, check=True, cwd=FOLDER)
    run("req", "-new", "-newkey", *key, "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/CN=localhost")
    write(f"{name}.ext", extensions)
    write("issue.cnf", f"[ca]\ndefault_ca=c\n[c]\ndatabase=db\nserial=serial\nnew_certs_dir=.\ndefault_md={digest}\npolicy=p\n[p]\ncommonName=supplied\n")
    write("db", "")
    write("serial", f"{len(os.listdir(FOLDER)) + 16:04x}")
    run("ca", "-batch", "-config", "issue.cnf", "-cert", "ca.crt", "-keyfile", "ca.key", "-in", f"{name}.csr", "-out", f"{name}.crt",
        "-startdate", start, "-enddate", "20490101000000Z", "-extfile", f"{name}.ext", "-notext")


def tls(name, ciphers="ALL:@SECLEVEL=0", most=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(ciphers)
    context.load_cert_chain(f"{FOLDER}/{name}.crt", f"{FOLDER}/{name}.key")
    if most:
        context.maximum_version = most
    return context


def https(name, **more):
    return one(f"https://127.0.0.1:{Server(answers(), tls(name, **more)).port}", CA)


def record(answer=b"", count=0, flags=0x8180):
    return lambda id, question: id + struct.pack(">HHHHH", flags, 1, count, 0, 0) + question + answer


def address(text):
    """Answers questions for A, and has nothing for others."""
    a = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 30, 4) + socket.inet_aton(text)
    return lambda id, question: (record(a, 1) if question[-4:-2] == b"\0\1" else record())(id, question)


def by_name(answer, to="http://orders.shop.test"):
    return f"dns: {{ servers: ['127.0.0.1:{dns(answer)}'], timeout: 500ms }}\n" + one(to)


def sends(data):
    def call(proxy):
        with socket.create_connection(("127.0.0.1", proxy.at), 10) as s:
            s.settimeout(5)
            s.sendall(data)
            try:
                line = s.recv(4096).split(b"\r\n")[0].decode("latin-1")
                return line.split(" ")[1] if line.startswith("HTTP/") else "closed"
            except OSError as error:
                return type(error).__name__
    return call


def greets(data, then=b""):
    """A server that speaks first and waits: mail, databases, SSH."""
    def do(connection):
        connection.sendall(data)
        connection.recv(65536)
        if then:
            connection.sendall(then)
        time.sleep(0.2)
        return False
    return do


def at_once(data, wait=0.2):
    """A server that answers the first bytes, whatever they are."""
    def do(connection):
        connection.recv(65536)
        connection.sendall(data)
        time.sleep(wait)
        return False
    return do


certificate("ca", "Shop CA", "DNS:ca", ca=True)
issue("good", SAN)
issue("clients", SAN + "extendedKeyUsage=clientAuth\n")
issue("future", SAN, start="20480101000000Z")
issue("nameless", "basicConstraints=critical,CA:FALSE\n")
issue("short", SAN, key=("rsa:1024",))
issue("sha1", SAN, digest="sha1")
good = Server(answers())
GOOD = one(f"http://127.0.0.1:{good.port}")
closed = free_port()

# DNS.
running("a DNS answer is cut, and there is no TCP", by_name(record(flags=0x8380)), "truncated", "dig", before=1.5)
forged = Proxy(by_name(lambda id, question: b"zz" + record()(id, question)[2:]))
time.sleep(2.5)
saw, began = forged.get(), time.monotonic()
said = command("status", "--admin", str(forged.admin))
row("answers to DNS questions are forged", saw, "attache status", said.stdout + said.stderr, "dns-timeout.*no answer from", "DNS", began)
forged.stop()
forged.log.seek(0)
if "message id" in forged.log.read():
    MISSING.append(("forged answers fill the log", "nothing", "message id"))
running("a name leads back to the listener", by_name(address("127.0.0.1"), "http://orders.shop.test:$PORT"), "loop-detected.*attache would call itself", "own address",
        before=1.0)
running("a name has an address that nothing answers at", by_name(address("0.0.0.0"), f"http://orders.shop.test:{closed}"), "connect-refused", "listening",
        before=1.0)
running("a forward proxy is called as if it were the service", "listeners: { out: { bind: '127.0.0.1:$PORT', to: internet } }\n"
        "upstreams: { internet: { address: authority } }\n", "loop-detected", "curl -x")

# Certificates.
running("the certificate is for clients alone", https("clients"), "may not be used by a server", "serverAuth")
running("the certificate is not valid yet", https("future"), "tls-not-yet-valid", "clock")
running("the certificate has a CN and no other name", https("nameless"), "no name at all", "subjectAltName")
running("the certificate's key is short", https("short"), "1024 bits", "longer key")
running("the certificate is signed with SHA-1", https("sha1"), "signed with .*not accepted", "SHA-256")
running("the upstream accepts no cipher suite of today", https("good", ciphers="ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0", most=ssl.TLSVersion.TLSv1_2),
        "accepts none of the offered", "its log")
plain = Server(at_once(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
mail, database = Server(greets(b"220 mail ESMTP\r\n")), Server(greets(b"J\0\0\0\n8.0.30\0"))
switches = Server(says(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"))
feeds = Server(says(b"HTTP/1.1 200 OK\ncontent-length: 0\n\n"))
running("https:// to a server that answers in plaintext", one(f"https://127.0.0.1:{plain.port}"),
        "not TLS", "http://")

# Other protocols.
running("the upstream is a mail server", one(f"http://127.0.0.1:{mail.port}"), "begins with `220 mail",
        "right port")
running("the upstream is a database", one(f"http://127.0.0.1:{database.port}"), "begins with `J", "right port")
running("the upstream answers h2c:// with an alert of TLS", one(f"h2c://127.0.0.1:{Server(at_once(bytes.fromhex('15030300020246'))).port}"), "response is TLS",
        "https://")
running("http:// to a server of HTTP/2 alone", one(f"http://127.0.0.1:{Server(at_once(frame(4, 0, 0) + frame(7, 0, 0, bytes(8)))).port}"),
        "speaks HTTP/2", "h2c://")
running("the client speaks SOCKS", GOOD, "speaks SOCKS", "http://", call=sends(b"\x05\x01\0"))
running("a PROXY header where none is expected", GOOD, "PROXY protocol header", "proxy_protocol",
        call=sends(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n"))
running("the upstream switches protocols unasked", one(f"http://127.0.0.1:{switches.port}"), "101 to a protocol", "right port")
running("lines of the answer end in LF alone", one(f"http://127.0.0.1:{feeds.port}"), "LF without CR", "right port")


def stalls(connection):
    request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc")
    time.sleep(10)
    return False


running("the upstream stops in the middle of a body", one(f"http://127.0.0.1:{Server(stalls).port}", route=", idle_timeout: 500ms"), "idle-timeout",
        "keepalives")
running("a health check asks for what is not there", one(f"http://127.0.0.1:{Server(answers('404 Not Found')).port}",
        ", health_check: { path: /nosuch, interval: 300ms, timeout: 200ms, unhealthy: 1 }"), "unhealthy: status 404", "curl", before=1.5)
running("no connection to the upstream is free", one(f"http://127.0.0.1:{Server(None, backlog=8).port}", ", circuit_breaker: { max_connections: 1, max_pending: 0 }",
        ", timeout: 700ms"), "request-timeout|overflow-pending", "max_connections|timeout")


# Signals and files.
def changed(what, change, cause, remedy):
    proxy = Proxy(GOOD)
    change(proxy)
    time.sleep(0.8)
    began = time.monotonic()
    said = command("status", "--admin", str(proxy.admin))
    row(what, "nothing", "attache status", said.stdout + said.stderr, cause, remedy, began)
    proxy.stop()


def rewrite(proxy, text, number):
    write("attache.yaml", text)
    proxy.process.send_signal(number)


changed("SIGHUP, and the config's file is gone", lambda proxy: (os.remove(proxy.file), proxy.process.send_signal(signal.SIGHUP)), "can't be read",
        "no file of that name")
changed("SIGHUP, and the config's file is empty", lambda proxy: rewrite(proxy, "", signal.SIGHUP), "file is empty", "smallest config")
changed("SIGUSR2, and the new process can't read the config", lambda proxy: rewrite(proxy, "nonsense\n", signal.SIGUSR2), "did not take over",
        "its log says why")

# Configs, as editors, templates and habits spoil them.
UP = "upstreams: { o: 'http://a.test' }\n"
file("the address to bind is another machine's", "admin: off\nmetrics: off\nlisteners: { out: { bind: '192.0.2.1:1501', to: o } }\n" + UP,
     "Cannot assign", "ip address", shown="run")
file("the indentation has no-break spaces", "upstreams:\n\u00a0\u00a0o: http://a.test\n", "unknown key", "U\\+00A0")
file("the quotes are typographic", "upstreams:\n  o: “http://a.test”\n", "isn't known", "U\\+201C")
file("a path of Windows in double quotes", 'upstreams: { o: { address: "https://a.test", tls: { ca: "C:\\certs\\ca.crt" } } }\n', "unknown escape",
     "in `'…'`")
file("a template that nobody filled in", "upstreams:\n  o: 'http://{{ .Values.host }}'\n", "isn't a host name", "helm template")
file("a key in the column of the key that it belongs to", "upstreams:\norders: http://a.test\n", "unknown key `orders`", "indent it deeper")
file("a key of a listener in the column of its name", "listeners:\n  out:\n    bind: ':1'\n  routes:\n    - to: o\n" + UP, "key `routes` stands", "indent it")
file("a list in place of names", "listeners:\n  - name: out\n    bind: ':1'\n    to: o\n" + UP, "a list doesn't fit", "`out: …`")
file("the scheme is a database's", "upstreams: { db: 'postgres://db:5432' }\n", "`postgres` isn't known", "`tcp`")
path = write("utf16.yaml", "")
with open(path, "wb") as out:
    out.write(UP.encode("utf-16"))
began = time.monotonic()
said = command("check", path)
row("the file is UTF-16", f"exit code {said.returncode}", "attache check", said.stdout + said.stderr, "this is UTF-16", "save it as UTF-8", began)
many = write("many.yaml", "upstreams:\n" + "".join(f"  u{n}: http://a{n}.test\n" for n in range(1500)) + "x: 1\n")
began = time.monotonic()
said = command("check", many)
row("one mistake in 1500 lines", f"exit code {said.returncode}", "attache check", said.stdout + said.stderr, "many.yaml:1502:1: error: unknown key `x`",
    "known keys", began)
end()
