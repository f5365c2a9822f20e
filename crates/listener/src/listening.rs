//! The sockets of a listener, and the sockets that they accept: TCP and Unix.

use std::{
    io,
    net::SocketAddr,
    task::{Context, Poll},
};

use attache_http::Client;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::{
    handover::DetachedSocket,
    socket::{SocketKind, UnixPath, original_destination},
    stream::ClientStream,
};

/// A listener's socket in this worker's runtime.
pub(crate) enum LocalSocket {
    Tcp(TcpListener, SocketAddr),
    // The path is removed when the last worker drops it.
    Unix(UnixListener, std::sync::Arc<UnixPath>),
}

impl LocalSocket {
    pub(crate) fn new(socket: SocketKind) -> io::Result<Self> {
        Ok(match socket {
            SocketKind::Tcp(socket, local) => Self::Tcp(TcpListener::from_std(socket)?, local),
            SocketKind::Unix(socket, path) => Self::Unix(UnixListener::from_std(socket)?, path),
        })
    }

    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<AcceptedSocket>> {
        match self {
            Self::Tcp(socket, _) => {
                socket.poll_accept(cx).map_ok(|(tcp, address)| AcceptedSocket::Tcp(tcp, address))
            }
            Self::Unix(socket, _) => socket.poll_accept(cx).map_ok(|(unix, _)| AcceptedSocket::Unix(unix)),
        }
    }

    /// The stream and the client of an accepted socket. The worker that serves the connection reads the socket's addresses.
    pub(crate) fn client(&self, fresh: AcceptedSocket, transparent: bool) -> (ClientStream, Client) {
        match (fresh, self) {
            (AcceptedSocket::Tcp(tcp, address), Self::Tcp(_, bound)) => {
                tcp_client(tcp, address, *bound, transparent)
            }
            (AcceptedSocket::Tcp(tcp, address), Self::Unix(..)) => {
                (tcp.into(), Client { address: Some(address), ..Client::default() })
            }
            (AcceptedSocket::Unix(unix), _) => (unix.into(), Client::default()),
        }
    }

    /// Accepts the connections that are still in the kernel's queue, even if tokio doesn't know of them yet.
    pub(crate) fn rest(self, transparent: bool) -> io::Result<Vec<(ClientStream, Client)>> {
        let mut all = Vec::new();
        match self {
            Self::Tcp(socket, bound) => {
                let socket = socket.into_std()?;
                while let Ok((tcp, address)) = socket.accept() {
                    tcp.set_nonblocking(true)?;
                    all.push(tcp_client(TcpStream::from_std(tcp)?, address, bound, transparent));
                }
            }
            Self::Unix(socket, path) => {
                let socket = socket.into_std()?;
                while let Ok((unix, _)) = socket.accept() {
                    unix.set_nonblocking(true)?;
                    all.push((UnixStream::from_std(unix)?.into(), Client::default()));
                }
                drop(path);
            }
        }
        Ok(all)
    }
}

/// An accepted socket in this worker's runtime.
pub(crate) enum AcceptedSocket {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl AcceptedSocket {
    /// Takes the socket out of the runtime.
    pub(crate) fn release(self) -> io::Result<DetachedSocket> {
        Ok(match self {
            Self::Tcp(tcp, address) => DetachedSocket::Tcp(tcp.into_std()?, address),
            Self::Unix(unix) => DetachedSocket::Unix(unix.into_std()?),
        })
    }

    pub(crate) fn adopt(accepted: DetachedSocket) -> io::Result<Self> {
        Ok(match accepted {
            DetachedSocket::Tcp(tcp, address) => Self::Tcp(TcpStream::from_std(tcp)?, address),
            DetachedSocket::Unix(unix) => Self::Unix(UnixStream::from_std(unix)?),
        })
    }
}

fn tcp_client(
    tcp: TcpStream,
    address: SocketAddr,
    bound: SocketAddr,
    transparent: bool,
) -> (ClientStream, Client) {
    // A wildcard address doesn't say which address the client called.
    let local = if bound.ip().is_unspecified() { tcp.local_addr().ok() } else { Some(bound) };
    let original_destination = if transparent { original_destination(&tcp, local) } else { None };
    let original_destination = original_destination.map(Box::new);
    let client = Client { address: Some(address), local, original_destination, ..Client::default() };
    (tcp.into(), client)
}
