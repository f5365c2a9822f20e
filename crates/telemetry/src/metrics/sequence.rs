//! Values that belong together, written by one thread and read by others without a lock.
//!
//! The writer counts up before and after (a sequence lock: H.-J. Boehm, "Can seqlocks get along with programming language memory
//! models?", 2012), and a reader that meets it in between takes nothing.

use crate::sync::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};

/// Writes with `write`, whose stores may be relaxed. Only the one thread that owns the values calls this.
pub(crate) fn write(changes: &AtomicU64, write: impl FnOnce()) {
    let before = changes.load(Relaxed);
    changes.store(before.wrapping_add(1), Relaxed);
    fence(Release);
    write();
    changes.store(before.wrapping_add(2), Release);
}

/// What `read` found, whose loads may be relaxed; `None` where the values changed meanwhile.
pub(crate) fn read<T>(changes: &AtomicU64, read: impl FnOnce() -> T) -> Option<T> {
    let before = changes.load(Acquire);
    let found = read();
    fence(Acquire);
    (before.is_multiple_of(2) && changes.load(Relaxed) == before).then_some(found)
}
