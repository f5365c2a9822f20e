//! Durations in buckets.

use std::time::Duration;

/// The upper bounds of the duration buckets, in microseconds. They go from half a millisecond, below which the sidecar's own share and the
/// noise of the clock dominate, to a minute, above which nobody waits. They are denser where objectives are usually set.
pub(crate) const BOUNDS: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// The number of cells of one histogram: one per bucket, one above the last bound, and the sum in microseconds. (A sum in nanoseconds would
/// overflow within weeks if thousands of long streams add up.)
pub(crate) const CELLS: usize = BOUNDS.len() + 2;

/// The cell of the sum.
pub(crate) const SUM: usize = BOUNDS.len() + 1;

/// The cell of the bucket, and the amount that is added to [`SUM`].
pub(crate) fn observe(duration: Duration) -> (usize, u64) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    (BOUNDS.partition_point(|bound| *bound < micros), micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_on_a_bound_is_within_it() {
        assert_eq!(observe(Duration::ZERO), (0, 0));
        assert_eq!(observe(Duration::from_micros(500)), (0, 500));
        assert_eq!(observe(Duration::from_micros(501)), (1, 501));
        assert_eq!(observe(Duration::from_secs(60)), (15, 60_000_000));
        assert_eq!(observe(Duration::from_secs(3600)), (16, 3_600_000_000));
        assert_eq!(observe(Duration::MAX).0, BOUNDS.len());
    }
}
