//! TLS in both directions: who we are, whom we trust, who may talk.
//!
//! [`Connector`] originates, [`Acceptor`] terminates. Both are made from the checked config, are shared by all workers, and
//! give every failure its [`Error::reason`].

mod acceptor;
mod connector;
mod error;

pub use acceptor::{Accepted, Acceptor};
pub use connector::Connector;
pub use error::Error;
