//! Where calls go: discovery, endpoints, balancing, connection pools, TLS origination.
//!
//! [`Shared`] is one upstream as all workers see it: its config, its endpoints (a snapshot swapped whole) and its
//! counters. The control thread writes it; the workers read it without a lock.

pub mod balance;
mod call;
mod change;
pub mod circuit;
pub mod connect;
pub mod discovery;
mod endpoint;
mod error;
mod fresh;
pub mod health;
mod limit;
pub mod outlier;
pub mod pool;
pub mod service;
mod shared;
pub mod status;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod testing;
pub mod tunnel;

pub use balance::Balancer;
pub use call::{Call, CallContext, boxed};
pub use endpoint::{Endpoint, EndpointAddress, EndpointSpec};
pub use error::{Error, Sent};
pub use fresh::FreshConnection;
pub use limit::{ConnectionPermit, InFlight, PendingPermit};
pub use service::{Guard, Picker, WorkerUpstream};
pub use shared::{EndpointSet, Shared};
