//! One connection to an endpoint: TCP or Unix, plain or TLS.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use attache_config::model::Name;
use attache_http::Abort;
use attache_tls::peer_name;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::client::TlsStream;

use crate::tunnel::Socket;

/// A connection to an endpoint. An enum, so that the hot path has no virtual call per read; the TLS kinds are boxed
/// because a session is about 1 KiB that the plain kinds should not carry.
#[derive(Debug)]
pub enum Connection {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A plain Unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    TlsTcp(Box<TlsStream<TcpStream>>),
    /// TLS over a Unix socket.
    TlsUnix(Box<TlsStream<UnixStream>>),
}

impl Connection {
    /// What ALPN gave, if TLS did it.
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => None,
            Self::TlsTcp(tls) => tls.get_ref().1.alpn_protocol(),
            Self::TlsUnix(tls) => tls.get_ref().1.alpn_protocol(),
        }
    }

    /// Who is at the other end, by its certificate; `None` without TLS. Parses the certificate: once for a connection.
    pub fn peer(&self) -> Option<Name> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => None,
            Self::TlsTcp(tls) => peer_name(tls.get_ref().1),
            Self::TlsUnix(tls) => peer_name(tls.get_ref().1),
        }
    }

    /// The socket, where its bytes are the connection's own.
    pub fn socket(&self) -> Option<Socket<'_>> {
        match self {
            Self::Tcp(tcp) => Some(Socket::Tcp(tcp)),
            Self::Unix(unix) => Some(Socket::Unix(unix)),
            Self::TlsTcp(_) | Self::TlsUnix(_) => None,
        }
    }

    /// The bytes on the wire are encrypted.
    pub const fn is_tls(&self) -> bool {
        matches!(self, Self::TlsTcp(_) | Self::TlsUnix(_))
    }
}

impl Abort for Connection {
    fn abort(&mut self) {
        match self {
            Self::Tcp(tcp) => tcp.abort(),
            Self::TlsTcp(tls) => tls.get_mut().0.abort(),
            // A Unix socket knows no reset.
            Self::Unix(_) | Self::TlsUnix(_) => {}
        }
    }
}

macro_rules! each {
    ($self:expr, $io:ident => $body:expr) => {
        match $self.get_mut() {
            Connection::Tcp($io) => $body,
            Connection::Unix($io) => $body,
            Connection::TlsTcp($io) => $body,
            Connection::TlsUnix($io) => $body,
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(io) => io.is_write_vectored(),
            Self::Unix(io) => io.is_write_vectored(),
            Self::TlsTcp(io) => io.is_write_vectored(),
            Self::TlsUnix(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_shutdown(cx))
    }
}
