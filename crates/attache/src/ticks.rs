//! One grid for what the control thread does from time to time, so that it wakes for all of it together.
//!
//! Rule: what is done once in a period is done at multiples of that period since the thread's runtime began, and a period is rounded up to
//! a multiple of 64 ms. Periods that are multiples of each other then end together. The 64 ms are those of tokio's timers: a timer that is
//! further away stands in a slot of this length, and wakes the thread once for the slot and once for itself, but where both are the
//! same moment.

use std::{cell::Cell, time::Duration};

use tokio::time::{Instant, sleep_until};

/// A slot of tokio's timers.
const SLOT: u128 = Duration::from_millis(64).as_nanos();

thread_local! {
    static BEGIN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Begins the grid of this thread. Called just before its runtime is made, which counts its timers from there on.
pub(crate) fn begin() {
    BEGIN.set(Some(Instant::now()));
}

/// Waits for the end of the running period.
pub(crate) async fn tick(period: Duration) {
    let now = Instant::now();
    let passed = BEGIN.get().map_or(Duration::ZERO, |begin| now.duration_since(begin));
    sleep_until(now + left(passed, period)).await;
}

/// From `passed` to the next multiple of `period`. Never nothing: a tick is not given twice.
fn left(passed: Duration, period: Duration) -> Duration {
    let period = period.as_nanos().max(1).next_multiple_of(SLOT);
    let left = period - passed.as_nanos() % period;
    Duration::from_nanos(left.try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn periods_that_are_multiples_end_together() {
        begin();
        let begin = Instant::now();
        tokio::join!(tick(250 * MS), async {
            tokio::time::sleep(10 * MS).await;
            tick(250 * MS).await;
        });
        assert_eq!(begin.elapsed(), 256 * MS);
        tokio::join!(tick(250 * MS), tick(500 * MS));
        assert_eq!(begin.elapsed(), 512 * MS);
        for tick_number in 1..4 {
            tick(1000 * MS).await;
            assert_eq!(begin.elapsed(), tick_number * 1024 * MS);
        }
    }

    #[test]
    fn a_period_without_length_and_one_without_end_are_waited_for() {
        assert_eq!(left(MS, Duration::ZERO), 63 * MS);
        assert!(left(MS, Duration::MAX) > Duration::from_hours(1 << 20));
    }
}
