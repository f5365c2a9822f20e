//! What passed through a connection's socket: how an error tells what the upstream may have seen.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Sent, connect::Connection, limit::ConnectionPermit};

/// Seen since the last [`Meter::restart`]. Atomics because hyper wants a connection that can be upgraded to be `Send`;
/// only plain loads and stores are used.
#[derive(Debug, Default)]
pub(super) struct Meter {
    read: AtomicBool,
    wrote: AtomicBool,
    /// The peer reads no more; why.
    write_error: OnceLock<io::Error>,
}

impl Meter {
    /// A new request begins.
    pub(super) fn restart(&self) {
        self.read.store(false, Relaxed);
        self.wrote.store(false, Relaxed);
    }

    /// How much of the request since then the upstream may have seen.
    pub(super) fn sent(&self) -> Sent {
        if self.read.load(Relaxed) {
            Sent::Response
        } else if self.wrote.load(Relaxed) {
            Sent::Request
        } else {
            Sent::Nothing
        }
    }

    /// Why the peer reads no more, if it said so.
    pub(super) fn write_error(&self) -> Option<&io::Error> {
        self.write_error.get()
    }
}

/// A connection under HTTP/1. It carries its permit, so that it is charged as long as it is open, upgraded or not.
///
/// A write that fails because the peer has closed its reading side is not an error yet: the peer may have answered
/// before it closed (RFC 9112 section 9.5), so reading goes on and says what happened; only writing stands still.
#[derive(Debug)]
pub(super) struct Metered {
    io: Connection,
    meter: Arc<Meter>,
    _permit: ConnectionPermit,
}

impl Metered {
    pub(super) fn new(io: Connection, meter: Arc<Meter>, permit: ConnectionPermit) -> Self {
        Self { io, meter, _permit: permit }
    }

    fn wrote(&self, result: io::Result<usize>) -> Poll<io::Result<usize>> {
        match result {
            Ok(n) => {
                if !self.meter.wrote.load(Relaxed) {
                    self.meter.wrote.store(true, Relaxed);
                }
                Poll::Ready(Ok(n))
            }
            Err(error)
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                // Nobody needs to be woken for writing again: the socket's end wakes the reader.
                let _ = self.meter.write_error.set(error);
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if buf.filled().len() > before && !self.meter.read.load(Relaxed) {
            self.meter.read.store(true, Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.meter.write_error().is_some() {
            return Poll::Pending;
        }
        let result = ready!(Pin::new(&mut self.io).poll_write(cx, buf));
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.meter.write_error().is_some() {
            return Poll::Pending;
        }
        let result = match bufs {
            // A request without a body: send(2) is cheaper than writev(2).
            [one] => ready!(Pin::new(&mut self.io).poll_write(cx, one)),
            _ => ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs)),
        };
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.meter.write_error().is_some() {
            return Poll::Ready(Ok(()));
        }
        match ready!(Pin::new(&mut self.io).poll_flush(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            // TLS gathers records, so there the socket's error comes with the flush.
            Err(error) => self.wrote(Err(error)).map_ok(|_| ()),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.meter.write_error().is_some() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
