//! The client that owns a connection.

use std::net::SocketAddr;

/// The owner of a connection with a PROXY header: the client's address and its destination, as the upstream knows them.
pub(super) type Owner = Option<(Option<SocketAddr>, Option<SocketAddr>)>;
