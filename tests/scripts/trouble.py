"""Servers that fail, an attache before them, and what one command says of it: for `*troubles.py` and `outages.py`."""

import os
import re
import resource
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

from free_port import free_port

ATTACHE, FOLDER = os.path.abspath(sys.argv[1]), tempfile.mkdtemp(prefix="troubles")
ROWS, MISSING = [], []


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
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return  # it was closed
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
    """Reads a request's head and returns it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            raise OSError
        data += more
    return data


def answers(status="200 OK", body=b"hello\n", length=None, wait=0.0, close=False):
    def do(connection):
        request(connection)
        time.sleep(wait)
        head = f"HTTP/1.1 {status}\r\ncontent-length: {length or len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        return not close and not length
    return do


def will_reset(connection):
    """Its close will be a reset: an end of the stream alone would be a client that still waits for its answer."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def resets(connection):
    request(connection)
    will_reset(connection)
    return False


def hangs(connection):
    """Takes the request and never answers."""
    request(connection)
    time.sleep(60)
    return False


def says(text, first=False):
    """A server that says this, after the request or at once, and closes."""
    def do(connection):
        if first:
            connection.sendall(text)
            time.sleep(0.2)
        request(connection)
        if not first:
            connection.sendall(text)
            time.sleep(0.2)
        return False
    return do


def frame(kind, flags, stream, payload=b""):
    """A frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A field of HPACK, not indexed and not coded."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def first_call(connection):
    """HTTP/2 by hand: answers the preface, and waits for the client's first HEADERS; False where the client leaves before."""
    data = connection.recv(65536)
    connection.sendall(frame(4, 0, 0))
    while b"\x01" not in data[24:]:
        more = connection.recv(65536)
        if not more:
            return False
        data += more
    return True


def says_grpc_status(code, message=b"", with_data=False):
    """HTTP/2 by hand: answers the first call with this grpc-status, alone or behind a message of gRPC."""
    def do(connection):
        if not first_call(connection):
            return False
        time.sleep(0.2)
        connection.sendall(frame(4, 1, 0))
        head = b"\x88" + literal(b"content-type", b"application/grpc")
        status = literal(b"grpc-status", str(code).encode()) + (literal(b"grpc-message", message) if message else b"")
        if with_data:
            connection.sendall(frame(1, 4, 1, head) + frame(0, 0, 1, b"\0\0\0\0\0") + frame(1, 5, 1, status))
        else:
            connection.sendall(frame(1, 5, 1, head + status))
        time.sleep(0.3)
        return False
    return do


def opaque(proxy, wait=10.0):
    """What a client of TCP sees that speaks first: bytes, an end, or an error."""
    with socket.create_connection(("127.0.0.1", proxy.at), 10) as s:
        s.settimeout(wait)
        try:
            s.sendall(b"PING\r\n")
            return "closed" if not s.recv(100) else "bytes"
        except OSError as error:
            return type(error).__name__


def dns(answer):
    """A DNS server. `answer` is a code (RFC 1035 section 4.1.1), None to say nothing, or makes the message out of id and question."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("127.0.0.1", 0))

    def run():
        while True:
            query, who = s.recvfrom(4096)
            if answer is None:
                continue
            end = 12
            while query[end]:
                end += 1 + query[end]
            id, question = query[:2], query[12:end + 5]
            coded = lambda: id + struct.pack(">HHHHH", 0x8180 | answer, 1, 0, 0, 0) + question
            s.sendto(answer(id, question) if callable(answer) else coded(), who)
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


def issue(name, by, subject, names, old=False, ca=False):
    """A certificate that an authority of `certificate` signed."""
    run = lambda *a: subprocess.run(["openssl", *a], capture_output=True, check=True, cwd=FOLDER)
    run("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
        "-subj", f"/CN={subject}")
    write(f"{name}.ext", f"subjectAltName={names}\nbasicConstraints=critical,CA:{str(ca).upper()}\n")
    write(f"{name}.cnf", "[ca]\ndefault_ca=c\n[c]\ndatabase=db\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n[p]\n"
          "commonName=supplied\n")
    write("db", "")
    write("serial", f"{len(os.listdir(FOLDER)) + 16:04x}")
    dates = ("20200101000000Z", "20210101000000Z") if old else ("20200101000000Z", "20490101000000Z")
    run("ca", "-batch", "-config", f"{name}.cnf", "-cert", f"{by}.crt", "-keyfile", f"{by}.key", "-in", f"{name}.csr", "-out", f"{name}.crt",
        "-startdate", dates[0], "-enddate", dates[1], "-extfile", f"{name}.ext", "-notext")


def tls(name, client_ca=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{FOLDER}/{name}.crt", f"{FOLDER}/{name}.key")
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(f"{FOLDER}/{client_ca}.crt")
    return context


class Proxy:
    def __init__(self, config, name="attache", files=None):
        """`files`: the most files that it may have open."""
        self.at, self.admin = free_port(), free_port()
        self.file = write(f"{name}.yaml", f"admin: 127.0.0.1:{self.admin}\nmetrics: off\n" + config.replace("$PORT", str(self.at)))
        self.log = open(os.path.join(FOLDER, "log" if name == "attache" else f"{name}.log"), "w+")
        self.process = subprocess.Popen([ATTACHE, "run", "-c", self.file], stdout=self.log, stderr=self.log, cwd=FOLDER,
                                        preexec_fn=files and (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))))
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


def end():
    """Says what was met and leaves; `--markdown FILE` gets the table."""
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
