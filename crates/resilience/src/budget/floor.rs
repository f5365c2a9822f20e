//! Retries a second that are always admitted, whatever the share.

use std::time::Duration;

use tokio::time::Instant;

use crate::sync::{AtomicU64, Ordering};

/// A token bucket that holds one second's worth, in one word: the instant at which it will be full again
/// (GCRA, the generic cell rate algorithm of ITU-T I.371).
#[derive(Debug)]
pub(crate) struct MinRetryRate {
    epoch: Instant,
    full_at: AtomicU64,
}

const SECOND: u64 = 1_000_000_000;

impl MinRetryRate {
    pub(crate) fn new(epoch: Instant) -> Self {
        Self { epoch, full_at: AtomicU64::new(0) }
    }

    /// Takes one of `rate` tokens a second.
    pub(crate) fn admit(&self, rate: u32, now: Instant) -> bool {
        let Some(token) = SECOND.checked_div(u64::from(rate)) else {
            return false;
        };
        let now = nanos(now.saturating_duration_since(self.epoch));
        self.full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                let full_at = full_at.max(now) + token;
                (full_at <= now + SECOND).then_some(full_at)
            })
            .is_ok()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2)
}
