//! Where calls go: discovery, endpoints, balancing, connection pools, TLS origination.
//!
//! [`Shared`] is one upstream as all workers see it: its config, its endpoints (a snapshot swapped whole) and its
//! counters. The control thread writes it; the workers read it without a lock.

pub mod balance;
mod call;
pub mod discovery;
mod endpoint;
mod error;
mod shared;
#[cfg(test)]
mod test_support;
mod fresh;
pub mod outlier;

pub use balance::{Balancer, InFlight};
pub use call::{Call, CallContext};
pub use endpoint::{Endpoint, EndpointAddress, EndpointSpec};
pub use error::{Error, Sent};
pub use shared::{EndpointSet, Shared};
pub use fresh::FreshConnection;
