//! Places of a limit, counted over all workers.

use crate::sync::{AtomicU32, Ordering::Relaxed};

/// Takes one of `limit` places; how many are taken then, this one included. `None` where all are taken.
///
/// Never one too many, and never a refusal while a place is free: the count holds places only, not those who ask.
/// Relaxed, since it guards nothing but itself.
pub fn take(counter: &AtomicU32, limit: u32) -> Option<u32> {
    let one_more = |taken: u32| (taken < limit).then(|| taken + 1);
    counter.fetch_update(Relaxed, Relaxed, one_more).ok().map(|taken| taken + 1)
}
