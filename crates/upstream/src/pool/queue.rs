//! The calls of all workers that wait for a connection's permit.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tokio::sync::{Notify, futures::Notified};

use super::waiting::WaitCount;

/// The calls that wait for a connection's permit, over all workers.
#[derive(Debug, Default)]
pub(crate) struct PermitQueue {
    pub(super) waiting: WaitCount,
    /// The number of requested connections that no worker has closed yet.
    pub(super) wanted: AtomicU32,
    /// Wakes the workers.
    pub(super) asked: Notify,
    /// Wakes the call that has waited longest.
    pub(super) freed: Notify,
}

impl PermitQueue {
    /// A connection was closed.
    pub(crate) fn freed(&self) {
        if self.waiting.any_to_wake() {
            self.freed.notify_one();
        }
    }

    /// Ends when a call asks for idle connections.
    pub(super) fn asked(&self) -> Notified<'_> {
        self.asked.notified()
    }

    pub(super) fn ask(&self) {
        self.wanted.store(self.waiting.get(), Relaxed);
        self.asked.notify_waiters();
    }

    /// Claims one request, to close a connection for it; false if there is none.
    pub(super) fn claim(&self) -> bool {
        self.wanted.fetch_update(Relaxed, Relaxed, |wanted| wanted.checked_sub(1)).is_ok()
    }
}
