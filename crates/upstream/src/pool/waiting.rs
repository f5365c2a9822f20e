//! Counts the calls that wait for a connection's permit, and wakes each of them.
//!
//! A call that waits writes here first, and then looks for a permit. A call that releases a permit does that first, and then looks here.
//! One of both sees the other, so a call that found no permit is woken by the next that is released. Two words of memory keep that order only
//! with a fence between the write and the look, on both sides.

use crate::sync::{
    AtomicU32,
    Ordering::{Relaxed, SeqCst},
    fence,
};

/// Calls that wait, over all workers.
#[derive(Debug, Default)]
pub(crate) struct WaitCount(AtomicU32);

impl WaitCount {
    /// One more waits. It looks for a permit after this.
    pub(crate) fn enter(&self) {
        self.0.fetch_add(1, Relaxed);
        fence(SeqCst);
    }

    /// One no longer waits.
    pub(crate) fn leave(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// Whether a call waits that must be woken for a permit that was released before.
    pub(crate) fn any_to_wake(&self) -> bool {
        fence(SeqCst);
        self.get() > 0
    }

    /// About how many wait.
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }
}
