"""An OTLP receiver: OpenTelemetry's own protobuf messages and gRPC service (PyPI: opentelemetry-proto), http or grpc.

Prints every span that it is sent as one line of JSON. The third argument is `http` or `grpc`; a fourth one, STATUS, is what the
first export is answered with (http only).
"""

import json
import sys
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages

address, port, protocol = sys.argv[1], int(sys.argv[2]), sys.argv[3]
refusals = [int(status) for status in sys.argv[4:]]


def value(any_value):
    kind = any_value.WhichOneof("value")
    return getattr(any_value, kind) if kind else None


def attributes(of):
    return {pair.key: value(pair.value) for pair in of}


def show(request, headers):
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                print(
                    json.dumps(
                        {
                            "trace": span.trace_id.hex(),
                            "id": span.span_id.hex(),
                            "parent": span.parent_span_id.hex(),
                            "state": span.trace_state,
                            "name": span.name,
                            "kind": MessageToDict(span).get("kind"),
                            "start": span.start_time_unix_nano,
                            "end": span.end_time_unix_nano,
                            "attributes": attributes(span.attributes),
                            "events": [event.name for event in span.events],
                            "error": span.status.code == 2,
                            "message": span.status.message,
                            "resource": attributes(resource.resource.attributes),
                            "scope": scope.scope.name,
                            "headers": headers,
                        }
                    ),
                    flush=True,
                )


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        status = refusals.pop(0) if refusals else 200
        right = self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
        if status == 200 and right:
            show(messages.ExportTraceServiceRequest.FromString(body), {k.lower(): v for k, v in self.headers.items()})
        answer = messages.ExportTraceServiceResponse().SerializeToString()
        self.send_response(status if right else 400)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def serve_grpc():
    import grpc
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services

    class Traces(services.TraceServiceServicer):
        def Export(self, request, context):
            show(request, dict(context.invocation_metadata()))
            return messages.ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(4))
    services.add_TraceServiceServicer_to_server(Traces(), server)
    server.add_insecure_port(f"{address}:{port}")
    server.start()
    server.wait_for_termination()


if protocol == "grpc":
    serve_grpc()
else:
    ThreadingHTTPServer((address, port), Http).serve_forever()
