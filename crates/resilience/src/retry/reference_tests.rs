//! Retries, budget, breaker and ejection of one upstream against a reference: the same rules in the simplest form, one
//! call after the other, in exact virtual time. Random choices (the endpoint, the wait, the random part of a breaker's
//! open time) are taken from the real run, and must be allowed choices; everything else must equal the reference after
//! each call.

use std::{cell::RefCell, ops::ControlFlow, rc::Rc, time::Duration};

use attache_config::model::{
    CircuitBreaker, FailureBreaker, OutlierEjection, Policy, Retry, RetryOn, Timeouts, Upstream,
};
use attache_http::Body;
use attache_telemetry::Reason;
use attache_upstream::{Balancer, circuit::BreakerState, outlier};
use http::Method;
use proptest::prelude::*;
use tokio::time::{Instant, advance};
use tower::Service;

use super::model_tests::{EndpointBehaviour, Log, ModelUpstream};
use crate::{
    CallResult, UpstreamState, stack,
    testing::{call, state_of, upstream},
};

const SECOND: Duration = Duration::from_secs(1);
const ENDPOINTS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum ReferenceOp {
    Call { get: bool },
    Wait(u64),
    Behave(usize, EndpointBehaviour),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum ReferenceBreaker {
    Closed { row: u32 },
    Open(Instant),
    HalfOpen { admitted: u32, succeeded: u32 },
}

#[derive(Clone, Debug)]
struct ReferenceEndpoint {
    behaviour: EndpointBehaviour,
    row: u32,
    local: u32,
    ejected: bool,
    until: Instant,
    multiplier: u32,
}

/// The caller's result.
#[derive(Debug, PartialEq)]
enum CallerAnswer {
    Status(u16),
    Error(Reason),
}

struct ReferenceRetry {
    retry: Retry,
    breaker_config: FailureBreaker,
    ejection: OutlierEjection,
    breaker: ReferenceBreaker,
    opened: u32,
    endpoints: Vec<ReferenceEndpoint>,
    /// When the floor's bucket is full again.
    full_at: Instant,
}

impl ReferenceRetry {
    fn usable(&self, at: usize) -> bool {
        !self.endpoints[at].ejected
    }

    fn admits(&mut self, now: Instant) -> bool {
        let probes = u32::from(self.breaker_config.probes);
        self.breaker = match self.breaker {
            ReferenceBreaker::Open(until) if now < until => return false,
            ReferenceBreaker::Open(_) => ReferenceBreaker::HalfOpen { admitted: 1, succeeded: 0 },
            ReferenceBreaker::HalfOpen { admitted, .. } if admitted >= probes => return false,
            ReferenceBreaker::HalfOpen { admitted, succeeded } => {
                ReferenceBreaker::HalfOpen { admitted: admitted + 1, succeeded }
            }
            closed @ ReferenceBreaker::Closed { .. } => closed,
        };
        true
    }

    /// `None` is neutral. `real` says until when a breaker that opens now stays open.
    fn counts(&mut self, success: Option<bool>, now: Instant, real: &UpstreamState) {
        let (row, probes) = (self.breaker_config.consecutive, u32::from(self.breaker_config.probes));
        let opens = match (&mut self.breaker, success) {
            (ReferenceBreaker::HalfOpen { admitted, .. }, None) => {
                *admitted -= 1;
                false
            }
            (ReferenceBreaker::HalfOpen { succeeded, .. }, Some(true)) => {
                *succeeded += 1;
                if *succeeded == probes {
                    self.breaker = ReferenceBreaker::Closed { row: 0 };
                    self.opened = 0;
                }
                false
            }
            (ReferenceBreaker::HalfOpen { .. }, Some(false)) => true,
            (ReferenceBreaker::Closed { row }, Some(true)) => {
                *row = 0;
                false
            }
            (ReferenceBreaker::Closed { row: so_far }, Some(false)) => {
                *so_far += 1;
                *so_far >= row
            }
            (ReferenceBreaker::Closed { .. }, None) | (ReferenceBreaker::Open(_), _) => false,
        };
        if opens {
            let least = (self.breaker_config.open * 2_u32.pow(self.opened)).min(self.breaker_config.open_max);
            // It may be open again by now only if it is the same time.
            let Some(BreakerState::Open(until)) = real.breaker.as_ref().map(|breaker| breaker.phase()) else {
                panic!("the breaker should be open");
            };
            let open = until - now;
            assert!(
                open >= least && open <= least.mul_f64(1.2) + Duration::from_millis(1),
                "{open:?} for {least:?}"
            );
            self.breaker = ReferenceBreaker::Open(until);
            self.opened += 1;
        }
    }

    /// An endpoint answered, or failed.
    fn reports(&mut self, at: usize, success: Option<bool>, local: bool, now: Instant) {
        let config = self.ejection.clone();
        let endpoint = &mut self.endpoints[at];
        match success {
            None => return,
            Some(true) => {
                (endpoint.row, endpoint.local) = (0, 0);
                return;
            }
            Some(false) => {}
        }
        endpoint.row += u32::from(config.consecutive_5xx > 0);
        endpoint.local = if local { endpoint.local + u32::from(config.consecutive_local > 0) } else { 0 };
        let trips = (config.consecutive_5xx > 0 && endpoint.row >= config.consecutive_5xx)
            || (config.consecutive_local > 0 && endpoint.local >= config.consecutive_local);
        // A third of three is one.
        if !trips || self.endpoints.iter().any(|endpoint| endpoint.ejected) {
            return;
        }
        let endpoint = &mut self.endpoints[at];
        let forgotten =
            (now.saturating_duration_since(endpoint.until).as_nanos() / config.base.as_nanos()) as u32;
        endpoint.multiplier = endpoint.multiplier.saturating_sub(forgotten) + 1;
        endpoint.until = now + (config.base * endpoint.multiplier).min(config.max);
        endpoint.ejected = true;
    }

    fn recovers(&mut self, now: Instant) {
        for endpoint in self.endpoints.iter_mut().filter(|endpoint| endpoint.ejected && endpoint.until <= now)
        {
            (endpoint.ejected, endpoint.row, endpoint.local) = (false, 0, 0);
        }
    }

    fn budget_admits(&mut self, now: Instant) -> bool {
        if self.retry.budget >= 1.0 {
            return true;
        }
        let Some(token) = SECOND.checked_div(self.retry.budget_floor) else { return false };
        let full_at = self.full_at.max(now) + token;
        let admits = full_at <= now + SECOND;
        if admits {
            self.full_at = full_at;
        }
        admits
    }

    /// One call, whose attempts went to these endpoints at these times, and which ended at `end`.
    fn call(
        &mut self,
        get: bool,
        asked: &[(usize, Instant)],
        end: Instant,
        real: &UpstreamState,
    ) -> CallerAnswer {
        let (mut tried, mut retries, mut admitted) = (Vec::new(), 0, false);
        let mut earliest_latest = None;
        for attempt in 0.. {
            let now = asked.get(attempt).map_or(end, |(_, at)| *at);
            if let Some((earliest, latest)) = earliest_latest {
                // A random wait of exactly zero comes once in millions.
                let waited = now > earliest || earliest == latest;
                assert!(waited && now <= latest, "attempt {attempt} at the wrong time");
            }
            if !self.admits(now) {
                assert_eq!(asked.len(), attempt, "an attempt went past an open breaker");
                return CallerAnswer::Error(Reason::CircuitOpen);
            }
            let (at, _) = *asked.get(attempt).expect("an attempt is missing");
            let untried = (0..ENDPOINTS).any(|at| self.usable(at) && !tried.contains(&at));
            assert!(self.usable(at), "{at} is ejected, and others are not");
            assert!(!untried || !tried.contains(&at), "{at} was asked again, before another one");
            tried.push(at);
            match self.attempt(at, get, &tried, &mut retries, &mut admitted, now, real) {
                ControlFlow::Break(told) => {
                    assert_eq!(asked.len(), attempt + 1, "an attempt too many");
                    return told;
                }
                ControlFlow::Continue(wait) => earliest_latest = Some((now, now + wait)),
            }
        }
        unreachable!()
    }

    /// The effect of one attempt: the end of the call, or the longest wait before the next attempt.
    #[expect(clippy::too_many_arguments, reason = "what a call carries from attempt to attempt")]
    fn attempt(
        &mut self,
        at: usize,
        get: bool,
        tried: &[usize],
        retries: &mut u32,
        admitted: &mut bool,
        now: Instant,
        real: &UpstreamState,
    ) -> ControlFlow<CallerAnswer, Duration> {
        let (success, local, nothing_done, told) = match self.endpoints[at].behaviour {
            EndpointBehaviour::Fails => (Some(false), false, false, CallerAnswer::Status(503)),
            EndpointBehaviour::Refuses => {
                (Some(false), true, true, CallerAnswer::Error(Reason::ConnectRefused))
            }
            EndpointBehaviour::RefusesStreams => {
                (None, true, true, CallerAnswer::Error(Reason::UpstreamRefusedStream))
            }
            EndpointBehaviour::Resets => {
                (Some(false), true, false, CallerAnswer::Error(Reason::UpstreamReset))
            }
            EndpointBehaviour::Answers | EndpointBehaviour::Slow | EndpointBehaviour::Hangs => {
                (Some(true), false, false, CallerAnswer::Status(200))
            }
        };
        self.counts(success, now, real);
        self.reports(at, success, local, now);
        if nothing_done && (0..ENDPOINTS).any(|at| self.usable(at) && !tried.contains(&at)) {
            return ControlFlow::Continue(Duration::ZERO);
        }
        let on = |condition| self.retry.on.contains(&condition);
        let any = on(RetryOn::Reset) || on(RetryOn::ServerError);
        let met = match self.endpoints[at].behaviour {
            EndpointBehaviour::Fails => on(RetryOn::ServerError) && get,
            EndpointBehaviour::Resets => any && get,
            EndpointBehaviour::Refuses => any || on(RetryOn::ConnectFailure),
            EndpointBehaviour::RefusesStreams => any,
            EndpointBehaviour::Answers | EndpointBehaviour::Slow | EndpointBehaviour::Hangs => false,
        };
        if !met || *retries == self.retry.attempts {
            return ControlFlow::Break(told);
        }
        *admitted = *admitted || self.budget_admits(now);
        if !*admitted {
            return ControlFlow::Break(told);
        }
        *retries += 1;
        let untried = (0..ENDPOINTS).any(|at| !tried.contains(&at));
        let longest = (self.retry.backoff.base * 2_u32.pow(*retries - 1)).min(self.retry.backoff.max);
        ControlFlow::Continue(if nothing_done && *retries == 1 && untried { Duration::ZERO } else { longest })
    }

    /// Checks that the real objects are in the same state.
    fn agrees(&self, real: &UpstreamState, now: Instant) -> Result<(), TestCaseError> {
        let status = real.breaker.as_ref().unwrap().status(now);
        let (phase, row, probes) = match self.breaker {
            ReferenceBreaker::Closed { row } => ("closed", row, (0, 0)),
            ReferenceBreaker::Open(_) => ("open", 0, (0, 0)),
            ReferenceBreaker::HalfOpen { admitted, succeeded } => {
                ("half-open", 0, (admitted.into(), succeeded.into()))
            }
        };
        prop_assert_eq!((status.state, status.consecutive, status.probes), (phase, row, probes));
        for (endpoint, expected) in real.shared.endpoints.load().endpoints.iter().zip(&self.endpoints) {
            let status = endpoint.status(now).ejection;
            let remaining = expected.ejected.then(|| expected.until.saturating_duration_since(now));
            prop_assert_eq!((status.ejected, status.remaining), (expected.ejected, remaining));
            prop_assert_eq!(
                (status.consecutive_5xx, status.consecutive_local),
                (expected.row, expected.local)
            );
            prop_assert_eq!(endpoint.active.load(std::sync::atomic::Ordering::Relaxed), 0);
        }
        prop_assert_eq!(real.retry_budget(&self.retry).used, 0);
        Ok(())
    }
}

fn op() -> impl Strategy<Value = ReferenceOp> {
    let behaviour = prop::sample::select(vec![
        EndpointBehaviour::Answers,
        EndpointBehaviour::Answers,
        EndpointBehaviour::Fails,
        EndpointBehaviour::Refuses,
        EndpointBehaviour::RefusesStreams,
        EndpointBehaviour::Resets,
    ]);
    prop_oneof![
        6 => any::<bool>().prop_map(|get| ReferenceOp::Call { get }),
        2 => (0..1500_u64).prop_map(ReferenceOp::Wait),
        2 => (0..ENDPOINTS, behaviour).prop_map(|(at, behaviour)| ReferenceOp::Behave(at, behaviour)),
    ]
}

fn retry() -> impl Strategy<Value = Retry> {
    let on =
        prop::sample::subsequence(vec![RetryOn::ConnectFailure, RetryOn::ServerError, RetryOn::Reset], 0..=3);
    (0..4_u32, on, 0..4_u32, any::<bool>()).prop_map(|(attempts, on, budget_floor, all)| Retry {
        attempts,
        on,
        budget_floor,
        budget: if all { 1.0 } else { 0.01 },
        ..Retry::default()
    })
}

fn failures() -> impl Strategy<Value = (FailureBreaker, OutlierEjection)> {
    (1..6_u32, 1..4_u16, 0..4_u32, 0..4_u32).prop_map(|(row, probes, consecutive_5xx, consecutive_local)| {
        let breaker = FailureBreaker {
            consecutive: row,
            success_rate: 0.0,
            probes,
            open: SECOND,
            open_max: 3 * SECOND,
            ..FailureBreaker::default()
        };
        let ejection = OutlierEjection {
            consecutive_5xx,
            consecutive_local,
            base: SECOND,
            max: 3 * SECOND,
            max_percent: 0.34,
            success_rate: None,
            ..OutlierEjection::default()
        };
        (breaker, ejection)
    })
}

async fn history(
    retry: Retry,
    (breaker, ejection): (FailureBreaker, OutlierEjection),
    ops: Vec<ReferenceOp>,
) -> Result<(), TestCaseError> {
    let circuit_breaker = CircuitBreaker { failures: Some(breaker.clone()), ..CircuitBreaker::default() };
    let state = state_of(Upstream { circuit_breaker, outlier_ejection: ejection.clone(), ..upstream() });
    let timeouts = Timeouts { request: Duration::from_hours(1), whole: true, idle: Duration::ZERO };
    let policy = Policy { retry: retry.clone(), timeouts, ..Policy::default() };
    let start = Instant::now();
    let endpoint = ReferenceEndpoint {
        behaviour: EndpointBehaviour::Answers,
        row: 0,
        local: 0,
        ejected: false,
        until: start,
        multiplier: 0,
    };
    let mut reference = ReferenceRetry {
        retry,
        breaker_config: breaker,
        ejection,
        breaker: ReferenceBreaker::Closed { row: 0 },
        opened: 0,
        endpoints: vec![endpoint; ENDPOINTS],
        full_at: start,
    };
    let balancer = Rc::new(RefCell::new(Balancer::new(&state.shared.config.balance, 7)));
    for op in ops {
        match op {
            ReferenceOp::Wait(ms) => {
                advance(Duration::from_millis(ms)).await;
                outlier::recover(&state.shared, Instant::now());
                reference.recovers(Instant::now());
            }
            ReferenceOp::Behave(at, behaviour) => reference.endpoints[at].behaviour = behaviour,
            ReferenceOp::Call { get } => {
                let log = Log::default();
                let model = ModelUpstream {
                    shared: state.shared.clone(),
                    balancer: balancer.clone(),
                    behaviours: Rc::new(
                        reference.endpoints.iter().map(|endpoint| endpoint.behaviour).collect(),
                    ),
                    log: log.clone(),
                };
                let method = if get { Method::GET } else { Method::POST };
                let request = http::Request::builder().method(method).uri("http://orders/");
                let request = request.body(Body::empty()).unwrap();
                let outcome: CallResult = stack(&policy, &state, model).call(call(request)).await;
                let told = match &outcome {
                    Ok(response) => CallerAnswer::Status(response.status().as_u16()),
                    Err(error) => CallerAnswer::Error(error.reason),
                };
                drop(outcome);
                let expected = reference.call(get, &log.asked.borrow(), Instant::now(), &state);
                prop_assert_eq!(told, expected);
            }
        }
        reference.agrees(&state, Instant::now())?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]
    #[test]
    fn every_history_equals_the_reference(
        retry in retry(),
        failures in failures(),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(history(retry, failures, ops))?;
    }
}
