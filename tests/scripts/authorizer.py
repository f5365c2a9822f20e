"""An authorizer over protobuf's own messages, by gRPC and by HTTP: authorizer.py HOST GRPC_PORT HTTP_PORT

The path says what it answers. What it was asked is printed, a JSON object a line.
"""
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from grpc_service import message_classes, serve

# envoy/service/auth/v3/{external_auth,attribute_context}.proto and what they import, with the field numbers that stand there.
MESSAGES = {
    "Entry": ["key 1 string", "value 2 string"],
    "SocketAddress": ["protocol 1 int32", "address 2 string", "port_value 3 uint32"],
    "Address": ["socket_address 1 SocketAddress"],
    "Peer": ["address 1 Address", "service 2 string", "principal 4 string", "certificate 5 string"],
    "Timestamp": ["seconds 1 int64", "nanos 2 int32"],
    "HttpRequest": ["id 1 string", "method 2 string", "headers 3* Entry", "path 4 string", "host 5 string", "scheme 6 string",
                    "query 7 string", "fragment 8 string", "size 9 int64", "protocol 10 string", "body 11 string", "raw_body 12 bytes"],
    "Request": ["time 1 Timestamp", "http 2 HttpRequest"],
    "TlsSession": ["sni 1 string"],
    "AttributeContext": ["source 1 Peer", "destination 2 Peer", "request 4 Request", "context_extensions 10* Entry",
                         "tls_session 12 TlsSession"],
    "CheckRequest": ["attributes 1 AttributeContext"],
    "Status": ["code 1 int32", "message 2 string"],
    "HttpStatus": ["code 1 int32"],
    "BoolValue": ["value 1 bool"],
    "HeaderValue": ["key 1 string", "value 2 string", "raw_value 3 bytes"],
    "HeaderValueOption": ["header 1 HeaderValue", "append 2 BoolValue", "append_action 3 int32"],
    "DeniedHttpResponse": ["status 1 HttpStatus", "headers 2* HeaderValueOption", "body 3 string"],
    "QueryParameter": ["key 1 string", "value 2 string"],
    "OkHttpResponse": ["headers 2* HeaderValueOption", "headers_to_remove 5* string", "response_headers_to_add 6* HeaderValueOption",
                       "query_parameters_to_set 7* QueryParameter", "query_parameters_to_remove 8* string"],
    "CheckResponse": ["status 1 Status", "denied_response 2 DeniedHttpResponse", "ok_response 3 OkHttpResponse"],
}

REQUEST, RESPONSE = message_classes("auth", MESSAGES, ["CheckRequest", "CheckResponse"])


#: Checks come at once, each in its own thread: `print` writes a text and its end of line apart, and two lines would stand in one.
LINE = threading.Lock()


def say(**what):
    with LINE:
        print(json.dumps(what, sort_keys=True), flush=True)


def add(options, name, value, action=None):
    option = options.add()
    option.header.key, option.header.value = name, value
    if action is not None:
        option.append_action = action


def check(request, context):
    attributes = request.attributes
    http = attributes.request.http
    headers = {entry.key: entry.value for entry in http.headers}
    source, to = attributes.source, attributes.destination
    say(form="grpc", method=http.method, path=http.path, host=http.host, scheme=http.scheme, headers=headers, body=http.body,
        raw=http.raw_body.hex(), size=http.size, source=source.address.socket_address.address, principal=source.principal,
        port=to.address.socket_address.port_value, context={entry.key: entry.value for entry in attributes.context_extensions},
        opaque=not attributes.request.HasField("http"))
    answer = RESPONSE()
    path = http.path.partition("?")[0]
    if path == "/slow":
        time.sleep(3)
    if path == "/fail":
        context.abort(grpc.StatusCode.UNAVAILABLE, "not today")
    if path == "/denied":
        answer.status.code, answer.status.message = 7, "the policy says no"
        answer.denied_response.status.code = 401
        answer.denied_response.body = "who are you?\n"
        for name, value in [("www-authenticate", "Negotiate"), ("set-cookie", "a=1"), ("set-cookie", "b=2"), ("x-hidden", "1")]:
            add(answer.denied_response.headers, name, value)
    elif path == "/bare":
        answer.status.code = 16
    elif path == "/login":
        answer.status.code = 7
        answer.denied_response.status.code = 302
        add(answer.denied_response.headers, "location", "https://id.test/")
    elif path.startswith("/status/"):
        answer.status.code = 7
        answer.denied_response.status.code = int(path.removeprefix("/status/"))
        answer.denied_response.body = "HTTP/1.1 299 Split\r\ncontent-length: 0\r\n\r\n"
        for name in ("transfer-encoding", "content-length", "Transfer_Encoding", "trailer", "connection", "keep-alive", ":status"):
            add(answer.denied_response.headers, name, "chunked")
    elif path == "/huge":
        answer.status.code = 7
        answer.denied_response.body = "x" * (2 << 20)
    elif path == "/many":
        for number in range(60_000):
            add(answer.ok_response.headers, "x-user", f"{number:020}")
    elif path == "/split":
        add(answer.ok_response.headers, "x-user", "ann\r\nx-admin: 1", 2)
    elif path == "/context":
        tiers = [entry.value for entry in attributes.context_extensions if entry.key == "tier"]
        add(answer.ok_response.headers, "x-user", tiers[0] if tiers else "none", 2)
    elif path == "/body":
        add(answer.ok_response.headers, "x-user", f"{http.body} {headers.get('x-envoy-auth-partial-body')}", 2)
    elif path == "/user":
        ok = answer.ok_response
        add(ok.headers, "x-user", "ann", 2)
        add(ok.headers, "x-not-listed", "1", 2)
        add(ok.headers, "content-length", "0", 2)
        ok.headers_to_remove.extend(["x-debug", "host", "content-length"])
        add(ok.response_headers_to_add, "x-checked", "yes", 2)
        ok.query_parameters_to_set.add(key="team", value="a&b")
        ok.query_parameters_to_remove.append("role")
    return answer


class ByHttp(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        say(form="http", method=self.command, path=self.path, headers={k.lower(): v for k, v in self.headers.items()}, body=body.decode())
        path = self.path.partition("?")[0].removeprefix("/check")
        status, headers, text = {
            "/denied": (401, {"www-authenticate": "Negotiate", "x-hidden": "1"}, "who are you?\n"),
            "/login": (302, {"location": "https://id.test/"}, ""),
            "/fail": (503, {}, "not today"),
            "/created": (201, {}, "not 200"),
            "/body": (200, {"x-user": f"{body.decode()} {self.headers.get('x-envoy-auth-partial-body')}"}, ""),
        }.get(path, (200, {"x-user": "ann", "x-not-listed": "1", "set-cookie": "seen=1"}, "fine"))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())

    do_GET = do_POST = do_HEAD = do_PUT = do_DELETE = do_OPTIONS = answer

    def log_message(self, *_):
        pass


def main():
    host, grpc_port, http_port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    web = ThreadingHTTPServer((host, http_port), ByHttp)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    serve(f"{host}:{grpc_port}", "envoy.service.auth.v3.Authorization", "Check", check, REQUEST, RESPONSE)


main()
