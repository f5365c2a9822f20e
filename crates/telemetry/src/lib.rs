//! What attache says about itself: [`Reason`]s, metrics and the access log.

#[cfg(test)]
mod docs;
mod exchange;
mod metrics;
mod reason;

pub use exchange::Exchange;
pub use metrics::{EndpointCounts, METRICS_CONTENT_TYPE, Metrics, WorkerMetrics, metrics};
pub use reason::Reason;
