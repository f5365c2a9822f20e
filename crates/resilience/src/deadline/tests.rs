use std::time::Duration;

use attache_config::model::{Policy, Retry, Timeouts};
use bytes::Bytes;
use http::HeaderValue;
use tokio::time::{advance, sleep};
use tower::Service;

use super::*;
use crate::{
    stack,
    testing::{FakeUpstream, call, channel, get, next, post, read, respond, state},
};

const MS: Duration = Duration::from_millis(1);

fn timeouts(request: Duration, per_try: Duration, idle: Duration) -> Policy {
    Policy {
        timeouts: Timeouts { request, whole: true, idle },
        retry: Retry { attempts: 0, per_try_timeout: per_try, ..Retry::default() },
        ..Policy::default()
    }
}

fn never() -> FakeUpstream {
    FakeUpstream::default().then(|_| std::future::pending())
}

async fn outcome(policy: &Policy, script: FakeUpstream, call: Call) -> Result<Response<Body>, Error> {
    stack(policy, &state(), script).call(call).await
}

fn with(content_type: &'static str, body: Body) -> Response<Body> {
    http::Response::builder().header(CONTENT_TYPE, content_type).body(body).unwrap().into()
}

fn grpc(timeout: &'static str) -> Call {
    call(http::Request::post("http://orders/").header("grpc-timeout", timeout).body(Body::empty()).unwrap())
}

fn connect() -> Call {
    call(http::Request::connect("http://orders/chat").body(Body::empty()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_silent_upstream_is_cut_at_the_request_deadline() {
    let start = Instant::now();
    let policy = timeouts(Duration::from_secs(2), Duration::ZERO, Duration::from_mins(5));
    let error = outcome(&policy, never(), get()).await.unwrap_err();
    assert_eq!((error.reason, start.elapsed()), (Reason::RequestTimeout, Duration::from_secs(2)));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_cut_at_its_own_deadline() {
    let start = Instant::now();
    let policy = timeouts(Duration::from_secs(2), 300 * MS, Duration::ZERO);
    let error = outcome(&policy, never(), get()).await.unwrap_err();
    assert_eq!((error.reason, error.sent), (Reason::PerTryTimeout, SentPart::Request));
    assert_eq!(start.elapsed(), 300 * MS);
}

#[tokio::test(start_paused = true)]
async fn the_shorter_of_the_callers_deadline_and_the_routes_wins() {
    let policy = timeouts(Duration::from_secs(2), Duration::ZERO, Duration::ZERO);
    for (caller, expected) in
        [("150m", 150 * MS), ("10S", Duration::from_secs(2)), ("x", Duration::from_secs(2))]
    {
        let start = Instant::now();
        let script = never();
        let error = outcome(&policy, script.clone(), grpc(caller)).await.unwrap_err();
        assert_eq!((error.reason, start.elapsed()), (Reason::RequestTimeout, expected), "{caller}");
        assert_eq!(script.seen.borrow()[0].deadline, Some(start + expected));
    }
}

#[tokio::test(start_paused = true)]
async fn no_work_is_done_for_a_caller_that_no_longer_waits() {
    let script = FakeUpstream::default();
    let policy = timeouts(Duration::from_secs(2), Duration::ZERO, Duration::ZERO);
    let error = outcome(&policy, script.clone(), grpc("0n")).await.unwrap_err();
    assert_eq!((error.reason, script.attempts()), (Reason::RequestTimeout, 0));
}

#[tokio::test(start_paused = true)]
async fn a_response_that_ends_too_late_is_cut_and_never_ended_cleanly() {
    let start = Instant::now();
    let (frames, body) = channel();
    let script = FakeUpstream::default().then(|_| async { Ok(Response::new(body)) });
    let policy = timeouts(Duration::from_secs(2), Duration::ZERO, Duration::ZERO);
    let mut response = outcome(&policy, script, get()).await.unwrap();
    frames.send(Ok(Bytes::from_static(b"part"))).unwrap();
    assert!(next(response.body_mut()).await.unwrap().is_ok());
    for _ in 0..2 {
        let error = next(response.body_mut()).await.unwrap().unwrap_err();
        assert_eq!((error.reason, start.elapsed()), (Some(Reason::RequestTimeout), Duration::from_secs(2)));
        assert!(!response.body().is_end_stream());
    }
    assert!(frames.is_closed(), "the upstream's side ends too");
}

#[tokio::test(start_paused = true)]
async fn a_reader_slower_than_the_deadline_is_cut_though_every_frame_is_there() {
    let (frames, body) = channel();
    for _ in 0..10 {
        frames.send(Ok(Bytes::from_static(b"part"))).unwrap();
    }
    let script = FakeUpstream::default().then(|_| async { Ok(Response::new(body)) });
    let policy = timeouts(Duration::from_secs(2), Duration::ZERO, Duration::ZERO);
    let mut response = outcome(&policy, script, get()).await.unwrap();
    let mut read = 0;
    while next(response.body_mut()).await.unwrap().is_ok() {
        read += 1;
        advance(700 * MS).await;
    }
    assert_eq!(read, 3);
}

#[tokio::test(start_paused = true)]
async fn a_stream_may_outlast_the_request_deadline_but_not_the_callers() {
    for (content_type, call, cut) in [
        ("text/event-stream", get(), false),
        ("application/grpc+proto", grpc("1H"), false),
        ("application/grpc", grpc("3S"), true),
        ("text/html", connect(), false),
        ("text/html", get(), true),
    ] {
        let (frames, body) = channel();
        let script = FakeUpstream::default().then(move |_| async move { Ok(with(content_type, body)) });
        let policy = timeouts(Duration::from_secs(2), Duration::ZERO, Duration::ZERO);
        let mut response = outcome(&policy, script, call).await.unwrap();
        tokio::join!(
            async {
                sleep(Duration::from_secs(10)).await;
                drop(frames);
            },
            async { assert_eq!(read(response.body_mut()).await.is_err(), cut, "{content_type}") }
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_byte_is_cut_after_exactly_the_idle_time() {
    let (_frames, body) = channel();
    let script = FakeUpstream::default().then(|_| async { Ok(with("text/event-stream", body)) });
    let policy = timeouts(Duration::ZERO, Duration::ZERO, Duration::from_secs(8));
    let mut response = outcome(&policy, script, get()).await.unwrap();
    let start = Instant::now();
    let error = next(response.body_mut()).await.unwrap().unwrap_err();
    assert_eq!((error.reason, start.elapsed()), (Some(Reason::IdleTimeout), Duration::from_secs(8)));
}

#[tokio::test(start_paused = true)]
async fn the_last_byte_is_followed_by_one_to_one_and_a_quarter_idle_times() {
    for offset in [1, 1999, 2000, 2001, 3999, 5500] {
        let (frames, body) = channel();
        let script = FakeUpstream::default().then(|_| async { Ok(with("text/event-stream", body)) });
        let policy = timeouts(Duration::ZERO, Duration::ZERO, Duration::from_secs(8));
        let mut response = outcome(&policy, script, get()).await.unwrap();
        frames.send(Ok(Bytes::from_static(b"head"))).unwrap();
        assert!(next(response.body_mut()).await.unwrap().is_ok());
        let reader = tokio::time::timeout(offset * MS, next(response.body_mut())).await;
        assert!(reader.is_err());
        frames.send(Ok(Bytes::from_static(b"last"))).unwrap();
        assert!(next(response.body_mut()).await.unwrap().is_ok());
        let last = Instant::now();
        assert!(next(response.body_mut()).await.unwrap().is_err());
        let silence = last.elapsed();
        assert!(
            (Duration::from_secs(8)..=Duration::from_secs(10)).contains(&silence),
            "{offset}: {silence:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_of_the_request_keep_the_stream_alive() {
    let (upload, request) = channel();
    let (_frames, response) = channel();
    let script = FakeUpstream::default().then(|mut call| async move {
        // As on a real connection, the request's body is still read while the response is written.
        let reading = async move { read(call.request.body_mut()).await };
        Ok(with("text/event-stream", Body::stream(BodyWithFuture::new(reading, response))))
    });
    let policy = timeouts(Duration::ZERO, Duration::ZERO, Duration::from_secs(8));
    let mut response = outcome(&policy, script, post(request)).await.unwrap();
    let start = Instant::now();
    tokio::join!(
        async {
            for _ in 0..10 {
                sleep(Duration::from_secs(4)).await;
                upload.send(Ok(Bytes::from_static(b"part"))).unwrap();
            }
            sleep(Duration::from_mins(1)).await;
        },
        async {
            assert!(next(response.body_mut()).await.unwrap().is_err());
            let silence = start.elapsed().saturating_sub(Duration::from_secs(40));
            assert!((Duration::from_secs(8)..=Duration::from_secs(10)).contains(&silence), "{silence:?}");
        }
    );
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_never_answers_is_idle_too() {
    let start = Instant::now();
    let policy = timeouts(Duration::ZERO, Duration::ZERO, Duration::from_secs(8));
    let error = outcome(&policy, never(), get()).await.unwrap_err();
    assert_eq!((error.reason, start.elapsed()), (Reason::IdleTimeout, Duration::from_secs(8)));
}

#[tokio::test(start_paused = true)]
async fn a_response_without_a_body_is_not_wrapped() {
    let script = FakeUpstream::default().answer(1, || Ok(respond(204)));
    let response = outcome(&Policy::default(), script, get()).await.unwrap();
    assert_eq!(format!("{:?}", response.body()), "Body(empty)");
}

#[tokio::test(start_paused = true)]
async fn the_default_timeout_ends_with_the_head_and_a_body_may_then_take_any_time() {
    for (whole, cut) in [(false, false), (true, true)] {
        let mut policy = Policy::default();
        policy.timeouts.whole = whole;
        let (frames, body) = channel();
        let script = FakeUpstream::default().then(|_| async { Ok(Response::new(body)) });
        let mut response = stack(&policy, &state(), script).call(get()).await.unwrap();
        tokio::spawn(async move {
            for _ in 0..60 {
                let _ = frames.send(Ok(Bytes::from_static(b"x")));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let read = read(response.body_mut()).await;
        assert_eq!(
            read.map(|bytes| bytes.len()).map_err(|error| error.reason),
            if cut { Err(Some(Reason::RequestTimeout)) } else { Ok(60) }
        );
        let hangs = FakeUpstream::default().then(|_| std::future::pending());
        let error = stack(&policy, &state(), hangs).call(get()).await.unwrap_err();
        assert_eq!(error.reason, Reason::RequestTimeout);
    }
}

#[tokio::test(start_paused = true)]
async fn the_default_counts_from_the_end_of_an_upload_and_a_set_timeout_from_its_begin() {
    let minutes = Duration::from_mins(5);
    for (whole, idle, ends_at) in
        [(false, minutes, 40 + 15), (false, Duration::ZERO, 40 + 15), (true, minutes, 15)]
    {
        let (upload, request) = channel();
        let script = FakeUpstream::default().then(|mut call| async move {
            let _ = read(call.request.body_mut()).await;
            std::future::pending().await
        });
        let policy =
            Policy { timeouts: Timeouts { whole, idle, ..Timeouts::default() }, ..Policy::default() };
        let start = Instant::now();
        let sends = async {
            for _ in 0..10 {
                sleep(Duration::from_secs(4)).await;
                if upload.send(Ok(Bytes::from_static(b"part"))).is_err() {
                    return;
                }
            }
            drop(upload);
        };
        let ends = async {
            let error = outcome(&policy, script, post(request)).await.unwrap_err();
            (error.reason, start.elapsed().as_secs())
        };
        let (end, ()) = tokio::join!(ends, sends);
        assert_eq!(end, (Reason::RequestTimeout, ends_at), "whole: {whole}, idle: {idle:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_default_counts_from_the_last_byte_or_from_the_moment_that_nobody_reads_the_upload_any_more() {
    let deadline = |script| Deadline::new(script, Timeouts::default(), state());
    let start = Instant::now();
    // The last frame says that it is the last one, so its reader asks for no further one.
    let reads = FakeUpstream::default().then(|mut call| async move {
        next(call.request.body_mut()).await.unwrap().unwrap();
        std::future::pending::<()>().await;
        drop(call);
        unreachable!()
    });
    let error = deadline(reads).call(post(Body::full("order"))).await.unwrap_err();
    assert_eq!((error.reason, start.elapsed().as_secs()), (Reason::RequestTimeout, 15));

    let start = Instant::now();
    let (_upload, request) = channel();
    let drops = FakeUpstream::default().then(|call| async move {
        sleep(Duration::from_secs(5)).await;
        drop(call);
        std::future::pending().await
    });
    let error = deadline(drops).call(post(request)).await.unwrap_err();
    assert_eq!((error.reason, start.elapsed().as_secs()), (Reason::RequestTimeout, 5 + 15));
}

/// A script whose attempt never ends, and a pointer that lasts as long as the attempt.
fn held() -> (FakeUpstream, std::rc::Weak<()>) {
    let attempt = std::rc::Rc::new(());
    let alive = std::rc::Rc::downgrade(&attempt);
    let script = FakeUpstream::default().then(|_| async move {
        std::future::pending::<()>().await;
        drop(attempt);
        unreachable!()
    });
    (script, alive)
}

#[tokio::test(start_paused = true)]
async fn an_attempt_ends_at_its_deadline_even_if_its_future_is_kept() {
    let second = Duration::from_secs(1);
    let (script, alive) = held();
    let timeouts = Timeouts { request: second, whole: true, idle: Duration::ZERO };
    let mut call = std::pin::pin!(Deadline::new(script, timeouts, state()).call(get()));
    assert!(call.as_mut().await.is_err());
    assert_eq!(alive.strong_count(), 0, "the whole call's deadline");

    let (script, alive) = held();
    let mut call = std::pin::pin!(PerTry::new(script, second, state()).call(get()));
    assert!(call.as_mut().await.is_err());
    assert_eq!(alive.strong_count(), 0, "the attempt's own");
}

#[tokio::test(start_paused = true)]
async fn each_timeout_has_its_own_counter_and_its_cause_names_the_limit_and_its_value() {
    let (second, off) = (Duration::from_secs(1), Duration::ZERO);
    let routes = "no answer within `timeout` (1s)";
    for (policy, call, counts, cause) in [
        (timeouts(second, off, off), get as fn() -> Call, [1, 0, 0], routes),
        (timeouts(second, off, off), || grpc("2S"), [1, 0, 0], routes),
        (
            timeouts(second, off, off),
            || grpc("20m"),
            [1, 0, 0],
            "no answer within the caller's deadline (20ms)",
        ),
        (timeouts(off, off, off), || grpc("20m"), [1, 0, 0], "no answer within the caller's deadline (20ms)"),
        (timeouts(off, second, off), get, [0, 1, 0], "no answer within `per_try_timeout` (1s)"),
        (timeouts(off, off, second), get, [0, 0, 1], "no byte either way for `idle_timeout` (1s)"),
    ] {
        let state = state();
        let error = stack(&policy, &state, never()).call(call()).await.unwrap_err();
        let counters = &state.counters;
        let counted = [&counters.request_timeouts, &counters.per_try_timeouts, &counters.idle_timeouts];
        assert_eq!(counted.map(|count| count.load(std::sync::atomic::Ordering::Relaxed)), counts, "{cause}");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), cause);
    }
    for (call, cause) in [
        (get as fn() -> Call, "the answer was not whole within `timeout` (1s)"),
        (|| grpc("20m"), "the answer was not whole within the caller's deadline (20ms)"),
    ] {
        let (_frames, body) = channel();
        let script = FakeUpstream::default().then(|_| async { Ok(Response::new(body)) });
        let mut response = outcome(&timeouts(second, off, off), script, call()).await.unwrap();
        let error = next(response.body_mut()).await.unwrap().unwrap_err();
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), cause);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_overdue_only_if_it_has_had_the_whole_request_for_the_timeout() {
    for (whole, late) in [(false, [false, false, true]), (true, [true, true, true])] {
        let (upload, request) = channel();
        let (tell, told) = tokio::sync::oneshot::channel();
        let script = FakeUpstream::default().then(|mut call| async move {
            let _ = tell.send(call.context.overdue.clone());
            let _ = read(call.request.body_mut()).await;
            std::future::pending().await
        });
        let policy = Policy { timeouts: Timeouts { whole, ..Timeouts::default() }, ..Policy::default() };
        let looks = async {
            let overdue = told.await.unwrap().unwrap();
            let mut seen = Vec::new();
            sleep(Duration::from_secs(20)).await;
            seen.push(overdue.is_over());
            drop(upload);
            sleep(Duration::from_secs(14)).await;
            seen.push(overdue.is_over());
            sleep(Duration::from_secs(1)).await;
            seen.push(overdue.is_over());
            seen
        };
        let (_, seen) = tokio::join!(outcome(&policy, script, post(request)), looks);
        assert_eq!(seen, late, "whole: {whole}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_idle_timeout_ends_an_upload() {
    let (_upload, request) = channel();
    let script = FakeUpstream::default().then(|mut call| async move {
        let _ = read(call.request.body_mut()).await;
        std::future::pending().await
    });
    let start = Instant::now();
    let error = outcome(&Policy::default(), script, post(request)).await.unwrap_err();
    assert_eq!((error.reason, start.elapsed()), (Reason::IdleTimeout, Duration::from_mins(5)));
}

#[test]
fn content_types_are_compared_without_case() {
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("Text/Event-Stream; charset=utf-8"));
    assert!(streams(&response));
}

#[test]
fn only_events_grpc_and_a_switch_of_protocols_stream() {
    for (content_type, expected) in [
        ("text/event-stream", true),
        ("application/grpc-web+proto", true),
        ("application/json; charset=utf-8", false),
        ("text/html; charset=utf-8", false),
        ("text/event", false),
    ] {
        assert_eq!(streams(&with(content_type, Body::empty())), expected, "{content_type}");
    }
    assert!(streams(&respond(101)) && !streams(&respond(200)));
}

#[tokio::test(start_paused = true)]
async fn the_routes_deadline_counts_against_the_endpoint_but_the_callers_does_not() {
    let second = Duration::from_secs(1);
    for (policy, call, ejected) in [
        (timeouts(second, Duration::ZERO, Duration::ZERO), get as fn() -> Call, true),
        (timeouts(Duration::ZERO, second, Duration::ZERO), get, true),
        (timeouts(second, Duration::ZERO, Duration::ZERO), || grpc("1m"), false),
    ] {
        let state = state();
        for _ in 0..5 {
            let script = FakeUpstream::default().at(2, |_| std::future::pending());
            assert!(stack(&policy, &state, script).call(call()).await.is_err());
        }
        let endpoints = state.shared.endpoints.load();
        assert_eq!(endpoints.endpoints.iter().any(|e| !e.usable()), ejected, "{:?}", policy.timeouts);
    }
}

/// A body beside which a future runs.
struct BodyWithFuture {
    future: Pin<Box<dyn Future<Output = ()>>>,
    body: Body,
}

impl BodyWithFuture {
    fn new<T>(future: impl Future<Output = T> + 'static, body: Body) -> Self {
        let future = Box::pin(async move {
            future.await;
            std::future::pending::<()>().await;
        });
        Self { future, body }
    }
}

impl http_body::Body for BodyWithFuture {
    type Data = Bytes;
    type Error = attache_http::BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        let _ = self.future.as_mut().poll(cx);
        Pin::new(&mut self.body).poll_frame(cx)
    }
}
