//! A connection that switches from HTTP to a tunnel: its stream goes to the owner of the request's [`OnUpgrade`].
//!
//! [`OnUpgrade`]: crate::OnUpgrade

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use attache_http::Abort;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

use crate::{request::ListenerPermit, stream::ClientStream};

/// The signals between the connection's task and its tunnel.
#[derive(Debug, Default)]
pub(super) struct TunnelSignals {
    cut: AtomicBool,
    reader: OnceLock<Waker>,
    /// The tunnel was dropped.
    pub(super) gone: Notify,
}

impl TunnelSignals {
    /// Ends the tunnel.
    pub(super) fn cut(&self) {
        self.cut.store(true, Relaxed);
        if let Some(reader) = self.reader.get() {
            reader.wake_by_ref();
        }
    }
}

/// The client's side of a tunnel. It holds the connection's permit.
#[derive(Debug)]
pub(crate) struct Http1Tunnel {
    stream: ClientStream,
    signals: Arc<TunnelSignals>,
    _place: Option<ListenerPermit>,
}

impl Http1Tunnel {
    pub(super) const fn new(
        stream: ClientStream,
        signals: Arc<TunnelSignals>,
        place: Option<ListenerPermit>,
    ) -> Self {
        Self { stream, signals, _place: place }
    }
}

impl Drop for Http1Tunnel {
    fn drop(&mut self) {
        self.signals.gone.notify_one();
    }
}

impl Abort for Http1Tunnel {
    fn abort(&mut self) {
        self.stream.abort();
    }

    fn broken(&self) -> Option<io::Error> {
        if self.signals.cut.load(Relaxed) {
            return Some(io::ErrorKind::ConnectionAborted.into());
        }
        self.stream.broken()
    }

    fn is_quiet(&self) -> bool {
        !self.signals.cut.load(Relaxed) && self.stream.is_quiet()
    }
}

impl AsyncRead for Http1Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.signals.cut.load(Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() {
            // The same task reads it from its beginning to its end.
            let _ = self.signals.reader.get_or_init(|| cx.waker().clone());
        }
        read
    }
}

impl AsyncWrite for Http1Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
