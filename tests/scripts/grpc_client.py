"""Calls every kind of gRPC method, with deadline and cancellation: grpc_client.py HOST:PORT AUTHORITY"""
import ast
import queue
import sys
import time

import grpc

channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.default_authority", sys.argv[2])])
unary = channel.unary_unary("/test.Echo/Unary")
server_stream = channel.unary_stream("/test.Echo/ServerStream")
client_stream = channel.stream_unary("/test.Echo/ClientStream")
both = channel.stream_stream("/test.Echo/Both")
slow = channel.unary_unary("/test.Echo/Slow")


def seen():
    return ast.literal_eval(channel.unary_unary("/test.Echo/Seen")(b"", timeout=20).decode())


# Unary, with trailers and with an error status and its text.
answer, call = unary.with_call(b"abc", timeout=20)
assert answer == b"cba", answer
assert dict(call.trailing_metadata())["x-trailer"] == "kept"
try:
    unary(b"abc", metadata=(("x-want-status", "FAILED_PRECONDITION"),), timeout=20)
    raise AssertionError("no error")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
    assert error.details() == "as you wished: é", error.details()

# A message larger than every window.
large = bytes(range(256)) * 8192
assert unary(large, timeout=60) == large[::-1]

# Streams.
assert [int(n) for n in server_stream(b"1000", timeout=20)] == list(range(1000))
assert client_stream((b"x" * 1000 for _ in range(500)), timeout=20) == b"500000"

# Both ways, in step: each answer is read before the next message is sent, so nothing may be held back.
messages = queue.Queue()
answers = both(iter(messages.get, None), timeout=20)
for n in range(200):
    messages.put(f"message {n}".encode())
    assert next(answers) == f"MESSAGE {n}".encode()
messages.put(None)
assert list(answers) == []

# A deadline is passed on, and ends the call here and there.
try:
    slow(b"15", timeout=1.5)
    raise AssertionError("no deadline")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
deadline = time.monotonic() + 20
while seen()["cancelled"] < 1:
    assert time.monotonic() < deadline, "the server was never told"
    time.sleep(0.02)
# The client itself rounds up by as much as a hundredth.
assert 0 < seen()["deadline"] <= 1.52, seen()

# A cancellation reaches the server.
future = slow.future(b"15", timeout=60)
time.sleep(0.3)
future.cancel()
while seen()["cancelled"] < 2:
    assert time.monotonic() < deadline + 20, "the server was never told"
    time.sleep(0.02)
print("unary, errors, large, server, client and two-way streams, deadline, cancellation: ok")
