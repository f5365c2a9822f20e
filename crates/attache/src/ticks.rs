//! One grid for the periodic work of the control thread, so that the thread wakes once for all of it.
//!
//! Rule: periodic work happens at multiples of its period since the start of the thread's runtime, and a period is rounded up to a multiple
//! of 64 ms. So periods that are multiples of each other end together. The 64 ms come from tokio's timers: a timer that is further away is
//! kept in a slot of this length. It wakes the thread once for the slot and once for itself, unless both are at the same moment.

use std::{cell::Cell, time::Duration};

use tokio::time::{Instant, sleep_until};

/// The length of a slot of tokio's timers.
const SLOT: u128 = Duration::from_millis(64).as_nanos();

thread_local! {
    static BEGIN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Starts the grid of this thread. Call it just before the runtime is made, because the runtime counts its timers from then on.
pub(crate) fn begin() {
    BEGIN.set(Some(Instant::now()));
}

/// Waits for the end of the present period.
pub(crate) async fn tick(period: Duration) {
    let now = Instant::now();
    let passed = BEGIN.get().map_or(Duration::ZERO, |begin| now.duration_since(begin));
    sleep_until(now + left(passed, period)).await;
}

/// The time from `passed` to the next multiple of `period`. It is never zero, so a tick never comes twice.
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
    fn a_period_of_zero_and_an_endless_one_are_waited_for() {
        assert_eq!(left(MS, Duration::ZERO), 63 * MS);
        assert!(left(MS, Duration::MAX) > Duration::from_hours(1 << 20));
    }
}
