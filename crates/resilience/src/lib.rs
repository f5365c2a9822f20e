//! Tower layers around an upstream that protect callers from a slow or failing one.
//!
//! [`stack`] has their order, and explains the place of each layer.

pub mod adaptive;
pub mod breaker;
mod budget;
mod counters;
pub mod deadline;
pub mod fault;
pub mod global_limit;
mod latency;
mod own_calls;
pub mod queue;
pub mod rate_limit;
pub mod retry;
mod route_state;
mod stack;
mod state;
mod sync;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use budget::RetryBudget;
pub use counters::Counters;
pub use own_calls::own_calls;
pub use route_state::RouteState;
pub use stack::{RouteLayers, Stack, front, front_with, stack};
pub use state::UpstreamState;

/// How a call ends: with a response, or with the reason why there is none.
type CallResult = Result<attache_wire::Response<attache_http::Body>, attache_upstream::Error>;
