//! TLS in both directions: attache's identities, trusted authorities, and allowed peers.
//!
//! [`Connector`] originates, [`Acceptor`] terminates. Both are made from the checked config, are shared by all workers,
//! and give every failure its [`Error::reason`]. A [`CredentialHeader`] is a secret for the application's requests. A
//! [`FileWatcher`] follows their files: everything that depends on a changed file is built again and swapped whole, and
//! later connections use it.

mod acceptor;
mod certificate;
pub mod check;
mod client_verifier;
mod connector;
mod credential;
mod error;
mod files;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod handshake_error;
mod identity;
mod live;
mod loaded;
mod provider;
mod reason;
mod san;
mod sessions;
mod sni;
mod spiffe;
#[cfg(test)]
mod tests;
mod trust;
mod verify;
mod watch;
mod words;
pub mod xfcc;

pub use acceptor::{AcceptedConnection, Acceptor, Alpn, ClientAdmission};
pub use certificate::Certificate;
pub use connector::Connector;
pub use credential::{CredentialHeader, NoCredential};
pub use error::Error;
pub use handshake::{HandshakeInfo, peer_name};
pub use reason::reason_of;
pub use spiffe::{ENDPOINT as SPIFFE_ENDPOINT, Workload};
pub use watch::{FileWatcher, FollowedSource, WatchStatus};
