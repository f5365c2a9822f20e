//! Permits of a limit, counted over all workers.

use crate::sync::{AtomicU32, Ordering::Relaxed};

/// Takes one of `limit` permits. Returns how many are taken now, this one included; `None` if all are taken.
///
/// It never takes one too many, and never refuses while a permit is free: the count contains only taken permits, not
/// the calls that ask. Relaxed is enough, since the count protects no other data.
pub fn take(counter: &AtomicU32, limit: u32) -> Option<u32> {
    let one_more = |taken: u32| (taken < limit).then(|| taken + 1);
    counter.fetch_update(Relaxed, Relaxed, one_more).ok().map(|taken| taken + 1)
}
