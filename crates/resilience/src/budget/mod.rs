//! The retry budget: how much load retries may add to one upstream, all workers and routes together.
//!
//! **Rule.** A request may be retried while fewer requests are being retried (from the decision, through the waits, to
//! the end of the response) than `budget` × the upstream's requests: the active ones and the one that asks. Even if the
//! share allows none, `budget_floor` requests a second may be retried, so that retries are possible at all on an
//! upstream with little traffic. An admitted request may make all of its `attempts`, one after the other.
//!
//! A request that never reached an application (no connection, a refused stream) goes to another endpoint without using
//! the budget: it added no load to the upstream.
//!
//! With `budget: 0` the share is off, and `circuit_breaker.max_retries`, as in Envoy, limits the retries that run at
//! once.
//!
//! **Source.** Envoy's `circuit_breakers.thresholds.retry_budget` (share of active requests, `max_retries` ignored
//! beside it) with the floor by rate as in Finagle's and tower's retry budgets. Envoy's floor is a concurrency
//! (`min_retry_concurrency`, 3): if answers fail within a millisecond, this allows thousands of retries a second on an
//! upstream without other load; a rate doesn't.
//!
//! The share is read from counters that the pool keeps anyway: a request that needs no retry pays nothing.

mod floor;

use std::sync::{Arc, atomic::Ordering};

use attache_config::model;
use attache_upstream::take;
use tokio::time::Instant;

pub(crate) use self::floor::MinRetryRate;
use crate::UpstreamState;

/// A retry that was admitted; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct RetryPermit(Arc<UpstreamState>);

impl RetryPermit {
    pub(crate) fn upstream(&self) -> &model::Name {
        &self.0.shared.config.name
    }
}

impl Drop for RetryPermit {
    fn drop(&mut self) {
        self.0.shared.retries.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How much of an upstream's retry budget is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryBudget {
    /// Requests that are being retried or hedged.
    pub used: u32,
    /// How many are allowed at the present load, without those that the floor admits.
    pub limit: u32,
}

impl UpstreamState {
    /// The present budget of this policy.
    pub fn retry_budget(&self, retry: &model::Retry) -> RetryBudget {
        let (shared, used) = (&self.shared, self.shared.retries.load(Ordering::Relaxed));
        let limit = if retry.budget > 0.0 {
            share(shared.active_requests.load(Ordering::Relaxed), retry.budget)
        } else {
            shared.config.circuit_breaker.max_retries
        };
        RetryBudget { used, limit }
    }

    /// Asks whether a request whose attempt has ended may be retried.
    pub(crate) fn admit_retry(self: &Arc<Self>, retry: &model::Retry, now: Instant) -> Option<RetryPermit> {
        // Between its attempts the request doesn't count as active, but it must count.
        self.admit(1, retry, now)
    }

    /// Asks whether a hedge may run beside an attempt.
    pub(crate) fn admit_hedge(self: &Arc<Self>, retry: &model::Retry, now: Instant) -> Option<RetryPermit> {
        self.admit(0, retry, now)
    }

    fn admit(self: &Arc<Self>, asking: u32, retry: &model::Retry, now: Instant) -> Option<RetryPermit> {
        let shared = &self.shared;
        let admitted = if retry.budget > 0.0 {
            let active = shared.active_requests.load(Ordering::Relaxed).saturating_add(asking);
            take(&shared.retries, share(active, retry.budget)).is_some() || {
                let floor = self.floor.admit(retry.budget_floor, now);
                if floor {
                    shared.retries.fetch_add(1, Ordering::Relaxed);
                }
                floor
            }
        } else {
            take(&shared.retries, shared.config.circuit_breaker.max_retries).is_some()
        };
        admitted.then(|| RetryPermit(self.clone()))
    }
}

fn share(active: u32, budget: f64) -> u32 {
    (f64::from(active) * budget) as u32
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicU32, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    fn retry(budget: f64, floor: u32) -> model::Retry {
        model::Retry { budget, budget_floor: floor, ..model::Retry::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn the_share_follows_the_active_requests() {
        let state = testing::state();
        let retry = retry(0.2, 0);
        assert!(state.admit_retry(&retry, Instant::now()).is_none());
        state.shared.active_requests.store(13, Ordering::Relaxed);
        let _first = state.admit_retry(&retry, Instant::now()).unwrap();
        let second = state.admit_retry(&retry, Instant::now()).unwrap();
        assert!(state.admit_retry(&retry, Instant::now()).is_none());
        drop(second);
        assert!(state.admit_retry(&retry, Instant::now()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_floor_is_four_at_once_and_then_one_every_quarter_of_a_second() {
        let state = testing::state();
        let retry = retry(0.2, 4);
        let start = Instant::now();
        for _ in 0..4 {
            assert!(state.admit_retry(&retry, start).is_some());
        }
        assert!(state.admit_retry(&retry, start).is_none());
        let quarter = Duration::from_millis(250);
        assert!(state.admit_retry(&retry, start + quarter - Duration::from_nanos(1)).is_none());
        assert!(state.admit_retry(&retry, start + quarter).is_some());
        assert!(state.admit_retry(&retry, start + quarter).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_shown_limit_is_the_one_that_is_enforced() {
        let state = testing::state();
        for (budget, active, limit) in [(0.2, 13, 2), (0.2, 0, 0), (0.5, 7, 3), (0.0, 13, 3)] {
            state.shared.active_requests.store(active, Ordering::Relaxed);
            let retry = retry(budget, 0);
            assert_eq!(state.retry_budget(&retry), RetryBudget { used: 0, limit }, "{budget} of {active}");
            let held: Vec<_> = std::iter::from_fn(|| state.admit_hedge(&retry, Instant::now())).collect();
            assert_eq!(state.retry_budget(&retry), RetryBudget { used: limit, limit });
            assert_eq!(held.len() as u32, limit);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_budget_max_retries_bounds_them() {
        let state = testing::state();
        let held: Vec<_> =
            (0..10).filter_map(|_| state.admit_retry(&retry(0.0, 3), Instant::now())).collect();
        assert_eq!(held.len(), 3);
    }

    #[derive(Clone, Debug)]
    enum BudgetOp {
        Begin,
        End,
        Retry,
        Release,
        Wait(u16),
    }

    fn op() -> impl Strategy<Value = BudgetOp> {
        prop_oneof![
            Just(BudgetOp::Begin),
            Just(BudgetOp::End),
            Just(BudgetOp::Retry),
            Just(BudgetOp::Retry),
            Just(BudgetOp::Release),
            (0..400u16).prop_map(BudgetOp::Wait),
        ]
    }

    proptest! {
        #[test]
        fn never_over_the_budget(ops in prop::collection::vec(op(), 1..300), budget in 0.01..1.0f64, floor in 0..5u32) {
            let state = testing::state();
            let retry = retry(budget, floor);
            let start = Instant::now();
            let mut now = start;
            let (mut active, mut held, mut by_floor) = (0u32, Vec::new(), Vec::new());
            for op in ops {
                match op {
                    BudgetOp::Begin => active += 1,
                    BudgetOp::End => active = active.saturating_sub(1),
                    BudgetOp::Wait(ms) => now += Duration::from_millis(ms.into()),
                    BudgetOp::Release => drop(held.pop()),
                    BudgetOp::Retry => {
                        let room = (held.len() as u32) < share(active + 1, budget);
                        let permit = state.admit_retry(&retry, now);
                        prop_assert!(!room || permit.is_some(), "refused below the share");
                        if permit.is_some() && !room {
                            by_floor.push(now);
                        }
                        held.extend(permit);
                    }
                }
                state.shared.active_requests.store(active, Ordering::Relaxed);
                prop_assert_eq!(state.shared.retries.load(Ordering::Relaxed) as usize, held.len());
            }
            // The floor allows those above the share: one second's worth at once, and then its rate.
            for (i, from) in by_floor.iter().enumerate() {
                for (j, to) in by_floor.iter().enumerate().skip(i) {
                    let seconds = (*to - *from).as_secs_f64();
                    prop_assert!((j - i + 1) as f64 <= f64::from(floor) * (1.0 + seconds) + 1e-6);
                }
            }
        }
    }

    #[test]
    fn threads_that_race_for_the_last_retry_never_exceed_the_share() {
        let state = testing::state();
        state.shared.active_requests.store(49, Ordering::Relaxed);
        let highest = AtomicU32::new(0);
        let running = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if let Some(permit) = state.admit_retry(&retry(0.1, 0), Instant::now()) {
                            let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                            highest.fetch_max(now, Ordering::SeqCst);
                            running.fetch_sub(1, Ordering::SeqCst);
                            drop(permit);
                        }
                    }
                });
            }
        });
        assert!((1..=5).contains(&highest.into_inner()));
        assert_eq!(state.shared.retries.load(Ordering::Relaxed), 0);
    }
}
