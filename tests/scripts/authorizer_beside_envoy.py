"""The same authorizer behind attache and behind Envoy: the same requests, and whether both answer the same.

authorizer_beside_envoy.py ATTACHE ENVOY
"""
import http.client
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from free_port import free_port
from beside_envoy import Stub, cluster, serve, wait_for

HERE = pathlib.Path(__file__).parent
FOLDER = pathlib.Path(tempfile.mkdtemp())
# What both are told of in these requests; the rest (date, server, via) is each one's own.
TOLD = ["www-authenticate", "location", "set-cookie", "x-checked", "x-hidden", "grpc-status", "grpc-message", "content-type", "content-length"]


class App(Stub):
    """Says what reached it."""

    def answer(self):
        if self.headers.get("transfer-encoding"):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path, _, query = self.path.partition("?")
        seen = {"method": self.command, "path": path, "query": sorted(query.split("&")), "user": self.headers.get_all("x-user"),
                "debug": self.headers.get("x-debug"), "token": self.headers.get("authorization"), "body": body.decode()}
        text = json.dumps(seen).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.send_header("content-type", "application/json")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)


def envoy_config(listen, app, grpc_port, http_port, form, mode):
    h2 = {"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}}}}}
    matcher = lambda *names: {"patterns": [{"exact": name} for name in names]}
    asked = {"@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz", "status_on_error": {"code": 503},
             "failure_mode_allow": mode == "open",
             "with_request_body": {"max_request_bytes": 16, "allow_partial_message": mode != "whole"}}
    if form == "grpc":
        asked["grpc_service"] = {"envoy_grpc": {"cluster_name": "grpc"}, "timeout": "1s"}
        asked["transport_api_version"] = "V3"
    else:
        asked["allowed_headers"] = matcher("authorization", "x-a")
        asked["http_service"] = {
            "server_uri": {"uri": f"http://127.0.0.1:{http_port}", "cluster": "http", "timeout": "1s"}, "path_prefix": "/check",
            "authorization_response": {"allowed_upstream_headers": matcher("x-user"),
                                       "allowed_client_headers_on_success": matcher("set-cookie")}}
    routes = [
        {"match": {"path": "/off"}, "route": {"cluster": "app"}, "typed_per_filter_config": {"envoy.filters.http.ext_authz": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute", "disabled": True}}},
        {"match": {"path": "/context"}, "route": {"cluster": "app"}, "typed_per_filter_config": {"envoy.filters.http.ext_authz": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
            "check_settings": {"context_extensions": {"tier": "gold"}}}}},
        {"match": {"path": "/own"}, "direct_response": {"status": 204}},
        {"match": {"prefix": "/"}, "route": {"cluster": "app"}}]
    hcm = {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
           "stat_prefix": "in", "normalize_path": True, "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
           "http_filters": [{"name": "envoy.filters.http.ext_authz", "typed_config": asked}, {"name": "envoy.filters.http.router", "typed_config": {
               "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}
    return {"static_resources": {"listeners": [{"name": "in", "address": {"socket_address": {"address": "127.0.0.1", "port_value": listen}},
            "filter_chains": [{"filters": [{"name": "hcm", "typed_config": hcm}]}]}],
            "clusters": [cluster("app", app), cluster("grpc", grpc_port, **h2), cluster("http", http_port)]}}


def attache_config(listen, app, grpc_port, http_port, form, mode):
    authorizer = {"service": form, "timeout": "1s", "upstream_headers": ["x-user"], "body": {"max": 16, "partial": mode != "whole"},
                  "failure_mode": "open" if mode == "open" else "closed"}
    if form == "http":
        authorizer |= {"protocol": "http", "path_prefix": "/check", "request_headers": ["authorization", "x-a"], "response_headers": ["set-cookie"]}
    return {"metrics": "off", "admin": "off", "listeners": {"in": {
        "bind": f"127.0.0.1:{listen}", "authorization": {"external": "it"}, "routes": [
            {"match": {"path": "/off"}, "to": "app", "authorization": {"external": "off"}},
            {"match": {"path": "/context"}, "to": "app", "authorization": {"external": {"authorizer": "it", "context": {"tier": "gold"}}}},
            {"match": {"path": "/own"}, "respond": 204}], "to": "app"}},
        "authorizers": {"it": authorizer},
        "upstreams": {"app": f"http://127.0.0.1:{app}", "grpc": f"h2c://127.0.0.1:{grpc_port}", "http": f"http://127.0.0.1:{http_port}"}}


def ask(listen, method, target, headers, body):
    connection = http.client.HTTPConnection("127.0.0.1", listen, timeout=20)
    connection.putrequest(method, target, skip_accept_encoding=True, skip_host=True)
    connection.putheader("host", "app.test")
    for name, value in headers:
        connection.putheader(name, value)
    if body is not None:
        connection.putheader("content-length", str(len(body)))
    connection.endheaders(body.encode() if body is not None else None)
    answer = connection.getresponse()
    text = answer.read().decode()
    fields = {name: answer.headers.get_all(name) for name in TOLD if answer.headers.get(name) is not None}
    if text.startswith("{"):
        text = json.loads(text)
        fields.pop("content-length", None)
    # attache says in words why it refuses by itself.
    if answer.headers.get("x-attache-reason") == "authorizer-unavailable" or answer.status == 413:
        text = ""
        fields.pop("content-type", None)
    if text == "":
        fields.pop("content-length", None)
    if isinstance(text, dict):
        # Envoy writes the value as it is, and so brings another parameter along.
        text["query"] = [pair for pair in text["query"] if pair not in ("b", "team=a", "team=a%26b")]
    return answer.status, fields, text


# A closed authorizer that is told of the begin of a body, an open one, and one that must have the whole body.
VARIANTS = [(form, mode) for mode in ("closed", "open", "whole") for form in ("grpc", "http")]
SPOOFED = [("X-User", "root"), ("X-Debug", "1"), ("Authorization", "Bearer t")]
REQUESTS = [
    ("GET", "/", [], None), ("GET", "/plain?a=1&role=x", [], None), ("HEAD", "/plain", [], None), ("DELETE", "/plain", [], None),
    ("POST", "/plain", [], "short"), ("POST", "/plain", [], "longer than sixteen bytes"), ("PUT", "/plain", [], ""),
    ("PATCH", "/plain", [("X-A", "1"), ("X-A", "2")], "x"), ("OPTIONS", "/plain", [], None),
    ("GET", "/user?role=x&a=1", [], None), ("POST", "/user?a=1&role=x&role=y", [("X-Debug", "1")], "abc"), ("GET", "/user", SPOOFED, None),
    ("GET", "/denied", [], None), ("GET", "/denied?x=1", SPOOFED, None), ("POST", "/denied", [], "body"), ("HEAD", "/denied", [], None),
    ("POST", "/denied", [("content-type", "application/grpc")], ""), ("GET", "/bare", [], None),
    ("GET", "/login", [], None), ("GET", "/login?back=%2F", [("Accept", "application/json")], None), ("GET", "/fail", [], None), ("GET", "/slow", [], None),
    ("GET", "/off", [("Authorization", "t")], None), ("POST", "/off", [], "longer than sixteen bytes"), ("GET", "/own", [], None),
    ("GET", "/context", [], None), ("GET", "/context?tier=lead", [("X-Attache-Context-Tier", "lead")], None),
    ("POST", "/body", [], "short"), ("POST", "/body", [], "exactly 16 bytes"), ("POST", "/body", [], "one byte too much"), ("GET", "/body", [], None),
    ("POST", "/denied", [], "longer than sixteen bytes"),
    ("GET", "/a/../denied", [], None), ("GET", "/x/%2e%2e/denied", [], None), ("GET", "/created", [], None), ("GET", "/%75ser", [], None),
]


def main():
    attache, envoy = sys.argv[1:3]
    app, grpc_port, http_port = serve(App), free_port(), free_port()
    log = open(FOLDER / "log", "w")
    programs = [subprocess.Popen(["/usr/bin/python3", HERE / "authorizer.py", "127.0.0.1", str(grpc_port), str(http_port)], stdout=log, stderr=log)]
    ports, same, others = {}, 0, 0
    try:
        for form, mode in VARIANTS:
            for name, make, command in [("attache", attache_config, [attache, "run", "--config"]), ("envoy", envoy_config, [envoy, "--base-id", str(free_port()), "-l", "error", "-c"])]:
                listen = ports[form, mode, name] = free_port()
                file = FOLDER / f"{name}-{form}-{mode}.yaml"
                file.write_text(json.dumps(make(listen, app, grpc_port, http_port, form, mode)))
                programs.append(subprocess.Popen([*command, str(file)], stdout=log, stderr=log))
        wait_for([grpc_port, http_port, *ports.values()], FOLDER / "log")
        time.sleep(1)
        for form, mode in VARIANTS:
            for request in REQUESTS:
                one, other = (ask(ports[form, mode, name], *request) for name in ("attache", "envoy"))
                equal = one == other
                same, others = same + equal, others + (not equal)
                print(f"{form:4} {mode:6} {request[0]:7} {request[1]:24} {len(request[2])} headers  {one[0]} {other[0]}  {'same' if equal else 'DIFFERENT'}")
                if not equal:
                    print("     attache", json.dumps(one), "\n     envoy  ", json.dumps(other))
        print(f"{same} the same, {others} different")
    finally:
        for program in programs:
            program.kill()


main()
