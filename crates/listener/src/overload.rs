//! What overload protection tells the workers.
//!
//! One thread watches the process's memory and file descriptors, and writes its decisions here. Workers only read: one load for each
//! connection, and one for each request. While the process is short of something, that thread also calls all workers now and then
//! ([`OverloadState::pressed`]), so that idle resources are released.
//!
//! **File descriptors.** A burst may come between two checks. So every accepted connection is subtracted from the number that was free at
//! the last check, with one more for the connection to its upstream. So accepting stops before it fails, and the reserve stays for what
//! runs.

use std::sync::atomic::{AtomicBool, AtomicI8, AtomicI64, Ordering::Relaxed};

use tokio::sync::watch;

/// The lowest urgency (RFC 9218).
const LEAST_URGENT: i8 = 7;
/// How many descriptors a client's connection may need: its own, and that of its call.
const PER_CONNECTION: i64 = 2;

/// The process's state of overload, shared by all threads.
#[derive(Debug)]
pub struct OverloadState {
    stop: AtomicBool,
    /// Requests with a higher number, so with less urgency, are refused; -1 refuses all.
    keeps: AtomicI8,
    descriptors: AtomicI64,
    pressed: watch::Sender<()>,
}

impl Default for OverloadState {
    fn default() -> Self {
        Self {
            stop: AtomicBool::new(false),
            keeps: AtomicI8::new(LEAST_URGENT),
            descriptors: AtomicI64::new(i64::MAX),
            pressed: watch::Sender::new(()),
        }
    }
}

impl OverloadState {
    /// Sets what holds until the next check: the urgency up to which requests are served (7 all, -1 none), whether accepting stops, and how
    /// many file descriptors may be used.
    pub fn set(&self, keeps: i8, stop: bool, descriptors: i64) {
        self.keeps.store(keeps, Relaxed);
        self.stop.store(stop, Relaxed);
        self.descriptors.store(descriptors, Relaxed);
    }

    /// Asks all workers to close idle connections and drop unused buffers.
    pub fn press(&self) {
        self.pressed.send_replace(());
    }

    /// It changes whenever workers are asked to close idle connections.
    pub fn pressed(&self) -> watch::Receiver<()> {
        self.pressed.subscribe()
    }

    /// Whether a new request is refused. `urgency` is called only if the result depends on it.
    pub fn refuses(&self, urgency: impl FnOnce() -> u8) -> bool {
        let keeps = self.keeps.load(Relaxed);
        keeps < LEAST_URGENT && i16::from(keeps) < i16::from(urgency())
    }

    /// Whether connections must stay in the kernel's queue.
    pub fn stops_accepting(&self) -> bool {
        self.stop.load(Relaxed) || self.descriptors.load(Relaxed) <= 0
    }

    /// Notes that a connection was accepted.
    pub(crate) fn accepted(&self) {
        self.descriptors.fetch_sub(PER_CONNECTION, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_refused_from_the_least_urgent_on() {
        let overload = OverloadState::default();
        assert!(!overload.refuses(|| panic!("the urgency is not read without overload")));
        overload.set(3, false, i64::MAX);
        assert!(!overload.refuses(|| 3) && overload.refuses(|| 4));
        overload.set(-1, false, i64::MAX);
        assert!(overload.refuses(|| 0));
    }

    #[test]
    fn a_burst_between_two_checks_uses_no_more_than_was_free() {
        let overload = OverloadState::default();
        overload.set(7, false, 5);
        let taken =
            std::iter::repeat_with(|| overload.accepted()).take_while(|()| !overload.stops_accepting());
        assert_eq!(taken.count() + 1, 3);
        overload.set(7, false, 5);
        assert!(!overload.stops_accepting(), "the next check starts again");
        overload.set(7, false, 4);
        overload.accepted();
        assert!(!overload.stops_accepting(), "two are free");
        overload.accepted();
        assert!(overload.stops_accepting(), "none is free");
        overload.set(7, true, i64::MAX);
        assert!(overload.stops_accepting(), "because the check says so");
    }
}
