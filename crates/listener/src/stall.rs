//! Cuts the connection of a client that stops reading: a write that makes no progress for too long is an error.
//!
//! While the socket is full, a server doesn't poll the response's body. So no layer above would notice, and the upstream's connection would
//! be held as long as the client likes. This wraps the socket itself, below TLS: every byte that the kernel accepts is progress, also
//! within a TLS record. The timer runs only after a write that had to wait; a write that succeeds at once reads no clock.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use attache_http::time::{Sleep, sleep};
use tokio::time::Instant;

/// Watches the writes of one socket.
///
/// It is small, because each connection has one and memory per idle connection counts.
#[derive(Debug)]
pub(crate) struct Stall {
    /// Made at the first write that waits, and then reused.
    timer: Option<Pin<Box<Sleep>>>,
    /// In milliseconds; 0 means no limit.
    limit: u32,
    waiting: bool,
}

impl Stall {
    pub(crate) const NONE: Self = Self { timer: None, limit: 0, waiting: false };

    /// Zero means no limit. The limit is kept in whole milliseconds, at least one and at most 49 days.
    pub(crate) fn new(limit: Duration) -> Self {
        let millis = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        Self { limit: if limit.is_zero() { 0 } else { millis.max(1) }, ..Self::NONE }
    }

    /// Passes on the result of a write. If writes wait longer than the limit, the result is the error [`Stalled`].
    pub(crate) fn watch(
        &mut self,
        cx: &mut Context<'_>,
        write: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if write.is_ready() || self.limit == 0 {
            self.waiting = false;
            return write;
        }
        let limit = Duration::from_millis(self.limit.into());
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        if !std::mem::replace(&mut self.waiting, true) {
            timer.as_mut().reset(Instant::now() + limit);
        }
        timer.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, Stalled(limit))))
    }
}

/// The client accepted no byte for this time.
#[derive(Debug)]
pub(crate) struct Stalled(pub(crate) Duration);

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the client accepted no byte of the answer for {:?} (`http.write_timeout`)", self.0)
    }
}

impl std::error::Error for Stalled {}

/// Finds a [`Stalled`] among the causes of an error.
pub(crate) fn stalled<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Stalled> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(stalled) = inner.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref()) {
            return Some(stalled);
        }
        next = error.source();
    }
    None
}
