"""An OTLP receiver: OpenTelemetry's own protobuf messages and gRPC service (PyPI: opentelemetry-proto), http or grpc.

Prints every span, metric and log record that it is sent as one line of JSON. The third argument is `http` or `grpc`; each further one,
STATUS, is what an export is answered with before the first good answer (http only). `reject` among them answers logs with a partial success.
"""

import gzip
import json
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as log_messages
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metric_messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages

address, port, protocol = sys.argv[1], int(sys.argv[2]), sys.argv[3]
refusals = [int(status) for status in sys.argv[4:] if status != "reject"]
reject = "reject" in sys.argv


#: Exports come at once, each in its own thread: `print` writes a text and its end of line apart, and two lines would stand in one.
LINE = threading.Lock()


def tell(what):
    with LINE:
        print(json.dumps(what), flush=True)


def value(any_value):
    kind = any_value.WhichOneof("value")
    return getattr(any_value, kind) if kind else None


def attributes(of):
    return {pair.key: value(pair.value) for pair in of}


def show(request, headers):
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                tell(
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
                )


def point(of):
    told = {"attributes": attributes(of.attributes), "start": of.start_time_unix_nano, "time": of.time_unix_nano}
    if hasattr(of, "bucket_counts"):
        return told | {
            "count": of.count,
            "sum": of.sum,
            "buckets": list(of.bucket_counts),
            "bounds": list(of.explicit_bounds),
        }
    return told | {"value": of.as_double}


def show_metrics(request, headers):
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                data = getattr(metric, kind)
                told = {
                    "signal": "metric",
                    "name": metric.name,
                    "unit": metric.unit,
                    "kind": kind,
                    "temporality": getattr(data, "aggregation_temporality", None),
                    "monotonic": getattr(data, "is_monotonic", None),
                    "points": [point(of) for of in data.data_points],
                    "resource": attributes(resource.resource.attributes),
                    "headers": headers,
                }
                tell(told)


def show_logs(request, headers):
    for resource in request.resource_logs:
        for scope in resource.scope_logs:
            for record in scope.log_records:
                told = {
                    "signal": "log",
                    "severity": record.severity_text,
                    "number": record.severity_number,
                    "body": value(record.body),
                    "trace": record.trace_id.hex(),
                    "span": record.span_id.hex(),
                    "attributes": attributes(record.attributes),
                    "resource": attributes(resource.resource.attributes),
                    "headers": headers,
                }
                tell(told)


def answer_to_logs():
    answer = log_messages.ExportLogsServiceResponse()
    if reject:
        answer.partial_success.rejected_log_records = 1
        answer.partial_success.error_message = "one is too many"
    return answer


SIGNALS = {
    "/v1/traces": (messages.ExportTraceServiceRequest, show, messages.ExportTraceServiceResponse),
    "/v1/metrics": (
        metric_messages.ExportMetricsServiceRequest,
        show_metrics,
        metric_messages.ExportMetricsServiceResponse,
    ),
    "/v1/logs": (log_messages.ExportLogsServiceRequest, show_logs, answer_to_logs),
}


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        status = refusals.pop(0) if refusals else 200
        right = self.path in SIGNALS and self.headers["content-type"] == "application/x-protobuf"
        answer = b""
        if right:
            request, shown, response = SIGNALS[self.path]
            answer = response().SerializeToString()
            if status == 200:
                shown(request.FromString(body), {k.lower(): v for k, v in self.headers.items()})
        self.send_response(status if right else 400)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def serve_grpc():
    import grpc
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as log_services
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metric_services
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services

    class Traces(services.TraceServiceServicer):
        def Export(self, request, context):
            show(request, dict(context.invocation_metadata()))
            return messages.ExportTraceServiceResponse()

    class Metrics(metric_services.MetricsServiceServicer):
        def Export(self, request, context):
            show_metrics(request, dict(context.invocation_metadata()))
            return metric_messages.ExportMetricsServiceResponse()

    class Logs(log_services.LogsServiceServicer):
        def Export(self, request, context):
            show_logs(request, dict(context.invocation_metadata()))
            return answer_to_logs()

    server = grpc.server(futures.ThreadPoolExecutor(4))
    services.add_TraceServiceServicer_to_server(Traces(), server)
    metric_services.add_MetricsServiceServicer_to_server(Metrics(), server)
    log_services.add_LogsServiceServicer_to_server(Logs(), server)
    server.add_insecure_port(f"{address}:{port}")
    server.start()
    server.wait_for_termination()


if protocol == "grpc":
    serve_grpc()
else:
    ThreadingHTTPServer((address, port), Http).serve_forever()
