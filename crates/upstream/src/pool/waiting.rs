//! Counts the calls that wait for a connection's permit, and wakes each of them.
//!
//! A waiting call first writes here, and then looks for a permit. A call that releases a permit first releases it, and
//! then looks here. So one of the two always sees the other, and the next released permit wakes a call that found none.
//! Since these are two words of memory, this order needs a fence between the write and the read, on both sides.

use crate::sync::{
    AtomicU32,
    Ordering::{Relaxed, SeqCst},
    fence,
};

/// Calls that wait, over all workers.
#[derive(Debug, Default)]
pub(crate) struct WaitCount(AtomicU32);

impl WaitCount {
    /// One more call waits. It must look for a permit after this.
    pub(crate) fn enter(&self) {
        self.0.fetch_add(1, Relaxed);
        fence(SeqCst);
    }

    /// One call no longer waits.
    pub(crate) fn leave(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// Whether a call waits. The permit must be released before this.
    pub(crate) fn any_to_wake(&self) -> bool {
        fence(SeqCst);
        self.get() > 0
    }

    /// About how many calls wait.
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }
}
