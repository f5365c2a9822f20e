//! Listening sockets, and the keys by which a socket is recognised after a reload or in a new process.

use std::{net::SocketAddr, path::PathBuf};

use attache_config::model::{self, Bind, Name};
use attache_listener::WorkerSocket;

/// The sockets of one bind, in the order of the workers. If more were handed over, workers have several.
pub(crate) type BoundSockets = (BindKey, Vec<WorkerSocket>);

/// What makes a socket the same in two generations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum BindKey {
    /// The address, whichever listener has it.
    Tcp(SocketAddr),
    /// The path; the mode of the file may change.
    Unix(PathBuf),
    /// Port 0 is a different port each time, so this is which bind of which listener.
    Any(Name, usize),
}

impl BindKey {
    /// The key in the form that processes exchange.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Tcp(address) => format!("tcp {address}"),
            Self::Unix(path) => format!("unix {}", path.display()),
            Self::Any(listener, at) => format!("any {listener} {at}"),
        }
    }
}

/// One for each bind of a listener, in its order.
pub(crate) fn bind_keys(listener: &model::Listener) -> impl Iterator<Item = BindKey> {
    listener.bind.iter().enumerate().map(|(at, bind)| match bind {
        Bind::Tcp(address) if address.port() == 0 => BindKey::Any(listener.name.clone(), at),
        Bind::Tcp(address) => BindKey::Tcp(*address),
        Bind::Unix { path, .. } => BindKey::Unix(path.clone()),
    })
}
