//! Where calls go: discovery, endpoints, balancing, connection pools, TLS origination.
//!
//! [`SharedUpstream`] is one upstream as all workers see it: its config, its endpoints (a snapshot swapped whole) and its
//! counters. The control thread writes it; the workers read it without a lock.

mod affinity;
mod attempt;
pub mod balance;
mod call;
mod change;
pub mod circuit;
mod clients;
pub mod connect;
mod context;
mod count;
pub mod discovery;
mod endpoint;
mod error;
mod flag;
mod hash;
pub mod health;
mod id;
mod limit;
pub mod outlier;
mod overdue;
pub mod pool;
pub mod service;
mod session;
mod shared;
pub mod status;
mod sync;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod testing;
pub mod tunnel;

pub use affinity::Affinity;
pub use attempt::{Attempt, EndpointFailure, LatencyMeter, Outcome, OutcomeReceivers};
pub use balance::Balancer;
pub use call::{Call, CallKind, boxed};
pub use context::{CallContext, TriedEndpoints};
pub use count::take;
pub use endpoint::{Endpoint, EndpointAddress, EndpointSpec};
pub use error::{Error, SentPart};
pub use hash::{cookie, session_of};
pub use id::{Id, IdMap};
pub use limit::{Charge, ConnectionPermit, PendingPermit, RequestPermit, UnhealthyNotice};
pub use overdue::{BodyProgress, Overdue};
pub use service::{BareConnection, WorkerUpstream, connected};
pub use session::SessionSeal;
pub use shared::{EndpointSet, SharedUpstream};
