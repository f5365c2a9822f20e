//! What attache says about itself: [`Reason`]s, metrics and the access log.

mod exchange;
mod metrics;
mod reason;

pub use exchange::Exchange;
pub use metrics::{EndpointCounts, Metrics, WorkerMetrics, metrics};
pub use reason::Reason;
