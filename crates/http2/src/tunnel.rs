//! One side of a tunnel in a stream of HTTP/2 (RFC 9113 section 8.5, RFC 8441): bytes are DATA, the end is END_STREAM, and an end that is none is a
//! reset in either direction.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Reader;

/// The stream.
#[derive(Debug)]
pub struct Tunnel {
    out: SendStream<Bytes>,
    received: RecvStream,
    reader: Reader,
    rest: Bytes,
    /// It is dropped as a reset.
    aborted: bool,
}

impl Tunnel {
    /// Takes both halves of a stream, and its place among the connection's readers.
    pub const fn new(out: SendStream<Bytes>, received: RecvStream, reader: Reader) -> Self {
        Self { out, received, reader, rest: Bytes::new(), aborted: false }
    }

    /// From here on the stream ends with RST_STREAM(CONNECT_ERROR), so that a transfer that was cut never looks whole.
    pub const fn abort(&mut self) {
        self.aborted = true;
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if self.aborted {
            self.out.send_reset(h2::Reason::CONNECT_ERROR);
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
