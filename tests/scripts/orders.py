"""orders.py ADDRESS PORT: a service that has one order for everybody who asks in the right way."""

import http.server
import json
import sys


class Orders(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        right = self.headers["host"] == "orders" and self.path.startswith("/v1/orders?customer=")
        body = json.dumps([{"id": 1, "item": "a lamp"}] if right else {"wrong": [self.headers["host"], self.path]}).encode()
        self.send_response(200 if right else 400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Orders).serve_forever()
