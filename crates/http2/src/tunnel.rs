//! One side of a tunnel in a stream of HTTP/2 (RFC 9113 section 8.5, RFC 8441): bytes are DATA, the end is END_STREAM, and a connection
//! that breaks off is a reset, in both directions.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Error, ErrorCode, RecvStream, SendStream};

/// A stream that is used as a tunnel.
#[derive(Debug)]
pub struct Http2Tunnel {
    out: SendStream,
    received: RecvStream,
    rest: Bytes,
    /// Dropping it resets the stream.
    aborted: bool,
}

impl Http2Tunnel {
    /// Takes both halves of a stream.
    pub const fn new(out: SendStream, received: RecvStream) -> Self {
        Self { out, received, rest: Bytes::new(), aborted: false }
    }

    /// From now on the stream ends with RST_STREAM(CONNECT_ERROR), so that a transfer that was cut never looks complete.
    pub const fn abort(&mut self) {
        self.aborted = true;
    }

    /// Why the stream was broken off, or why its connection ended before both sides had ended.
    pub fn broken(&self) -> Option<io::Error> {
        self.out.broken().map(Error::into_io)
    }
}

impl Drop for Http2Tunnel {
    fn drop(&mut self) {
        if self.aborted {
            self.out.reset(ErrorCode::CONNECT_ERROR);
        }
    }
}

impl AsyncRead for Http2Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.received.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(data) => self.rest = data.map_err(Error::into_io)?,
            }
        }
        let n = self.rest.len().min(buf.remaining());
        buf.put_slice(self.rest.get(..n).unwrap_or_default());
        self.rest.advance(n);
        self.received.took(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Http2Tunnel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        // A side that only writes sees a reset here.
        let n = ready!(self.out.poll_capacity(cx, buf.len())).map_err(Error::into_io)?;
        let part = buf.get(..n).unwrap_or_default();
        if self.out.send(Bytes::copy_from_slice(part), false) {
            Poll::Ready(Ok(n))
        } else {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // the connection's task flushes
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(if self.out.send(Bytes::new(), true) {
            Ok(())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        })
    }
}
