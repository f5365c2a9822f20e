//! How long an upstream's answers take to their head: a histogram that all workers add to without a lock.
//!
//! **Rule.** Microseconds are counted in buckets of 1/16 of an octave, so a quantile is at most 6.25 % too long. Two
//! halves take turns, each for [`HALF_WINDOW`]; together they hold the last half to whole minute, and older values are
//! forgotten. A half has the number of its turn: the first worker that adds to a stale half clears it (values that
//! others add at that instant are lost).
//!
//! An addition is one locked instruction. A quantile reads all buckets, so [`Quantile`] caches it for [`CACHE_TIME`].
//!
//! **Source.** HdrHistogram's buckets (Tene); tower's `hedge` has the same two halves.

use std::{
    array,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

const HALF_WINDOW: Duration = Duration::from_secs(30);
/// How long a quantile is cached.
const CACHE_TIME: Duration = Duration::from_millis(100);
/// Buckets in an octave, as a power of two.
const FINE: u32 = 4;
/// Longer ones are counted as this, 2^28 µs (4.5 min).
const OCTAVES: u32 = 28;
const BUCKETS: usize = ((OCTAVES - FINE + 1) << FINE) as usize;

/// The histogram of one upstream.
#[derive(Debug)]
pub(crate) struct Latency {
    epoch: Instant,
    halves: [HistogramHalf; 2],
}

#[derive(Debug)]
struct HistogramHalf {
    turn: AtomicU64,
    buckets: [AtomicU32; BUCKETS],
}

impl Latency {
    pub(crate) fn new(now: Instant) -> Self {
        let half =
            || HistogramHalf { turn: AtomicU64::new(0), buckets: array::from_fn(|_| AtomicU32::new(0)) };
        Self { epoch: now, halves: [half(), half()] }
    }

    /// An answer's head came after this time, or was no longer awaited.
    pub(crate) fn add(&self, latency: Duration, now: Instant) {
        let turn = self.turn(now);
        let Some(half) = self.halves.get((turn % 2) as usize) else { return };
        let of = half.turn.load(Relaxed);
        if of != turn && half.turn.compare_exchange(of, turn, Relaxed, Relaxed).is_ok() {
            half.buckets.iter().for_each(|bucket| bucket.store(0, Relaxed));
        }
        if let Some(bucket) = half.buckets.get(index(latency)) {
            bucket.fetch_add(1, Relaxed);
        }
    }

    /// The longest time of the fastest share `quantile` of the answers; `None` if there are fewer than `fewest`
    /// answers.
    pub(crate) fn quantile(&self, quantile: f64, fewest: u32, now: Instant) -> Option<Duration> {
        let turn = self.turn(now);
        let current = |half: &&HistogramHalf| (turn - 1..=turn).contains(&half.turn.load(Relaxed));
        let halves: [Option<&HistogramHalf>; 2] = array::from_fn(|at| self.halves.get(at).filter(current));
        let count = |at: usize| -> u64 {
            let buckets = halves.iter().flatten().filter_map(|half| half.buckets.get(at));
            buckets.map(|bucket| u64::from(bucket.load(Relaxed))).sum()
        };
        let all: u64 = (0..BUCKETS).map(count).sum();
        if all < u64::from(fewest.max(1)) {
            return None;
        }
        let rank = (quantile * all as f64).ceil() as u64;
        let mut seen = 0;
        let at = (0..BUCKETS).find(|at| {
            seen += count(*at);
            seen >= rank
        });
        Some(bound(at.unwrap_or(BUCKETS - 1)))
    }

    /// Turns begin at 2, so that a half that was never used belongs to no turn that counts.
    fn turn(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_secs() / HALF_WINDOW.as_secs() + 2
    }
}

/// The bucket of a latency.
fn index(latency: Duration) -> usize {
    let micros = latency.as_micros().min((1 << OCTAVES) - 1) as u64;
    let octave = (u64::BITS - micros.leading_zeros()).saturating_sub(FINE + 1);
    ((octave as usize) << FINE) + (micros >> octave) as usize
}

/// The longest latency of a bucket.
fn bound(index: usize) -> Duration {
    let octave = (index >> FINE).saturating_sub(1);
    let fine = index - (octave << FINE);
    Duration::from_micros(((fine as u64 + 1) << octave) - 1)
}

/// A quantile of a [`Latency`], which is computed only from time to time.
#[derive(Debug)]
pub(crate) struct Quantile {
    share: f64,
    fewest: u32,
    /// Nanoseconds; 0 if there is none.
    known: AtomicU64,
    /// Milliseconds since the histogram's epoch.
    due: AtomicU64,
}

impl Quantile {
    pub(crate) fn new(share: f64, fewest: u32) -> Self {
        Self { share, fewest, known: AtomicU64::new(0), due: AtomicU64::new(0) }
    }

    /// The quantile; its value is at most [`CACHE_TIME`] old.
    pub(crate) fn get(&self, of: &Latency, now: Instant) -> Option<Duration> {
        let at = now.saturating_duration_since(of.epoch).as_millis() as u64;
        let due = self.due.load(Relaxed);
        let next = at + CACHE_TIME.as_millis() as u64;
        if at >= due && self.due.compare_exchange(due, next, Relaxed, Relaxed).is_ok() {
            let quantile = of.quantile(self.share, self.fewest, now).unwrap_or_default();
            self.known.store(quantile.as_nanos() as u64, Relaxed);
        }
        match self.known.load(Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::advance;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_quantile_is_computed_from_the_added_values() {
        let now = Instant::now();
        let latency = Latency::new(now);
        (1..=1000).for_each(|n| latency.add(n * MS, now));
        for (quantile, expected) in [(0.5, 500), (0.95, 950), (0.99, 990), (0.999, 999)] {
            let got = latency.quantile(quantile, 1000, now).unwrap();
            assert!(got >= expected * MS && got <= (expected * MS).mul_f64(1.0625), "{quantile}: {got:?}");
        }
        assert_eq!(latency.quantile(0.5, 1001, now), None, "too few");
    }

    #[tokio::test(start_paused = true)]
    async fn a_quantile_between_two_answers_is_the_longer_one() {
        let now = Instant::now();
        let latency = Latency::new(now);
        for ms in [10, 100, 1000] {
            latency.add(ms * MS, now);
        }
        let between = |quantile, least: u32| {
            let found = latency.quantile(quantile, 3, now).unwrap();
            found >= least * MS && found <= least * MS * 17 / 16
        };
        assert!(between(0.3, 10) && between(0.5, 100) && between(0.7, 1000));
    }

    #[tokio::test(start_paused = true)]
    async fn values_older_than_a_minute_are_forgotten() {
        let latency = Latency::new(Instant::now());
        let add = |ms: u32| (0..100).for_each(|_| latency.add(ms * MS, Instant::now()));
        let median = || latency.quantile(0.5, 1, Instant::now()).map(|median| median.as_millis());
        add(500);
        advance(HALF_WINDOW).await;
        assert!(median() >= Some(500), "of the turn before");
        advance(HALF_WINDOW).await;
        assert_eq!(median(), None, "of the turn before that");
        add(10);
        assert_eq!(median(), Some(10), "the half was begun anew");
        let longest = latency.quantile(1.0, 1, Instant::now());
        assert!(longest < Some(11 * MS), "no value of its earlier turn is left: {longest:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_kept_quantile_follows_within_its_time() {
        let latency = Latency::new(Instant::now());
        let quantile = Quantile::new(0.95, 10);
        advance(MS).await;
        assert_eq!(quantile.get(&latency, Instant::now()), None);
        (0..10).for_each(|_| latency.add(20 * MS, Instant::now()));
        assert_eq!(quantile.get(&latency, Instant::now()), None, "it was looked up just now");
        advance(CACHE_TIME).await;
        assert!(quantile.get(&latency, Instant::now()) >= Some(20 * MS));
    }

    #[test]
    fn threads_lose_nothing_within_a_turn() {
        let now = Instant::now();
        let latency = Latency::new(now);
        latency.add(MS, now);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000u32).for_each(|n| latency.add(n * MS / 100, now)));
            }
        });
        assert!(latency.quantile(0.5, 40_001, now).is_some());
    }

    #[test]
    fn short_latencies_are_exact_and_too_long_ones_count_as_the_longest() {
        for micros in 0..32 {
            assert_eq!(bound(index(Duration::from_micros(micros))), Duration::from_micros(micros));
        }
        for long in [Duration::from_micros(1 << OCTAVES), Duration::from_hours(1), Duration::MAX] {
            assert_eq!(index(long), BUCKETS - 1);
        }
    }

    proptest! {
        #[test]
        fn a_bucket_holds_its_latency_to_a_sixteenth(micros in 0u64..1 << OCTAVES) {
            let latency = Duration::from_micros(micros);
            let bound = bound(index(latency));
            prop_assert!(bound >= latency && bound.as_micros() <= u128::from(micros + micros / 16));
            prop_assert!(index(latency) < BUCKETS);
        }
    }
}
