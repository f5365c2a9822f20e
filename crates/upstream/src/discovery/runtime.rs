//! Sockets for queries to DNS servers: hickory's own runtime, but with connected UDP sockets.
//!
//! Only a connected socket learns that nothing listens at the other end (ICMP "port unreachable"). Without that, a
//! server with a closed port costs the whole `dns.timeout`. A connected socket also accepts datagrams only from the
//! server.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use hickory_resolver::net::runtime::{DnsUdpSocket, RuntimeProvider, TokioRuntimeProvider, TokioTime};
use tokio::{io::Interest, net::UdpSocket};

type IoFuture<T> = Pin<Box<dyn Send + Future<Output = io::Result<T>>>>;
type ReceiveFuture<'a> = Pin<Box<dyn Send + Future<Output = io::Result<(usize, SocketAddr)>> + 'a>>;

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Runtime {
    tokio: TokioRuntimeProvider,
    failed: LastUdpError,
}

/// The error of the last query over UDP. hickory itself says only that there is no connection.
#[derive(Clone, Default)]
struct LastUdpError(Arc<Mutex<Option<io::Error>>>);

impl LastUdpError {
    fn note(&self, error: io::Error) -> io::Error {
        let copy = error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(copy);
        error
    }
}

impl Runtime {
    /// Takes the error of the last query over UDP.
    pub(super) fn failure(&self) -> Option<io::Error> {
        self.failed.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl RuntimeProvider for Runtime {
    type Handle = <TokioRuntimeProvider as RuntimeProvider>::Handle;
    type Timer = <TokioRuntimeProvider as RuntimeProvider>::Timer;
    type Udp = ConnectedUdpSocket;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.tokio.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        connect_timeout: Option<Duration>,
    ) -> IoFuture<Self::Tcp> {
        self.tokio.connect_tcp(server, local, connect_timeout)
    }

    fn bind_udp(&self, local: SocketAddr, server: SocketAddr) -> IoFuture<Self::Udp> {
        let (bound, failed) = (self.tokio.bind_udp(local, server), self.failed.clone());
        Box::pin(async move {
            let socket = bound.await?;
            socket.connect(server).await.map_err(|error| failed.note(error))?;
            Ok(ConnectedUdpSocket { socket, failed })
        })
    }
}

/// A socket that accepts datagrams only from one peer.
pub(super) struct ConnectedUdpSocket {
    socket: UdpSocket,
    failed: LastUdpError,
}

impl ConnectedUdpSocket {
    async fn receive(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        loop {
            // If the peer's kernel refused the datagram, the socket is not readable: only its error is ready.
            self.socket.ready(Interest::READABLE | Interest::ERROR).await?;
            match self.socket.try_recv_from(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let refused = || match self.socket.take_error()? {
                        Some(error) => Err(error),
                        None => Err::<(), _>(io::ErrorKind::WouldBlock.into()),
                    };
                    // "Would block" ends the error's readiness.
                    match self.socket.try_io(Interest::ERROR, refused) {
                        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                            return Err(self.failed.note(error));
                        }
                        _ => {}
                    }
                }
                received => return received,
            }
        }
    }
}

impl DnsUdpSocket for ConnectedUdpSocket {
    type Time = TokioTime;

    fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        DnsUdpSocket::poll_recv_from(&self.socket, cx, buf)
    }

    fn recv_from<'this, 'buf, 'both>(&'this self, buf: &'buf mut [u8]) -> ReceiveFuture<'both>
    where
        'this: 'both,
        'buf: 'both,
        Self: 'both,
    {
        Box::pin(self.receive(buf))
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, buf: &[u8], target: SocketAddr) -> Poll<io::Result<usize>> {
        DnsUdpSocket::poll_send_to(&self.socket, cx, buf, target)
    }
}
