"""A gRPC server with all four kinds of methods, over raw bytes so that no code is generated: grpc_server.py HOST PORT"""
import sys
import threading
import time
from concurrent import futures

import grpc

# What the slow method saw of its callers, so that a client can ask.
SEEN = {"cancelled": 0, "deadline": 0.0}


def unary(request, context):
    for key, value in context.invocation_metadata():
        if key == "x-want-status":
            context.abort(grpc.StatusCode[value], "as you wished: é")
    context.set_trailing_metadata((("x-trailer", "kept"),))
    return request[::-1]


def server_stream(request, context):
    for n in range(int(request)):
        yield str(n).encode()


def client_stream(requests, context):
    return str(sum(len(r) for r in requests)).encode()


def both(requests, context):
    for request in requests:
        yield request.upper()


def slow(request, context):
    SEEN["deadline"] = context.time_remaining() or 0.0
    gone = threading.Event()
    context.add_callback(gone.set)
    if gone.wait(float(request)):
        SEEN["cancelled"] += 1
    return b"done"


def seen(request, context):
    return repr(SEEN).encode()


def health(request, context):
    """grpc.health.v1: HealthCheckRequest { service = 1 } to HealthCheckResponse { status = 1 }."""
    service = request[2:].decode()
    if service == "unknown":
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return bytes([8, 2 if service == "sick" else 1])


def main():
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "Both": grpc.stream_stream_rpc_method_handler(both),
        "Slow": grpc.unary_unary_rpc_method_handler(slow),
        "Seen": grpc.unary_unary_rpc_method_handler(seen),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    check = {"Check": grpc.unary_unary_rpc_method_handler(health)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", check),))
    server.add_insecure_port(f"{sys.argv[1]}:{sys.argv[2]}")
    server.start()
    while True:
        time.sleep(3600)


main()
