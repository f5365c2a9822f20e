//! What a retry leaves behind: counters, permits, discarded answers, and the answer that the caller gets.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use attache_config::model::{Policy, RetryOn};
use attache_telemetry::Reason;
use bytes::Bytes;
use http::StatusCode;
use http_body::Body as _;
use tokio::time::{Instant, sleep};

use super::*;
use crate::{
    CallResult, stack,
    testing::{FakeUpstream, channel, get, next, respond, state},
};

const SECOND: Duration = Duration::from_secs(1);

fn policy() -> Policy {
    let retry = model::Retry { on: vec![RetryOn::ServerError], budget_floor: 100, ..model::Retry::default() };
    Policy { retry, ..Policy::default() }
}

fn reset(reused: bool) -> CallResult {
    let mut error = Error::new(Reason::UpstreamReset, SentPart::Request);
    error.reused = reused;
    Err(error)
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

#[tokio::test(start_paused = true)]
async fn only_a_retry_with_a_good_answer_has_succeeded() {
    for (status, succeeded) in [(200, 1), (503, 0)] {
        let mut policy = policy();
        policy.retry.attempts = 1;
        let state = state();
        let script =
            FakeUpstream::default().answer(1, || Ok(respond(503))).answer(2, move || Ok(respond(status)));
        let response = stack(&policy, &state, script.clone()).call(get()).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(
            (count(&state.counters.retries), count(&state.counters.retries_succeeded)),
            (1, succeeded)
        );
        assert_eq!(script.seen.borrow()[1].headers.get("x-attache-attempt").unwrap(), "2");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hidden_close_race_is_counted_and_named_but_is_no_retry() {
    let metrics = attache_telemetry::Metrics::new();
    metrics.worker().install();
    let state = state();
    let script = FakeUpstream::default().answer(1, || reset(true)).answer(1, || Ok(respond(200)));
    stack(&policy(), &state, script.clone()).call(get()).await.unwrap();
    assert_eq!((count(&state.counters.close_races), count(&state.counters.retries)), (1, 0));
    assert!(!script.seen.borrow()[1].headers.contains_key("x-attache-attempt"));
    let sample = "attache_upstream_retries_total{upstream=\"orders\",reason=\"upstream-reset\"} 1";
    assert!(metrics.render().contains(sample));
}

#[tokio::test(start_paused = true)]
async fn the_time_of_each_ended_attempt_is_the_upstreams() {
    let ends: [fn() -> CallResult; 3] =
        [|| reset(true), || reset(false), || Err(Error::new(Reason::ConnectRefused, SentPart::Nothing))];
    for ended in ends {
        let call = get();
        let exchange = call.context.exchange.clone();
        let asked = exchange.clone();
        let script = FakeUpstream::default()
            .then(move |_| async move {
                asked.handed_to_upstream();
                sleep(SECOND).await;
                ended()
            })
            .answer(2, || Ok(respond(200)));
        stack(&policy(), &state(), script).call(call).await.unwrap();
        // The second attempt was answered before it was handed to anybody.
        let waited = exchange.waited_for();
        assert!(waited.ends_with("none had it then"), "{waited}");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_waited_for_up_to_exactly_30_seconds() {
    let mut policy = policy();
    policy.timeouts.request = Duration::from_hours(1);
    for (seconds, attempts) in [("30", 2), ("31", 1)] {
        let start = Instant::now();
        let asks = move || {
            let response = http::Response::builder().status(503).header("retry-after", seconds);
            Ok(response.body(Body::empty()).unwrap().into())
        };
        let script = FakeUpstream::default().answer(1, asks).answer(2, || Ok(respond(200)));
        stack(&policy, &state(), script.clone()).call(get()).await.unwrap();
        assert_eq!((script.attempts(), start.elapsed()), (attempts, (attempts as u32 - 1) * 30 * SECOND));
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_failed_answer_is_dropped_during_the_wait_and_not_after_it() {
    let (frames, body) = channel();
    for _ in 0..3 {
        frames.send(Ok(Bytes::from(vec![0; 8 << 10]))).unwrap();
    }
    let fails = |_| async {
        let response = http::Response::builder().status(503).header("retry-after", "2");
        Ok(response.body(body).unwrap().into())
    };
    let script = FakeUpstream::default().then(fails).answer(2, || Ok(respond(200)));
    let (policy, state) = (policy(), state());
    let looks = async {
        sleep(SECOND).await;
        assert!(frames.is_closed(), "more than 16 KiB");
    };
    let (response, ()) = tokio::join!(stack(&policy, &state, script).call(get()), looks);
    assert_eq!(response.unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn the_answer_of_a_retry_is_whole_and_says_when_it_ends() {
    let (frames, body) = channel();
    let script =
        FakeUpstream::default().answer(1, || Ok(respond(503))).then(|_| async { Ok(Response::new(body)) });
    let mut response = stack(&policy(), &state(), script).call(get()).await.unwrap();
    assert!(!response.body().is_end_stream());
    frames.send(Ok(Bytes::from_static(b"part"))).unwrap();
    assert!(next(response.body_mut()).await.unwrap().unwrap().is_data());
    drop(frames);
    assert!(next(response.body_mut()).await.is_none());

    let full = || Ok(respond(200).map(|_| Body::full("whole")));
    let script = FakeUpstream::default().answer(1, || Ok(respond(503))).answer(2, full);
    let mut response = stack(&policy(), &state(), script).call(get()).await.unwrap();
    assert_eq!((response.body().size_hint().exact(), response.body().is_end_stream()), (Some(5), false));
    next(response.body_mut()).await.unwrap().unwrap();
    assert!(response.body().is_end_stream());
}
