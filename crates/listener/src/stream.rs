//! The byte stream below all protocols: TCP, Unix or TLS. Bytes that detection has read are put back in front of it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use attache_http::Abort;
use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::server::TlsStream;

use crate::stall::Stall;

/// An accepted connection.
#[derive(Debug)]
pub struct ClientStream {
    /// Boxed, because connections that wait have read nothing.
    prefix: Option<Box<Bytes>>,
    kind: ClientTransport,
    stall: Stall,
}

#[derive(Debug)]
enum ClientTransport {
    Tcp(TcpStream),
    Unix(UnixStream),
    // A TLS session is about 1 KiB. It is boxed, so that plaintext connections don't need that size.
    Tls(Box<TlsStream<ClientStream>>),
    /// The stream was moved into a TLS session whose handshake did not finish.
    Gone,
}

impl ClientStream {
    /// The TCP socket, if the stream is plain TCP; `splice(2)` and keepalives need it. Take the [`unread`](Self::take_unread) bytes first.
    pub fn as_tcp(&self) -> Option<&TcpStream> {
        match &self.kind {
            ClientTransport::Tcp(tcp) => Some(tcp),
            ClientTransport::Unix(_) | ClientTransport::Tls(_) | ClientTransport::Gone => None,
        }
    }

    /// The Unix socket, if the stream is one.
    pub fn as_unix(&self) -> Option<&UnixStream> {
        match &self.kind {
            ClientTransport::Unix(unix) => Some(unix),
            ClientTransport::Tcp(_) | ClientTransport::Tls(_) | ClientTransport::Gone => None,
        }
    }

    /// Whether there are bytes that were read from the socket but not yet by the stream's reader.
    pub const fn has_unread(&self) -> bool {
        self.prefix.is_some()
    }

    /// Takes the bytes that were read from the socket but not yet by the stream's reader.
    pub fn take_unread(&mut self) -> Bytes {
        self.prefix.take().map(|prefix| *prefix).unwrap_or_default()
    }

    /// The plain TCP socket with the unread bytes. Any other stream is returned unchanged.
    pub fn into_tcp(mut self) -> Result<(TcpStream, Bytes), Self> {
        let unread = self.take_unread();
        match self.kind {
            ClientTransport::Tcp(tcp) => Ok((tcp, unread)),
            kind => {
                let mut whole = Self { prefix: None, kind, stall: self.stall };
                whole.unread(unread);
                Err(whole)
            }
        }
    }

    /// Limits how long a write may wait for the client, at the socket itself; zero means no limit.
    pub(crate) fn limit_writes(&mut self, limit: Duration) {
        match &mut self.kind {
            ClientTransport::Tls(tls) => tls.get_mut().0.limit_writes(limit),
            ClientTransport::Tcp(_) | ClientTransport::Unix(_) | ClientTransport::Gone => {
                self.stall = Stall::new(limit);
            }
        }
    }

    /// Makes the close a reset. If only the end of the connection would show that a response is complete, the client then can't take it for
    /// complete.
    pub(crate) fn reset(&self) {
        match &self.kind {
            ClientTransport::Tcp(tcp) => {
                let _ = tcp.set_zero_linger();
            }
            ClientTransport::Tls(tls) => tls.get_ref().0.reset(),
            ClientTransport::Unix(_) | ClientTransport::Gone => {}
        }
    }

    /// A stand-in for a stream that was moved away.
    pub(crate) const fn gone() -> Self {
        Self { prefix: None, kind: ClientTransport::Gone, stall: Stall::NONE }
    }

    /// Puts bytes back in front of the stream, before those that are there already.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let bytes = match self.prefix.take() {
            None => bytes,
            Some(behind) => [bytes, *behind].concat().into(),
        };
        self.prefix = Some(Box::new(bytes));
    }

    /// Waits until the client has sent something or has left, as a poll. For TLS it needs a short read, whose bytes are put back. An error
    /// or the end is left to the next read.
    pub(crate) fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_unread() {
            return Poll::Ready(());
        }
        match &mut self.kind {
            ClientTransport::Tcp(tcp) => tcp.poll_read_ready(cx).map(|_| ()),
            ClientTransport::Unix(unix) => unix.poll_read_ready(cx).map(|_| ()),
            ClientTransport::Tls(tls) => {
                let mut space = [0; 1024];
                let mut buf = ReadBuf::new(&mut space);
                let read = ready!(Pin::new(tls).poll_read(cx, &mut buf));
                if read.is_ok() {
                    self.unread(Bytes::copy_from_slice(buf.filled()));
                }
                Poll::Ready(())
            }
            ClientTransport::Gone => Poll::Ready(()),
        }
    }

    /// Waits until the client has sent something, or has left.
    pub async fn client_speaks(&mut self) {
        std::future::poll_fn(|cx| self.poll_client(cx)).await;
    }
}

impl Abort for ClientStream {
    fn abort(&mut self) {
        match &mut self.kind {
            ClientTransport::Tcp(tcp) => tcp.abort(),
            ClientTransport::Tls(tls) => tls.get_mut().0.abort(),
            // A Unix socket can't be reset.
            ClientTransport::Unix(_) | ClientTransport::Gone => {}
        }
    }

    fn broken(&self) -> Option<io::Error> {
        match &self.kind {
            ClientTransport::Tcp(tcp) => tcp.broken(),
            ClientTransport::Tls(tls) => tls.get_ref().0.broken(),
            ClientTransport::Unix(_) | ClientTransport::Gone => None,
        }
    }

    fn is_quiet(&self) -> bool {
        match &self.kind {
            ClientTransport::Tcp(tcp) => self.prefix.is_none() && tcp.is_quiet(),
            ClientTransport::Unix(_) | ClientTransport::Tls(_) | ClientTransport::Gone => false,
        }
    }
}

impl From<TcpStream> for ClientStream {
    fn from(tcp: TcpStream) -> Self {
        Self { prefix: None, kind: ClientTransport::Tcp(tcp), stall: Stall::NONE }
    }
}

impl From<UnixStream> for ClientStream {
    fn from(unix: UnixStream) -> Self {
        Self { prefix: None, kind: ClientTransport::Unix(unix), stall: Stall::NONE }
    }
}

impl From<TlsStream<ClientStream>> for ClientStream {
    fn from(tls: TlsStream<ClientStream>) -> Self {
        Self { prefix: None, kind: ClientTransport::Tls(Box::new(tls)), stall: Stall::NONE }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(prefix) = &mut self.prefix {
            let n = prefix.len().min(buf.remaining());
            buf.put_slice(&prefix[..n]);
            prefix.advance(n);
            if prefix.is_empty() {
                // This releases the memory too, not only the length.
                self.prefix = None;
            }
            return Poll::Ready(Ok(()));
        }
        match &mut self.kind {
            ClientTransport::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            ClientTransport::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
            ClientTransport::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            ClientTransport::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = match &mut self.kind {
            ClientTransport::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            ClientTransport::Unix(unix) => Pin::new(unix).poll_write(cx, buf),
            ClientTransport::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
            ClientTransport::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        };
        self.stall.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.kind {
            ClientTransport::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            ClientTransport::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, bufs),
            ClientTransport::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
            ClientTransport::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        };
        self.stall.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.kind {
            ClientTransport::Tcp(_) | ClientTransport::Unix(_) => true,
            ClientTransport::Tls(tls) => tls.is_write_vectored(),
            ClientTransport::Gone => false,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            ClientTransport::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            ClientTransport::Unix(unix) => Pin::new(unix).poll_flush(cx),
            ClientTransport::Tls(tls) => Pin::new(tls).poll_flush(cx),
            ClientTransport::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            ClientTransport::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            ClientTransport::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
            ClientTransport::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            ClientTransport::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}
