"""Twenty-five failures more, of TLS in both directions, HTTP/2, gRPC, tunnels, TCP, DNS, reloads and the system. As `troubles.py`.

more_troubles.py ATTACHE [--markdown FILE]
"""

import json
import os
import resource
import socket
import ssl
import subprocess
import time

from free_port import free_port
from trouble import (ATTACHE, FOLDER, Proxy, Server, answers, certificate, command, dns, end, file, issue, one, opaque, row, running, says,
                     says_grpc_status, tls, write)

LISTENER = "listeners: {{ in: {{ bind: '127.0.0.1:$PORT', tls: {{ {tls} }}, to: app }} }}\nupstreams: {{ app: 'http://127.0.0.1:{port}' }}\n"


def inbound(tls_keys):
    return LISTENER.format(tls=tls_keys, port=good.port)


def over_tls(own=None, ca="ca", name="localhost", alpn=None):
    """One request by TLS, as a client that trusts `ca` and shows `own`."""
    def call(proxy):
        context = ssl.create_default_context(cafile=f"{FOLDER}/{ca}.crt")
        if own:
            context.load_cert_chain(f"{FOLDER}/{own}.crt", f"{FOLDER}/{own}.key")
        if alpn:
            context.set_alpn_protocols(alpn)
        try:
            with socket.create_connection(("127.0.0.1", proxy.at), 10) as plain, context.wrap_socket(plain, server_hostname=name) as s:
                s.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                line = s.recv(4096).split(b"\r\n")[0].decode("latin-1")
                return line.split(" ")[1] if line.startswith("HTTP/") else "closed"
        except ssl.SSLError as error:
            return (error.reason or "TLS error").lower().replace("_", " ")
        except OSError as error:
            return type(error).__name__
    return call


def refuses_http2(connection):
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    return False


def tcp(address, more=""):
    return (f"listeners: {{ out: {{ bind: '127.0.0.1:$PORT', protocol: tcp, to: db }} }}\n"
            f"upstreams: {{ db: {{ address: '{address}', retry: off{more} }} }}\n")


certificate("ca", "Shop CA", "DNS:ca", ca=True)
certificate("ca2", "Shop CA", "DNS:ca", ca=True)
issue("server", "ca", "localhost", "DNS:localhost,IP:127.0.0.1")
issue("namesake", "ca2", "localhost", "DNS:localhost,IP:127.0.0.1")
issue("web", "ca", "web", "DNS:web.shop")
issue("stranger", "ca2", "stranger", "DNS:stranger.shop")
issue("gone", "ca", "gone", "DNS:gone.shop,IP:127.0.0.1", old=True)
good = Server(answers())
closed = free_port()
secure = Server(answers(), tls("server"))
MUTUAL = "certificate: server.crt, key: server.key, client_ca: ca.crt"
CA = ", tls: { ca: ca.crt }"

# TLS, as its client.
running("the authority was made anew under its old name", one(f"https://127.0.0.1:{Server(answers(), tls('namesake')).port}", CA),
        "another key", "add the new one as `ca:`")
running("the upstream's key is not the pinned one", one(f"https://127.0.0.1:{secure.port}", ", tls: { ca: ca.crt, pins: " + "'" + "0" * 64 + "' }"),
        "tls-pin-mismatch", "add it to `tls.pins`|new key's pin")
old = tls("server")
old.maximum_version = ssl.TLSVersion.TLSv1_2
running("the upstream has no TLS version that is allowed", one(f"https://127.0.0.1:{Server(answers(), old).port}",
        ", tls: { ca: ca.crt, min_version: '1.3' }"), "tls-version", "min_version")
h1 = tls("server")
h1.set_alpn_protocols(["http/1.1"])
running("the upstream does not speak HTTP/2 over TLS", one(f"https://127.0.0.1:{Server(answers(), h1).port}", CA + ", protocol: http2"),
        "tls-alpn", "`protocol`")

# TLS, as its server.
running("the client shows no certificate", inbound(MUTUAL), "tls-no-client-certificate", "client_ca", call=over_tls())
running("the client's certificate is from another authority", inbound(MUTUAL), "tls-untrusted", "client_ca", call=over_tls("stranger"))
running("the client's certificate has expired", inbound(MUTUAL), "certificate expired .* ago", "Renew the client's", call=over_tls("gone"))
running("the client is not among those who may talk", inbound(MUTUAL + ", allow: [other.shop]"), "denied-identity.*web.shop", "tls.allow",
        call=over_tls("web"))
running("the client does not trust the listener's certificate", inbound("certificate: server.crt, key: server.key"), "does not accept this listener",
        "must trust the CA", call=over_tls(ca="ca2"))
running("the client speaks plaintext to a TLS port", inbound("certificate: server.crt, key: server.key"), "plaintext-denied", "with TLS|https")
running("the listener's own certificate has expired", inbound("certificate: gone.crt, key: gone.key"), "its certificate .gone.crt. has expired", "renew it",
        call=over_tls(name="gone.shop"))

# HTTP.
running("h2c:// to a server of HTTP/1", one(f"h2c://127.0.0.1:{Server(refuses_http2).port}"), "HTTP/1", "http://|`protocol`")
running("the port is another protocol's", one(f"http://127.0.0.1:{Server(says(b'SSH-2.0-OpenSSH_9.6' + bytes([13, 10]), first=True)).port}"),
        "upstream-protocol-error.*SSH-2.0", "right port")
big = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-big: " + b"a" * 300_000 + b"\r\n\r\n"
running("the upstream's answer has too many headers", one(f"http://127.0.0.1:{Server(says(big)).port}"), "larger|too large|limit",
        "protocol|limit")
running("a gRPC call is answered UNAVAILABLE", one(f"h2c://127.0.0.1:{Server(says_grpc_status(14, b'no leader')).port}"), "grpc-status 14|UNAVAILABLE", "log",
        call=lambda p: p.get("/shop.Orders/List", headers={"content-type": "application/grpc", "te": "trailers"}, data=b"\0\0\0\0\0"))
running("a tunnel (CONNECT) where none is meant", one(f"http://127.0.0.1:{good.port}"), "connect-denied", "CONNECT|tunnel",
        call=lambda p: p.raw("CONNECT orders:443 HTTP/1.1\r\nhost: orders:443\r\n\r\n"))
running("a request's head comes too slowly", f"listeners: {{ out: {{ bind: '127.0.0.1:$PORT', http: {{ header_timeout: 500ms }}, to: orders }} }}\n"
        f"upstreams: {{ orders: 'http://127.0.0.1:{good.port}' }}\n", "header-timeout", "header_timeout", call=lambda p: p.raw("GET / HTTP/1.1\r\nhost:"))
running("a request has too large headers", one(f"http://127.0.0.1:{good.port}"), "headers-too-large", "limits.headers_size",
        call=lambda p: p.get(headers={"cookie": "a" * 100_000}))

# Who may.
keys = json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "kid": "1", "alg": "ES256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
                             "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]})
token = f"jwt: {{ id: {{ issuer: https://id.test, keys: {{ inline: '{keys}' }} }} }}\n"
guarded = token + (f"listeners: {{ in: {{ bind: '127.0.0.1:$PORT', to: app, authorization: {{ jwt: {{ issuers: id }} }} }} }}\n"
                   f"upstreams: {{ app: 'http://127.0.0.1:{good.port}' }}\n")
running("a request without a token", guarded, "token-missing", "Send a token")
running("a request with a token that nobody signed", guarded, "token-invalid", "`jwt` in the config",
        call=lambda p: p.get(headers={"authorization": "Bearer e30.e30.AAAA"}))
running("the authorizer is away", "authorizers: { gate: { service: opa } }\n"
        f"listeners: {{ in: {{ bind: '127.0.0.1:$PORT', to: app, authorization: {{ external: gate }} }} }}\n"
        f"upstreams: {{ app: 'http://127.0.0.1:{good.port}', opa: 'http://127.0.0.1:{closed}' }}\n", "authorizer-unavailable.*(refused|opa)",
        "authorizer's upstream")

# TCP and DNS.
running("nothing listens behind a TCP upstream", tcp(f"tcp://127.0.0.1:{closed}"), "connect-refused", "listening on that port", call=opaque)
running("TLS behind a TCP upstream is not trusted", tcp(f"tls://127.0.0.1:{Server(answers(), tls('namesake')).port}", CA), "another key", "`ca:`",
        call=opaque)
running("the name has no address", f"dns: {{ servers: ['127.0.0.1:{dns(0)}'] }}\n" + one("http://orders.shop.test"), "no such record", "name|record",
        before=1.0)
running("nothing answers on the DNS server's port", f"dns: {{ servers: ['127.0.0.1:{closed}'], timeout: 500ms }}\n" + one("http://orders.shop.test"),
        f"127.0.0.1:{closed}", "DNS|server", before=2.0)
running("the address to call from is not this machine's", one(f"http://127.0.0.1:{good.port}", ", source_address: 192.0.2.1"),
        "connect-failed.*Cannot assign", "address")
running("the upstream's socket file is not there", one("unix:/nosuch/app.sock"), "connect-failed.*nosuch|No such file", "socket|path")


# Reloads and the system.
def reloaded(what, change, cause, remedy):
    proxy = Proxy(one(f"http://127.0.0.1:{good.port}"))
    with open(proxy.file) as text:
        text = text.read()
    write("attache.yaml", change(text))
    command("reload", "--admin", str(proxy.admin))
    began = time.monotonic()
    said = command("status", "--admin", str(proxy.admin))
    row(what, "nothing", "attache status", said.stdout + said.stderr, cause, remedy, began)
    proxy.stop()


reloaded("a reload with a mistake", lambda text: text.replace("retry:", "rety:"), "unknown key `rety`", "did you mean `retry`")
reloaded("a reload wants a port that is taken", lambda text: text.replace("upstreams:", "# more\nupstreams:").replace(
    "listeners: {", f"listeners: {{ more: {{ bind: '127.0.0.1:{secure.port}', to: orders }}, "), "in use", "ss -tanp|another")
running("the access log's disk is full", "access_log: { to: /dev/full }\n" + one(f"http://127.0.0.1:{good.port}"), "access log can't be written.*No space",
        "until this works again", after=1.5, calls=3)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
few = Proxy("workers: 1\n" + one(f"http://127.0.0.1:{good.port}"))
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
held = [socket.create_connection(("127.0.0.1", few.at), 5) for _ in range(70)]
time.sleep(0.3)
saw, began = few.get(), time.monotonic()
for s in held:
    s.close()
time.sleep(0.5)
said = command("status", "--admin", str(few.admin))
row("the file descriptors are used up", saw, "attache status", said.stdout + said.stderr, "descriptor|overloaded|Too many open files", "ulimit|nofile", began)
few.stop()
write("secret", "abc\n")
gone = Proxy(one(f"https://127.0.0.1:{secure.port}", ", tls: { ca: ca.crt }, credential: { bearer: { file: secret } }"))
os.remove(f"{FOLDER}/secret")
time.sleep(3)
saw, began = gone.get(), time.monotonic()
said = command("status", "--admin", str(gone.admin))
row("a secret's file has vanished", saw, "attache status", said.stdout + said.stderr, "secret", "file|mounted|path", began)
gone.stop()
rotated = Proxy(inbound("certificate: web.crt, key: web.key"))
write("web.crt", "not a certificate\n")
time.sleep(3)
began = time.monotonic()
said = command("status", "--admin", str(rotated.admin))
row("a renewed certificate can't be read", "nothing", "attache status", said.stdout + said.stderr, "web.crt", "PEM|BEGIN CERTIFICATE", began)
rotated.stop()

# The start.
file("the upstream's address leads back here", "listeners: { out: { bind: ':15001', to: orders } }\nupstreams: { orders: 'http://localhost:15001' }\n",
     "leads back to listener `out`", "address of the service itself")
file("the certificate has expired", "listeners: { in: { bind: ':1', tls: { certificate: gone.crt, key: gone.key }, to: o } }\nupstreams: { o: 'http://a.test' }\n",
     "gone.crt: the certificate expired .* ago", "renew it")
file("the config is another program's", "static_resources: {}\n", "config of Envoy", "attache import", name="envoy.yaml")
file("a socket's folder is missing", "listeners: { out: { bind: 'unix:/nosuch/a.sock', to: o } }\nupstreams: { o: 'http://a.test' }\n", "/nosuch", "create it")
if os.geteuid() == 0:
    os.chmod(FOLDER, 0o755)
    path = write("low.yaml", "admin: off\nmetrics: off\nlisteners: { out: { bind: '127.0.0.1:79', to: o } }\nupstreams: { o: 'http://a.test' }\n")
    began = time.monotonic()
    said = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--no-new-privs", ATTACHE, "run", "-c",
                           path], capture_output=True, text=True, timeout=20)
    row("a port that only root may take", f"exit code {said.returncode}", "attache run", said.stdout + said.stderr, "Permission denied",
        "1024|CAP_NET_BIND_SERVICE", began)
end()
