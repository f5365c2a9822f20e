//! The state of ejections of an endpoint and of its upstream.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use attache_telemetry::Reason;
use tokio::sync::Notify;

use crate::flag::Flag;

/// Passive health of one endpoint.
#[derive(Debug, Default)]
pub struct Passive {
    pub(super) consecutive_5xx: AtomicU32,
    pub(super) consecutive_local: AtomicU32,
    pub(super) rates: IntervalCounts,
    /// n: the number of ejections that are not yet forgotten.
    pub(super) multiplier: AtomicU32,
    /// End of the last ejection, nanoseconds since the endpoint was added.
    pub(super) until: AtomicU64,
    /// How long the last ejection is, nanoseconds.
    pub(super) time: AtomicU64,
    pub(super) total: AtomicU64,
    /// The last failure: its reason's place in `Reason::ALL`, plus one, above 48 bits of seconds since the endpoint was added.
    pub(super) last: AtomicU64,
    /// Failures since the endpoint was added.
    pub(super) failures: AtomicU64,
}

impl Passive {
    /// Ejections since the endpoint was added.
    pub fn ejections(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Failures since the endpoint was added, also those that led to no ejection.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// The reason of the last failure, and how long after the endpoint's start it came.
    pub fn last_failure(&self) -> Option<(Reason, Duration)> {
        let word = self.last.load(Relaxed);
        let index = usize::try_from(word >> 48).ok()?.checked_sub(1)?;
        let reason = Reason::ALL.get(index)?;
        Some((*reason, Duration::from_secs(word & ((1 << 48) - 1))))
    }
}

/// State that the ejections of one upstream share.
#[derive(Debug, Default)]
pub struct Ejections {
    /// One worker at a time ejects, so that the count it acts on is true.
    pub(super) busy: AtomicBool,
    /// Some endpoint may have failures in a row.
    pub(super) failing: Flag,
    pub(super) rates: CountingSwitch,
    pub(super) changed: Notify,
}

/// The counts of one endpoint in this interval.
#[derive(Debug, Default)]
pub(super) struct IntervalCounts {
    pub(super) begun: AtomicU32,
    pub(super) failed: AtomicU32,
}

/// Whether requests of an upstream are counted at all.
#[derive(Debug, Default)]
pub(super) struct CountingSwitch(pub(super) AtomicBool);
