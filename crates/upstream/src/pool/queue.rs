//! The calls of all workers that wait for a connection's place.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tokio::sync::{Notify, futures::Notified};

use super::waiting::WaitCount;

/// The calls that wait for a connection's place, over all workers.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(super) waiting: WaitCount,
    /// Connections that are asked for and that no worker has given up yet.
    pub(super) wanted: AtomicU32,
    /// Wakes the workers.
    pub(super) asked: Notify,
    /// Wakes the call that has waited longest.
    pub(super) freed: Notify,
}

impl Queue {
    /// A connection was closed.
    pub(crate) fn freed(&self) {
        if self.waiting.any_to_wake() {
            self.freed.notify_one();
        }
    }

    /// Ends when idle connections are asked for.
    pub(super) fn asked(&self) -> Notified<'_> {
        self.asked.notified()
    }

    pub(super) fn ask(&self) {
        self.wanted.store(self.waiting.get(), Relaxed);
        self.asked.notify_waiters();
    }

    /// Takes it on to give one up.
    pub(super) fn claim(&self) -> bool {
        self.wanted.fetch_update(Relaxed, Relaxed, |wanted| wanted.checked_sub(1)).is_ok()
    }
}
