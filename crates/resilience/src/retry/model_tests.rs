//! Retries, hedges, budget, breaker and ejection together, checked against rules that must hold for any mix of them.
//!
//! Each endpoint behaves in its own way; calls come one after the other or at once. The rules:
//! - no call fails because it never reached an application while there is a usable endpoint that was not tried;
//! - a request that isn't safe to send twice reaches an application at most once;
//! - a call reaches applications at most 1 + `attempts` times, hedges included;
//! - all calls together reach applications no more often than the number of calls plus the retries that the budget
//!   allowed;
//! - every count is back at zero in the end.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use attache_config::model::{
    CircuitBreaker, FailureBreaker, Hedge, HedgeAfter, OutlierEjection, Policy, Retry, RetryMethods, RetryOn,
    Timeouts, Upstream,
};
use attache_http::Body;
use attache_telemetry::Reason;
use attache_upstream::{Attempt, Balancer, Call, Error, RequestPermit, SentPart, SharedUpstream, outlier};
use attache_wire::Response;
use http::Method;
use proptest::prelude::*;
use tokio::time::{Instant, sleep};
use tower::Service;

use crate::{
    CallResult, UpstreamState, stack,
    testing::{call, respond, state_of, upstream},
};

const MS: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug)]
pub(super) enum EndpointBehaviour {
    Answers,
    Slow,
    Fails,
    Refuses,
    RefusesStreams,
    Resets,
    Hangs,
}

/// The record of one call.
#[derive(Clone, Default)]
pub(super) struct Log {
    /// Endpoints that it was sent to, and when.
    pub(super) asked: Rc<RefCell<Vec<(usize, Instant)>>>,
    /// How often an application saw it.
    reached: Rc<Cell<u32>>,
}

/// The upstream: the real balancer, and simulated endpoints.
#[derive(Clone)]
pub(super) struct ModelUpstream {
    pub(super) shared: Arc<SharedUpstream>,
    pub(super) balancer: Rc<RefCell<Balancer>>,
    pub(super) behaviours: Rc<Vec<EndpointBehaviour>>,
    pub(super) log: Log,
}

impl Service<Call> for ModelUpstream {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = CallResult>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut call: Call) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let tried = call.context.tried.to_vec();
            let picked = this.balancer.borrow_mut().pick(&this.shared, None, &tried);
            let endpoint = picked.map_err(|reason| Error::new(reason, SentPart::Nothing))?;
            let set = this.shared.endpoints.load_full();
            let at = set.endpoints.iter().position(|other| Arc::ptr_eq(other, &endpoint)).unwrap();
            this.log.asked.borrow_mut().push((at, Instant::now()));
            let permit =
                RequestPermit::take(&this.shared).map_err(|reason| Error::new(reason, SentPart::Nothing))?;
            let judges = std::mem::take(&mut call.judges);
            let mut attempt = Attempt::begin(permit, endpoint, &call.context, judges);
            let reached = || this.log.reached.set(this.log.reached.get() + 1);
            let outcome = match this.behaviours[at] {
                EndpointBehaviour::Answers => {
                    reached();
                    Ok(respond(200))
                }
                EndpointBehaviour::Slow => {
                    reached();
                    sleep(50 * MS).await;
                    Ok(respond(200))
                }
                EndpointBehaviour::Fails => {
                    reached();
                    Ok(respond(503))
                }
                EndpointBehaviour::Refuses => Err(Error::new(Reason::ConnectRefused, SentPart::Nothing)),
                EndpointBehaviour::RefusesStreams => {
                    Err(Error::new(Reason::UpstreamRefusedStream, SentPart::Refused))
                }
                EndpointBehaviour::Resets => {
                    reached();
                    Err(Error::new(Reason::UpstreamReset, SentPart::Request))
                }
                EndpointBehaviour::Hangs => {
                    reached();
                    std::future::pending().await
                }
            };
            match &outcome {
                Ok(response) => attempt.answered(response.status(), response.headers()),
                Err(error) => attempt.failed(error),
            }
            outcome
        })
    }
}

fn behaviour() -> impl Strategy<Value = EndpointBehaviour> {
    prop_oneof![
        3 => Just(EndpointBehaviour::Answers),
        1 => Just(EndpointBehaviour::Slow),
        1 => Just(EndpointBehaviour::Fails),
        4 => Just(EndpointBehaviour::Refuses),
        2 => Just(EndpointBehaviour::RefusesStreams),
        1 => Just(EndpointBehaviour::Resets),
        1 => Just(EndpointBehaviour::Hangs),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let on = prop::sample::select(vec![
        vec![],
        vec![RetryOn::ConnectFailure],
        vec![RetryOn::ServerError],
        vec![RetryOn::Reset],
    ]);
    (0..4u32, on, 0..4u32, any::<bool>(), any::<bool>(), prop::bool::ANY).prop_map(
        |(attempts, on, floor, hedges, all, per_try)| {
            let hedge = Hedge { after: HedgeAfter::Time(20 * MS), max: 1, floor: 5 * MS, min_samples: 1 };
            let methods = if all { RetryMethods::All } else { RetryMethods::default() };
            let retry = Retry {
                attempts,
                on,
                budget_floor: floor,
                methods,
                hedge: hedges.then_some(hedge),
                per_try_timeout: if per_try { 200 * MS } else { Duration::ZERO },
                ..Retry::default()
            };
            let timeouts = Timeouts { request: Duration::from_secs(2), whole: true, idle: Duration::ZERO };
            Policy { retry, timeouts, ..Policy::default() }
        },
    )
}

fn state(breaker: bool, ejects: bool) -> Arc<UpstreamState> {
    let failures = breaker.then(FailureBreaker::default);
    let circuit_breaker = CircuitBreaker {
        failures: failures.clone(),
        endpoint_failures: failures,
        ..CircuitBreaker::default()
    };
    let outlier_ejection = if ejects {
        let (row, base) = (2, 100 * MS);
        OutlierEjection {
            consecutive_5xx: row,
            consecutive_local: row,
            base,
            max_percent: 0.67,
            ..OutlierEjection::default()
        }
    } else {
        OutlierEjection::default()
    };
    state_of(Upstream { circuit_breaker, outlier_ejection, ..upstream() })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn the_rules_hold_for_any_failures_of_the_endpoints(
        behaviours in prop::collection::vec(behaviour(), 3),
        policy in policy(),
        breaker: bool,
        ejects: bool,
        calls in prop::collection::vec((any::<bool>(), 0..80u32), 1..20),
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let state = state(breaker, ejects);
            let balancer = Rc::new(RefCell::new(Balancer::new(&state.shared.config.balance, 7)));
            let behaviours = Rc::new(behaviours);
            let (mut reached, sent) = (0, calls.len() as u64);
            for (get, pause) in calls {
                let log = Log::default();
                let model = ModelUpstream {
                    shared: state.shared.clone(),
                    balancer: balancer.clone(),
                    behaviours: behaviours.clone(),
                    log: log.clone(),
                };
                let method = if get { Method::GET } else { Method::POST };
                let request = http::Request::builder().method(method).uri("http://orders/").body(Body::empty()).unwrap();
                let outcome = stack(&policy, &state, model).call(call(request)).await;
                let asked: Vec<_> = log.asked.borrow().iter().map(|(at, _)| *at).collect();
                let again = get || policy.retry.methods == RetryMethods::All;
                let most = if again { 1 + policy.retry.attempts } else { 1 };
                prop_assert!(log.reached.get() <= most, "{} of {most}: {asked:?}", log.reached.get());
                reached += u64::from(log.reached.get());
                if let Err(error) = &outcome
                    && error.sent <= SentPart::Refused
                    && !matches!(error.reason, Reason::CircuitOpen | Reason::RequestTimeout)
                {
                    let set = state.shared.endpoints.load();
                    for (at, endpoint) in set.endpoints.iter().enumerate() {
                        prop_assert!(asked.contains(&at) || !endpoint.usable(), "{at} was not asked: {asked:?} {error:?}");
                    }
                }
                drop(outcome);
                sleep(pause * MS).await;
                outlier::recover(&state.shared, Instant::now());
            }
            let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
            let further = count(&state.counters.retries) + count(&state.counters.hedges);
            prop_assert!(reached <= sent + further, "{reached} of {sent} and {further}");
            prop_assert_eq!(state.shared.retries.load(Relaxed), 0);
            prop_assert_eq!(state.shared.active_requests.load(Relaxed), 0);
            for endpoint in &state.shared.endpoints.load().endpoints {
                prop_assert_eq!(endpoint.active.load(Relaxed), 0);
            }
            Ok(())
        })?;
    }
}
