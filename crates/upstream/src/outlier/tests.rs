use std::sync::Arc;

use attache_config::model;
use attache_telemetry::Reason;
use attache_wire::Fields;
use http::StatusCode;
use proptest::prelude::*;

use super::*;
use crate::{
    EndpointAddress, EndpointSpec, Error, SentPart,
    test_support::{attempt, context},
};

const FAILED: Outcome = Outcome::Failed(EndpointFailure::Answer(StatusCode::INTERNAL_SERVER_ERROR));
const REFUSED: Outcome = Outcome::Failed(EndpointFailure::NoAnswer(Reason::ConnectRefused));
const SECOND: Duration = Duration::from_secs(1);

fn shared(endpoints: u16, ejection: model::OutlierEjection) -> Arc<SharedUpstream> {
    let config = model::Upstream {
        outlier_ejection: ejection,
        ..model::Upstream::new("orders", model::Address::OriginalDestination)
    };
    let shared = SharedUpstream::new(Arc::new(config));
    let spec = |port| EndpointSpec::new(EndpointAddress::Tcp(([10, 0, 0, 1], port).into()));
    shared.replace_endpoints((1..=endpoints).map(spec).collect(), None);
    Arc::new(shared)
}

fn endpoint(shared: &SharedUpstream, index: usize) -> Arc<Endpoint> {
    shared.endpoints.load().endpoints[index].clone()
}

fn fail(shared: &SharedUpstream, index: usize, times: u32, outcome: Outcome) -> bool {
    let endpoint = endpoint(shared, index);
    (0..times).any(|_| report(shared, &endpoint, outcome, Instant::now()))
}

#[tokio::test(start_paused = true)]
async fn the_fifth_failure_in_a_row_ejects() {
    let shared = shared(3, model::OutlierEjection::default());
    assert!(!fail(&shared, 0, 4, FAILED));
    assert!(!fail(&shared, 0, 1, Outcome::Success));
    assert!(!fail(&shared, 0, 4, FAILED));
    assert!(endpoint(&shared, 0).usable());
    assert!(fail(&shared, 0, 1, REFUSED));
    assert!(!endpoint(&shared, 0).usable());
}

#[tokio::test(start_paused = true)]
async fn an_ejection_is_counted_by_the_failure_that_did_it() {
    let metrics = attache_telemetry::Metrics::new();
    metrics.worker().install();
    let shared = shared(30, model::OutlierEjection::default());
    assert!(fail(&shared, 0, 5, FAILED));
    assert!(fail(&shared, 1, 5, REFUSED));
    let page = metrics.render();
    for reason in ["upstream-error", "connect-refused"] {
        let sample = format!("attache_upstream_ejections_total{{upstream=\"orders\",reason=\"{reason}\"}} 1");
        assert!(page.contains(&sample), "{sample} in {page}");
    }
}

#[tokio::test(start_paused = true)]
async fn local_failures_have_a_row_of_their_own_that_an_answer_ends() {
    let only_local = model::OutlierEjection { consecutive_5xx: 0, ..model::OutlierEjection::default() };
    let shared = shared(3, only_local);
    assert!(!fail(&shared, 0, 50, FAILED));
    assert!(!fail(&shared, 0, 4, REFUSED));
    assert!(!fail(&shared, 0, 1, FAILED));
    assert!(!fail(&shared, 0, 4, REFUSED));
    assert!(fail(&shared, 0, 1, REFUSED));
}

#[tokio::test(start_paused = true)]
async fn the_nth_ejection_lasts_n_times_as_long_and_is_forgotten_by_serving() {
    let shared = shared(3, model::OutlierEjection { max: 80 * SECOND, ..model::OutlierEjection::default() });
    let start = Instant::now();
    let mut now = start;
    // Each time it fails again at once: 30, 60, then the longest ejection, 80.
    for seconds in [30, 60, 80, 80] {
        let endpoint = endpoint(&shared, 0);
        assert!((0..5).any(|_| report(&shared, &endpoint, FAILED, now)));
        let end = now + seconds * SECOND;
        assert_eq!(recover(&shared, end - Duration::from_nanos(1)), Some(end));
        assert!(!endpoint.usable());
        assert_eq!(recover(&shared, end), None);
        assert!(endpoint.usable());
        now = end;
    }
    // After three times `base` of service, three of the four ejections are forgotten.
    now += 90 * SECOND;
    let endpoint = endpoint(&shared, 0);
    assert!((0..5).any(|_| report(&shared, &endpoint, FAILED, now)));
    assert_eq!(recover(&shared, now), Some(now + 60 * SECOND));
    assert_eq!(endpoint.passive.ejections(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_ejection_ends_at_its_instant_by_itself() {
    let shared = shared(20, model::OutlierEjection::default());
    let start = Instant::now();
    let watched = shared.clone();
    let task = tokio::spawn(async move { run(&watched).await });
    tokio::time::sleep(SECOND).await;
    assert!(fail(&shared, 0, 5, FAILED));
    tokio::time::sleep(SECOND).await;
    assert!(fail(&shared, 1, 5, FAILED));
    for (index, end) in [(0, 31), (1, 32)] {
        tokio::time::sleep_until(start + end * SECOND - Duration::from_millis(1)).await;
        assert!(!endpoint(&shared, index).usable());
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert!(endpoint(&shared, index).usable());
    }
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn the_last_usable_endpoint_is_never_ejected() {
    let all = model::OutlierEjection { max_percent: 1.0, ..model::OutlierEjection::default() };
    let one = shared(1, all.clone());
    assert!(!fail(&one, 0, 100, REFUSED));
    let three = shared(3, all);
    endpoint(&three, 1).set_healthy(false);
    assert!(fail(&three, 0, 5, REFUSED));
    assert!(!fail(&three, 2, 100, REFUSED));
    endpoint(&three, 1).set_healthy(true);
    assert!(fail(&three, 2, 1, REFUSED), "as soon as there is room");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_discovery_dropped_is_not_ejected() {
    let shared = shared(3, model::OutlierEjection::default());
    let gone = endpoint(&shared, 0);
    let spec = |port| EndpointSpec::new(EndpointAddress::Tcp(([10, 0, 0, 1], port).into()));
    shared.replace_endpoints(vec![spec(2), spec(3)], None);
    assert!(!(0..10).any(|_| report(&shared, &gone, FAILED, Instant::now())));
}

#[test]
fn percentages_are_those_of_people() {
    let cases = [
        (0, 0.5, 0),
        (1, 1.0, 0),
        (2, 0.1, 1),
        (3, 0.0, 1),
        (10, 0.1, 1),
        (29, 0.1, 2),
        (30, 0.1, 3),
        (4, 1.0, 4),
    ];
    for (endpoints, percent, expected) in cases {
        assert_eq!(allowed(endpoints, percent), expected, "{percent} of {endpoints}");
    }
}

#[test]
fn only_failures_that_an_endpoint_caused_count() {
    let grpc = |status: &'static str| {
        Fields::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            http::HeaderValue::from_static(status),
        )])
    };
    assert_eq!(Outcome::of_response(StatusCode::NOT_FOUND, &Fields::new()), Outcome::Success);
    assert_eq!(Outcome::of_response(StatusCode::OK, &grpc("5")), Outcome::Success);
    assert_eq!(
        Outcome::of_response(StatusCode::OK, &grpc("14")),
        Outcome::Failed(EndpointFailure::Answer(StatusCode::SERVICE_UNAVAILABLE))
    );
    let error = |reason, sent| Outcome::of_error(&Error::new(reason, sent));
    assert_eq!(error(Reason::OverflowPending, SentPart::Nothing), Outcome::Inconclusive);
    assert_eq!(error(Reason::UpstreamReset, SentPart::Refused), Outcome::Inconclusive);
    let reset = Outcome::Failed(EndpointFailure::NoAnswer(Reason::UpstreamReset));
    assert_eq!(error(Reason::UpstreamReset, SentPart::Request), reset);
    let mut race = Error::new(Reason::UpstreamReset, SentPart::Request);
    race.reused = true;
    assert_eq!(Outcome::of_error(&race), Outcome::Inconclusive);
    let silence = std::io::Error::from(std::io::ErrorKind::TimedOut);
    let silence =
        Error::with_source(Reason::UpstreamReset, SentPart::Request, silence).on_reused_connection(true);
    assert_eq!(Outcome::of_error(&silence), reset, "the kernel gave it up");
}

#[tokio::test(start_paused = true)]
async fn ends_of_attempts_are_judged_by_their_outcome() {
    let shared = shared(3, model::OutlierEjection::default());
    let endpoint = endpoint(&shared, 0);
    let answered = |status: u16| {
        let status = StatusCode::from_u16(status).unwrap();
        attempt(&shared, &endpoint, &context()).answered(status, &Fields::new());
        !endpoint.usable()
    };
    let failed = |reason| {
        attempt(&shared, &endpoint, &context()).failed(&Error::new(reason, SentPart::Nothing));
        !endpoint.usable()
    };
    assert!(!(0..4).any(|_| answered(503)));
    assert!(!answered(404), "a 404 ends the row");
    assert!(!(0..4).any(|_| failed(Reason::ConnectRefused)));
    assert!(!(0..9).any(|_| failed(Reason::OverflowPending)));
    assert!(failed(Reason::ConnectRefused));
}

#[tokio::test(start_paused = true)]
async fn a_success_matters_only_while_there_are_rows() {
    let shared = shared(3, model::OutlierEjection::default());
    assert!(!failing(&shared));
    fail(&shared, 0, 1, FAILED);
    fail(&shared, 1, 1, REFUSED);
    assert!(failing(&shared));
    fail(&shared, 0, 1, Outcome::Success);
    assert!(failing(&shared), "the other one's row");
    fail(&shared, 1, 1, Outcome::Success);
    assert!(!failing(&shared));
}

#[derive(Clone, Debug)]
enum OutlierOp {
    Report(usize, Outcome),
    Health(usize, bool),
    Wait(u16),
}

fn op() -> impl Strategy<Value = OutlierOp> {
    let outcome = prop_oneof![1 => Just(Outcome::Success), 8 => Just(FAILED), 8 => Just(REFUSED)];
    prop_oneof![
        40 => (0..12usize, outcome).prop_map(|(index, outcome)| OutlierOp::Report(index, outcome)),
        1 => (0..12usize, any::<bool>()).prop_map(|(index, healthy)| OutlierOp::Health(index, healthy)),
        4 => (0..60u16).prop_map(OutlierOp::Wait),
    ]
}

proptest! {
    #[test]
    fn never_more_than_the_share_and_never_the_last(
        endpoints in 1..12u16,
        percent in 0.0..=1.0f64,
        ops in prop::collection::vec(op(), 1..400),
    ) {
        let ejection = model::OutlierEjection { max_percent: percent, consecutive_5xx: 2, ..model::OutlierEjection::default() };
        let shared = shared(endpoints, ejection);
        let set = shared.endpoints.load_full();
        let mut now = Instant::now();
        for op in ops {
            match op {
                OutlierOp::Report(index, outcome) => {
                    let endpoint = &set.endpoints[index % set.endpoints.len()];
                    if report(&shared, endpoint, outcome, now) {
                        prop_assert!(set.endpoints.iter().any(|e| e.usable()), "the last one went");
                    }
                }
                OutlierOp::Health(index, healthy) => {
                    set.endpoints[index % set.endpoints.len()].set_healthy(healthy);
                }
                OutlierOp::Wait(seconds) => {
                    now += u32::from(seconds) * SECOND;
                    recover(&shared, now);
                }
            }
            let ejected = set.endpoints.iter().filter(|e| e.ejected.load(Relaxed)).count();
            prop_assert!(ejected <= allowed(set.endpoints.len(), percent));
        }
        now += 400 * SECOND;
        recover(&shared, now);
        prop_assert!(set.endpoints.iter().all(|e| !e.ejected.load(Relaxed)), "all come back");
    }
}

#[test]
fn workers_that_eject_at_once_stay_within_the_share() {
    let shared = shared(10, model::OutlierEjection { max_percent: 0.3, ..model::OutlierEjection::default() });
    let set = shared.endpoints.load_full();
    for _ in 0..1000 {
        std::thread::scope(|scope| {
            for worker in 0..4usize {
                let (shared, set) = (&shared, &set);
                scope.spawn(move || {
                    for i in 0..100 {
                        report(shared, &set.endpoints[(i + worker * 3) % 10], FAILED, Instant::now());
                    }
                });
            }
        });
        let ejected = || set.endpoints.iter().filter(|e| e.ejected.load(Relaxed)).count();
        assert!(ejected() <= 3);
        // If a worker found another one at work, its own ejection waits for the next failure.
        for endpoint in &set.endpoints {
            report(&shared, endpoint, FAILED, Instant::now());
        }
        assert_eq!(ejected(), 3);
        recover(&shared, Instant::now() + Duration::from_hours(1));
    }
}

#[tokio::test]
async fn if_no_endpoint_can_be_connected_to_the_last_one_left_is_one_that_answered() {
    let shared = shared(2, model::OutlierEjection::default());
    let (served, closed) = (endpoint(&shared, 0), endpoint(&shared, 1));
    assert!(unreachable::lost(&shared, &served, Reason::TlsUntrusted));
    // Nothing listens on the other one: it would hide why no call succeeds.
    assert!(unreachable::lost(&shared, &closed, Reason::ConnectRefused));
    assert!(served.usable() && !closed.usable());
    for _ in 0..3 {
        assert!(!unreachable::lost(&shared, &served, Reason::TlsUntrusted));
        assert!(served.usable() && !closed.usable());
    }
}

#[tokio::test]
async fn the_last_of_endpoints_that_nothing_listens_on_stays() {
    let shared = shared(2, model::OutlierEjection::default());
    let (first, last) = (endpoint(&shared, 0), endpoint(&shared, 1));
    assert!(unreachable::lost(&shared, &first, Reason::ConnectRefused));
    assert!(!unreachable::lost(&shared, &last, Reason::ConnectTimeout));
    assert!(!first.usable() && last.usable());
}
