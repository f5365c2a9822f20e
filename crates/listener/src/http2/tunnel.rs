//! The client's side of a tunnel in a stream of HTTP/2 (RFC 9113 section 8.5, RFC 8441): bytes are DATA, the end is END_STREAM, and an
//! end that is none is a reset in either direction.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use attache_http::Abort;
use attache_http2::Reader;
use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The stream.
#[derive(Debug)]
pub(crate) struct Tunnel {
    out: SendStream<Bytes>,
    received: RecvStream,
    reader: Reader,
    rest: Bytes,
    /// What is said if the stream is dropped before both sides have ended.
    code: h2::Reason,
}

impl Tunnel {
    pub(super) const fn new(out: SendStream<Bytes>, received: RecvStream, reader: Reader) -> Self {
        Self { out, received, reader, rest: Bytes::new(), code: h2::Reason::CANCEL }
    }
}

impl Abort for Tunnel {
    fn abort(&mut self) {
        self.code = h2::Reason::CONNECT_ERROR;
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if self.code == h2::Reason::CONNECT_ERROR {
            self.out.send_reset(self.code);
        }
    }
}

fn broken(error: h2::Error) -> io::Error {
    if error.is_io() {
        error.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())
    } else {
        io::Error::new(io::ErrorKind::ConnectionReset, error)
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.received.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(data)) => {
                    self.reader.took(data.len());
                    self.rest = data;
                }
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let n = self.rest.len().min(buf.remaining());
        buf.put_slice(self.rest.get(..n).unwrap_or_default());
        self.rest.advance(n);
        let _ = self.received.flow_control().release_capacity(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        // A reset is to be seen also by a side that only writes.
        if let Poll::Ready(code) = self.out.poll_reset(cx).map_err(broken)? {
            return Poll::Ready(Err(broken(code.into())));
        }
        if self.out.capacity() == 0 {
            self.out.reserve_capacity(buf.len());
            while self.out.capacity() == 0 {
                match ready!(self.out.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                    None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                }
            }
        }
        let n = self.out.capacity().min(buf.len());
        let part = buf.get(..n).unwrap_or_default();
        self.out.send_data(Bytes::copy_from_slice(part), false).map_err(broken)?;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // the connection's task flushes
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.out.send_data(Bytes::new(), true).map_err(broken))
    }
}
