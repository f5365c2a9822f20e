//! What attache says about itself: [`Reason`]s, metrics, the access log, traces and the program's own log.

mod access_log;
#[cfg(test)]
mod docs;
mod escape;
mod exchange;
mod grpc;
mod log;
mod metrics;
mod otlp;
mod outages;
mod reason;
mod snapshot;
mod sync;
mod text;
mod trace;
mod warnings;
mod watch;

/// A point in time as RFC 3339 text in UTC, with milliseconds: `2026-11-21T08:00:00.123Z`.
pub fn rfc3339(at: std::time::SystemTime) -> String {
    access_log::LogTimestamp(at).to_string()
}

pub use access_log::{AccessLogError, AccessLogHandle, AccessLogger};
pub use exchange::Exchange;
pub use grpc::{grpc_as_http, grpc_code};
pub use log::{LogControl, LoggingError, init_logging};
pub use metrics::{
    AdmissionCounts, CertificateSide, DecisionCounter, EndpointCounts, HedgeEnd, IdentityCheckResult,
    IdentityProof, METRICS_CONTENT_TYPE, Metrics, NamingScheme, OPENMETRICS_CONTENT_TYPE, OverloadGauges,
    Stats, WorkerMetrics, log_client_errors, metrics,
};
pub use otlp::{Dial, DialFuture, ExportHandle, LogExports, MetricExports, OtlpLogHandle, OtlpLogger};
pub use outages::log_outages;
pub use reason::{Class, Reason};
pub use text::SharedText;
pub use trace::{
    AttemptTrace, ConnectingSpan, RequestTrace, SpanId, TraceExports, TraceId, Tracer, Traces,
    check_trace_context, finish_trace,
};
pub use warnings::Warnings;
pub use watch::{
    ChangeEvent, ExchangeRecord, FailureGroup, FailureKind, OpenTap, SeenHeaders, TapFilter, TapResult, Watch,
};
