//! From an accepted socket to a served request: accept, PROXY protocol, detect, terminate TLS, serve, drain.
//!
//! [`serve`] runs one listener on one worker. It passes on an [`HttpRequest`] for every request, and an [`OpaqueConnection`] for every connection
//! that is not HTTP. It guarantees:
//!
//! * Every request that is passed on has only one meaning (RFC 9112 sections 6.3 and 11.2). A request that could have two is passed on as
//!   [`HttpRequest::refused`], without anything that the client sent, so that its answer is made where all answers are made.
//! * Every exchange, finished or not, is reported once to [`ListenerSettings::on_finish`].
//! * No peer can end more than its own connection: panics are caught, and memory is limited by [`HttpLimits`].
//!
//! [`HttpLimits`]: attache_config::model::HttpLimits

mod accept;
mod connection;
mod detect;
mod drain;
mod exchange;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod handover;
mod http1;
mod http2;
mod listening;
mod new_connection;
mod overload;
mod reader;
mod registry;
mod request;
mod respond;
mod socket;
mod stall;
mod stream;
mod transport;
mod upgrade;

pub use accept::serve;
pub use drain::{Drain, DrainPhase, DrainTrigger};
pub use handover::ConnectionsPerWorker;
pub use overload::OverloadState;
pub use request::{Connections, HttpRequest, IdleHold, ListenerSettings, OpaqueConnection, OpaqueOutcome};
pub use socket::{BindError, SocketHandle, WorkerSocket, adopt, bind, could_bind, who_has};
pub use stream::ClientStream;
pub use transport::{ClientHello, Protocol};
pub use upgrade::{ClientTunnel, NotUpgraded, OnUpgrade};
