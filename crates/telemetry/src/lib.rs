//! What attache says about itself: [`Reason`]s, metrics, the access log and the program's own log.

mod access_log;
#[cfg(test)]
mod docs;
mod escape;
mod exchange;
mod log;
mod metrics;
mod reason;

pub use access_log::{AccessLog, AccessLogError, AccessLogger};
pub use exchange::Exchange;
pub use log::{LogControl, LoggingError, init_logging};
pub use metrics::{EndpointCounts, Hedge, METRICS_CONTENT_TYPE, Metrics, Side, WorkerMetrics, metrics};
pub use reason::Reason;
