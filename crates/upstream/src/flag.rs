//! A flag that sums up other state in one word, so that the other state is read only while the flag is up.
//!
//! Any worker writes the other state and the flag, one after the other. The flag may be wrong for an instant, but it
//! must not stay down while it is needed, or stay up while it isn't.

use crate::sync::{
    AtomicBool,
    Ordering::{AcqRel, Relaxed, Release},
};

/// It begins down.
#[derive(Debug, Default)]
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn is_up(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Raises it. The state that it stands for must be written before.
    pub(crate) fn raise(&self) {
        // Release: a worker that lowers the flag later acquires it, so it sees the written state and raises the flag
        // again.
        self.0.swap(true, Release);
    }

    /// Lowers it if it isn't `needed`.
    pub(crate) fn lower_unless(&self, needed: impl Fn() -> bool) {
        if self.is_up() && !needed() {
            // A swap and not a store: a store would overwrite a flag that another worker raised in between, without
            // reading it.
            self.0.swap(false, AcqRel);
            if needed() {
                self.raise();
            }
        }
    }

    /// Sets it to the result of `state`, while other threads may change the state and do the same. Returns whether it
    /// was up before, and whether it is up now.
    pub(crate) fn follow(&self, state: impl Fn() -> bool) -> (bool, bool) {
        let mut before = None;
        loop {
            let up = state();
            let was = self.0.swap(up, AcqRel);
            let before = *before.get_or_insert(was);
            if state() == up {
                return (before, up);
            }
        }
    }
}
