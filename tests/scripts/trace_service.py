"""The service that W3C's trace-context suite asks for: it calls the URLs that it is told to, with the trace's headers that it got: trace_service.py PORT PROXY_PORT

Its calls go through the proxy on PROXY_PORT, each with the headers of the request that it serves.
"""

import http.server
import json
import sys
import urllib.request

NAMES = ("traceparent", "tracestate")
PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({"http": f"http://127.0.0.1:{sys.argv[2]}"}))


class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["content-length"])))
        for one in told:
            request = urllib.request.Request(one["url"], json.dumps(one["arguments"]).encode(), {"content-type": "application/json"})
            for name in NAMES:
                # A list field in several lines is one (RFC 9110 section 5.3).
                if values := self.headers.get_all(name):
                    request.add_header(name, ",".join(values))
            PROXY.open(request, timeout=5).read()
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
