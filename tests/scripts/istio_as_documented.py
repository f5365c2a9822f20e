"""Imports objects of Istio and asks attache what their reference says of requests.

istio_as_documented.py ATTACHE

Ends with 1 where an answer is another one than the reference has.
"""
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import tempfile

from free_port import free_port
from beside_envoy import Stub, serve, wait_for
from istio_cases import CASES

FOLDER = pathlib.Path(tempfile.mkdtemp())
WORKLOAD = """apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {template: {metadata: {labels: {app: web, version: v1}}}}
"""
CLIENTS = {
    "tls": "spiffe://cluster.local/ns/shop/sa/web",
    "sleep": "spiffe://cluster.local/ns/foo/sa/sleep",
    "orders": "spiffe://cluster.local/ns/shop/sa/orders",
    "far": "spiffe://td2/ns/foo/sa/sleep",
}


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], cwd=FOLDER, check=True, capture_output=True)


def certificates():
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca", "-days", "2")
    for name, identity in CLIENTS.items():
        (FOLDER / "names").write_text(f"subjectAltName=URI:{identity}\n")
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/O=x")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", f"{name}.crt", "-days", "2", "-extfile", "names")


def application(name):
    """An application that tells its name, and the path and headers that it got."""
    class Named(Stub):
        def answer(self):
            saw = [f"{key.lower()}: {value}" for key, value in self.headers.items() if key.lower().startswith("x-")]
            self.send_response(200)
            self.send_header("x-answered", f"{name} {self.path} {' '.join(saw)}")
            self.send_header("content-length", "0")
            self.end_headers()
    return serve(Named)


def ask(at, asked):
    """The status of a request, and what of the answer tells who gave it; `closed` without an answer."""
    method, target, *words = asked.split(" ")
    words = [tuple(word.split("=", 1)) for word in words]
    host, client = dict(words).get("host", "web.shop"), dict(words).get("as")
    head = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", "Content-Length: 0"]
    head += [f"{name}: {value}" for name, value in words if name not in ("host", "as")]
    try:
        stream = socket.create_connection(("127.0.0.1", at), timeout=5)
        if client:
            context = ssl.create_default_context(cafile=FOLDER / "ca.crt")
            context.check_hostname = False
            if client != "none":
                context.load_cert_chain(FOLDER / f"{client}.crt", FOLDER / f"{client}.key")
            stream = context.wrap_socket(stream)
        stream.sendall(("\r\n".join(head) + "\r\n\r\n").encode("latin1"))
        answer = b""
        while data := stream.recv(65536):
            answer += data
    except OSError:
        return "closed"
    head = answer.split(b"\r\n\r\n")[0].decode("latin1")
    told = re.findall(r"(?im)^(?:x-answered|location): *(.*?)\r?$", head)
    return " ".join([head.split(" ")[1] if " " in head else "closed", *told])


def imported(attache, objects):
    """The config that the objects become, on loopback, and the ports of its listeners."""
    file = FOLDER / "objects.yaml"
    file.write_text("---\n".join([WORKLOAD, *objects]))
    config = subprocess.run([attache, "import", "--from", "istio", file], capture_output=True, text=True).stdout
    ports = {"inbound": free_port(), "outbound": free_port()}
    for name, bind in [("inbound", "0.0.0.0:15006"), ("outbound", "127.0.0.1:15001")]:
        config = config.replace(f"bind: {bind}\n    transparent: true", f"bind: 127.0.0.1:{ports[name]}")
    config = config.replace("app: original-destination", f"app: http://127.0.0.1:{application('app')}")
    config = config.replace("anywhere: original-destination", f"anywhere: http://127.0.0.1:{free_port()}")
    config = config.replace("/etc/attache/tls", str(FOLDER))
    for name in set(re.findall(r"http://(\w+)\.shop\.svc\.cluster\.local:9080", config)):
        address = f"http://{name}.shop.svc.cluster.local:9080"
        config = config.replace(address, f"http://127.0.0.1:{application(name)}")
    return config + f"\nmetrics: 127.0.0.1:{free_port()}\nadmin: 127.0.0.1:{free_port()}\n", ports


def main(attache):
    certificates()
    right = wrong = 0
    for name, listener, objects, requests in CASES:
        config, ports = imported(attache, objects)
        file, log = FOLDER / "attache.yaml", FOLDER / "log"
        file.write_text(config)
        with log.open("w") as out:
            process = subprocess.Popen([attache, "run", "-c", file], stdout=out, stderr=out)
        try:
            wait_for([ports[listener]], log)
            for line in requests:
                asked, wanted = line.split(" -> ")
                status, *words = wanted.split(" ")
                found = ask(ports[listener], asked)
                # Plaintext to a port for TLS is closed, or told so.
                same = found.split(" ")[0] in ("closed", "400", "403") if status == "closed" else \
                    found.split(" ")[0] == status and all(word in found for word in words)
                right, wrong = right + same, wrong + (not same)
                if not same:
                    print(f"{name}: {asked}: {wanted} is documented, {found} was answered")
        finally:
            process.terminate()
            process.wait()
    print(f"{right} of {right + wrong} requests, {len(CASES)} sets of objects: as documented")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
