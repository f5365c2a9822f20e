//! Values that belong together, written by one thread and read by others without a lock.
//!
//! The writer increments a counter before and after it writes (a sequence lock: H.-J. Boehm, "Can seqlocks get along with programming
//! language memory models?", 2012). A reader that meets a write gets nothing.

use crate::sync::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};

/// Runs `write`, whose stores may be relaxed. Only the thread that owns the values may call this.
pub(crate) fn write(changes: &AtomicU64, write: impl FnOnce()) {
    let before = changes.load(Relaxed);
    changes.store(before.wrapping_add(1), Relaxed);
    fence(Release);
    write();
    changes.store(before.wrapping_add(2), Release);
}

/// Returns what `read` found; its loads may be relaxed. `None` if the values changed meanwhile.
pub(crate) fn read<T>(changes: &AtomicU64, read: impl FnOnce() -> T) -> Option<T> {
    let before = changes.load(Acquire);
    let found = read();
    fence(Acquire);
    (before.is_multiple_of(2) && changes.load(Relaxed) == before).then_some(found)
}
