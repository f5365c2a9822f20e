//! Permits between workers, the end of a permit, and what a call that leaves releases.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use attache_config::model::Queue;
use tokio::task::yield_now;

use super::{
    tests::{QueueBench, adaptive, seen},
    *,
};
use crate::testing::{FakeUpstream, channel, get, next, respond};

fn gate(bench: &QueueBench) -> &UpstreamPermits {
    bench.state.gate.as_deref().unwrap()
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_permit_that_another_worker_releases_is_found_within_a_millisecond_each_time() {
    let bench = QueueBench::new(1, Queue::default());
    // Keeps the worker's line between the calls.
    let _route = stack(&bench, FakeUpstream::default());
    for round in 0..3 {
        let begin = round * 100;
        bench.at(begin).await;
        assert!(gate(&bench).enter().is_some(), "the other worker's call");
        let waits = bench.send("waits", 3, 1);
        bench.at(begin + 20).await;
        gate(&bench).leave();
        let (outcome, end) = waits.await.unwrap();
        assert_eq!(outcome, Ok(200));
        assert!((begin + 21..=begin + 22).contains(&(end.as_millis() as u64)), "{end:?}");
    }
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_new_call_does_not_overtake_those_that_wait_but_lets_them_go_at_once() {
    let bench = QueueBench::new(1, Queue::default());
    assert!(gate(&bench).enter().is_some(), "the other worker's call");
    drop(bench.send("urgent", 1, 10));
    yield_now().await;
    gate(&bench).leave();
    drop(bench.send("late", 7, 10));
    bench.at(50).await;
    assert_eq!(bench.seen(), seen(&[("urgent", 0), ("late", 10)]));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_worker_takes_no_more_than_its_share_of_many_free_permits() {
    let bench = QueueBench::new(4, Queue::default());
    for _ in 0..4 {
        assert!(gate(&bench).enter().is_some(), "the other worker's calls");
    }
    gate(&bench).hungry.fetch_add(1, Relaxed);
    for name in ["a", "b", "c", "d"] {
        drop(bench.send(name, 3, 10));
    }
    bench.at(20).await;
    for _ in 0..4 {
        gate(&bench).leave();
    }
    bench.at(60).await;
    let begin = bench.seen()[0].1;
    assert!((20..=21).contains(&begin), "{begin}");
    assert_eq!(bench.seen(), seen(&[("a", begin), ("b", begin), ("c", begin + 10), ("d", begin + 10)]));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn permits_of_calls_that_waited_do_not_count_after_their_end() {
    let bench = QueueBench::new(4, Queue::default());
    for _ in 0..20 {
        drop(bench.send("waits", 3, 1));
    }
    bench.at(50).await;
    gate(&bench).hungry.fetch_add(1, Relaxed);
    let calls = ["a", "b"].map(|name| bench.send(name, 3, 10));
    for call in calls {
        assert_eq!(call.await.unwrap(), (Ok(200), Duration::from_millis(60)), "its share is two");
    }
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_caller_that_leaves_holds_nothing_whether_it_waits_or_was_just_called() {
    let bench = QueueBench::new(1, Queue::default());
    drop(bench.send("runs", 3, 20));
    yield_now().await;
    let gone = bench.send("gone", 0, 1);
    yield_now().await;
    assert_eq!(gate(&bench).reading().waiting, 1);
    gone.abort();
    assert!(gone.await.is_err());
    assert_eq!(gate(&bench).reading().waiting, 0);
    assert_eq!(bench.send("next", 7, 1).await.unwrap(), (Ok(200), Duration::from_millis(21)));

    assert!(gate(&bench).enter().is_some(), "the other worker's call");
    let called = bench.send("called", 0, 1);
    yield_now().await;
    gate(&bench).leave();
    // The new call finds the free permit for the waiting one, whose caller leaves before it has noticed.
    let new = bench.send("new", 7, 1);
    called.abort();
    assert!(called.await.is_err());
    assert_eq!(new.await.unwrap().0, Ok(200));
    assert_eq!(bench.seen(), seen(&[("runs", 0), ("next", 20), ("new", 21)]));
    assert_eq!((gate(&bench).reading().running, gate(&bench).reading().waiting), (0, 0));
}

/// An answer of this type, and how many calls run while it is kept.
async fn answered(bench: &QueueBench, content_type: &'static str, body: Body) -> (Response<Body>, u32) {
    let script = FakeUpstream::default().then(move |_| async move {
        Ok(http::Response::builder().header("content-type", content_type).body(body).unwrap().into())
    });
    let response = stack(bench, script).call(get()).await.unwrap();
    (response, gate(bench).reading().running)
}

fn stack(bench: &QueueBench, script: FakeUpstream) -> crate::Stack<FakeUpstream> {
    crate::stack(&bench.policy, &bench.state, script)
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn only_an_adaptive_limit_lets_a_stream_run_without_a_permit() {
    for (bench, events) in [(QueueBench::new(2, Queue::default()), 1), (QueueBench::of(adaptive(None)), 0)] {
        let (_frames, body) = channel();
        assert_eq!(answered(&bench, "text/event-stream", body).await.1, events);
        let (_frames, body) = channel();
        assert_eq!(answered(&bench, "text/html", body).await.1, 1);
        assert_eq!(
            answered(&bench, "text/html", Body::empty()).await.1,
            0,
            "an answer without a body is over"
        );
    }
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_permit_is_held_until_the_last_frame_and_no_longer() {
    let bench = QueueBench::new(2, Queue::default());
    let running = || gate(&bench).reading().running;
    let (frames, body) = channel();
    let (mut response, _) = answered(&bench, "text/html", body).await;
    for _ in 0..2 {
        frames.send(Ok("x".into())).unwrap();
        next(response.body_mut()).await.unwrap().unwrap();
        assert_eq!((running(), response.body().is_end_stream()), (1, false));
    }
    drop(frames);
    assert!(next(response.body_mut()).await.is_none());
    assert_eq!(running(), 0);

    let (mut response, _) = answered(&bench, "text/html", Body::full("whole")).await;
    assert_eq!((running(), response.body().is_end_stream()), (1, false));
    next(response.body_mut()).await.unwrap().unwrap();
    assert_eq!((running(), response.body().is_end_stream()), (0, true), "it is known to be the last one");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn calls_through_the_gate_measure_min_rtt_and_refusals_have_their_reason() {
    let metrics = attache_telemetry::Metrics::new();
    metrics.worker().install();
    let mut config = adaptive(None);
    let min_rtt = &mut config.adaptive_concurrency.as_mut().unwrap().min_rtt;
    (min_rtt.fixed_value, min_rtt.request_count) = (None, 3);
    let bench = QueueBench::of(config);
    assert!(gate(&bench).reading().adaptive.unwrap().measuring);
    for call in [0, 1, 2, 3].map(|_| bench.send("x", 3, 10)) {
        let _ = call.await.unwrap();
    }
    let adaptive = gate(&bench).reading().adaptive.unwrap();
    assert!(!adaptive.measuring && adaptive.min_rtt.is_some(), "{adaptive:?}");
    let sample = "attache_upstream_overflow_total{upstream=\"orders\",reason=\"overflow-adaptive\"} 1";
    assert!(metrics.render().contains(sample));
    let script = FakeUpstream::default().answer(1, || Ok(respond(200)));
    assert!(stack(&bench, script).call(get()).await.is_ok());
}
