//! Where calls go: discovery, endpoints, balancing, connection pools, TLS origination.
//!
//! [`Shared`] is one upstream as all workers see it: its config, its endpoints (a snapshot swapped whole) and its
//! counters. The control thread writes it; the workers read it without a lock.

mod call;
mod endpoint;
mod error;
mod fresh;
pub mod health;
pub mod outlier;

pub use call::{Call, CallContext};
pub use endpoint::{Endpoint, EndpointAddress, EndpointSet, EndpointSpec, Shared};
pub use error::{Error, Sent};
pub use fresh::FreshConnection;
