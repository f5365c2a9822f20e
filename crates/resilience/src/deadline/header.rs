//! The caller's deadline in a header that the config names (`deadline_header`), on its way to the upstream.
//!
//! **Rule.** The value is how many milliseconds the caller still waits: 1 to 12 ASCII digits, as in Envoy's
//! `x-envoy-expected-rq-timeout-ms`. Anything else counts as absent. It applies to the whole call, as `grpc-timeout`
//! does, and never lengthens the route's timeout. A request whose time has passed isn't sent at all.
//!
//! Each attempt carries what remains of the shortest deadline (the caller's, the route's, the attempt's own), rounded
//! down, also if the caller sent none: the upstream never works longer than its caller waits. The value is a duration
//! and not an instant, because the clocks of two machines differ.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use attache_http::Body;
use attache_upstream::{Call, Error};
use attache_wire::{Fields, Response};
use http::{HeaderName, HeaderValue};
use tokio::time::Instant;
use tower::Service;

const DIGITS: usize = 12;

/// How long the caller waits; `None` unless the request has exactly one such header.
pub(super) fn timeout(headers: &Fields, name: &HeaderName) -> Option<Duration> {
    let mut values = headers.get_all(name);
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    parse(value.as_bytes())
}

fn parse(value: &[u8]) -> Option<Duration> {
    if value.is_empty() || value.len() > DIGITS || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok().map(Duration::from_millis)
}

/// Writes the remaining time into each attempt. It stands below the retries, so that each attempt carries its own
/// value.
#[derive(Clone, Debug)]
pub struct PassDeadlineOn<S> {
    inner: S,
    header: Option<HeaderName>,
    per_try: Duration,
}

impl<S> PassDeadlineOn<S> {
    /// Tells the upstream in `header` how long the caller waits; `per_try` is the attempt's own timeout, zero is none.
    pub fn new(inner: S, header: Option<HeaderName>, per_try: Duration) -> Self {
        Self { inner, header, per_try }
    }
}

impl<S> Service<Call> for PassDeadlineOn<S>
where
    S: Service<Call, Response = Response<Body>, Error = Error>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut call: Call) -> Self::Future {
        if let Some(header) = &self.header {
            let whole =
                call.context.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let per_try = (!self.per_try.is_zero()).then_some(self.per_try);
            if let Some(remaining) = [whole, per_try].into_iter().flatten().min() {
                let millis = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX);
                call.request.headers_mut().insert(header, HeaderValue::from(millis));
            }
        }
        self.inner.call(call)
    }
}

#[cfg(test)]
mod tests {
    use attache_config::model::{Policy, Retry, RetryOn, Timeouts};
    use attache_telemetry::Reason;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        stack,
        testing::{FakeUpstream, call, get, respond, state},
    };

    const NAME: HeaderName = HeaderName::from_static("x-request-deadline");
    const MS: Duration = Duration::from_millis(1);

    fn policy(request: u64, per_try: u64) -> Policy {
        Policy {
            timeouts: Timeouts { whole: true, request: Duration::from_millis(request), idle: Duration::ZERO },
            retry: Retry {
                on: vec![RetryOn::ServerError],
                per_try_timeout: Duration::from_millis(per_try),
                ..Retry::default()
            },
            deadline_header: Some(NAME),
            ..Policy::default()
        }
    }

    fn asking(millis: &'static str) -> Call {
        call(http::Request::get("http://orders/").header(NAME, millis).body(Body::empty()).unwrap())
    }

    /// The value that each attempt carried.
    async fn told(policy: &Policy, script: FakeUpstream, call: Call) -> Vec<String> {
        let _ = stack(policy, &state(), script.clone()).call(call).await;
        let seen = script.seen.borrow();
        seen.iter().filter_map(|seen| Some(seen.headers.get(NAME)?.to_str().unwrap().to_owned())).collect()
    }

    fn ok() -> FakeUpstream {
        FakeUpstream::default().answer(1, || Ok(respond(200)))
    }

    #[tokio::test(start_paused = true)]
    async fn the_upstream_is_told_the_shortest_deadline() {
        assert_eq!(told(&policy(2000, 0), ok(), asking("700")).await, ["700"]);
        assert_eq!(told(&policy(2000, 0), ok(), asking("9000")).await, ["2000"]);
        assert_eq!(told(&policy(2000, 300), ok(), asking("700")).await, ["300"]);
        assert_eq!(
            told(&policy(2000, 0), ok(), get()).await,
            ["2000"],
            "the route's, if the caller has none"
        );
        assert_eq!(told(&policy(2000, 0), ok(), asking("soon")).await, ["2000"], "and where it says nothing");
        let unset = Policy { deadline_header: None, ..policy(2000, 0) };
        assert_eq!(
            told(&unset, ok(), asking("700")).await,
            ["700"],
            "no `deadline_header` in the config: unchanged"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_caller_is_answered_when_its_time_is_over() {
        let never = FakeUpstream::default().then(|_| std::future::pending());
        let start = Instant::now();
        let error = stack(&policy(2000, 0), &state(), never).call(asking("250")).await.unwrap_err();
        assert_eq!((error.reason, start.elapsed()), (Reason::RequestTimeout, 250 * MS));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_for_a_caller_whose_time_is_over() {
        let script = FakeUpstream::default();
        let error = stack(&policy(2000, 0), &state(), script.clone()).call(asking("0")).await.unwrap_err();
        assert_eq!((error.reason, script.attempts()), (Reason::RequestTimeout, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_is_told_what_remains() {
        let slow = |_| async {
            tokio::time::sleep(400 * MS).await;
            Ok(respond(503))
        };
        let script = FakeUpstream::default().then(slow).answer(2, || Ok(respond(200)));
        let told = told(&policy(2000, 0), script, asking("1000")).await;
        let second: u64 = told[1].parse().unwrap();
        assert_eq!(told[0], "1000");
        assert!((575..=600).contains(&second), "{second}: 600 minus the wait between the attempts");
    }

    #[test]
    fn one_to_twelve_digits_are_a_deadline_and_nothing_else() {
        for (text, millis) in [("0", 0), ("250", 250), ("007", 7), ("999999999999", 999_999_999_999)] {
            assert_eq!(parse(text.as_bytes()), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "1000000000000", "+5", "-5", " 5", "5ms", "0x5", "1.5"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn only_plain_milliseconds_count(value: Vec<u8>, millis in 0..999_999_999_999u64) {
            let digits = !value.is_empty() && value.len() <= DIGITS && value.iter().all(u8::is_ascii_digit);
            prop_assert_eq!(parse(&value).is_some(), digits);
            prop_assert_eq!(parse(millis.to_string().as_bytes()), Some(Duration::from_millis(millis)));
        }
    }
}
