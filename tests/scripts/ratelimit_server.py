"""A rate limit service over protobuf's own messages: ratelimit_server.py HOST PORT

Each descriptor may be asked for as often as its last entry's value says behind a dash, `ann-3` for example.
"""
import sys
from collections import Counter

from grpc_service import message_classes, serve

# envoy/service/ratelimit/v3/rls.proto and what it imports, with the field numbers that stand there. An enum is an int32.
MESSAGES = {
    "Entry": ["key 1 string", "value 2 string"],
    "Descriptor": ["entries 1* Entry"],
    "Request": ["domain 1 string", "descriptors 2* Descriptor", "hits_addend 3 uint32"],
    "Limit": ["requests_per_unit 1 uint32", "unit 2 uint32", "name 3 string"],
    "Duration": ["seconds 1 int64", "nanos 2 int32"],
    "Status": ["code 1 int32", "current_limit 2 Limit", "limit_remaining 3 uint32", "duration_until_reset 4 Duration"],
    "Header": ["key 1 string", "value 2 string", "raw_value 3 bytes"],
    "Response": ["overall_code 1 int32", "statuses 2* Status", "response_headers_to_add 3* Header", "request_headers_to_add 4* Header"],
}
REQUEST, RESPONSE = message_classes("rls", MESSAGES, ["Request", "Response"])
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


if __name__ == "__main__":
    address = f"{sys.argv[1]}:{sys.argv[2]}"
    serve(address, "envoy.service.ratelimit.v3.RateLimitService", "ShouldRateLimit", should_rate_limit, REQUEST, RESPONSE)
