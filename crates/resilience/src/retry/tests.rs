use std::time::Duration;

use attache_config::model::{Policy, RetryMethods, RetryOn};
use attache_http::BodyError;
use attache_telemetry::Reason;
use bytes::Bytes;
use http::StatusCode;
use http_body::Body as _;
use tokio::time::Instant;
use tower::Service;

use super::*;
use crate::{
    CallResult, stack,
    testing::{FakeUpstream, call, channel, get, post, read, respond, state, state_of, upstream},
};

const MS: Duration = Duration::from_millis(1);

fn policy(on: &[RetryOn]) -> Policy {
    let retry = model::Retry { on: on.to_vec(), budget_floor: 100, ..model::Retry::default() };
    Policy { retry, ..Policy::default() }
}

fn fail(reason: Reason, sent: SentPart) -> impl FnOnce() -> CallResult {
    move || Err(Error::new(reason, sent))
}

fn refused() -> impl FnOnce() -> CallResult {
    fail(Reason::ConnectRefused, SentPart::Nothing)
}

fn reset() -> impl FnOnce() -> CallResult {
    fail(Reason::UpstreamReset, SentPart::Request)
}

fn status(status: u16) -> impl FnOnce() -> CallResult {
    move || Ok(respond(status))
}

async fn send(policy: &Policy, script: &FakeUpstream, call: Call) -> CallResult {
    stack(policy, &state(), script.clone()).call(call).await
}

async fn status_of(policy: &Policy, script: &FakeUpstream, call: Call) -> u16 {
    send(policy, script, call).await.unwrap().status().as_u16()
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_is_tried_at_once_on_another_endpoint() {
    let start = Instant::now();
    let script = FakeUpstream::default().answer(2, refused()).answer(1, status(200));
    let call = post(Body::full("order"));
    assert_eq!(status_of(&Policy::default(), &script, call).await, 200);
    let seen = script.seen.borrow();
    assert_eq!(seen[1].tried, ["10.0.0.1:2"]);
    assert_eq!(seen[1].at, start);
    assert!(!seen[0].headers.contains_key("x-attache-attempt"));
    assert!(!seen[1].headers.contains_key("x-attache-attempt"), "no application saw the first attempt");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_reached_no_application_goes_to_every_other_endpoint_without_attempts_or_budget() {
    let start = Instant::now();
    let retry = model::Retry { attempts: 0, on: Vec::new(), budget_floor: 0, ..model::Retry::default() };
    let policy = Policy { retry, ..Policy::default() };
    let state = state();
    let refused_h2 = fail(Reason::UpstreamRefusedStream, SentPart::Refused);
    let script = FakeUpstream::default().answer(2, refused()).answer(3, refused_h2).answer(1, status(200));
    let call = post(Body::full("order"));
    let exchange = call.context.exchange.clone();
    let response = stack(&policy, &state, script.clone()).call(call).await.unwrap();
    assert_eq!((response.status().as_u16(), start.elapsed()), (200, Duration::ZERO));
    assert_eq!(exchange.attempts.get(), 1, "the caller's one attempt");
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((count(&state.counters.failovers), count(&state.counters.retries)), (2, 0));
    // It ends when all endpoints were tried.
    let script = FakeUpstream::default().answer(1, refused()).answer(2, refused()).answer(3, refused());
    let error = stack(&policy, &state, script.clone()).call(get()).await.unwrap_err();
    assert_eq!((error.reason, script.attempts()), (Reason::ConnectRefused, 3));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_admitted_to_retries_may_make_all_of_its_attempts() {
    for (budget, floor) in [(0.2, 3), (1.0, 0)] {
        let mut policy = policy(&[RetryOn::ServerError]);
        policy.retry = model::Retry { attempts: 10, budget, budget_floor: floor, ..policy.retry };
        let failing = (0..9).fold(FakeUpstream::default(), |script, n| script.answer(n % 3 + 1, status(503)));
        assert_eq!(status_of(&policy, &failing.answer(1, status(200)), get()).await, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn the_second_retry_waits_and_the_third_is_not_made() {
    let start = Instant::now();
    let script = FakeUpstream::default().answer(1, reset()).answer(2, reset()).answer(3, reset());
    fastrand::seed(7);
    let error = send(&Policy::default(), &script, get()).await.unwrap_err();
    fastrand::seed(7);
    let retry = model::Retry::default();
    let wait = backoff::wait(&retry, 1) + backoff::wait(&retry, 2);
    assert_eq!((error.reason, script.attempts()), (Reason::UpstreamReset, 3));
    let waited = script.seen.borrow()[2].at - start;
    assert!(waited >= wait && waited < wait + 2 * MS, "{waited:?} {wait:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_have_been_processed_is_sent_again_only_if_it_is_idempotent() {
    let on = [RetryOn::ResetBeforeHeaders];
    for (method, sent_again) in
        [("GET", true), ("HEAD", true), ("PUT", true), ("DELETE", true), ("POST", false), ("PATCH", false)]
    {
        let request =
            http::Request::builder().method(method).uri("http://orders/").body(Body::empty()).unwrap();
        let script = FakeUpstream::default().answer(1, reset()).answer(2, status(200));
        let outcome = send(&policy(&on), &script, call(request)).await;
        assert_eq!(outcome.is_ok(), sent_again, "{method}");
        assert_eq!(script.attempts(), if sent_again { 2 } else { 1 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_may_allow_every_method() {
    let mut policy = policy(&[RetryOn::ResetBeforeHeaders]);
    policy.retry.methods = RetryMethods::All;
    let script = FakeUpstream::default().answer(1, reset()).answer(2, status(200));
    assert_eq!(status_of(&policy, &script, post(Body::full("order"))).await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_was_lost_is_never_asked_for_again() {
    let mut policy = policy(&[RetryOn::Reset, RetryOn::ServerError]);
    policy.retry.methods = RetryMethods::All;
    let script = FakeUpstream::default().answer(1, fail(Reason::UpstreamReset, SentPart::Response));
    assert!(send(&policy, &script, get()).await.is_err());
    assert_eq!(script.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn refusals_by_limits_and_open_breakers_are_not_retried() {
    for reason in [
        Reason::OverflowPending,
        Reason::OverflowRequests,
        Reason::CircuitOpen,
        Reason::NoHealthyEndpoint,
        Reason::RateLimited,
        Reason::RequestTimeout,
        Reason::ShuttingDown,
    ] {
        let policy = policy(&[RetryOn::Reset, RetryOn::ServerError, RetryOn::ConnectFailure]);
        let script = FakeUpstream::default().answer(1, fail(reason, SentPart::Nothing));
        assert!(send(&policy, &script, get()).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_hops_overload_is_not_multiplied() {
    let script = FakeUpstream::default().answer(1, || {
        Ok(http::Response::builder()
            .status(503)
            .header("x-attache-reason", "circuit-open")
            .body(Body::empty())
            .unwrap()
            .into())
    });
    assert_eq!(status_of(&policy(&[RetryOn::ServerError]), &script, get()).await, 503);
}

#[tokio::test(start_paused = true)]
async fn statuses_are_retried_as_configured() {
    let status_503 = RetryOn::Status(StatusCode::SERVICE_UNAVAILABLE);
    for (on, code, again) in [
        (RetryOn::ServerError, 500, true),
        (RetryOn::GatewayError, 500, false),
        (RetryOn::GatewayError, 504, true),
        (status_503.clone(), 503, true),
        (status_503.clone(), 502, false),
        (RetryOn::Reset, 503, false),
    ] {
        let script = FakeUpstream::default().answer(1, status(code)).answer(2, status(200));
        let expected = if again { 200 } else { code };
        assert_eq!(status_of(&policy(&[on]), &script, get()).await, expected, "{code}");
    }
    let script = FakeUpstream::default().answer(1, status(503));
    assert_eq!(status_of(&policy(&[status_503]), &script, post(Body::full("order"))).await, 503);
}

#[tokio::test(start_paused = true)]
async fn headers_and_grpc_statuses_are_conditions() {
    let with = |name: &'static str, value: &'static str| {
        move || Ok(http::Response::builder().header(name, value).body(Body::empty()).unwrap().into())
    };
    let script = FakeUpstream::default().answer(1, with("x-again", "1")).answer(2, status(200));
    let header = RetryOn::Header(http::HeaderName::from_static("x-again"));
    assert_eq!(status_of(&policy(&[header]), &script, get()).await, 200);
    assert_eq!(script.attempts(), 2);

    let script =
        FakeUpstream::default().answer(1, with("grpc-status", "14")).answer(2, with("grpc-status", "5"));
    let response =
        send(&policy(&[RetryOn::GrpcStatus(14)]), &script, post(Body::full("message"))).await.unwrap();
    assert_eq!(response.headers().get("grpc-status").unwrap(), "5");
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_waited_for_within_the_deadline() {
    let after = |seconds: &'static str| {
        move || {
            Ok(http::Response::builder()
                .status(429)
                .header("retry-after", seconds)
                .body(Body::empty())
                .unwrap()
                .into())
        }
    };
    let policy = policy(&[RetryOn::Status(StatusCode::TOO_MANY_REQUESTS)]);
    let start = Instant::now();
    let script = FakeUpstream::default().answer(1, after("2")).answer(1, status(200));
    assert_eq!(status_of(&policy, &script, get()).await, 200);
    assert_eq!(script.seen.borrow()[1].at, start + Duration::from_secs(2));

    for late in ["15", "31", "4000000000"] {
        let start = Instant::now();
        let script = FakeUpstream::default().answer(1, after(late));
        assert_eq!(status_of(&policy, &script, get()).await, 429, "{late}");
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
    let mut patient = policy;
    patient.timeouts.request = Duration::from_hours(1);
    let script = FakeUpstream::default().answer(1, after("31"));
    assert_eq!(status_of(&patient, &script, get()).await, 429, "longer than attache waits");
}

#[tokio::test(start_paused = true)]
async fn a_per_try_timeout_is_a_reset_and_the_grpc_deadline_is_cut() {
    let mut policy = policy(&[RetryOn::Reset]);
    policy.retry.per_try_timeout = 300 * MS;
    policy.retry.backoff.base = Duration::ZERO;
    let script = FakeUpstream::default().then(|_| std::future::pending()).answer(2, status(200));
    let request =
        http::Request::put("http://orders/").header("grpc-timeout", "1S").body(Body::empty()).unwrap();
    assert_eq!(status_of(&policy, &script, call(request)).await, 200);
    assert_eq!(script.seen.borrow()[0].headers.get("grpc-timeout").unwrap(), "1S");
    assert_eq!(script.seen.borrow()[1].headers.get("grpc-timeout").unwrap(), "700000u");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_fits_is_sent_again_whole() {
    let (upload, body) = channel();
    upload.send(Ok(Bytes::from_static(b"one "))).unwrap();
    let script = FakeUpstream::default()
        .then(|mut call| async move {
            // The first attempt breaks in the middle of the upload.
            let frame = crate::testing::next(call.request.body_mut()).await;
            assert!(frame.unwrap().is_ok());
            Err(Error::new(Reason::UpstreamReset, SentPart::Request))
        })
        .then(move |mut call| async move {
            upload.send(Ok(Bytes::from_static(b"two"))).unwrap();
            drop(upload);
            assert_eq!(read(call.request.body_mut()).await.unwrap(), b"one two");
            assert!(call.request.body().is_end_stream());
            Ok(respond(200))
        });
    let mut call = post(body);
    *call.request.method_mut() = Method::PUT;
    assert_eq!(status_of(&Policy::default(), &script, call).await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_streamed_body_that_was_not_kept_is_never_replayed() {
    let mut policy = policy(&[RetryOn::Reset]);
    policy.retry.methods = RetryMethods::All;
    policy.retry.buffer = 7;
    for (frames, attempts) in [(vec!["1234567"], 2), (vec!["1234", "5678"], 1), (vec!["12345678"], 1)] {
        let (upload, body) = channel();
        for frame in &frames {
            upload.send(Ok(Bytes::from_static(frame.as_bytes()))).unwrap();
        }
        drop(upload);
        let script = FakeUpstream::default().answer(1, reset()).answer(2, status(200));
        let _ = send(&policy, &script, post(body)).await;
        assert_eq!(script.attempts(), attempts, "{frames:?}");
    }
    // The same if no application processed it, or the connection was closed: bytes of the body are no longer kept.
    let mut race = Error::new(Reason::UpstreamReset, SentPart::Request);
    race.reused = true;
    for error in [Error::new(Reason::UpstreamRefusedStream, SentPart::Refused), race] {
        let script = FakeUpstream::default().answer(1, move || Err(error));
        assert!(send(&policy, &script, post(Body::full("12345678"))).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_larger_than_the_buffer_is_still_safe_while_none_of_it_was_read() {
    let script = FakeUpstream::default()
        .then(|_| async { Err(Error::new(Reason::ConnectRefused, SentPart::Nothing)) })
        .answer(2, status(200));
    let body = Body::full(vec![0; 1 << 20]);
    assert_eq!(status_of(&Policy::default(), &script, post(body)).await, 200);
}

#[tokio::test(start_paused = true)]
async fn the_request_of_a_client_that_left_is_not_sent_again() {
    let (upload, body) = channel();
    upload.send(Err(BodyError::new(Reason::ClientClosed))).unwrap();
    let mut policy = policy(&[RetryOn::Reset]);
    policy.retry.methods = RetryMethods::All;
    let script = FakeUpstream::default().answer(1, reset());
    assert!(send(&policy, &script, post(body)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_body_of_an_earlier_attempt_gets_no_more_bytes() {
    let old = std::rc::Rc::new(std::cell::RefCell::new(Body::empty()));
    let keep = old.clone();
    let script = FakeUpstream::default()
        .then(move |call| async move {
            *keep.borrow_mut() = call.request.into_body();
            Err(Error::new(Reason::ConnectRefused, SentPart::Nothing))
        })
        .answer(2, status(200));
    assert_eq!(status_of(&Policy::default(), &script, post(Body::full("order"))).await, 200);
    let mut old = old.take();
    assert!(read(&mut old).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_lost_close_race_is_hidden_once_on_a_fresh_connection() {
    let race = || {
        let mut error = Error::new(Reason::UpstreamReset, SentPart::Request);
        error.reused = true;
        Err(error)
    };
    // Also with retries off, and without a budget.
    let policy = Policy {
        retry: model::Retry { attempts: 0, budget_floor: 0, ..model::Retry::default() },
        ..Policy::default()
    };
    let start = Instant::now();
    let script = FakeUpstream::default().answer(1, race).answer(1, status(200));
    assert_eq!(status_of(&policy, &script, get()).await, 200);
    let again = script.seen.borrow()[1].clone();
    assert!(again.fresh && again.tried.is_empty());
    assert_eq!(again.at, start);

    let script = FakeUpstream::default().answer(1, race).answer(1, race);
    assert!(send(&policy, &script, get()).await.is_err());
    let script = FakeUpstream::default().answer(1, race);
    assert!(send(&policy, &script, post(Body::full("order"))).await.is_err(), "a POST may have arrived");
}

#[tokio::test(start_paused = true)]
async fn without_budget_the_first_error_is_the_answer() {
    let mut policy = policy(&[RetryOn::ServerError]);
    policy.retry.budget_floor = 0;
    let state = state();
    let script = FakeUpstream::default().answer(1, status(503));
    let response = stack(&policy, &state, script).call(get()).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(state.counters.budget_exhausted.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn retries_and_refusals_of_the_budget_are_counted_by_reason() {
    let metrics = attache_telemetry::Metrics::new();
    metrics.worker().install();
    let mut policy = policy(&[RetryOn::ServerError]);
    let script = FakeUpstream::default().answer(1, refused()).answer(2, status(503)).answer(3, status(200));
    assert_eq!(status_of(&policy, &script, get()).await, 200);
    policy.retry.budget_floor = 0;
    assert_eq!(status_of(&policy, &FakeUpstream::default().answer(1, status(503)), get()).await, 503);
    let page = metrics.render();
    for sample in [
        "attache_upstream_retries_total{upstream=\"orders\",reason=\"connect-refused\"} 1",
        "attache_upstream_retries_total{upstream=\"orders\",reason=\"upstream-error\"} 1",
        "attache_upstream_overflow_total{upstream=\"orders\",reason=\"retry-budget-exhausted\"} 1",
    ] {
        assert!(page.contains(sample), "{sample} in {page}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_charged_until_its_response_ends() {
    let retries = |state: &UpstreamState| state.shared.retries.load(std::sync::atomic::Ordering::Relaxed);
    let state = state_of(upstream());
    let (frames, body) = channel();
    let script = FakeUpstream::default().answer(1, reset()).then(|_| async { Ok(Response::new(body)) });
    let response = stack(&Policy::default(), &state, script).call(get()).await.unwrap();
    assert_eq!(retries(&state), 1);
    drop((response, frames));
    assert_eq!(retries(&state), 0);
}

#[tokio::test(start_paused = true)]
async fn a_short_failed_response_is_read_to_its_end_and_a_long_one_is_dropped() {
    for (size, drained) in [(1000, true), (1 << 20, false)] {
        let (frames, body) = channel();
        let chunk = Bytes::from(vec![0; size / 10]);
        for _ in 0..10 {
            frames.send(Ok(chunk.clone())).unwrap();
        }
        drop(frames);
        let read_to_end = std::rc::Rc::new(std::cell::Cell::new(false));
        let body = Body::stream(NotedBody { body, ended: read_to_end.clone() });
        let script = FakeUpstream::default()
            .then(|_| async { Ok(http::Response::builder().status(503).body(body).unwrap().into()) })
            .answer(2, status(200));
        assert_eq!(status_of(&policy(&[RetryOn::ServerError]), &script, get()).await, 200);
        assert_eq!(read_to_end.get(), drained);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_always_fails_gets_little_more_than_its_share() {
    // 100 requests at once, repeatedly, all of which fail: with two retries each this would triple the load.
    let state = state();
    let mut policy = policy(&[RetryOn::ServerError]);
    policy.retry.budget_floor = 0;
    let attempts = std::rc::Rc::new(std::cell::Cell::new(0u32));
    let upstream = FnUpstream(std::rc::Rc::new({
        let (attempts, state) = (attempts.clone(), state.clone());
        move |_: Call| {
            let (attempts, state) = (attempts.clone(), state.clone());
            async move {
                attempts.set(attempts.get() + 1);
                state.shared.active_requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                tokio::time::sleep(50 * MS).await;
                state.shared.active_requests.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
                Ok(respond(503))
            }
        }
    }));
    let clients = async {
        let local = tokio::task::LocalSet::new();
        for client in 0..100u32 {
            let mut service = stack(&policy, &state, upstream.clone());
            local.spawn_local(async move {
                tokio::time::sleep(client * MS / 2).await;
                for _ in 0..100 {
                    let _ = service.call(get()).await;
                }
            });
        }
        local.await;
    };
    clients.await;
    let load = f64::from(attempts.get()) / 10_000.0;
    assert!((1.05..1.25).contains(&load), "{load}");
}

/// A service that is a function.
struct FnUpstream<F>(std::rc::Rc<F>);

impl<F> Clone for FnUpstream<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<F, T> Service<Call> for FnUpstream<F>
where
    F: Fn(Call) -> T,
    T: Future<Output = CallResult>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = T;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> T {
        (self.0)(call)
    }
}

/// Notes that a body was read to its end.
struct NotedBody {
    body: Body,
    ended: std::rc::Rc<std::cell::Cell<bool>>,
}

impl http_body::Body for NotedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        let frame = std::pin::Pin::new(&mut self.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None)) {
            self.ended.set(true);
        }
        frame
    }
}
