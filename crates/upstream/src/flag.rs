//! A flag that says in one word what others say in many, so that the many are looked at only while it is up.
//!
//! The flag and what it stands for are written one after the other by any worker. What must not be left behind is a flag that is
//! down for good while it is needed, or up for good while it isn't; for an instant either may be.

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

    /// What it stands for was written before.
    pub(crate) fn raise(&self) {
        // Release, and acquired by who lowers it behind this: so that one sees what was written, and raises it again.
        self.0.swap(true, Release);
    }

    /// Lowers it where it isn't `needed`.
    pub(crate) fn lower_unless(&self, needed: impl Fn() -> bool) {
        if self.is_up() && !needed() {
            // A swap and not a store: a store would overwrite, unseen, a flag that another worker raised in between.
            self.0.swap(false, AcqRel);
            if needed() {
                self.raise();
            }
        }
    }

    /// Sets it to what `state` says, while other threads change the state and do the same. Whether it was up before, and is now.
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
