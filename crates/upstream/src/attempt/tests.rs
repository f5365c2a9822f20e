use std::{cell::RefCell, sync::atomic::Ordering::Relaxed, time::Duration};

use attache_config::model::{Balance, CircuitBreaker, FailureBreaker, Upstream};

use super::*;
use crate::{
    SentPart,
    circuit::{BreakerState, Circuit},
    test_support::{attempt, context, shared, spec, upstream},
};

const SECOND: Duration = Duration::from_secs(1);

fn three() -> (Arc<SharedUpstream>, Arc<Endpoint>) {
    let shared = shared(Balance::default(), (1..=3).map(spec).collect());
    let endpoint = shared.endpoints.load().endpoints[0].clone();
    (shared, endpoint)
}

fn ok(attempt: &mut Attempt) {
    attempt.answered(StatusCode::OK, &Fields::new());
}

#[tokio::test(start_paused = true)]
async fn bodies_that_are_cut_add_up_although_their_heads_were_good() {
    let (shared, endpoint) = three();
    for n in 0..5 {
        assert!(endpoint.usable(), "{n}");
        let mut attempt = attempt(&shared, &endpoint, &context());
        ok(&mut attempt);
        attempt.cut(Reason::UpstreamClosedMidBody);
    }
    assert!(!endpoint.usable());
    assert_eq!(endpoint.passive.failures(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_body_cut_by_the_client_or_attache_is_no_failure_of_the_endpoint() {
    let (shared, endpoint) = three();
    for reason in [Reason::ClientClosed, Reason::IdleTimeout, Reason::RequestTimeout, Reason::BadRequest] {
        for _ in 0..9 {
            let mut attempt = attempt(&shared, &endpoint, &context());
            ok(&mut attempt);
            attempt.cut(reason);
        }
    }
    assert!(endpoint.usable());
    assert_eq!(endpoint.passive.failures(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failing_grpc_status_in_the_trailers_is_a_failure_and_others_are_not() {
    let (shared, endpoint) = three();
    let end = |status: &'static str| {
        let mut attempt = attempt(&shared, &endpoint, &context());
        ok(&mut attempt);
        attempt.trailers(&http::HeaderMap::from_iter([(
            "grpc-status".parse().unwrap(),
            status.parse().unwrap(),
        )]));
    };
    ["5", "0", "1", "7", "16"].into_iter().for_each(end);
    assert_eq!(endpoint.passive.failures(), 0);
    ["2", "4", "12", "13", "14"].into_iter().for_each(end);
    assert!(!endpoint.usable());
}

#[tokio::test(start_paused = true)]
async fn only_the_first_end_counts() {
    let (shared, endpoint) = three();
    for _ in 0..4 {
        let mut attempt = attempt(&shared, &endpoint, &context());
        attempt.failed(&Error::new(Reason::ConnectRefused, SentPart::Nothing));
        attempt.failed(&Error::new(Reason::ConnectRefused, SentPart::Nothing));
        attempt.cut(Reason::UpstreamReset);
        attempt.end(Outcome::Success);
    }
    assert!(endpoint.usable());
    assert_eq!(endpoint.passive.failures(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_attempt_is_overdue_after_the_configs_deadline_and_given_up_by_the_caller_before_it() {
    #[derive(Debug, Default)]
    struct Recorder(RefCell<Vec<Outcome>>);
    impl LatencyMeter for Recorder {
        fn answered(&self, outcome: Outcome) {
            self.0.borrow_mut().push(outcome);
        }
    }
    let (shared, endpoint) = three();
    let seen = Rc::new(Recorder::default());
    for wait in [SECOND, Duration::from_millis(1999), 2 * SECOND, 3 * SECOND] {
        let mut context = context();
        context.overdue_at(Instant::now() + 5 * SECOND, Reason::RequestTimeout);
        context.overdue_at(Instant::now() + 2 * SECOND, Reason::PerTryTimeout);
        let judges = OutcomeReceivers { circuit: None, load: Some(seen.clone()) };
        let attempt =
            Attempt::begin(RequestPermit::take(&shared).unwrap(), endpoint.clone(), &context, judges);
        tokio::time::advance(wait).await;
        drop(attempt);
    }
    let overdue = Outcome::Overdue(Reason::PerTryTimeout);
    assert_eq!(*seen.0.borrow(), [Outcome::CallerGaveUp, Outcome::CallerGaveUp, overdue, overdue]);
    assert_eq!(endpoint.passive.failures(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_probe_succeeds_with_its_head_and_its_cut_body_counts_in_the_next_state() {
    let config = FailureBreaker { consecutive: 1, probes: 1, success_rate: 0.0, ..FailureBreaker::default() };
    let circuit_breaker = CircuitBreaker { failures: Some(config.clone()), ..CircuitBreaker::default() };
    let shared = SharedUpstream::new(Arc::new(Upstream { circuit_breaker, ..upstream("test") }));
    shared.replace_endpoints(vec![spec(1)], None);
    let (shared, endpoint) = (Arc::new(shared), spec(1));
    let endpoint = Arc::new(Endpoint::new(endpoint));
    let circuit = Arc::new(Circuit::new(config, "test".into(), None, Instant::now()));
    let begin = || {
        let judges = OutcomeReceivers { circuit: Some(AdmittedCall::by(&circuit).unwrap()), load: None };
        Attempt::begin(RequestPermit::take(&shared).unwrap(), endpoint.clone(), &context(), judges)
    };
    begin().failed(&Error::new(Reason::ConnectRefused, SentPart::Nothing));
    assert!(matches!(circuit.phase(), BreakerState::Open(_)));
    tokio::time::advance(60 * SECOND).await;
    let mut probe = begin();
    assert_eq!(circuit.phase(), BreakerState::HalfOpen);
    ok(&mut probe);
    assert_eq!(circuit.phase(), BreakerState::Closed, "it need not wait for a stream's end");
    probe.cut(Reason::UpstreamReset);
    assert!(matches!(circuit.phase(), BreakerState::Open(_)));
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_holds_the_counts_and_nothing_else() {
    let (shared, endpoint) = three();
    let load = || (shared.active_requests.load(Relaxed), endpoint.active.load(Relaxed));
    let charge = attempt(&shared, &endpoint, &context()).opened();
    assert_eq!(load(), (1, 1));
    drop(charge);
    assert_eq!(load(), (0, 0));
}
