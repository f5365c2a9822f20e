//! A client that stops reading: its connection is cut when a write has made no progress for too long.
//!
//! hyper doesn't poll a response's body while the socket is full, so nothing above would notice, and the upstream's
//! connection would be held for as long as the client likes. This wraps the socket itself, below TLS: every byte that
//! the kernel takes is progress, also in the middle of a TLS record. A timer runs only after a write that had to wait;
//! one that is taken at once reads no clock.

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
/// Small, since each connection has one, and memory per idle connection counts.
#[derive(Debug)]
pub(crate) struct Stall {
    /// Made once, with the first write that waits, and used again.
    timer: Option<Pin<Box<Sleep>>>,
    /// Milliseconds; 0 is no limit.
    limit: u32,
    waiting: bool,
}

impl Stall {
    pub(crate) const NONE: Self = Self { timer: None, limit: 0, waiting: false };

    /// Zero is no limit. The limit is kept in whole milliseconds, at least one and at most 49 days.
    pub(crate) fn new(limit: Duration) -> Self {
        let millis = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        Self { limit: if limit.is_zero() { 0 } else { millis.max(1) }, ..Self::NONE }
    }

    /// Passes on what a write gave; one that waits for longer than the limit becomes [`Stalled`].
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

/// The client took no byte for so long.
#[derive(Debug)]
pub(crate) struct Stalled(pub(crate) Duration);

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the client took no byte of the answer for {:?} (`http.write_timeout`)", self.0)
    }
}

impl std::error::Error for Stalled {}

/// Finds it among the causes of an error.
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
