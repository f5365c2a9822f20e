//! What is counted of one upstream's calls, by all workers together.

use std::sync::atomic::{AtomicU64, Ordering};

/// Events since the start. They are counted only when something failed, so a healthy request never touches them.
#[derive(Debug, Default)]
pub struct Counters {
    /// Retries that were started within `attempts`.
    pub retries: AtomicU64,
    /// Calls that went on to another endpoint since they had not reached an application.
    pub failovers: AtomicU64,
    /// Retries that ended with an answer which needed no other.
    pub retries_succeeded: AtomicU64,
    /// Hedges that were sent.
    pub hedges: AtomicU64,
    /// Hedges whose answer was the caller's.
    pub hedges_won: AtomicU64,
    /// Retries that the budget refused (`retry-budget-exhausted`).
    pub budget_exhausted: AtomicU64,
    /// Calls that the open breaker answered (`circuit-open`).
    pub circuit_open: AtomicU64,
    /// Close races hidden by a try on a fresh connection.
    pub close_races: AtomicU64,
    /// Requests cut by their deadline (`request-timeout`).
    pub request_timeouts: AtomicU64,
    /// Attempts cut by theirs (`per-try-timeout`).
    pub per_try_timeouts: AtomicU64,
    /// Answers given up since their client took nothing (`client-stalled`).
    pub clients_stalled: AtomicU64,
    /// Streams cut for silence (`idle-timeout`).
    pub idle_timeouts: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
