"""A SPIFFE Workload API that gives everybody the same SVID: spiffe_agent.py SOCKET SPIFFE_ID CERTIFICATE KEY BUNDLE (PEM files)

When CERTIFICATE is replaced (write KEY and BUNDLE first), the new SVID is streamed to all who listen.
"""
import base64
import os
import sys
import threading
from concurrent import futures

import grpc

path, spiffe_id, certificate, key, bundle = sys.argv[1:]


def der(file):
    with open(file, encoding="ascii") as pem:
        lines = [line for line in pem.read().splitlines() if line and not line.startswith("-----")]
    return base64.b64decode("".join(lines))


def field(number, value):
    length, size = b"", len(value)
    while size > 0x7F:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + value


def fetch(request, context):
    if ("workload.spiffe.io", "true") not in tuple(context.invocation_metadata()):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing")
    gone = threading.Event()
    context.add_callback(gone.set)
    seen = None
    while not gone.is_set():
        now = os.stat(certificate)
        if (now.st_ino, now.st_mtime_ns) != seen:
            seen = now.st_ino, now.st_mtime_ns
            bundles = b"".join(der(file) for file in bundle.split(","))
            svid = field(1, spiffe_id.encode()) + field(2, der(certificate)) + field(3, der(key)) + field(4, bundles)
            yield field(1, svid)
        gone.wait(0.05)


handler = grpc.method_handlers_generic_handler(
    "SpiffeWorkloadAPI", {"FetchX509SVID": grpc.unary_stream_rpc_method_handler(fetch)}
)
server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
server.add_generic_rpc_handlers((handler,))
server.add_insecure_port(f"unix:{path}")
server.start()
server.wait_for_termination()
