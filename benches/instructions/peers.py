"""The counted proxies and their upstream: one worker each, with each proxy's defaults for kept connections."""

import base64
import json
import subprocess
import time

from calls import free_port

HOSTS = [f"h{n}.test" for n in range(5000)]


def ports():
    """A free port for every listener."""
    names = ["plain", "log", "routes", "named", "tls-up", "tls-in", "h2c", "h2-in", "upstream", "upstream-tls", "upstream-h2c", "metrics", "rule", "token", "external"]
    return {name: free_port() for name in names}


def certificates(folder):
    """A temporary authority, and a certificate for the upstream and for the proxies."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *curve, "-days", "30", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test CA")
    openssl("req", *curve, "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=upstream.test")
    (folder / "names").write_text("subjectAltName=DNS:upstream.test,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    issue = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-extfile", "names"]
    openssl("x509", "-req", "-in", "leaf.csr", *issue, "-out", "leaf.pem")
    (folder / "both.pem").write_text((folder / "leaf.pem").read_text() + (folder / "leaf.key").read_text())


def upstream(folder, ports):
    """nginx with a response of 1 KiB, over plaintext, TLS and HTTP/2 without TLS."""
    config = folder / "upstream.conf"
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in ["proxy", "fastcgi", "uwsgi", "scgi"])
    config.write_text(f"""
daemon off; master_process off; pid {folder}/upstream.pid; error_log {folder}/upstream.err crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {folder}/body; {temporary}
  types {{ }} default_type text/plain;
  ssl_certificate {folder}/leaf.pem; ssl_certificate_key {folder}/leaf.key;
  server {{ listen 127.0.0.1:{ports["upstream"]}; listen 127.0.0.1:{ports["upstream-tls"]} ssl;
    listen 127.0.0.1:{ports["upstream-h2c"]} http2;
    location = /1k {{ return 200 "{"x" * 1024}"; }} location /check {{ return 200; }} }}
}}
""")
    return ["/usr/sbin/nginx", "-c", str(config)]


def host(row, ports):
    """The host that a row's requests name."""
    return {"routes": HOSTS[-1], "named": f"127.0.0.1:{ports['upstream']}"}.get(row, "service.test")


def command(peer, row, attache, folder, ports):
    """Writes the proxy's config and returns the command that runs it. Only the row with many hosts has these hosts in its config, because they make no process faster."""
    hosts = HOSTS if row == "routes" else HOSTS[:1]
    if peer == "attache":
        return _attache(attache, folder, ports, hosts, row == "log")
    return {"haproxy": _haproxy, "nginx": _nginx}[peer](folder, ports, hosts)


def token(folder):
    """A key set, and a token that is signed with one of its keys."""
    b64 = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    openssl = lambda *arguments: subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True).stdout
    if not (folder / "token").exists():
        openssl("genrsa", "-out", "token.key", "2048")
        modulus = openssl("rsa", "-in", "token.key", "-noout", "-modulus").decode().strip().partition("=")[2]
        key = {"kty": "RSA", "kid": "one", "alg": "RS256", "e": "AQAB", "n": b64(bytes.fromhex(modulus))}
        claims = {"iss": "https://id.test", "aud": "shop", "sub": "kim", "scope": "orders:read orders:write", "exp": int(time.time()) + 86400}
        text = ".".join(b64(json.dumps(part).encode()) for part in ({"alg": "RS256", "kid": "one", "typ": "JWT"}, claims))
        (folder / "text").write_text(text)
        signature = openssl("dgst", "-sha256", "-sign", "token.key", "text")
        (folder / "keys.json").write_text(json.dumps({"keys": [key]}))
        (folder / "token").write_text(f"{text}.{b64(signature)}")
    return (folder / "token").read_text()


def _attache(attache, folder, ports, hosts, logs):
    token(folder)
    config = folder / "attache.yaml"
    routes = "".join(f"\n      - {{ match: {{ host: {host} }}, to: plain }}" for host in hosts)
    log = f"access_log: {{ to: {folder}/access.log }}" if logs else ""
    config.write_text(f"""
workers: 1
metrics: 127.0.0.1:{ports["metrics"]}
admin: off
{log}
listeners:
  plain: {{ bind: "127.0.0.1:{ports["plain"]}", to: plain }}
  log: {{ bind: "127.0.0.1:{ports["log"]}", to: plain }}
  routes:
    bind: "127.0.0.1:{ports["routes"]}"
    routes:{routes}
  named: {{ bind: "127.0.0.1:{ports["named"]}", to: named }}
  tls-up: {{ bind: "127.0.0.1:{ports["tls-up"]}", to: tls }}
  tls-in: {{ bind: "127.0.0.1:{ports["tls-in"]}", to: plain, tls: {{ certificate: {folder}/leaf.pem, key: {folder}/leaf.key }} }}
  h2c: {{ bind: "127.0.0.1:{ports["h2c"]}", to: h2c }}
  h2-in: {{ bind: "127.0.0.1:{ports["h2-in"]}", to: plain, tls: {{ certificate: {folder}/leaf.pem, key: {folder}/leaf.key }} }}
  rule:
    bind: "127.0.0.1:{ports["rule"]}"
    to: plain
    authorization:
      deny: [ {{ path: /admin/*, not: {{ client: 10.0.0.0/8 }} }} ]
      allow: [ {{ client: 127.0.0.0/8, methods: [GET, HEAD], path: /1k }} ]
  token:
    bind: "127.0.0.1:{ports["token"]}"
    to: plain
    authorization: {{ jwt: {{ issuers: corp }}, allow: [ {{ claims: {{ scope: "orders:read" }} }} ] }}
  external: {{ bind: "127.0.0.1:{ports["external"]}", to: plain, authorization: {{ external: asked }} }}
jwt:
  corp: {{ issuer: https://id.test, audiences: shop, forward: true, keys: {{ file: {folder}/keys.json }} }}
authorizers:
  asked: {{ service: plain, protocol: http, path_prefix: /check, request_headers: [authorization] }}
upstreams:
  plain: http://127.0.0.1:{ports["upstream"]}
  named: {{ address: authority }}
  h2c: h2c://127.0.0.1:{ports["upstream-h2c"]}
  tls: {{ address: "https://127.0.0.1:{ports["upstream-tls"]}", tls: {{ ca: {folder}/ca.pem, name: upstream.test }} }}
""")
    return [attache, "run", "-c", str(config)]


def _haproxy(folder, ports, hosts):
    config = folder / "haproxy.cfg"
    (folder / "hosts").write_text("".join(f"{host} plain\n" for host in hosts))
    verified = f"ssl ca-file {folder}/ca.pem verify required sni str(upstream.test)"
    config.write_text(f"""
global
  nbthread 1
  maxconn 2000
defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
  option http-keep-alive
  http-reuse always
  retries 2
  option redispatch
frontend plain
  bind 127.0.0.1:{ports["plain"]}
  default_backend plain
frontend log
  bind 127.0.0.1:{ports["log"]}
  log stdout format raw local0
  option httplog
  default_backend plain
frontend routes
  bind 127.0.0.1:{ports["routes"]}
  use_backend plain if {{ req.hdr(host),map({folder}/hosts) -m found }}
frontend tls-up
  bind 127.0.0.1:{ports["tls-up"]}
  default_backend tls
frontend tls-in
  bind 127.0.0.1:{ports["tls-in"]} ssl crt {folder}/both.pem alpn h2,http/1.1
  default_backend plain
frontend h2c
  bind 127.0.0.1:{ports["h2c"]} proto h2
  default_backend h2c
frontend h2-in
  bind 127.0.0.1:{ports["h2-in"]} ssl crt {folder}/both.pem alpn h2,http/1.1
  default_backend plain
backend h2c
  balance leastconn
  server u 127.0.0.1:{ports["upstream-h2c"]} proto h2 pool-max-conn -1 observe layer7 error-limit 5 on-error mark-down check inter 10s
backend plain
  balance leastconn
  server u 127.0.0.1:{ports["upstream"]} pool-max-conn -1 observe layer7 error-limit 5 on-error mark-down check inter 10s
backend tls
  balance leastconn
  server u 127.0.0.1:{ports["upstream-tls"]} {verified} pool-max-conn -1 observe layer7 error-limit 5 on-error mark-down check inter 10s
""")
    return ["/usr/sbin/haproxy", "-db", "-f", str(config)]


def _nginx(folder, ports, hosts):
    config = folder / "nginx.conf"
    temporary = " ".join(f"{kind}_temp_path {folder}/n-{kind};" for kind in ["proxy", "fastcgi", "uwsgi", "scgi"])
    config.write_text(f"""
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.err crit;
events {{ worker_connections 4096; multi_accept on; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {folder}/n-body; {temporary}
  upstream plain {{ server 127.0.0.1:{ports["upstream"]} max_fails=5; keepalive 512; keepalive_requests 100000000; }}
  upstream tls {{ server 127.0.0.1:{ports["upstream-tls"]} max_fails=5; keepalive 512; keepalive_requests 100000000; }}
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
  proxy_next_upstream error timeout; proxy_request_buffering off;
  server_names_hash_max_size 65536; server_names_hash_bucket_size 128;
  server {{ listen 127.0.0.1:{ports["plain"]}; location / {{ proxy_pass http://plain; }} }}
  server {{ listen 127.0.0.1:{ports["log"]}; location / {{ proxy_pass http://plain; access_log {folder}/n-access.log combined buffer=64k flush=1s; }} }}
  server {{ listen 127.0.0.1:{ports["routes"]}; server_name {" ".join(hosts)}; location / {{ proxy_pass http://plain; }} }}
  server {{ listen 127.0.0.1:{ports["tls-up"]}; location / {{ proxy_pass https://tls;
    proxy_ssl_verify on; proxy_ssl_trusted_certificate {folder}/ca.pem; proxy_ssl_name upstream.test; proxy_ssl_server_name on; }} }}
  server {{ listen 127.0.0.1:{ports["h2-in"]} ssl http2; location / {{ proxy_pass http://plain; }}
    ssl_certificate {folder}/leaf.pem; ssl_certificate_key {folder}/leaf.key; }}
  server {{ listen 127.0.0.1:{ports["tls-in"]} ssl; location / {{ proxy_pass http://plain; }}
    ssl_certificate {folder}/leaf.pem; ssl_certificate_key {folder}/leaf.key; }}
}}
""")
    return ["/usr/sbin/nginx", "-c", str(config)]
