//! What is sent to a collector by OTLP, over HTTP or gRPC (<https://opentelemetry.io/docs/specs/otlp/>): one connection, one export at a
//! time for each signal.
//!
//! Rule: nothing here is in the way of traffic. Exports run on the control thread; a collector that is slow or away costs spans and log
//! records, which are counted, never requests or memory without bound.
//!
//! The client is attache's own small one (`attache-rpc`): OpenTelemetry's exporters bring another HTTP client or gRPC stack
//! along.

mod attributes;
mod client;
mod ending;
mod log_records;
mod logs;
mod metrics;
mod own_log;
mod refusal;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use attributes::{Attributes, method_word, nanos, resource, scope, version_word};
pub use client::{Dial, DialFuture};
pub(crate) use client::{Exporter, Rejected};
pub use ending::Ending;
pub use logs::{LogExports, OtlpLogger, OtlpLogs};
pub use metrics::MetricExports;
pub(crate) use own_log::OwnLog;
