use std::{sync::Arc, time::Duration};

use attache_config::model::{GenericKey, RequestHeaders};
use attache_http::{Client, VerifiedIdentity};
use http::StatusCode;
use tokio::time::{Instant, sleep};
use tower::Service as _;

use super::*;
use crate::{
    CallResult, RouteState, front_with, own_calls,
    testing::{FakeUpstream, get, respond},
};

const MS: Duration = Duration::from_millis(1);

/// `RateLimitResponse { overall_code: OVER_LIMIT, statuses: [ { code, current_limit: 5 / s, duration_until_reset: 3 s } ] }`.
const OVER: [u8; 21] = [0, 0, 0, 0, 16, 8, 2, 18, 12, 8, 2, 18, 4, 8, 5, 16, 1, 34, 2, 8, 3];
/// `{ overall_code: OK, response_headers_to_add: [ x: y ], request_headers_to_add: [ a: b ] }`
const FINE: [u8; 23] =
    [0, 0, 0, 0, 18, 8, 1, 26, 6, 10, 1, b'x', 18, 1, b'y', 34, 6, 10, 1, b'a', 18, 1, b'b'];

fn config(failure_mode: FailureMode) -> GlobalRateLimit {
    GlobalRateLimit {
        service: attache_config::model::UpstreamId(0),
        domain: "shop".into(),
        timeout: 20 * MS,
        failure_mode,
        hits_addend: 1,
        descriptors: vec![vec![
            DescriptorAction::Route,
            DescriptorAction::RequestHeader(RequestHeaders {
                header_name: HeaderName::from_static("x-user"),
                descriptor_key: Some("user".into()),
                skip_if_absent: false,
            }),
        ]],
    }
}

fn limiter(failure_mode: FailureMode, service: &FakeUpstream) -> Rc<GlobalLimiter> {
    let service = own_calls("limits".into(), "limits:8081".into(), service.clone());
    GlobalLimiter::new(config(failure_mode), "r".into(), service)
}

fn answers(bytes: &'static [u8], grpc: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::full(bytes));
    response.headers_mut().insert("grpc-status", HeaderValue::from_static(grpc));
    response
}

fn request(user: &str) -> Call {
    let mut call = get();
    call.request.headers_mut().insert("x-user", http::HeaderValue::from_str(user).unwrap());
    call
}

async fn send(
    limiter: Rc<GlobalLimiter>,
    upstream: &FakeUpstream,
    call: Call,
) -> Result<Response<Body>, Error> {
    front_with(&Arc::new(RouteState::default()), Some(limiter), upstream.clone()).call(call).await
}

#[tokio::test(start_paused = true)]
async fn a_request_over_the_limit_is_not_sent_and_its_answer_says_when_to_retry() {
    let service = FakeUpstream::default().answer(1, || Ok(answers(&OVER, "0")));
    let upstream = FakeUpstream::default();
    let error = send(limiter(FailureMode::Allow, &service), &upstream, request("ann")).await.unwrap_err();
    assert_eq!((error.reason, error.retry_after), (Reason::RateLimited, Some(3000 * MS)));
    let headers = error.headers.unwrap();
    assert_eq!(headers.get("x-envoy-ratelimited").unwrap(), "true");
    let numbers =
        ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"].map(|name| headers.get(name).unwrap());
    assert_eq!(numbers, ["5", "0", "3"]);
    assert_eq!(upstream.attempts(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_gets_the_services_headers_and_an_empty_value_is_not_counted() {
    /// `{ overall_code: OVER_LIMIT, response_headers_to_add: [ x: y ] }`
    const ANSWER: [u8; 15] = [0, 0, 0, 0, 10, 8, 2, 26, 6, 10, 1, b'x', 18, 1, b'y'];
    let service = FakeUpstream::default().answer(1, || Ok(answers(&ANSWER, "0")));
    let error = send(limiter(FailureMode::Allow, &service), &FakeUpstream::default(), request("ann")).await;
    assert_eq!(error.unwrap_err().headers.unwrap().get("x").unwrap(), "y");

    let service = FakeUpstream::default();
    let upstream = FakeUpstream::default().answer(2, || Ok(respond(200)));
    assert!(send(limiter(FailureMode::Deny, &service), &upstream, request("")).await.is_ok());
    assert_eq!((service.attempts(), upstream.attempts()), (0, 1), "the service accepts no empty values");
}

#[tokio::test(start_paused = true)]
async fn a_request_within_the_limit_continues_with_the_services_headers() {
    let service = FakeUpstream::default().answer(1, || Ok(answers(&FINE, "0")));
    let upstream = FakeUpstream::default().answer(2, || Ok(respond(200)));
    let response = send(limiter(FailureMode::Deny, &service), &upstream, request("ann")).await.unwrap();
    assert_eq!(response.headers().get("x").unwrap(), "y");
    assert_eq!(upstream.seen.borrow()[0].headers.get("a").unwrap(), "b");
    let asked = &service.seen.borrow()[0].headers;
    for (name, value) in
        [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "20000000n")]
    {
        assert_eq!(asked.get(name).unwrap(), value);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_value_to_count_is_not_asked_for() {
    let service = FakeUpstream::default();
    let upstream = FakeUpstream::default().answer(2, || Ok(respond(200)));
    assert!(send(limiter(FailureMode::Deny, &service), &upstream, get()).await.is_ok());
    assert_eq!((service.attempts(), upstream.attempts()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn after_exactly_the_timeout_without_an_answer_the_mode_decides() {
    for (mode, expected) in
        [(FailureMode::Allow, Ok(StatusCode::OK)), (FailureMode::Deny, Err(Reason::RateLimitServiceError))]
    {
        let start = Instant::now();
        let service = FakeUpstream::default().then(|_| async {
            sleep(1000 * MS).await;
            Ok(answers(&FINE, "0"))
        });
        let upstream = FakeUpstream::default().answer(2, || Ok(respond(200)));
        let end = send(limiter(mode, &service), &upstream, request("ann")).await;
        assert_eq!(end.map(|r| r.status()).map_err(|e| e.reason), expected);
        assert_eq!(start.elapsed(), 20 * MS);
    }
}

#[tokio::test(start_paused = true)]
async fn invalid_answers_are_failures() {
    let bad: [fn() -> CallResult; 5] = [
        || Ok(answers(&FINE, "14")),
        || Ok(answers(&FINE[..9], "0")),
        || Ok(Response::new(Body::full(&FINE[..]))),
        || Ok(respond(503)),
        || Err(Error::new(Reason::ConnectRefused, SentPart::Nothing)),
    ];
    for answer in bad {
        let service = FakeUpstream::default().answer(1, answer);
        let error =
            send(limiter(FailureMode::Deny, &service), &FakeUpstream::default(), request("ann")).await;
        assert_eq!(error.unwrap_err().reason, Reason::RateLimitServiceError);
    }
}

#[tokio::test(start_paused = true)]
async fn descriptors_are_filled_with_values_of_the_request() {
    let mut config = config(FailureMode::Allow);
    let generic = DescriptorAction::GenericKey(GenericKey {
        descriptor_key: "generic_key".into(),
        descriptor_value: "slow".into(),
    });
    config.descriptors = vec![
        vec![DescriptorAction::RemoteAddress, DescriptorAction::ClientIdentity],
        vec![generic, DescriptorAction::DestinationCluster, DescriptorAction::Path, DescriptorAction::Method],
        vec![DescriptorAction::RequestHeader(RequestHeaders {
            header_name: HeaderName::from_static("x-absent"),
            descriptor_key: Some("absent".into()),
            skip_if_absent: true,
        })],
    ];
    let service = own_calls("limits".into(), "limits".into(), FakeUpstream::default());
    let limiter = GlobalLimiter::new(config, "r".into(), service);
    let mut call = request("ann");
    call.context_mut().client = Rc::new(Client {
        address: Some("[::ffff:10.0.0.7]:9".parse().unwrap()),
        proven: VerifiedIdentity::names(["spiffe://x/web"], 0),
        ..Client::default()
    });
    *call.context.exchange.upstream.borrow_mut() = Some("orders".into());
    *call.context.exchange.path.borrow_mut() = "/v1".into();
    let text = format!("{:?}", limiter.question(&call).unwrap());
    let parts = [
        "shop",
        "remote_address",
        "10.0.0.7",
        "client_identity",
        "spiffe://x/web",
        "generic_key",
        "slow",
        "destination_cluster",
        "orders",
        "path",
        "/v1",
        "method",
        "GET",
    ];
    let mut from = 0;
    for part in parts {
        from += text[from..].find(part).unwrap_or_else(|| panic!("{part} in {text:?}")) + part.len();
    }
    assert!(!text.contains("absent"));
}
