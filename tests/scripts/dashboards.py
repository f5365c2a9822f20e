#!/usr/bin/env python3
"""Public Grafana dashboards against a running attache, by a Prometheus that scrapes it.

    python3 tests/scripts/dashboards.py envoy|istio ATTACHE DASHBOARD.json ...

attache runs with `metrics: { names: ... }`, with traffic of every kind: HTTP with every class of status, opaque bytes, calls of the workload and by it.
Every query of the dashboards is asked, their variables put in. Prints those without data, and how many of all have some.
Needs `prometheus` and `openssl` in PATH.
"""

import http.server, json, os, re, signal, socket, socketserver, ssl, subprocess, sys, tempfile, threading, time, urllib.parse, urllib.request

from free_port import free_port

SECONDS = int(os.environ.get("SECONDS_OF_TRAFFIC", "40"))
# What the scrape of a cluster puts on every series.
LABELS = {"namespace": "shop", "pod": "web-1"}
VARIABLES = {
    "service": "orders.shop",
    "workload": "web",
    "qrep": "source|destination",
    "__rate_interval": "1m",
    "__interval": "1m",
}
CALLED = {"service": "web"}


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        length = int(self.headers.get("content-length", 0))
        self.rfile.read(length)
        status = int(self.path.strip("/").split("/")[0] or 200)
        body = b"x" * 500
        self.send_response(status)
        if status == 302:
            self.send_header("location", "/200")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_):
        pass


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        try:
            while data := self.request.recv(4096):
                self.request.sendall(data)
        except ConnectionError:
            pass


def server(kind, handler):
    kind.allow_reuse_address = True
    kind.daemon_threads = True
    running = kind(("127.0.0.1", 0), handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    return running.server_address[1]


def config(names, folder, ports):
    key, cert, ca = f"{folder}/tls.key", f"{folder}/tls.crt", f"{folder}/ca.crt"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
    signed = ["-CA", ca, "-CAkey", f"{folder}/ca.key", "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:web"]
    for more in (["-subj", "/CN=ca", "-keyout", f"{folder}/ca.key", "-out", ca], ["-subj", "/CN=web", "-keyout", key, "-out", cert, *signed]):
        subprocess.run(make + more, check=True, capture_output=True)
    tls = f"tls: {{ certificate: {cert}, key: {key}, client_ca: {ca} }}"
    named = "names: istio, workload: web, namespace: shop" if names == "istio" else "names: envoy"
    orders = "orders.shop" if names == "istio" else "httproute/shop/orders/rule/0"
    return f"""
admin: off
metrics: {{ bind: "127.0.0.1:{ports['metrics']}", {named} }}
listeners:
  http-out: {{ bind: "127.0.0.1:{ports['out']}", to: {orders} }}
  inbound: {{ bind: "127.0.0.1:{ports['in']}", {tls}, to: web.shop }}
  bytes: {{ bind: "127.0.0.1:{ports['tcp']}", protocol: tcp, to: db.shop }}
  inbound-bytes: {{ bind: "127.0.0.1:{ports['tcp_in']}", {tls}, protocol: tcp, to: web-db.shop }}
  inbound-plaintext: {{ bind: "127.0.0.1:{ports['plaintext']}", to: web.shop }}
  inbound-plaintext-bytes: {{ bind: "127.0.0.1:{ports['tcp_plaintext']}", protocol: tcp, to: web-db.shop }}
upstreams:
  {orders}: {{ address: "http://127.0.0.1:{ports['app']}" }}
  web.shop: {{ address: "http://127.0.0.1:{ports['app']}" }}
  db.shop: {{ address: "tcp://127.0.0.1:{ports['echo']}" }}
  web-db.shop: {{ address: "tcp://127.0.0.1:{ports['echo']}" }}
"""


def traffic(ports, folder):
    turn = 0
    # Some of those who call the workload speak mutual TLS.
    context = ssl.create_default_context(cafile=f"{folder}/ca.crt")
    context.check_hostname = False
    context.load_cert_chain(f"{folder}/tls.crt", f"{folder}/tls.key")
    while True:
        for port in (ports["out"], ports["in"], ports["plaintext"]):
            status = (200, 200, 404, 503, 302)[turn % 5]
            scheme = "https" if port == ports["in"] else "http"
            request = urllib.request.Request(f"{scheme}://127.0.0.1:{port}/{status}", data=b"y" * 200)
            opener = urllib.request.build_opener(NoRedirects, urllib.request.HTTPSHandler(context=context))
            try:
                opener.open(request, timeout=5).read()
            except OSError:
                pass
        for port in (ports["tcp"], ports["tcp_in"], ports["tcp_plaintext"]):
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
                    connection = context.wrap_socket(plain) if port == ports["tcp_in"] else plain
                    connection.sendall(b"hello")
                    connection.recv(100)
            except OSError:
                # The end of the run.
                return
        turn += 1
        time.sleep(0.1)


class NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def queries(path):
    found = []

    def walk(node):
        if isinstance(node, dict):
            if isinstance(node.get("expr"), str) and node["expr"] not in found:
                found.append(node["expr"])
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    with open(path, encoding="utf-8") as file:
        walk(json.load(file))
    return found


def filled(query, variables):
    put = lambda match: variables.get(match.group(1) or match.group(2), ".*")
    return re.sub(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)", put, query)


def ask(port, query):
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    try:
        answer = json.load(urllib.request.urlopen(url, timeout=20))
    except urllib.error.HTTPError as error:
        return error.read().decode()[:200]
    values = [sample["value"][1] for sample in answer["data"]["result"]]
    return None if any(value not in ("NaN",) for value in values) else f"{len(values)} series"


def main():
    names, attache, dashboards = sys.argv[1], sys.argv[2], sys.argv[3:]
    processes = []
    with tempfile.TemporaryDirectory() as folder:
        ports = {name: free_port() for name in ("metrics", "out", "in", "tcp", "tcp_in", "plaintext", "tcp_plaintext", "prometheus")}
        ports["app"] = server(http.server.ThreadingHTTPServer, Answers)
        ports["echo"] = server(socketserver.ThreadingTCPServer, Echo)
        with open(f"{folder}/attache.yaml", "w", encoding="utf-8") as file:
            file.write(config(names, folder, ports))
        target = json.dumps([{"targets": [f"127.0.0.1:{ports['metrics']}"], "labels": LABELS}])
        with open(f"{folder}/prometheus.yml", "w", encoding="utf-8") as file:
            file.write(f"global: {{scrape_interval: 2s}}\nscrape_configs: [{{job_name: attache, static_configs: {target}}}]\n")
        try:
            log = open(f"{folder}/log", "wb")
            processes.append(subprocess.Popen([attache, "run", "-c", f"{folder}/attache.yaml"], stdout=log, stderr=log))
            data = [f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{ports['prometheus']}"]
            processes.append(subprocess.Popen(["prometheus", f"--config.file={folder}/prometheus.yml", *data], stdout=log, stderr=log))
            time.sleep(3)
            threading.Thread(target=traffic, args=(ports, folder), daemon=True).start()
            time.sleep(SECONDS)
            missing = 0
            for path in dashboards:
                all_of = queries(path)
                without = []
                for query in all_of:
                    # A dashboard is of one service: of the one that is called, and of the one that calls.
                    ways = [VARIABLES, {**VARIABLES, **CALLED}]
                    found = [ask(ports["prometheus"], filled(query, variables)) for variables in ways]
                    if all(found):
                        without.append((query, found[0]))
                print(f"{os.path.basename(path)}: {len(all_of) - len(without)} of {len(all_of)} queries have data")
                for query, why in without:
                    print(f"  none ({why}): {query}")
                missing += len(without)
            return min(missing, 100)
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                process.wait(timeout=20)
            if processes and processes[0].returncode:
                sys.stderr.write(open(f"{folder}/log", encoding="utf-8").read()[-3000:])


if __name__ == "__main__":
    sys.exit(main())
