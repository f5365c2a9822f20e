//! A socket whose other end is a script.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Both ends of it.
#[derive(Clone, Debug, Default)]
pub struct FuzzSocket(Rc<RefCell<SocketEnds>>);

#[derive(Debug, Default)]
struct SocketEnds {
    /// Bytes that the peer sent and that were not read yet.
    sent: BytesMut,
    /// The peer sends no more.
    ended: bool,
    /// Bytes that the peer still accepts.
    room: usize,
    /// The peer accepts no more bytes.
    refuses: bool,
}

impl FuzzSocket {
    /// The peer sends bytes.
    pub fn receive(&self, bytes: &[u8]) {
        let ends = &mut *self.0.borrow_mut();
        if !ends.ended {
            ends.sent.extend_from_slice(bytes);
        }
    }

    /// The peer sends no more.
    pub fn end(&self) {
        self.0.borrow_mut().ended = true;
    }

    /// The peer accepts this many bytes more.
    pub fn take(&self, bytes: usize) {
        self.0.borrow_mut().room += bytes;
    }

    /// The peer has closed its side, so writes to it fail.
    pub fn refuse(&self) {
        self.0.borrow_mut().refuses = true;
    }
}

impl AsyncRead for FuzzSocket {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ends = &mut *self.0.borrow_mut();
        if ends.sent.is_empty() && !ends.ended {
            return Poll::Pending;
        }
        let n = ends.sent.len().min(buf.remaining());
        buf.put_slice(&ends.sent[..n]);
        ends.sent.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for FuzzSocket {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let ends = &mut *self.0.borrow_mut();
        if ends.refuses {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let n = ends.room.min(bytes.len());
        ends.room -= n;
        if n == 0 { Poll::Pending } else { Poll::Ready(Ok(n)) }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
