use std::time::Duration;

use attache_config::model::{Algorithm, Balance, CircuitBreaker, FailureBreaker, OutlierEjection, Upstream};
use http::StatusCode;
use proptest::prelude::*;

use super::*;
use crate::{
    Balancer, EndpointFailure, Outcome,
    circuit::BreakerState,
    outlier,
    status::EndpointState::{self, CircuitOpen, Healthy},
    test_support::{attempt, context, spec, upstream},
};

const SECOND: Duration = Duration::from_secs(1);

fn breaker() -> FailureBreaker {
    FailureBreaker { consecutive: 3, success_rate: 0.0, probes: 2, ..FailureBreaker::default() }
}

fn shared_of(endpoints: u16, config: FailureBreaker, panic_threshold: f64) -> Arc<SharedUpstream> {
    let circuit_breaker = CircuitBreaker { endpoint_failures: Some(config), ..CircuitBreaker::default() };
    let balance = Balance { panic_threshold, algorithm: Algorithm::RoundRobin, ..Balance::default() };
    let off = OutlierEjection { consecutive_5xx: 0, consecutive_local: 0, ..OutlierEjection::default() };
    let config = Upstream { circuit_breaker, balance, outlier_ejection: off, ..upstream("orders") };
    let shared = SharedUpstream::new(Arc::new(config));
    shared.replace_endpoints((1..=endpoints).map(spec).collect(), None);
    Arc::new(shared)
}

fn shared(endpoints: u16) -> Arc<SharedUpstream> {
    shared_of(endpoints, breaker(), 0.5)
}

fn endpoint(shared: &SharedUpstream, at: usize) -> Arc<Endpoint> {
    shared.endpoints.load().endpoints[at].clone()
}

/// One call to this endpoint; false if its breaker held it back.
fn call(shared: &SharedUpstream, at: usize, success: bool) -> bool {
    let endpoint = endpoint(shared, at);
    let Ok(admitted) = admit(shared, &endpoint) else { return false };
    admitted
        .unwrap()
        .end(|circuit, ticket| ended(shared, &endpoint, circuit, ticket, success, Instant::now()));
    true
}

fn fail(shared: &SharedUpstream, at: usize, times: u32) {
    for _ in 0..times {
        assert!(call(shared, at, false));
    }
}

fn state(shared: &SharedUpstream, at: usize) -> EndpointState {
    endpoint(shared, at).state()
}

/// How often each endpoint is picked in 100 picks.
fn picks(shared: &SharedUpstream, balancer: &mut Balancer) -> Vec<usize> {
    let set = shared.endpoints.load_full();
    let mut counts = vec![0; set.endpoints.len()];
    for _ in 0..100 {
        let picked = balancer.pick(shared, None, &[]).unwrap();
        counts[set.endpoints.iter().position(|e| Arc::ptr_eq(e, &picked)).unwrap()] += 1;
    }
    counts
}

#[tokio::test(start_paused = true)]
async fn a_failing_endpoint_gets_nothing_then_exactly_its_probes_then_its_share() {
    let shared = shared(4);
    let mut balancer = Balancer::new(&shared.config.balance, 1);
    fail(&shared, 0, 3);
    assert_eq!(state(&shared, 0), EndpointState::CircuitOpen);
    let status = endpoint(&shared, 0).status(Instant::now());
    assert_eq!(status.standing.why.as_deref(), Some("3 failures in a row"));
    assert_eq!(picks(&shared, &mut balancer)[0], 0);
    assert!(!call(&shared, 0, true));

    let due = half_open(&shared, Instant::now()).unwrap();
    tokio::time::sleep_until(due).await;
    assert_eq!(half_open(&shared, Instant::now()), None);
    assert!(picks(&shared, &mut balancer)[0] > 0, "half-open: the balancer offers it");
    let first = endpoint(&shared, 0);
    let probes: Vec<_> = (0..10).filter_map(|_| admit(&shared, &first).ok()).collect();
    assert_eq!(probes.len(), 2);
    assert_eq!(picks(&shared, &mut balancer)[0], 0, "its probes are out");
    for probe in probes {
        assert_eq!(state(&shared, 0), EndpointState::CircuitOpen);
        let end = |circuit: &_, ticket: &_| ended(&shared, &first, circuit, ticket, true, Instant::now());
        probe.unwrap().end(end);
    }
    assert_eq!(state(&shared, 0), EndpointState::Healthy);
    assert_eq!(picks(&shared, &mut balancer)[0], 25);
}

#[tokio::test(start_paused = true)]
async fn breakers_never_bring_about_a_panic_and_never_take_the_last() {
    let four = shared(4);
    for (at, times) in [(0, 3), (1, 3), (2, 10), (3, 10)] {
        fail(&four, at, times);
    }
    let states: Vec<_> = (0..4).map(|at| state(&four, at)).collect();
    assert_eq!(states, [CircuitOpen, CircuitOpen, Healthy, Healthy]);
    // One comes back: now the next failure of another one opens its breaker.
    tokio::time::sleep_until(half_open(&four, Instant::now()).unwrap() + SECOND).await;
    half_open(&four, Instant::now());
    assert!(call(&four, 0, true) && call(&four, 0, true));
    assert_eq!(state(&four, 0), Healthy);
    fail(&four, 2, 1);
    assert_eq!(state(&four, 2), CircuitOpen);

    let alone = shared_of(1, breaker(), 0.0);
    fail(&alone, 0, 50);
    assert_eq!(state(&alone, 0), Healthy);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_whose_ejection_is_over_still_has_to_pass_its_probes() {
    let shared = shared(4);
    let first = endpoint(&shared, 0);
    fail(&shared, 0, 3);
    first.set_ejected(true);
    tokio::time::sleep(2 * SECOND).await;
    half_open(&shared, Instant::now());
    assert!(!first.usable(), "ejected");
    first.set_ejected(false);
    assert!(first.usable());
    assert_eq!(first.state(), EndpointState::CircuitOpen, "on probation");
    assert!(call(&shared, 0, false));
    assert!(!first.usable(), "and it failed");
}

#[tokio::test(start_paused = true)]
async fn open_breakers_half_open_by_themselves() {
    let shared = shared(4);
    let watched = shared.clone();
    let task = tokio::spawn(async move { outlier::run(&watched).await });
    tokio::time::sleep(SECOND).await;
    fail(&shared, 0, 3);
    tokio::time::sleep(Duration::from_millis(990)).await;
    assert!(!endpoint(&shared, 0).usable());
    tokio::time::sleep(Duration::from_millis(220)).await;
    assert!(endpoint(&shared, 0).usable());
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_is_a_failure_only_after_its_deadline() {
    let shared = shared(4);
    let first = endpoint(&shared, 0);
    let place = |after: Duration| {
        let mut context = context();
        context.overdue_at(Instant::now() + after, attache_telemetry::Reason::RequestTimeout);
        attempt(&shared, &first, &context)
    };
    for _ in 0..3 {
        let call = place(2 * SECOND);
        tokio::time::advance(SECOND).await;
        drop(call);
    }
    assert_eq!(first.state(), EndpointState::Healthy, "the client went away");
    for _ in 0..3 {
        let call = place(SECOND);
        tokio::time::advance(SECOND).await;
        drop(call);
    }
    assert_eq!(first.state(), EndpointState::CircuitOpen, "it was too slow");
    // A probe whose caller leaves releases its permit.
    tokio::time::sleep(2 * SECOND).await;
    half_open(&shared, Instant::now());
    for _ in 0..5 {
        drop(place(SECOND));
    }
    assert!(first.usable());
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_takes_the_breaker_away_gives_the_endpoint_back() {
    let old = shared(4);
    fail(&old, 0, 3);
    let kept = SharedUpstream::inherit_from(old.config.clone(), &old);
    assert_eq!(state(&kept, 0), EndpointState::CircuitOpen);
    let without = Upstream { circuit_breaker: CircuitBreaker::default(), ..(*old.config).clone() };
    let new = SharedUpstream::inherit_from(Arc::new(without), &old);
    assert_eq!(state(&new, 0), EndpointState::Healthy);
    assert!(matches!(admit(&new, &endpoint(&new, 0)), Ok(None)));
}

#[derive(Clone, Debug)]
enum CircuitOp {
    Begin(usize),
    End(usize, bool),
    GiveUp(usize),
    Health(usize, bool),
    Eject(usize),
    Wait(u16),
}

fn op() -> impl Strategy<Value = CircuitOp> {
    prop_oneof![
        20 => (0..12usize).prop_map(CircuitOp::Begin),
        20 => (0..64usize, prop::bool::weighted(0.2)).prop_map(|(index, success)| CircuitOp::End(index, success)),
        2 => (0..64usize).prop_map(CircuitOp::GiveUp),
        1 => (0..12usize, any::<bool>()).prop_map(|(index, healthy)| CircuitOp::Health(index, healthy)),
        1 => (0..12usize).prop_map(CircuitOp::Eject),
        2 => (0..3000u16).prop_map(CircuitOp::Wait),
    ]
}

proptest! {
    #[test]
    fn the_rules_hold_for_any_events_in_any_order(
        endpoints in 1..12u16,
        threshold in 0.0..=1.0f64,
        probes in 1..4u16,
        ops in prop::collection::vec(op(), 1..400),
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let config = FailureBreaker { consecutive: 2, probes, ..breaker() };
            let shared = shared_of(endpoints, config, threshold);
            let set = shared.endpoints.load_full();
            let n = set.endpoints.len();
            let mut running: Vec<(usize, AdmittedCall)> = Vec::new();
            for op in ops {
                let before: Vec<_> = set.endpoints.iter().map(|e| e.circuit.load_full().unwrap().phase()).collect();
                match op {
                    CircuitOp::Begin(at) => {
                        let at = at % n;
                        if let Ok(Some(admitted)) = admit(&shared, &set.endpoints[at]) {
                            prop_assert!(!matches!(before[at], BreakerState::Open(until) if until > Instant::now()));
                            running.push((at, admitted));
                        }
                    }
                    CircuitOp::End(index, success) if !running.is_empty() => {
                        let (at, admitted) = running.swap_remove(index % running.len());
                        admitted.end(|circuit, ticket| {
                            ended(&shared, &set.endpoints[at], circuit, ticket, success, Instant::now());
                        });
                    }
                    CircuitOp::GiveUp(index) if !running.is_empty() => {
                        drop(running.swap_remove(index % running.len()));
                    }
                    CircuitOp::Health(at, healthy) => drop(set.endpoints[at % n].set_healthy(healthy)),
                    CircuitOp::Eject(at) => {
                        let failed = Outcome::Failed(EndpointFailure::Answer(StatusCode::BAD_GATEWAY));
                        outlier::report(&shared, &set.endpoints[at % n], failed, Instant::now());
                    }
                    CircuitOp::Wait(millis) => {
                        tokio::time::advance(Duration::from_millis(millis.into())).await;
                        half_open(&shared, Instant::now());
                    }
                    _ => {}
                }
                for (at, endpoint) in set.endpoints.iter().enumerate() {
                    let circuit = endpoint.circuit.load_full().unwrap();
                    let opened = before[at] == BreakerState::Closed && matches!(circuit.phase(), BreakerState::Open(_));
                    if opened {
                        let serving = set.endpoints.iter().filter(|e| e.in_service()).count();
                        prop_assert!(serving >= 1, "it took the last");
                        prop_assert!(serving as f64 + 1e-9 >= threshold * n as f64, "{serving} of {n} are a panic");
                    }
                    prop_assert_eq!(endpoint.tripped.is_up(), !circuit.is_closed());
                    let (out, _) = circuit.status(Instant::now()).probes;
                    prop_assert!(out <= u64::from(probes), "{out} probes");
                }
            }
            Ok(())
        })?;
    }
}

#[test]
fn breakers_that_open_at_once_leave_enough_endpoints() {
    for _ in 0..200 {
        let shared = shared_of(10, FailureBreaker { consecutive: 1, ..breaker() }, 0.5);
        std::thread::scope(|scope| {
            for worker in 0..4usize {
                let shared = &shared;
                scope.spawn(move || {
                    for i in 0..40 {
                        call(shared, (i + worker * 3) % 10, false);
                    }
                });
            }
        });
        let open = || (0..10).filter(|at| state(&shared, *at) == CircuitOpen).count();
        assert!(open() <= 5);
        // If a worker found another one at work, its own change waits for the next failure.
        for at in 0..10 {
            call(&shared, at, false);
        }
        assert_eq!(open(), 5);
    }
}
