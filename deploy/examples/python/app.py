"""A web shop's front in Python's standard library: every call to another service goes to attache on localhost.

It knows no address, no certificate and no retry: ORDERS_URL is attache, the Host header says which service is meant.
"""

import http.server
import json
import os
import urllib.error
import urllib.request

ORDERS = os.environ.get("ORDERS_URL", "http://localhost:15001")
PORT = int(os.environ.get("PORT", "8080"))


def orders(customer: str) -> dict:
    request = urllib.request.Request(f"{ORDERS}/v1/orders?customer={customer}", headers={"Host": "orders"})
    # attache has the deadlines; this one only bounds what would be a defect.
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


class Front(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        try:
            status, body = 200, {"customer": "ann", "orders": orders("ann")}
        except urllib.error.HTTPError as error:
            # One word that says why, and what attache knows about it: docs/reasons.md.
            status, body = 502, {"reason": error.headers.get("x-attache-reason"), "status": error.code}
        except OSError as error:
            status, body = 503, {"reason": f"attache isn't there: {error}"}
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Front).serve_forever()
