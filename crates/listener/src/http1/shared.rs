//! What the guard under hyper and the service above it tell each other.
//!
//! hyper's upgrades want the connection to be `Send`, so these are atomics although both sides are on one thread. The mutex is
//! touched only for 1xx responses, which are rare, and is never contended.

use std::sync::{
    Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, AtomicU8, Ordering},
};
use std::task::Waker;

use tokio::sync::Notify;

use crate::{exchange::WhyRefused, request::Refusal};

#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Which request of the connection is a stand-in, and for what. Counted from 1.
    refused: OnceLock<(u64, Refusal)>,
    /// Why the body that runs was cut.
    broken: OnceLock<Refusal>,
    switch: AtomicU8,
    has_informational: AtomicBool,
    informational: Mutex<Vec<u8>>,
    cut: AtomicBool,
    at_rest: AtomicBool,
    tunnel: OnceLock<Waker>,
    /// The stream was dropped.
    pub(crate) gone: Notify,
}

/// What became of a request that could switch protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    /// Not answered yet.
    Open,
    /// Answered as HTTP.
    Declined,
    /// The bytes are no longer HTTP.
    Switched,
}

impl Shared {
    pub(crate) fn refuse(&self, ordinal: u64, refusal: Refusal) {
        let _ = self.refused.set((ordinal, refusal));
    }

    /// The refusal that stands in for this request.
    pub(crate) fn refused(&self, ordinal: u64) -> Option<Refusal> {
        self.refused.get().filter(|(at, _)| *at == ordinal).map(|(_, refusal)| *refusal)
    }

    pub(crate) fn break_body(&self, refusal: Refusal) {
        let _ = self.broken.set(refusal);
    }

    pub(crate) fn set_switch(&self, switch: Switch) {
        self.switch.store(switch as u8, Ordering::Relaxed);
    }

    pub(crate) fn switch(&self) -> Switch {
        match self.switch.load(Ordering::Relaxed) {
            0 => Switch::Open,
            1 => Switch::Declined,
            _ => Switch::Switched,
        }
    }

    /// Queues a 1xx response's bytes for the next safe point.
    pub(crate) fn inform(&self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.informational.lock().unwrap_or_else(PoisonError::into_inner));
        self.has_informational.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_informational(&self) -> bool {
        self.has_informational.load(Ordering::Relaxed)
    }

    pub(crate) fn take_informational(&self) -> Vec<u8> {
        self.has_informational.store(false, Ordering::Relaxed);
        std::mem::take(&mut self.informational.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends a tunnel that this connection became.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
        if let Some(waker) = self.tunnel.get() {
            waker.wake_by_ref();
        }
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// Nothing is held between the stream and the service: every byte that came was a whole request's, every byte of the
    /// answers is with the socket.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.at_rest.load(Ordering::Relaxed)
    }

    pub(crate) fn set_at_rest(&self, at_rest: bool) {
        self.at_rest.store(at_rest, Ordering::Relaxed);
    }

    /// Notes the task that reads the tunnel; one task reads it from begin to end.
    pub(crate) fn tunnel_read_by(&self, waker: &Waker) {
        let _ = self.tunnel.get_or_init(|| waker.clone());
    }
}

impl WhyRefused for std::sync::Arc<Shared> {
    fn refusal(&self) -> Option<Refusal> {
        self.broken.get().copied()
    }
}
