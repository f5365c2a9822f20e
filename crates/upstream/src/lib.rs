//! Where calls go: discovery, endpoints, balancing, connection pools, TLS origination.
//!
//! [`Shared`] is one upstream as all workers see it: its config, its endpoints (a snapshot swapped whole) and its
//! counters. The control thread writes it; the workers read it without a lock.

mod call;
pub mod connect;
mod endpoint;
mod error;
mod hash;
mod limit;
pub mod pool;
pub mod service;
#[cfg(test)]
mod testing;
pub mod tunnel;

pub use call::{Call, CallContext};
pub use endpoint::{Endpoint, EndpointAddress, EndpointSet, Shared};
pub use error::{Error, Sent};
pub use limit::{ConnectionPermit, InFlight, PendingPermit};
pub use service::{Guard, Picker, WorkerUpstream};
