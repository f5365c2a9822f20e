"""Provokes 25 failures with a real attache and says, for each, what its client saw and what one command says of cause and remedy.

troubles.py ATTACHE [--markdown FILE]: exits with 1 if a cause or a remedy is missing. FILE gets the table of docs/troubleshooting.md. Time
is from the client's error to the command's answer. Everything is on loopback; needs openssl.
"""

import http.server
import os
import re
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

ATTACHE, FOLDER = os.path.abspath(sys.argv[1]), tempfile.mkdtemp(prefix="troubles")
ROWS, MISSING = [], []


def port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def write(name, text):
    path = os.path.join(FOLDER, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def command(*arguments):
    return subprocess.run([ATTACHE, *arguments], capture_output=True, text=True, timeout=30, cwd=FOLDER)


class Server:
    """Takes connections and does one thing with each."""

    def __init__(self, do, tls=None, backlog=64):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(backlog)
        self.port, self.do, self.tls = self.socket.getsockname()[1], do, tls
        if do:
            threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            connection, _ = self.socket.accept()
            threading.Thread(target=self.one, args=(connection,), daemon=True).start()

    def one(self, connection):
        try:
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
            while self.do(connection):
                pass
            connection.close()
        except OSError:
            connection.close()


def request(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            raise OSError
        data += more


def answers(status="200 OK", body=b"hello\n", length=None, wait=0.0, close=False):
    def do(connection):
        request(connection)
        time.sleep(wait)
        head = f"HTTP/1.1 {status}\r\ncontent-length: {length or len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        return not close and not length
    return do


def resets(connection):
    request(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def dns(code):
    """A DNS server that answers with this code; None says nothing."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("127.0.0.1", 0))

    def run():
        while True:
            query, who = s.recvfrom(4096)
            if code is None:
                continue
            end = 12
            while query[end]:
                end += 1 + query[end]
            s.sendto(query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, 0, 0, 0) + query[12:end + 5], who)
    threading.Thread(target=run, daemon=True).start()
    return s.getsockname()[1]


def certificate(name, subject, names, days="30", ca=False):
    extra = ["-addext", "basicConstraints=critical,CA:FALSE"] if not ca else []
    dates = ["-not_before", "20200101000000Z", "-not_after", "20210101000000Z"] if days is None else ["-days", days]
    done = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{FOLDER}/{name}.key",
         "-out", f"{FOLDER}/{name}.crt", "-subj", f"/CN={subject}", "-addext", f"subjectAltName={names}", *extra, *dates],
        capture_output=True)
    if done.returncode:  # OpenSSL before 3.4 has no -not_before for `req`.
        write("ca.cnf", f"[ca]\ndefault_ca=c\n[c]\ndatabase={FOLDER}/db\nserial={FOLDER}/serial\nnew_certs_dir={FOLDER}\ndefault_md=sha256\n"
              f"policy=p\n[p]\ncommonName=supplied\n[x]\nsubjectAltName={names}\nbasicConstraints=critical,CA:FALSE\n")
        write("db", "")
        write("serial", "01")
        run = lambda *a: subprocess.run(["openssl", *a], capture_output=True, check=True)
        run("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{FOLDER}/{name}.key", "-out",
            f"{FOLDER}/{name}.csr", "-subj", f"/CN={subject}")
        run("ca", "-batch", "-selfsign", "-config", f"{FOLDER}/ca.cnf", "-keyfile", f"{FOLDER}/{name}.key", "-in", f"{FOLDER}/{name}.csr",
            "-out", f"{FOLDER}/{name}.crt", "-startdate", "20200101000000Z", "-enddate", "20210101000000Z", "-extensions", "x", "-notext")


def tls(name, client_ca=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{FOLDER}/{name}.crt", f"{FOLDER}/{name}.key")
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(f"{FOLDER}/{client_ca}.crt")
    return context


class Proxy:
    def __init__(self, config, wait=True):
        self.at, self.admin = port(), port()
        self.file = write("attache.yaml", f"admin: 127.0.0.1:{self.admin}\nmetrics: off\n" + config.replace("$PORT", str(self.at)))
        self.log = open(os.path.join(FOLDER, "log"), "w+")
        self.process = subprocess.Popen([ATTACHE, "run", "-c", self.file], stdout=self.log, stderr=self.log, cwd=FOLDER)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.admin), 1).close()
                break
            except OSError:
                time.sleep(0.05)

    def get(self, path="/", headers={}, data=None):
        call = urllib.request.Request(f"http://127.0.0.1:{self.at}{path}", headers=headers, data=data)
        try:
            with urllib.request.urlopen(call, timeout=20) as answer:
                answer.read()
                return str(answer.status)
        except urllib.error.HTTPError as error:
            return str(error.code)
        except Exception as error:  # whatever a client may see
            return f"{type(error).__name__}"

    def raw(self, text):
        with socket.create_connection(("127.0.0.1", self.at), 20) as s:
            s.sendall(text.encode())
            line = s.recv(4096).split(b"\r\n")[0].decode()
            return line.split(" ")[1] if line.startswith("HTTP/") else "closed"

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


def row(what, saw, shown, said, cause, remedy, began):
    took = time.monotonic() - began
    found = [re.search(words, said, re.I) for words in (cause, remedy)]
    if not all(found):
        MISSING.append((what, [cause, remedy][bool(found[0])], said))
    # The line that has the cause, as the person meets it.
    line = next((line.strip() for line in said.splitlines() if re.search(cause, line, re.I)), "-")
    line = line.replace(FOLDER + "/", "").replace("|", "\\|")
    line = re.sub(r"127\.0\.0\.1:\d{4,5}", "127.0.0.1:PORT", line)
    ROWS.append((what, saw, shown, line, took, all(found)))
    print(f"{len(ROWS):2} {'ok  ' if all(found) else 'MISS'} {took * 1000:5.0f} ms  {what}: {saw}; `{shown}`: {line}", flush=True)


def running(what, config, cause, remedy, call=lambda proxy: proxy.get(), calls=1, before=0.0, after=0.0):
    proxy = Proxy(config)
    time.sleep(before)
    for _ in range(calls):
        saw = call(proxy)
    began = time.monotonic()
    time.sleep(after)
    said = command("status", "--admin", str(proxy.admin))
    row(what, saw, "attache status", said.stdout + said.stderr, cause, remedy, began)
    proxy.stop()


def file(what, config, cause, remedy, shown="check", name="attache.yaml"):
    path = write(name, config)
    began = time.monotonic()
    said = command(*{"check": ["check", path], "run": ["run", "-c", path]}[shown])
    row(what, f"exit code {said.returncode}", f"attache {shown}", said.stdout + said.stderr, cause, remedy, began)


def one(address, more="", route=""):
    return (f"listeners: {{ out: {{ bind: '127.0.0.1:$PORT', routes: [{{ to: orders, retry: off{route} }}] }} }}\n"
            f"upstreams: {{ orders: {{ address: '{address}'{more} }} }}\n")


certificate("self", "attache-trouble.test", "IP:127.0.0.1,DNS:localhost")
certificate("other", "other.test", "DNS:other.test")
certificate("old", "localhost", "IP:127.0.0.1", days=None)
certificate("client", "client", "DNS:client", ca=True)
closed = port()
good = Server(answers())
full = Server(None, backlog=0)
held = [socket.socket() for _ in range(4)]
for s in held:
    s.setblocking(False)
    s.connect_ex(("127.0.0.1", full.port))

running("nothing listens on the upstream's port", one(f"http://127.0.0.1:{closed}"), "connect-refused", "listening on that port")
running("packets to the upstream are lost", one(f"http://127.0.0.1:{full.port}", ", connect_timeout: 300ms"), "connect-timeout", "firewall")
running("the upstream's name does not exist", f"dns: {{ servers: ['127.0.0.1:{dns(3)}'] }}\n" + one("http://orders.shop.test"),
        "no such name|nxdomain", "dig|name", before=1.0)
running("the DNS server fails", f"dns: {{ servers: ['127.0.0.1:{dns(2)}'] }}\n" + one("http://orders.shop.test"), "SERVFAIL from", "dig", before=1.0)
running("the DNS server is silent", f"dns: {{ servers: ['127.0.0.1:{dns(None)}'], timeout: 500ms }}\n" + one("http://orders.shop.test"),
        "no answer|dns-timeout", "DNS|server", before=2.0)
running("the certificate is self-signed", one(f"https://127.0.0.1:{Server(answers(), tls('self')).port}"), "self-signed", "add it as `ca:`")
running("the certificate is for another name",
        one(f"https://127.0.0.1:{Server(answers(), tls('other')).port}", ", tls: { ca: other.crt }"), "certificate is for `?other.test", "tls.name")
running("the certificate has expired", one(f"https://127.0.0.1:{Server(answers(), tls('old')).port}", ", tls: { ca: old.crt }"),
        "expired .* ago", "renew")
running("https:// to a port without TLS", one(f"https://127.0.0.1:{good.port}"), "tls-handshake-failed|tls-timeout|not TLS|doesn't speak TLS",
        "http://|really TLS")
running("http:// to a port that speaks TLS", one(f"http://127.0.0.1:{Server(answers(), tls('self')).port}"), "upstream-|TLS", "https://")
running("the upstream wants a client certificate",
        one(f"https://127.0.0.1:{Server(answers(), tls('self', client_ca='client')).port}", ", tls: { ca: self.crt }"),
        "tls-no-client-certificate|certificate required", "tls.certificate|client certificate")
running("the upstream resets the connection", one(f"http://127.0.0.1:{Server(resets).port}"), "upstream-reset", "upstream's log")
running("the upstream does not answer in time", one(f"http://127.0.0.1:{Server(answers(wait=9)).port}", route=", timeout: 400ms"),
        "request-timeout", "timeout")
running("the upstream cuts a body in the middle", one(f"http://127.0.0.1:{Server(answers(length=100)).port}"), "upstream-closed-mid-body",
        "upstream")
running("the upstream itself answers 500", one(f"http://127.0.0.1:{Server(answers('500 Oops')).port}"), "status 500", "look at its log")
running("no route takes the Host", f"listeners: {{ out: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ orders: 'http://127.0.0.1:{good.port}', "
        f"users: 'http://127.0.0.1:{closed}' }}\n", "routes for", "attache explain", call=lambda p: p.get(headers={"Host": "localhost:15001"}))
running("the failure breaker is open", one(f"http://127.0.0.1:{closed}", ", circuit_breaker: { failures: { consecutive: 3 } }"), "breaker is open",
        "connect-refused|circuit-open", calls=6)
running("every endpoint fails its health check", one(f"http://127.0.0.1:{Server(answers('500 Sick')).port}",
        ", health_check: { path: /healthz, interval: 200ms, unhealthy: 1 }"), "unhealthy", "health", before=1.5)
running("too many calls at once", one(f"http://127.0.0.1:{Server(answers(wait=2)).port}", ", circuit_breaker: { max_requests: 1 }"),
        "overflow-requests", "max_requests|raise",
        call=lambda p: (threading.Thread(target=p.get, daemon=True).start(), time.sleep(0.5), p.get())[2])
running("a rate limit of the config", one(f"http://127.0.0.1:{good.port}", route=", rate_limit: 1/m"), "rate-limited", "rate_limit|limit", calls=3)
running("an access rule denies it", f"listeners: {{ in: {{ bind: '127.0.0.1:$PORT', to: orders, authorization: {{ allow: [{{ path: /open }}] }} }} }}\n"
        f"upstreams: {{ orders: 'http://127.0.0.1:{good.port}' }}\n", "denied-by-rule", "attache explain")
running("the request could be read in two ways", one(f"http://127.0.0.1:{good.port}"), "bad-request", "RFC|client|header",
        call=lambda p: p.raw("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"))
file("a mistake in the config", "listeners: { out: { bnid: ':1' } }\nupstreams: { orders: 'http://a.test' }\n", "unknown key `bnid`", "did you mean `bind`")
file("a key that is not the certificate's",
     "listeners: { in: { bind: ':1', tls: { certificate: self.crt, key: other.key }, to: o } }\nupstreams: { o: 'http://a.test' }\n",
     "not the key of", "replace both")
file("the port is taken", f"admin: off\nmetrics: off\nlisteners: {{ out: {{ bind: '127.0.0.1:{good.port}' }} }}\nupstreams: {{ o: 'http://a.test' }}\n",
     "in use", "another|who|which|ss ", shown="run")

met = sum(row[-1] for row in ROWS)
print(f"\n{met} of {len(ROWS)} have cause and remedy; the slowest took {max(row[4] for row in ROWS) * 1000:.0f} ms")
for what, words, said in MISSING:
    print(f"\n--- {what}: nothing like /{words}/ in\n{said}")
if "--markdown" in sys.argv:
    lines = ["| what is wrong | the client sees | one command | it says | after |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| {what} | {saw} | `{shown}` | {line} | {took * 1000:.0f} ms |" for what, saw, shown, line, took, _ in ROWS]
    with open(sys.argv[sys.argv.index("--markdown") + 1], "w") as out:
        out.write("\n".join(lines) + "\n")
sys.exit(met != len(ROWS))
