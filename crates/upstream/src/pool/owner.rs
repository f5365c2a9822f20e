//! Whose connection it is.

use std::net::SocketAddr;

/// Whose connection it is where a PROXY header has told the upstream: the client's address and its destination.
pub(super) type Owner = Option<(Option<SocketAddr>, Option<SocketAddr>)>;
