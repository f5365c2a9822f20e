//! One connection to an endpoint: TCP or Unix, plain or TLS.
//!
//! **Silence.** The kernel closes the connection to a peer that acknowledges nothing for [`UNACKNOWLEDGED`] (Linux
//! `TCP_USER_TIMEOUT`). It does the same with a peer that is alive and acknowledges every probe, but reads nothing, so
//! that its window is shut. This is back-pressure, and no failure: it may last. So the kernel's timeout is set only
//! while less than [`MIN_PEER_WINDOW`] was sent since the peer's last byte, which fits into every peer's window. A request
//! larger than that isn't kept for another attempt in any case.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use attache_config::model::Name;
use attache_http::Abort;
use attache_tls::peer_name;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::client::TlsStream;

use crate::tunnel::PlainSocket;

/// A peer that acknowledges nothing of what it was sent for this long is dead (RFC 5482, Linux `TCP_USER_TIMEOUT`): sooner than the
/// default deadline, so that a request on a dead connection can still be sent on a new one. The kernel's own is a quarter of an hour.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// Bytes that even a peer which reads nothing accepts: the first window of Linux is as large.
const MIN_PEER_WINDOW: usize = 64 << 10;

/// A connection to an endpoint.
#[derive(Debug)]
pub struct EndpointConnection {
    kind: UpstreamTransport,
    /// Bytes that were sent to the peer since its last byte.
    unheard: usize,
    silence: Cell<SilenceTimeout>,
}

/// Which timeout applies while the peer is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SilenceTimeout {
    /// No timeout applies: it is off, or there is no network.
    Unjudged,
    Kernel,
    /// No timeout applies for now: the peer may be slow to read.
    Lifted,
}

/// An enum, so that the hot path has no virtual call per read; the TLS kinds are boxed because a session is about 1 KiB
/// that the plain kinds should not carry.
#[derive(Debug)]
enum UpstreamTransport {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A plain Unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    TlsTcp(Box<TlsStream<TcpStream>>),
    /// TLS over a Unix socket.
    TlsUnix(Box<TlsStream<UnixStream>>),
}

impl EndpointConnection {
    fn new(kind: UpstreamTransport) -> Self {
        Self { kind, unheard: 0, silence: Cell::new(SilenceTimeout::Unjudged) }
    }

    /// From now on the kernel closes the connection if the peer is dead.
    pub(crate) fn judge_silence(&mut self) {
        self.silence.set(SilenceTimeout::Kernel);
        self.set_user_timeout(Some(UNACKNOWLEDGED));
    }

    fn tcp(&self) -> Option<&TcpStream> {
        match &self.kind {
            UpstreamTransport::Tcp(tcp) => Some(tcp),
            UpstreamTransport::TlsTcp(tls) => Some(tls.get_ref().0),
            UpstreamTransport::Unix(_) | UpstreamTransport::TlsUnix(_) => None,
        }
    }

    /// If it can't be set, the kernel's own timeout applies.
    fn set_user_timeout(&self, limit: Option<Duration>) {
        #[cfg(target_os = "linux")]
        if let Some(tcp) = self.tcp() {
            let _ = SockRef::from(tcp).set_tcp_user_timeout(limit);
        }
    }

    /// The peer has sent something: it is alive, even if it didn't acknowledge everything.
    fn heard(&mut self) {
        self.unheard = 0;
        if self.silence.get() == SilenceTimeout::Lifted {
            self.judge_silence();
        }
    }

    fn sent(&mut self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(n)) = written {
            self.unheard = self.unheard.saturating_add(*n);
            if self.unheard >= MIN_PEER_WINDOW && self.silence.get() == SilenceTimeout::Kernel {
                self.silence.set(SilenceTimeout::Lifted);
                self.set_user_timeout(None);
            }
        }
    }

    /// The protocol that ALPN chose, if TLS has chosen one.
    pub fn alpn(&self) -> Option<&[u8]> {
        match &self.kind {
            UpstreamTransport::Tcp(_) | UpstreamTransport::Unix(_) => None,
            UpstreamTransport::TlsTcp(tls) => tls.get_ref().1.alpn_protocol(),
            UpstreamTransport::TlsUnix(tls) => tls.get_ref().1.alpn_protocol(),
        }
    }

    /// The peer's identity from its certificate; `None` without TLS. This parses the certificate: call it once for a
    /// connection.
    pub fn peer(&self) -> Option<Name> {
        match &self.kind {
            UpstreamTransport::Tcp(_) | UpstreamTransport::Unix(_) => None,
            UpstreamTransport::TlsTcp(tls) => peer_name(tls.get_ref().1),
            UpstreamTransport::TlsUnix(tls) => peer_name(tls.get_ref().1),
        }
    }

    /// The socket, if its bytes are the connection's own. The connection doesn't see bytes that are moved on the socket itself, so from
    /// now on the peer's silence is not judged.
    pub fn socket(&self) -> Option<PlainSocket<'_>> {
        if self.silence.replace(SilenceTimeout::Unjudged) == SilenceTimeout::Kernel {
            self.set_user_timeout(None);
        }
        match &self.kind {
            UpstreamTransport::Tcp(tcp) => Some(PlainSocket::Tcp(tcp)),
            UpstreamTransport::Unix(unix) => Some(PlainSocket::Unix(unix)),
            UpstreamTransport::TlsTcp(_) | UpstreamTransport::TlsUnix(_) => None,
        }
    }

    /// The bytes on the wire are encrypted.
    pub const fn is_tls(&self) -> bool {
        matches!(self.kind, UpstreamTransport::TlsTcp(_) | UpstreamTransport::TlsUnix(_))
    }
}

impl Abort for EndpointConnection {
    fn abort(&mut self) {
        match &mut self.kind {
            UpstreamTransport::Tcp(tcp) => tcp.abort(),
            UpstreamTransport::TlsTcp(tls) => tls.get_mut().0.abort(),
            // A Unix socket knows no reset.
            UpstreamTransport::Unix(_) | UpstreamTransport::TlsUnix(_) => {}
        }
    }

    fn broken(&self) -> Option<io::Error> {
        self.tcp()?.broken()
    }

    fn is_quiet(&self) -> bool {
        matches!(&self.kind, UpstreamTransport::Tcp(tcp) if tcp.is_quiet())
    }
}

macro_rules! each {
    ($self:expr, $io:ident => $body:expr) => {
        match &mut $self.kind {
            UpstreamTransport::Tcp($io) => $body,
            UpstreamTransport::Unix($io) => $body,
            UpstreamTransport::TlsTcp($io) => $body,
            UpstreamTransport::TlsUnix($io) => $body,
        }
    };
}

impl AsyncRead for EndpointConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = each!(self, io => Pin::new(io).poll_read(cx, buf));
        if read.is_ready() {
            self.heard();
        }
        read
    }
}

impl AsyncWrite for EndpointConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = each!(self, io => Pin::new(io).poll_write(cx, buf));
        self.sent(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = each!(self, io => Pin::new(io).poll_write_vectored(cx, bufs));
        self.sent(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        match &self.kind {
            UpstreamTransport::Tcp(io) => io.is_write_vectored(),
            UpstreamTransport::Unix(io) => io.is_write_vectored(),
            UpstreamTransport::TlsTcp(io) => io.is_write_vectored(),
            UpstreamTransport::TlsUnix(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_shutdown(cx))
    }
}

macro_rules! from {
    ($($io:ty => $kind:expr),+) => {
        $(impl From<$io> for EndpointConnection {
            fn from(io: $io) -> Self {
                Self::new($kind(io))
            }
        })+
    };
}

from!(TcpStream => UpstreamTransport::Tcp, UnixStream => UpstreamTransport::Unix);
from!(TlsStream<TcpStream> => |io| UpstreamTransport::TlsTcp(Box::new(io)), TlsStream<UnixStream> => |io| UpstreamTransport::TlsUnix(Box::new(io)));

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn a_peer_that_reads_nothing_is_not_taken_for_a_dead_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut connection = EndpointConnection::from(tcp);
        let limit = |connection: &EndpointConnection| {
            SockRef::from(connection.tcp().unwrap())
                .tcp_user_timeout()
                .unwrap()
                .filter(|limit| !limit.is_zero())
        };
        assert_eq!(limit(&connection), None);
        connection.judge_silence();
        connection.write_all(&[b'x'; 1000]).await.unwrap();
        assert_eq!(limit(&connection), Some(UNACKNOWLEDGED));
        connection.write_all(&vec![b'x'; MIN_PEER_WINDOW]).await.unwrap();
        assert_eq!(limit(&connection), None, "its window may be shut");
        peer.write_all(b"answer").await.unwrap();
        connection.read_exact(&mut [0; 6]).await.unwrap();
        connection.write_all(b"x").await.unwrap();
        assert_eq!(limit(&connection), Some(UNACKNOWLEDGED), "it was heard");
        assert!(connection.socket().is_some());
        connection.write_all(&vec![b'x'; MIN_PEER_WINDOW]).await.unwrap();
        peer.write_all(b"answer").await.unwrap();
        connection.read_exact(&mut [0; 6]).await.unwrap();
        assert_eq!(limit(&connection), None, "bytes go past it");
    }
}
