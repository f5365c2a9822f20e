//! Sends data to a collector by OTLP, over HTTP or gRPC (<https://opentelemetry.io/docs/specs/otlp/>). Each signal has one connection, and
//! one export at a time.
//!
//! Rule: exports never delay traffic. They run on the control thread. A collector that is slow or unreachable costs spans and log records,
//! which are counted; it never costs requests or unlimited memory.
//!
//! The client is attache's own small one (`attache-rpc`): OpenTelemetry's exporters would add another HTTP client or gRPC stack.

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
pub(crate) use client::{Exporter, PartialSuccess};
pub use ending::ExportHandle;
pub use logs::{LogExports, OtlpLogHandle, OtlpLogger};
pub use metrics::MetricExports;
pub(crate) use own_log::OwnLog;
