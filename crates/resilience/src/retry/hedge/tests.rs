use std::{cell::Cell, sync::atomic::Ordering::Relaxed};

use attache_config::model::{Hedge, Policy, Retry, RetryMethods, RetryOn, Timeouts};
use attache_telemetry::Reason;
use attache_upstream::{EndpointSpec, SentPart};

use tokio::time::sleep;

use super::*;
use crate::{
    stack,
    testing::{FakeUpstream, address, call, channel, get, post, read, respond, state},
};

const MS: Duration = Duration::from_millis(1);

fn hedging(after: HedgeAfter) -> attache_config::model::Policy {
    let hedge = Some(Hedge { min_samples: 10, ..Hedge::new(after) });
    let retry = Retry { hedge, on: vec![RetryOn::ServerError], budget_floor: 100, ..Retry::default() };
    Policy { retry, ..Policy::default() }
}

fn after(ms: u32) -> attache_config::model::Policy {
    hedging(HedgeAfter::Time(ms * MS))
}

/// An attempt at the endpoint of that port, which answers after this time with its own number in a header.
fn slow(script: FakeUpstream, port: u16, ms: u32, status: u16) -> FakeUpstream {
    script.at(port, move |mut call| async move {
        let body = read(call.request.body_mut()).await.unwrap();
        sleep(ms * MS).await;
        let mut response = respond(status);
        response.headers_mut().insert("port", port);
        response.headers_mut().insert("body", body.len());
        Ok(response)
    })
}

/// An attempt that never ends, and reports when it is dropped.
fn stuck(script: FakeUpstream, port: u16) -> (FakeUpstream, Rc<Cell<bool>>) {
    struct ReportedWait(Rc<Cell<bool>>);
    impl Drop for ReportedWait {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let dropped = Rc::new(Cell::new(false));
    let told = ReportedWait(dropped.clone());
    let script = script.at(port, move |mut call| async move {
        let _told = told;
        let _ = read(call.request.body_mut()).await;
        std::future::pending().await
    });
    (script, dropped)
}

async fn winner(
    policy: &Policy,
    state: &Arc<UpstreamState>,
    script: &FakeUpstream,
    call: Call,
) -> (String, Duration) {
    let start = Instant::now();
    let response = stack(policy, state, script.clone()).call(call).await.unwrap();
    let port = response.headers().get("port").unwrap().to_str().unwrap().to_owned();
    (format!("{} {port}", response.status().as_u16()), start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_slow_attempt_loses_to_a_hedge_at_another_endpoint_and_is_no_failure() {
    let state = state();
    let (script, given_up) = stuck(FakeUpstream::default(), 2);
    let script = slow(script, 3, 5, 200);
    let call = get();
    let exchange = call.context.exchange.clone();
    let (port, time) = winner(&after(20), &state, &script, call).await;
    assert_eq!((port.as_str(), time), ("200 3", 25 * MS));
    assert!(given_up.get(), "at once, not when the response is over");
    let seen = script.seen.borrow();
    assert_eq!(seen[1].tried, ["10.0.0.1:2"]);
    assert_eq!(seen[1].headers.get("x-attache-attempt").unwrap(), "2");
    assert_eq!((exchange.hedges.get(), exchange.hedge_won.get()), (1, true));
    assert_eq!(exchange.endpoint.borrow().as_deref(), Some("10.0.0.1:3"));
    assert_eq!((state.counters.hedges.load(Relaxed), state.counters.hedges_won.load(Relaxed)), (1, 1));
    assert_eq!(state.counters.retries.load(Relaxed), 0, "a hedge is no retry");
    for endpoint in state.snapshot().endpoints {
        assert_eq!((endpoint.ejection.consecutive_5xx, endpoint.ejection.consecutive_local), (0, 0));
    }
    assert_eq!(state.shared.retries.load(Relaxed), 0, "its permit of the budget is released");
}

#[tokio::test(start_paused = true)]
async fn the_first_attempt_wins_if_it_is_faster_and_its_hedge_is_dropped() {
    let script = slow(FakeUpstream::default(), 1, 30, 200);
    let (script, given_up) = stuck(script, 2);
    let (port, time) = winner(&after(20), &state(), &script, get()).await;
    assert_eq!((port.as_str(), time), ("200 1", 30 * MS));
    assert!(given_up.get());
}

#[tokio::test(start_paused = true)]
async fn losers_are_dropped_with_the_answer_even_if_the_calls_future_is_kept() {
    // The first attempt wins.
    let script = slow(FakeUpstream::default(), 1, 30, 200);
    let (script, hedge) = stuck(script, 2);
    let (policy, state) = (after(20), state());
    let mut call = std::pin::pin!(stack(&policy, &state, script).call(get()));
    assert_eq!(call.as_mut().await.unwrap().headers().get("port").unwrap(), "1");
    assert!(hedge.get());
    // The second hedge wins over the first attempt and the first hedge.
    let mut two = after(20);
    two.retry.hedge.as_mut().unwrap().max = 2;
    let (script, first) = stuck(FakeUpstream::default(), 1);
    let (script, hedge) = stuck(script, 2);
    let script = slow(script, 3, 5, 200);
    let mut call = std::pin::pin!(stack(&two, &state, script).call(get()));
    assert_eq!(call.as_mut().await.unwrap().headers().get("port").unwrap(), "3");
    assert!(first.get() && hedge.get());
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_hedged_anew_from_its_own_begin() {
    let mut policy = after(20);
    policy.retry.backoff.base = Duration::ZERO;
    let script = slow(FakeUpstream::default(), 1, 15, 503);
    let (script, _retry) = stuck(script, 2);
    let script = slow(script, 3, 5, 200);
    let start = Instant::now();
    assert_eq!(winner(&policy, &state(), &script, get()).await.0, "200 3");
    let begun: Vec<_> = script.seen.borrow().iter().map(|seen| seen.at - start).collect();
    assert!(begun[1] >= 15 * MS && begun[1] <= 16 * MS, "{begun:?}");
    assert_eq!(begun[2], begun[1] + 20 * MS, "{begun:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_the_upstream_never_wins_even_if_the_route_does_not_retry_it() {
    let mut policy = after(20);
    policy.retry.on = vec![RetryOn::ConnectFailure];
    let script = slow(slow(FakeUpstream::default(), 1, 60, 200), 2, 5, 503);
    assert_eq!(winner(&policy, &state(), &script, get()).await, ("200 1".into(), 60 * MS));
}

#[tokio::test(start_paused = true)]
async fn the_budget_counts_a_hedge_that_won_until_its_answer_ends() {
    let state = state();
    let (script, _first) = stuck(FakeUpstream::default(), 1);
    let (frames, body) = channel();
    let script = script.at(2, |_| async { Ok(Response::new(body)) });
    let call = get();
    let exchange = call.context.exchange.clone();
    let response = stack(&after(20), &state, script).call(call).await.unwrap();
    assert_eq!((state.shared.retries.load(Relaxed), exchange.attempts.get()), (1, 2));
    drop((frames, response));
    assert_eq!(state.shared.retries.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn hedges_are_counted_by_how_they_end() {
    let metrics = attache_telemetry::Metrics::new();
    metrics.worker().install();
    let (script, _first) = stuck(FakeUpstream::default(), 1);
    winner(&after(20), &state(), &slow(script, 2, 5, 200), get()).await;
    let (script, _hedge) = stuck(slow(FakeUpstream::default(), 1, 30, 200), 2);
    winner(&after(20), &state(), &script, get()).await;
    let mut broke = after(20);
    (broke.retry.budget, broke.retry.budget_floor) = (0.2, 0);
    winner(&broke, &state(), &slow(FakeUpstream::default(), 1, 30, 200), get()).await;
    let page = metrics.render();
    for outcome in ["won", "lost", "refused"] {
        let sample = format!("attache_upstream_hedges_total{{upstream=\"orders\",outcome=\"{outcome}\"}} 1");
        assert!(page.contains(&sample), "{sample} in {page}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_quick_attempt_is_not_hedged() {
    let script = slow(FakeUpstream::default(), 1, 19, 200);
    winner(&after(20), &state(), &script, get()).await;
    assert_eq!(script.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_what_may_be_sent_twice_is_hedged() {
    let script = slow(FakeUpstream::default(), 1, 100, 200);
    winner(&after(20), &state(), &script, post(Body::full("order"))).await;
    assert_eq!(script.attempts(), 1, "a POST");

    let upgrade =
        http::Request::get("http://orders/").header(UPGRADE, "websocket").body(Body::empty()).unwrap();
    let script = slow(FakeUpstream::default(), 1, 100, 200);
    winner(&after(20), &state(), &script, call(upgrade)).await;
    assert_eq!(script.attempts(), 1, "an upgrade");

    let mut all = after(20);
    all.retry.methods = RetryMethods::All;
    let (script, _given_up) = stuck(FakeUpstream::default(), 1);
    let script = slow(script, 2, 5, 200);
    winner(&all, &state(), &script, post(Body::full("order"))).await;
    assert_eq!(script.attempts(), 2, "the route vouches");
}

#[tokio::test(start_paused = true)]
async fn both_attempts_get_the_whole_body_and_an_incomplete_body_is_not_hedged() {
    let put = |body: Body| call(http::Request::put("http://orders/").body(body).unwrap());
    let script = slow(slow(FakeUpstream::default(), 1, 100, 200), 2, 5, 200);
    let response = stack(&after(20), &state(), script.clone()).call(put(Body::full("order"))).await.unwrap();
    assert_eq!(response.headers().get("port").unwrap(), "2");
    assert_eq!(response.headers().get("body").unwrap(), "5");

    // Its end comes 30 ms after its beginning.
    let (sender, body) = channel();
    let script = slow(FakeUpstream::default(), 1, 0, 200);
    let upload = async {
        sender.send(Ok("or".into())).unwrap();
        sleep(30 * MS).await;
        sender.send(Ok("der".into())).unwrap();
        drop(sender);
    };
    let (policy, state) = (after(20), state());
    let (answer, ()) = tokio::join!(winner(&policy, &state, &script, put(body)), upload);
    assert_eq!(answer, ("200 1".into(), 30 * MS));
    assert_eq!(script.attempts(), 1);

    // Larger than the body that is kept.
    let mut small = after(20);
    small.retry.buffer = 4;
    let script = slow(FakeUpstream::default(), 1, 100, 200);
    winner(&small, &state, &script, put(Body::full("order"))).await;
    assert_eq!(script.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_budget_and_the_attempts_bound_hedges() {
    let broke = |policy: &mut Policy| (policy.retry.budget, policy.retry.budget_floor) = (0.2, 0);
    let tired = |policy: &mut Policy| policy.retry.attempts = 0;
    for bound in [&broke as &dyn Fn(&mut Policy), &tired] {
        let mut policy = after(20);
        bound(&mut policy);
        let state = state();
        let script = slow(FakeUpstream::default(), 1, 100, 200);
        winner(&policy, &state, &script, get()).await;
        assert_eq!((script.attempts(), state.counters.hedges.load(Relaxed)), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn without_another_endpoint_there_is_no_hedge() {
    let state = state();
    state.shared.replace_endpoints(vec![EndpointSpec::new(address(1))], None);
    let script = slow(FakeUpstream::default(), 1, 100, 200);
    winner(&after(20), &state, &script, get()).await;
    assert_eq!(script.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_bad_answer_waits_for_the_other_attempt() {
    // The hedge fails first.
    let script = slow(slow(FakeUpstream::default(), 1, 60, 200), 2, 5, 503);
    assert_eq!(winner(&after(20), &state(), &script, get()).await, ("200 1".into(), 60 * MS));
    // The first one fails while the hedge runs.
    let script = slow(slow(FakeUpstream::default(), 1, 30, 503), 2, 40, 200);
    assert_eq!(winner(&after(20), &state(), &script, get()).await, ("200 2".into(), 60 * MS));
    // An error is a bad answer, too.
    let script = slow(FakeUpstream::default(), 1, 60, 200)
        .answer(2, || Err(Error::new(Reason::ConnectRefused, SentPart::Nothing)));
    assert_eq!(winner(&after(20), &state(), &script, get()).await, ("200 1".into(), 60 * MS));
}

#[tokio::test(start_paused = true)]
async fn if_all_fail_the_request_is_retried_at_a_third_endpoint() {
    let script = slow(slow(FakeUpstream::default(), 1, 30, 503), 2, 40, 503);
    let script = slow(script, 3, 0, 200);
    let (port, _) = winner(&after(20), &state(), &script, get()).await;
    assert_eq!(port, "200 3");
    let mut tried = script.seen.borrow()[2].tried.clone();
    tried.sort();
    assert_eq!(tried, ["10.0.0.1:1", "10.0.0.1:2"]);
    // Two attempts are a hedge and a retry: the third failure is the caller's.
    let script = slow(slow(slow(FakeUpstream::default(), 1, 30, 503), 2, 40, 503), 3, 0, 503);
    let (port, _) = winner(&after(20), &state(), &script, get()).await;
    assert_eq!((port.as_str(), script.attempts()), ("503 3", 3));
}

#[tokio::test(start_paused = true)]
async fn further_hedges_each_wait_as_long_again() {
    let mut policy = after(20);
    policy.retry.hedge.as_mut().unwrap().max = 2;
    let start = Instant::now();
    let (script, _a) = stuck(FakeUpstream::default(), 1);
    let (script, _b) = stuck(script, 2);
    let script = slow(script, 3, 5, 200);
    assert_eq!(winner(&policy, &state(), &script, get()).await, ("200 3".into(), 45 * MS));
    let begun: Vec<_> = script.seen.borrow().iter().map(|seen| seen.at - start).collect();
    assert_eq!(begun, [Duration::ZERO, 20 * MS, 40 * MS]);
}

#[tokio::test(start_paused = true)]
async fn a_percentile_is_measured_before_it_counts_and_has_a_floor() {
    let state = state();
    let policy = hedging(HedgeAfter::Percentile(0.9));
    let mut script = FakeUpstream::default();
    for _ in 0..10 {
        script = slow(script, 1, 40, 200);
    }
    for _ in 0..10 {
        winner(&policy, &state, &script, get()).await;
    }
    assert_eq!(script.attempts(), 10, "too few answers for a percentile");
    sleep(100 * MS).await;
    let (script, _given_up) = stuck(FakeUpstream::default(), 1);
    let script = slow(script, 2, 5, 200);
    let (port, time) = winner(&policy, &state, &script, get()).await;
    assert_eq!(port, "200 2");
    // The percentile is 40 ms plus up to a sixteenth; timers count in milliseconds.
    assert!((45 * MS..=49 * MS).contains(&time), "{time:?}");

    let mut floored = hedging(HedgeAfter::Percentile(0.9));
    floored.retry.hedge.as_mut().unwrap().floor = 500 * MS;
    let script = slow(FakeUpstream::default(), 1, 400, 200);
    winner(&floored, &state, &script, get()).await;
    assert_eq!(script.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_loser_is_measured_for_as_long_as_it_ran() {
    let state = state();
    let policy = hedging(HedgeAfter::Percentile(0.5));
    let latency = state.latency();
    (0..10).for_each(|_| latency.add(10 * MS, Instant::now()));
    for _ in 0..20 {
        sleep(100 * MS).await;
        let (script, _given_up) = stuck(FakeUpstream::default(), 1);
        winner(&policy, &state, &slow(script, 2, 1, 200), get()).await;
    }
    // 20 hedges of a millisecond and 20 losers: without the losers the median would fall, and hedges would start
    // earlier and earlier.
    assert!(latency.quantile(0.99, 50, Instant::now()) >= Some(11 * MS));
    assert!(latency.quantile(0.5, 50, Instant::now()) >= Some(10 * MS));
    assert!(latency.quantile(0.35, 50, Instant::now()) < Some(5 * MS));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_all_attempts() {
    let mut policy = after(20);
    policy.timeouts = Timeouts { request: 50 * MS, ..Timeouts::default() };
    let (script, first) = stuck(FakeUpstream::default(), 1);
    let (script, second) = stuck(script, 2);
    let start = Instant::now();
    let error = stack(&policy, &state(), script.clone()).call(get()).await.unwrap_err();
    assert_eq!((error.reason, start.elapsed(), script.attempts()), (Reason::RequestTimeout, 50 * MS, 2));
    assert!(first.get() && second.get());
}

#[tokio::test(start_paused = true)]
async fn the_hedges_of_a_request_are_bounded_over_all_of_its_attempts() {
    let state = state();
    state.shared.replace_endpoints((1..=4).map(|port| EndpointSpec::new(address(port))).collect(), None);
    let mut policy = after(20);
    policy.retry.attempts = 5;
    let script = slow(slow(FakeUpstream::default(), 1, 30, 503), 2, 40, 503);
    // Slow enough for another hedge, which a fourth endpoint could take.
    let script = slow(script, 3, 100, 200);
    assert_eq!(winner(&policy, &state, &script, get()).await.0, "200 3");
    assert_eq!(script.attempts(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_would_be_retried_waits_for_the_hedge_and_a_hedge_is_no_successful_retry() {
    let state = state();
    let mut policy = after(20);
    policy.retry.on = vec![RetryOn::Status(http::StatusCode::NOT_FOUND)];
    let script = slow(slow(FakeUpstream::default(), 1, 30, 404), 2, 40, 200);
    assert_eq!(winner(&policy, &state, &script, get()).await, ("200 2".into(), 60 * MS));
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
    assert_eq!((count(&state.counters.hedges_won), count(&state.counters.retries_succeeded)), (1, 0));
}
