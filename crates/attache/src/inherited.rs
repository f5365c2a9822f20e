//! Listening sockets that another process made: the old attache ([`upgrade`](crate::upgrade)), or a supervisor (systemd's socket
//! activation, `sd_listen_fds(3)`).
//!
//! A socket is used for the bind with the same address. If no bind has its address, it is used for the listener with the socket's name
//! (`LISTEN_FDNAMES`, `FileDescriptorName=`). Sockets that the config doesn't use are closed, with a log line.

use std::{
    env,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    os::unix::net::UnixListener,
    path::Path,
};

use attache_config::model::Name;

use crate::{
    proxy::sockets::BindKey,
    upgrade::{self, Predecessor},
};

/// Sockets that are used instead of new ones. Unused ones are closed when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct InheritedSockets {
    sockets: Vec<InheritedSocket>,
    predecessor: Option<Predecessor>,
}

#[derive(Debug)]
struct InheritedSocket {
    /// The key, in the form of [`BindKey::key`].
    key: String,
    /// The supervisor's name for it; empty if it comes from an old attache.
    name: String,
    socket: OwnedFd,
}

impl InheritedSockets {
    /// Takes the sockets that the environment describes. Call it once, before there are threads: it changes the environment.
    pub(crate) fn take() -> Result<Self, String> {
        if let Some((predecessor, sockets)) = upgrade::receive()? {
            let socket = |(key, socket)| InheritedSocket { key, name: String::new(), socket };
            let sockets = sockets.into_iter().map(socket).collect();
            return Ok(Self { sockets, predecessor: Some(predecessor) });
        }
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut given = listenfd::ListenFd::from_env();
        let mut sockets = Vec::new();
        for at in 0..given.len() {
            let name = names.get(at).copied().unwrap_or_default().to_owned();
            let fail = |error| format!("the supervisor's socket {at} ({name}) can't be used: {error}");
            if let Ok(Some(socket)) = given.take_tcp_listener(at) {
                let key = BindKey::Tcp(socket.local_addr().map_err(fail)?).key();
                sockets.push(InheritedSocket { key, name, socket: socket.into() });
            } else if let Some(socket) = given.take_unix_listener(at).map_err(fail)? {
                sockets.push(InheritedSocket { key: unix_key(&socket), name, socket: socket.into() });
            }
        }
        Ok(Self { sockets, predecessor: None })
    }

    /// The sockets for one bind of a listener; none if it must be bound.
    pub(crate) fn take_for(&mut self, place: &BindKey, listener: &Name) -> Vec<OwnedFd> {
        let key = place.key();
        let by_address = self.remove(|socket| socket.key == key);
        if by_address.is_empty() { self.remove(|socket| socket.name == **listener) } else { by_address }
    }

    /// The socket with this key, for something other than a listener.
    pub(crate) fn take_one(&mut self, key: &str) -> Option<OwnedFd> {
        self.remove(|socket| socket.key == key).into_iter().next()
    }

    /// Whether this process must remove Unix sockets at its end: a supervisor keeps its own.
    pub(crate) fn is_ours(&self) -> bool {
        self.predecessor.is_some()
    }

    /// Closes the sockets that nobody has taken.
    pub(crate) fn settle(&mut self) -> Option<Predecessor> {
        for socket in self.sockets.drain(..) {
            let InheritedSocket { key, name, .. } = socket;
            tracing::warn!(
                name,
                "nothing in the config listens on {key}: a socket that was handed over is closed"
            );
        }
        self.predecessor.take()
    }

    fn remove(&mut self, wanted: impl Fn(&InheritedSocket) -> bool) -> Vec<OwnedFd> {
        self.sockets.extract_if(.., |socket| wanted(socket)).map(|socket| socket.socket).collect()
    }
}

fn unix_key(socket: &UnixListener) -> String {
    let address = socket.local_addr().ok();
    let path = address.as_ref().and_then(|address| address.as_pathname()).unwrap_or(Path::new(""));
    BindKey::Unix(path.to_owned()).key()
}

/// A handle that a later process gets by [`InheritedSockets::take_one`].
pub(crate) fn duplicate(socket: &impl AsFd) -> Option<OwnedFd> {
    socket.as_fd().try_clone_to_owned().ok()
}

/// The name of the probes' socket when it is handed to another process.
pub(crate) fn probes_key(address: SocketAddr) -> String {
    format!("probes {address}")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_socket_is_found_by_its_address_or_else_by_the_name_of_its_listener() {
        let [one, two] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let address = one.local_addr().unwrap();
        let socket = |socket: TcpListener, name: &str| InheritedSocket {
            key: BindKey::Tcp(socket.local_addr().unwrap()).key(),
            name: name.to_owned(),
            socket: socket.into(),
        };
        let mut handed =
            InheritedSockets { sockets: vec![socket(two, "outbound"), socket(one, "")], predecessor: None };
        let other = BindKey::Tcp("127.0.0.1:1".parse().unwrap());
        assert!(handed.take_for(&other, &"inbound".into()).is_empty());
        assert_eq!(handed.take_for(&BindKey::Tcp(address), &"inbound".into()).len(), 1);
        assert_eq!(handed.take_for(&other, &"outbound".into()).len(), 1);
        assert!(handed.take_for(&other, &"outbound".into()).is_empty());
        assert!(handed.settle().is_none());
    }
}
