"""What the scripts that run attache beside Envoy share: free ports, stubs in place of applications, and waiting for both."""
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Stub(BaseHTTPRequestHandler):
    """Answers every method by `answer`, which is 200 without a body."""
    protocol_version = "HTTP/1.1"

    def answer(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def do(self):
        self.answer()

    do_GET = do_POST = do_HEAD = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = do

    def log_message(self, *_):
        pass


def serve(stub):
    """Serves a stub until the script ends; its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), stub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def cluster(name, at, **more):
    """A cluster of Envoy with one endpoint on loopback."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": at}}
    return {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": {
        "cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}, **more}


def wait_for(ports, log):
    """Waits until something listens on each of these ports."""
    for at in ports:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", at)).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise SystemExit(f"port {at} does not listen:\n{log.read_text()[-2000:]}")
