//! Counters of one upstream's calls, over all workers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Events since the start. They are counted only after failures, so a healthy request never writes them.
#[derive(Debug, Default)]
pub struct Counters {
    /// Retries that were started within `attempts`.
    pub retries: AtomicU64,
    /// Calls that went to another endpoint because they had not reached an application.
    pub failovers: AtomicU64,
    /// Retries whose answer needed no further retry.
    pub retries_succeeded: AtomicU64,
    /// Hedges that were sent.
    pub hedges: AtomicU64,
    /// Hedges whose answer the caller got.
    pub hedges_won: AtomicU64,
    /// Retries that the budget refused (`retry-budget-exhausted`).
    pub budget_exhausted: AtomicU64,
    /// Calls that the open breaker answered (`circuit-open`).
    pub circuit_open: AtomicU64,
    /// Lost close races that an attempt on a fresh connection has hidden.
    pub close_races: AtomicU64,
    /// Requests that were cut at their deadline (`request-timeout`).
    pub request_timeouts: AtomicU64,
    /// Attempts that were cut at their own deadline (`per-try-timeout`).
    pub per_try_timeouts: AtomicU64,
    /// Answers that were ended because their client read nothing (`client-stalled`).
    pub clients_stalled: AtomicU64,
    /// Streams that were cut because they were idle (`idle-timeout`).
    pub idle_timeouts: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
