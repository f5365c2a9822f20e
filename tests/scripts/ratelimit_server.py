"""A rate limit service over protobuf's own messages: ratelimit_server.py HOST PORT

Each descriptor may be asked for as often as its last entry's value says behind a dash, `ann-3` for example.
"""
import sys
import time
from collections import Counter
from concurrent import futures

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, message_factory

F = descriptor_pb2.FieldDescriptorProto
KINDS = {"string": F.TYPE_STRING, "uint32": F.TYPE_UINT32, "bytes": F.TYPE_BYTES}


def add_field(message, name, number, kind, repeated=False):
    field = message.field.add(name=name, number=number)
    field.label = F.LABEL_REPEATED if repeated else F.LABEL_OPTIONAL
    if kind in KINDS:
        field.type = KINDS[kind]
    elif kind.startswith("enum "):
        field.type, field.type_name = F.TYPE_ENUM, kind[5:]
    else:
        field.type, field.type_name = F.TYPE_MESSAGE, kind


def messages():
    """envoy/service/ratelimit/v3/rls.proto and what it imports, with the field numbers that stand there."""
    file = descriptor_pb2.FileDescriptorProto(name="rls.proto", package="rls", syntax="proto3")
    file.dependency.append("google/protobuf/duration.proto")
    entry = file.message_type.add(name="Entry")
    add_field(entry, "key", 1, "string")
    add_field(entry, "value", 2, "string")
    descriptor = file.message_type.add(name="Descriptor")
    add_field(descriptor, "entries", 1, ".rls.Entry", True)
    request = file.message_type.add(name="Request")
    add_field(request, "domain", 1, "string")
    add_field(request, "descriptors", 2, ".rls.Descriptor", True)
    add_field(request, "hits_addend", 3, "uint32")
    code = file.enum_type.add(name="Code")
    for number, name in enumerate(["UNKNOWN", "OK", "OVER_LIMIT"]):
        code.value.add(name=name, number=number)
    limit = file.message_type.add(name="Limit")
    add_field(limit, "requests_per_unit", 1, "uint32")
    add_field(limit, "unit", 2, "uint32")
    add_field(limit, "name", 3, "string")
    status = file.message_type.add(name="Status")
    add_field(status, "code", 1, "enum .rls.Code")
    add_field(status, "current_limit", 2, ".rls.Limit")
    add_field(status, "limit_remaining", 3, "uint32")
    add_field(status, "duration_until_reset", 4, ".google.protobuf.Duration")
    header = file.message_type.add(name="Header")
    add_field(header, "key", 1, "string")
    add_field(header, "value", 2, "string")
    add_field(header, "raw_value", 3, "bytes")
    response = file.message_type.add(name="Response")
    add_field(response, "overall_code", 1, "enum .rls.Code")
    add_field(response, "statuses", 2, ".rls.Status", True)
    add_field(response, "response_headers_to_add", 3, ".rls.Header", True)
    add_field(response, "request_headers_to_add", 4, ".rls.Header", True)
    pool = descriptor_pool.Default()
    pool.Add(file)
    factory = message_factory.MessageFactory(pool)
    return [factory.GetPrototype(pool.FindMessageTypeByName(f"rls.{name}")) for name in ("Request", "Response")]


REQUEST, RESPONSE = messages()
assert duration_pb2  # The pool needs it.
SEEN = Counter()
OK, OVER_LIMIT = 1, 2


def should_rate_limit(request, context):
    response = RESPONSE(overall_code=OK)
    for descriptor in request.descriptors:
        entries = tuple((entry.key, entry.value) for entry in descriptor.entries)
        # One text with its end of line: `print` writes the two apart, and another thread's line could come between.
        sys.stdout.write(f"{request.domain} {entries} {request.hits_addend}\n")
        sys.stdout.flush()
        value = entries[-1][1]
        digits = value.rpartition("-")[2] if "-" in value else ""
        limit = int(digits or 1000)
        key = (request.domain, entries)
        SEEN[key] += request.hits_addend
        status = response.statuses.add(code=OK, limit_remaining=max(0, limit - SEEN[key]))
        status.current_limit.requests_per_unit = limit
        status.current_limit.unit = 2
        status.duration_until_reset.seconds = 42
        if SEEN[key] > limit:
            status.code = response.overall_code = OVER_LIMIT
    response.response_headers_to_add.add(key="x-limited-by", value="the service")
    response.request_headers_to_add.add(key="x-counted", raw_value=b"yes")
    return response


def main():
    handler = grpc.unary_unary_rpc_method_handler(
        should_rate_limit, request_deserializer=REQUEST.FromString, response_serializer=RESPONSE.SerializeToString
    )
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    service = "envoy.service.ratelimit.v3.RateLimitService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"ShouldRateLimit": handler}),))
    server.add_insecure_port(f"{sys.argv[1]}:{sys.argv[2]}")
    server.start()
    while True:
        time.sleep(3600)


main()
