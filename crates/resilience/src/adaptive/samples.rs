//! Latencies of one window, in buckets that any worker adds to without a lock.
//!
//! Sixteen buckets for each doubling, so a latency is exact to 1/16; that is well below the tolerance of `buffer`.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Buckets for each doubling, as a power of two.
const BITS: u32 = 4;
const STEPS: usize = 1 << BITS;
/// Up to 2^33 µs, more than two hours; a longer latency counts as this.
const BUCKETS: usize = (34 - BITS as usize) * STEPS;

/// Counts of latencies in microseconds.
#[derive(Debug)]
pub(super) struct LatencySamples([AtomicU32; BUCKETS]);

impl Default for LatencySamples {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU32::new(0)))
    }
}

impl LatencySamples {
    pub(super) fn record(&self, micros: u64) {
        if let Some(bucket) = self.0.get(bucket(micros).min(BUCKETS - 1)) {
            bucket.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn clear(&self) {
        for bucket in &self.0 {
            bucket.store(0, Relaxed);
        }
    }

    /// Removes all samples. Returns the latency below which this share of them lies, in microseconds; `None` without a
    /// sample.
    pub(super) fn take(&self, share: f64) -> Option<u64> {
        let counts: [u32; BUCKETS] =
            std::array::from_fn(|at| self.0.get(at).map_or(0, |b| b.swap(0, Relaxed)));
        let all: u64 = counts.iter().copied().map(u64::from).sum();
        let rank = ((all as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        counts.iter().enumerate().find_map(|(at, count)| {
            below += u64::from(*count);
            (below >= rank).then(|| middle(at))
        })
    }
}

fn bucket(micros: u64) -> usize {
    let Some(exponent) = micros.checked_ilog2().filter(|exponent| *exponent >= BITS) else {
        return micros as usize;
    };
    let step = (micros >> (exponent - BITS)) as usize & (STEPS - 1);
    (exponent - BITS + 1) as usize * STEPS + step
}

fn middle(bucket: usize) -> u64 {
    let (doubling, step) = (bucket / STEPS, (bucket % STEPS) as u64);
    let Some(shift) = doubling.checked_sub(1) else { return step };
    ((STEPS as u64 + step) << shift) + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_latency_beyond_the_last_bucket_counts_as_the_longest() {
        let samples = LatencySamples::default();
        samples.record(u64::MAX);
        assert!(samples.take(0.5) > Some(1 << 32));
    }

    proptest! {
        #[test]
        fn a_percentile_is_right_to_one_part_in_sixteen(
            mut all in prop::collection::vec(0_u64..8_000_000_000, 1..200),
            share in 0.01..1.0_f64,
        ) {
            let samples = LatencySamples::default();
            for micros in &all {
                samples.record(*micros);
            }
            let found = samples.take(share).unwrap();
            all.sort_unstable();
            let rank = ((all.len() as f64 * share).ceil() as usize).max(1);
            let exact = all[rank - 1];
            prop_assert!(found.abs_diff(exact) <= exact / 16, "{found} {exact}");
            prop_assert_eq!(samples.take(share), None, "taken is taken");
        }
    }
}
