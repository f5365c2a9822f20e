"""The servers behind the proxies: nginx for HTTP, `attache-load` for the rest; and the certificates of both."""
import subprocess

from processes import Process, require_free
from namespaces import UPSTREAM
from proxies import Ports


def make_pki(folder):
    """An authority, and certificates of a server and a client: PEM files by name. `NAME.pem` has the certificate and the key in one file, as HAProxy needs it."""
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
            "-subj", "/CN=bench", "-keyout", "ca.key", "-out", "ca.crt")
    for name in ("server", "client"):
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}",
                "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / f"{name}.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30",
                "-extfile", f"{name}.ext", "-out", f"{name}.crt")
        both = (folder / f"{name}.crt").read_text() + (folder / f"{name}.key").read_text()
        (folder / f"{name}.pem").write_text(both)
    return {path.name: str(path) for path in folder.iterdir()}


def start(folder, pki, load, many):
    require_free(Ports.HTTP, Ports.HTTPS, Ports.MTLS, Ports.ECHO, Ports.SOURCE, Ports.GRPC)
    body = "x" * 1024
    (folder / "www").mkdir()
    (folder / "www" / "mib").write_bytes(b"x" * (1 << 20))
    locations = f"location = /mib {{ root {folder}/www; }} location / {{ return 200 '{body}'; }}"
    tls = f"ssl_certificate {pki['server.crt']}; ssl_certificate_key {pki['server.key']};"
    also = " ".join(f"listen 127.0.0.1:{Ports.MANY + n};" for n in range(1000)) if many else ""
    config = (
        "daemon off; worker_processes 1; pid $HOME/pid; error_log stderr error; worker_rlimit_nofile 60000;"
        "events { worker_connections 30000; } http { access_log off; keepalive_requests 1000000000;"
        "client_body_temp_path $HOME/b; proxy_temp_path $HOME/p; fastcgi_temp_path $HOME/f; uwsgi_temp_path $HOME/u; scgi_temp_path $HOME/s;"
        f"server {{ listen 127.0.0.1:{Ports.HTTP}; listen 0.0.0.0:{UPSTREAM}; {also} {locations} }}"
        f"server {{ listen 127.0.0.1:{Ports.HTTPS} ssl; {tls} {locations} }}"
        f"server {{ listen 127.0.0.1:{Ports.MTLS} ssl; {tls} ssl_client_certificate {pki['ca.crt']}; ssl_verify_client on; {locations} }} }}\n")
    servers = [Process(folder, "upstream", ["nginx", "-c", "$HOME/config", "-p", "$HOME"], {"config": config})]
    try:
        servers[0].wait_for(Ports.MTLS)
        for command, port in (("echo", Ports.ECHO), ("source", Ports.SOURCE), ("grpc-echo", Ports.GRPC)):
            servers.append(Process(folder, command, [load, command, str(port)]))
            servers[-1].wait_for(port)
    except BaseException:
        for server in servers:
            server.stop()
        raise
    return servers
