//! A sliding window of calls and failures: ten buckets, one word each.
//!
//! A bucket carries the number of its turn: the first call that adds to a stale bucket sees this and clears it. The
//! window's length is therefore between 0.9 and 1.0 of the configured length.
//!
//! Relaxed is enough here: a call that was let through by the state after a `clear` sees the cleared window, by the
//! memory order of that state's word (`state.rs`). If the thread of a call stops between reading the state and counting
//! here, and the breaker opens and closes meanwhile, the call counts in the wrong window; it is one of many.

use std::{array, time::Duration};

use crate::sync::{AtomicU64, Ordering::Relaxed};

const BUCKETS: u64 = 10;
/// 20 bits of turn, 22 of calls, 22 of failures; a full bucket takes no more.
const TURNS: u64 = 1 << 20;
const FULL: u64 = (1 << 22) - 1;

#[derive(Debug)]
pub(super) struct CountWindow {
    bucket: Duration,
    buckets: [AtomicU64; BUCKETS as usize],
}

impl CountWindow {
    pub(super) fn new(length: Duration) -> Self {
        let bucket = (length / BUCKETS as u32).max(Duration::from_millis(1));
        Self { bucket, buckets: array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Adds a call that ended at `since` (after the breaker's epoch).
    pub(super) fn add(&self, since: Duration, success: bool) {
        let turn = self.turn(since);
        let Some(bucket) = self.buckets.get((turn % BUCKETS) as usize) else { return };
        // Never fails: the closure always gives a next value.
        let _ = bucket.fetch_update(Relaxed, Relaxed, |word| {
            let (of, mut all, mut failed) = unpack(word);
            if of != turn % TURNS {
                (all, failed) = (0, 0);
            }
            if all < FULL {
                all += 1;
                failed += u64::from(!success);
            }
            Some((turn % TURNS) << 44 | all << 22 | failed)
        });
    }

    /// Calls and failures in the window that ends at `since`.
    pub(super) fn sum(&self, since: Duration) -> (u64, u64) {
        let turn = self.turn(since);
        self.buckets.iter().fold((0, 0), |(calls, failures), bucket| {
            let (of, all, failed) = unpack(bucket.load(Relaxed));
            let age = (turn + TURNS - of) % TURNS;
            if age < BUCKETS { (calls + all, failures + failed) } else { (calls, failures) }
        })
    }

    pub(super) fn clear(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Relaxed);
        }
    }

    /// Turns begin at 10, so that a bucket of zeroes never belongs to the present window.
    fn turn(&self, since: Duration) -> u64 {
        (since.as_nanos() / self.bucket.as_nanos()) as u64 + BUCKETS
    }
}

fn unpack(word: u64) -> (u64, u64, u64) {
    (word >> 44, word >> 22 & FULL, word & FULL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_older_than_the_window_are_forgotten() {
        let window = CountWindow::new(Duration::from_secs(10));
        let at = Duration::from_secs;
        window.add(at(0), false);
        window.add(at(1), true);
        window.add(at(9), false);
        assert_eq!(window.sum(at(9)), (3, 2));
        assert_eq!(window.sum(at(10)), (2, 1));
        assert_eq!(window.sum(at(18)), (1, 1));
        assert_eq!(window.sum(at(19)), (0, 0));
        window.add(at(20), true);
        assert_eq!(window.sum(at(20)), (1, 0));
        window.clear();
        assert_eq!(window.sum(at(20)), (0, 0));
    }

    #[test]
    fn threads_lose_no_call() {
        let window = CountWindow::new(Duration::from_secs(10));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..10_000u64).for_each(|n| window.add(Duration::from_millis(n / 10), n % 4 != 0));
                });
            }
        });
        assert_eq!(window.sum(Duration::from_secs(1)), (40_000, 10_000));
    }
}
