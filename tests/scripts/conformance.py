"""Other people's suites against attache, and against nginx, HAProxy and Envoy beside it: conformance.py ATTACHE [--envoy FILE] [--only SUITE,...]

Writes a table with the counts of each. What a proxy has no part in is `-`. A proxy that is not installed is left out.

h2spec, grpc-go's interoperability client and server, and Autobahn's cases come from `cargo xtask setup` (`target/judges*`). W3C's suite is on no registry: TRACE_CONTEXT
names the folder `test` of a clone of w3c/trace-context, TRACE_CONTEXT_PYTHON a Python with aiohttp.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from free_port import free_port

import vectors

ROOT = pathlib.Path(__file__).resolve().parents[2]
JUDGES = ROOT / "target/judges"
INTEROP = (
    "empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream", "timeout_on_sleeping_server",
    "cancel_after_begin", "cancel_after_first_response", "custom_metadata", "status_code_and_message", "special_status_message",
    "unimplemented_method", "unimplemented_service",
)
# Listeners: HTTP/1, HTTP/2 before HTTP/1, HTTP/2 before gRPC, HTTP/1 with the PROXY protocol, WebSocket.
PORTS = ("http1", "http2", "grpc", "proxy", "websocket", "metrics")

ATTACHE = """
admin: off
access_log: off
metrics: {{ bind: "127.0.0.1:{metrics}" }}
listeners:
  http1: {{ bind: "127.0.0.1:{http1}", protocol: http, to: web }}
  http2: {{ bind: "127.0.0.1:{http2}", protocol: http2, to: web }}
  grpc: {{ bind: "127.0.0.1:{grpc}", protocol: http2, to: grpc }}
  proxy: {{ bind: "127.0.0.1:{proxy}", protocol: http, proxy_protocol: require, to: web }}
  websocket: {{ bind: "127.0.0.1:{websocket}", protocol: http, to: echo }}
upstreams:
  echo: "http://127.0.0.1:{echo}"
  web: "http://127.0.0.1:{web}"
  grpc: "h2c://127.0.0.1:{grpc_server}"
"""
NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error crit; worker_processes 2;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
  scgi_temp_path {folder}/s; proxy_http_version 1.1; client_max_body_size 0; grpc_read_timeout 600s;
  server {{ listen 127.0.0.1:{http1}; location / {{ proxy_pass http://127.0.0.1:{web}; }} }}
  server {{ listen 127.0.0.1:{http2} http2; location / {{ proxy_pass http://127.0.0.1:{web}; }} }}
  server {{ listen 127.0.0.1:{grpc} http2; location / {{ grpc_pass grpc://127.0.0.1:{grpc_server}; }} }}
  server {{ listen 127.0.0.1:{proxy} proxy_protocol; location / {{ proxy_pass http://127.0.0.1:{web}; }} }}
  server {{ listen 127.0.0.1:{websocket}; location / {{
    proxy_pass http://127.0.0.1:{echo}; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }} }}
}}
"""
HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
listen http1
  bind 127.0.0.1:{http1}
  server s 127.0.0.1:{web}
listen http2
  bind 127.0.0.1:{http2} proto h2
  server s 127.0.0.1:{web}
listen grpc
  bind 127.0.0.1:{grpc} proto h2
  server s 127.0.0.1:{grpc_server} proto h2
listen proxy
  bind 127.0.0.1:{proxy} accept-proxy
  server s 127.0.0.1:{web}
listen websocket
  bind 127.0.0.1:{websocket}
  server s 127.0.0.1:{echo}
frontend metrics
  bind 127.0.0.1:{metrics}
  http-request use-service prometheus-exporter
"""


def envoy(ports):
    """A listener for each port, with what clients of an edge are told to switch on."""
    def cluster(name, port, http2=False):
        more = {"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}}}} if http2 else {}
        return {"name": name, "type": "STATIC", "connect_timeout": "5s", "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}]}]}, **more}

    def listener(name, codec, to, filters=()):
        route = {"match": {"prefix": "/"}, "route": {"cluster": to, "timeout": "0s"}}
        manager = {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": name, "codec_type": codec,
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            "http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
        }
        return {"name": name, "address": {"socket_address": {"address": "127.0.0.1", "port_value": ports[name]}}, "listener_filters": list(filters),
                "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}

    proxied = {"name": "proxy", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"}}
    return json.dumps({
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": ports["metrics"]}}},
        "static_resources": {
            "listeners": [listener("http1", "HTTP1", "web"), listener("http2", "HTTP2", "web"), listener("grpc", "HTTP2", "grpc"),
                          listener("proxy", "HTTP1", "web", [proxied]), listener("websocket", "HTTP1", "echo")],
            "clusters": [cluster("web", ports["web"]), cluster("echo", ports["echo"]), cluster("grpc", ports["grpc_server"], True)],
        },
    })


def wait_for(port, process, log):
    for _ in range(1200):
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), 1).close()
        if process.poll() is not None:
            raise SystemExit(f"{process.args} ended with {process.returncode}:\n{log.read_text()}")
        time.sleep(0.05)
    raise SystemExit(f"{process.args} does not listen on {port}")


class Stage:
    """Servers that all proxies stand before, and the proxies."""

    def __init__(self, given):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="conformance-"))
        self.processes, self.ports = [], {}
        self.servers = {"web": free_port(), "grpc_server": free_port(), "echo": free_port()}
        self.given = given

    def start(self, command, ports, name):
        file = self.folder / f"{name}.log"
        log = open(file, "wb")
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, cwd=self.folder)
        self.processes.append(process)
        for port in ports:
            wait_for(port, process, file)

    def start_servers(self):
        web = "import sys; from http.server import *\n" \
            "class Web(BaseHTTPRequestHandler):\n" \
            "  protocol_version = 'HTTP/1.1'\n" \
            "  def do_GET(self):\n" \
            "    self.send_response(200); self.send_header('content-length', '4'); self.end_headers(); self.wfile.write(b'seen')\n" \
            "  def do_POST(self):\n" \
            "    left = int(self.headers.get('content-length') or 0)\n" \
            "    self.rfile.read(left) if left else None\n" \
            "    while self.headers.get('transfer-encoding'):\n" \
            "      size = int(self.rfile.readline().split(b';')[0], 16)\n" \
            "      self.rfile.read(size + 2)\n" \
            "      if not size: break\n" \
            "    self.do_GET()\n" \
            "  do_OPTIONS = do_HEAD = do_PUT = do_DELETE = do_PATCH = do_GET\n" \
            "  def log_message(self, *more): pass\n" \
            "ThreadingHTTPServer.request_queue_size = 512\n" \
            "ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Web).serve_forever()\n"
        self.start([sys.executable, "-c", web, self.servers["web"]], [self.servers["web"]], "web")
        self.start([JUDGES / "server", "--port", self.servers["grpc_server"]], [self.servers["grpc_server"]], "grpc")

    def start_proxy(self, name):
        ports = {port: free_port() for port in PORTS}
        self.ports[name] = ports
        every = {"folder": self.folder, **ports, **self.servers}
        file = self.folder / f"{name}.conf"
        if name == "envoy":
            file = file.with_suffix(".json")
            file.write_text(envoy({**ports, **self.servers}))
        else:
            file.write_text({"attache": ATTACHE, "nginx": NGINX, "haproxy": HAPROXY}[name].format(**every))
        command = {
            "attache": [os.path.abspath(self.given.attache), "run", "-c", file], "nginx": ["/usr/sbin/nginx", "-p", self.folder, "-c", file],
            "haproxy": ["/usr/sbin/haproxy", "-q", "-f", file], "envoy": [self.given.envoy, "-c", file, "--log-level", "error", "--concurrency", "2"],
        }[name]
        # nginx has no page of metrics.
        self.start(command, [ports[port] for port in PORTS if (name, port) != ("nginx", "metrics")], name)

    def end(self):
        for process in reversed(self.processes):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def said(command, seconds=1800):
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds)
    return done.returncode, done.stdout


def h2spec(stage, name):
    _, text = said([JUDGES / "h2spec", "--host", "127.0.0.1", "--timeout", "5", "--port", stage.ports[name]["http2"]])
    total, passed, skipped, failed = map(int, re.search(r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", text).groups())
    (ROOT / f"target/h2spec-{name}.txt").write_text(text)
    return f"{passed} of {total}" + (f", {skipped} skipped" if skipped else ""), failed


def interop(stage, name):
    good = [case for case in INTEROP if said([
        JUDGES / "client", "--server_host", "127.0.0.1", "--server_port", stage.ports[name]["grpc"], "--test_case", case], 120)[0] == 0]
    return f"{len(good)} of {len(INTEROP)}", len(INTEROP) - len(good)


def http1(stage, name):
    return vectors.judge(vectors.HTTP1, stage.ports[name]["http1"], name)


def proxy_protocol(stage, name):
    return vectors.judge(vectors.PROXY, stage.ports[name]["proxy"], name)


def autobahn(stage, name):
    """The cases that have the same result through the proxy as without one. A case that differs is tried once more."""
    command = [ROOT / "target/judges-autobahn/bin/python", pathlib.Path(__file__).with_name("autobahn_cases.py"), "all",
               stage.servers["echo"], f"{name}={stage.ports[name]['websocket']}"]
    different = None
    for _ in range(2):
        results = json.loads(said(command)[1].splitlines()[-1])
        other = {case for case, result in results["direct"].items() if results[name][case] != result}
        different = other if different is None else different & other
        if not different:
            break
    for case in sorted(different)[:8]:
        print(f"    {name}: case {case}: {results[name][case]}, without a proxy {results['direct'][case]}")
    return f"{len(results[name]) - len(different)} of {len(results[name])}", len(different)


def openmetrics(stage, name):
    if name == "nginx":
        return "-", 0
    import urllib.request
    path = "/stats/prometheus" if name == "envoy" else "/metrics"
    page = urllib.request.urlopen(f"http://127.0.0.1:{stage.ports[name]['metrics']}{path}", timeout=30).read()
    done = subprocess.run(["promtool", "check", "metrics"], input=page, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lines = [line for line in done.stdout.decode().splitlines() if line.strip()]
    # 1: it can't be read; 3: it breaks Prometheus' own rules of naming.
    return ("no remark" if not lines else f"{len(lines)} remarks"), int(done.returncode == 1)


def trace_context(stage):
    """The suite calls a service, which calls back with what it has of the trace: an application that copies the headers that it gets, with
    attache before it and as the proxy of its own calls."""
    port, attache, outbound = free_port(), free_port(), free_port()
    service = pathlib.Path(__file__).with_name("trace_service.py")
    stage.start([sys.executable, service, port, outbound], [port], "service")
    config = stage.folder / "trace.yaml"
    config.write_text(
        # Nobody takes the spans.
        f"admin: off\nmetrics: off\naccess_log: off\ntracing: {{ otlp: http://127.0.0.1:{free_port()}, sample: 100% }}\nlisteners:\n"
        f"  inbound: {{ bind: '127.0.0.1:{attache}', protocol: http, to: service }}\n"
        f"  outbound: {{ bind: '127.0.0.1:{outbound}', protocol: http, to: internet }}\n"
        f"upstreams: {{ service: 'http://127.0.0.1:{port}', internet: {{ address: authority }} }}\n")
    stage.start([os.path.abspath(stage.given.attache), "run", "-c", config], [attache, outbound], "trace")
    environment = {**os.environ, "SERVICE_ENDPOINT": f"http://127.0.0.1:{attache}/test", "STRICT_LEVEL": "2", "SPEC_LEVEL": "2"}
    done = subprocess.run([os.environ.get("TRACE_CONTEXT_PYTHON", sys.executable), "test.py"], cwd=os.environ["TRACE_CONTEXT"], env=environment,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1200)
    (ROOT / "target/trace-context.txt").write_text(done.stdout)
    found = re.search(r"Ran (\d+) tests", done.stdout)
    if not found:
        raise SystemExit(done.stdout[-3000:])
    bad = sum(int(count) for count in re.findall(r"(?:failures|errors)=(\d+)", done.stdout))
    return f"{int(found[1]) - bad} of {found[1]}", bad


EACH = {"h2spec": h2spec, "grpc interop": interop, "HTTP/1 vectors": http1, "PROXY protocol vectors": proxy_protocol, "Autobahn": autobahn,
        "metrics": openmetrics}


def main():
    parser = argparse.ArgumentParser(description="Other people's suites against attache and other proxies.")
    parser.add_argument("attache")
    parser.add_argument("--envoy", default=shutil.which("envoy") or "")
    parser.add_argument("--only", default="", help="suites, with commas between them")
    given = parser.parse_args()
    suites = [*EACH, *(["trace context"] if "TRACE_CONTEXT" in os.environ else [])]
    if given.only:
        suites = [suite for suite in suites if suite in given.only.split(",")]
    names = ["attache", *(name for name, file in (
        ("nginx", "/usr/sbin/nginx"), ("haproxy", "/usr/sbin/haproxy"), ("envoy", given.envoy)) if file and os.path.exists(file))]
    stage, table, failed = Stage(given), {}, 0
    try:
        stage.start_servers()
        for name in names:
            stage.start_proxy(name)
        for suite in suites:
            if suite == "trace context":
                table[suite] = {"attache": trace_context(stage)}
            else:
                table[suite] = {name: EACH[suite](stage, name) for name in names}
            failed += table[suite]["attache"][1]
            print(suite, {name: count for name, (count, _) in table[suite].items()}, flush=True)
    finally:
        stage.end()
    print(f"\n| suite | {' | '.join(names)} |\n| --- |{' --- |' * len(names)}")
    for suite, counts in table.items():
        print(f"| {suite} | " + " | ".join(counts.get(name, ("-", 0))[0] for name in names) + " |")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
