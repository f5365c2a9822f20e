//! Faults that are injected on purpose, to test what a caller does when its upstream is slow or fails.
//!
//! **Rule.** Among the requests with the configured header (by default all), a share waits, attache answers a share
//! with a status, and the responses of a share are slowed to a rate ([`pace`]). The three are chosen independently; the
//! wait comes first. An aborted gRPC call gets the grpc-status of `fault-injected`. An aborted request never reaches
//! the upstream, and doesn't count against its health, breaker or budget. The route's `timeout` also applies to a slow
//! response.
//!
//! **Source.** Envoy's fault filter (`delay`, `abort`, `response_rate_limit`, each with its percentage; `headers`). Differences: the
//! share is configured only, never taken from a request's own headers (`x-envoy-fault-*`), so that no caller can turn it on.

mod pace;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use attache_config::model;
use attache_http::Body;
use attache_http::time::{Sleep, sleep};
use attache_telemetry::Reason;
use attache_upstream::{Call, Error, SentPart};
use attache_wire::{Fields, Response};
use http::Method;
use http_body::Body as _;
use pace::PacedBody;
use pin_project_lite::pin_project;
use tower::Service;

use crate::RouteState;

/// Delays and aborts some of a route's requests.
#[derive(Clone, Debug)]
pub struct Faults<S> {
    inner: S,
    route: Arc<RouteState>,
}

impl<S> Faults<S> {
    /// Puts the route's faults before a service.
    pub fn new(inner: S, route: Arc<RouteState>) -> Self {
        Self { inner, route }
    }
}

impl<S> Service<Call> for Faults<S>
where
    S: Service<Call, Response = Response<Body>, Error = Error> + Clone,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = FaultFuture<S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let headers = call.request.headers();
        let fault = self.route.fault.as_ref().filter(|fault| meant(fault, headers));
        let delay = fault.and_then(|fault| fault.delay).filter(|delay| drawn(delay.share));
        let abort = fault.and_then(|fault| fault.abort).filter(|abort| drawn(abort.share));
        let rate = fault.and_then(|fault| fault.response_rate).filter(|rate| drawn(rate.share));
        let rate = rate.map(|rate| rate.limit);
        if delay.is_none() && abort.is_none() {
            return FaultFuture { step: FaultStep::Through { future: self.inner.call(call) }, rate };
        }
        let abort = abort.map(|abort| aborted(abort, call.request.method()));
        let sleep = delay.map(|delay| Box::pin(sleep(delay.time)));
        let waiting = FaultWait { sleep, call: Some(call), service: self.inner.clone(), abort };
        FaultFuture { step: FaultStep::Waiting { waiting: Box::new(waiting) }, rate }
    }
}

fn meant(fault: &model::Fault, headers: &Fields) -> bool {
    let Some((name, value)) = &fault.header else { return true };
    match value {
        None => headers.contains_key(name),
        Some(value) => headers.get_all(name).any(|have| have.as_bytes() == value.as_bytes()),
    }
}

fn drawn(share: f64) -> bool {
    fastrand::f64() < share
}

fn aborted(abort: model::FaultAbort, method: &Method) -> Error {
    let mut error =
        Error::with_source(Reason::FaultInjected, SentPart::Nothing, "aborted by the route's fault");
    // A success would tell the client of a CONNECT that its tunnel is open.
    let tunnel = *method == Method::CONNECT && abort.status.is_success();
    error.status = Some(abort.status).filter(|_| !tunnel);
    error
}

struct FaultWait<S> {
    sleep: Option<Pin<Box<Sleep>>>,
    call: Option<Call>,
    service: S,
    abort: Option<Error>,
}

pin_project! {
    /// The future of [`Faults`].
    pub struct FaultFuture<S: Service<Call>> {
        #[pin]
        step: FaultStep<S, S::Future>,
        rate: Option<usize>,
    }
}

pin_project! {
    #[project = StepProjection]
    enum FaultStep<S, F> {
        Through { #[pin] future: F },
        // Boxed, so that a call without a fault needs no memory for it.
        Waiting { waiting: Box<FaultWait<S>> },
    }
}

impl<S> Future for FaultFuture<S>
where
    S: Service<Call, Response = Response<Body>, Error = Error>,
{
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (mut step, rate) = (this.step, *this.rate);
        loop {
            let future = match step.as_mut().project() {
                StepProjection::Through { future } => {
                    return future.poll(cx).map_ok(|response| slowed(response, rate));
                }
                StepProjection::Waiting { waiting } => {
                    if let Some(sleep) = &mut waiting.sleep {
                        ready!(sleep.as_mut().poll(cx));
                    }
                    // Removed, so that it isn't polled again while the service becomes ready.
                    waiting.sleep = None;
                    if let Some(abort) = waiting.abort.take() {
                        return Poll::Ready(Err(abort));
                    }
                    ready!(waiting.service.poll_ready(cx))?;
                    let Some(call) = waiting.call.take() else {
                        return Poll::Ready(Err(Error::new(Reason::InternalError, SentPart::Nothing)));
                    };
                    waiting.service.call(call)
                }
            };
            step.set(FaultStep::Through { future });
        }
    }
}

fn slowed(response: Response<Body>, rate: Option<usize>) -> Response<Body> {
    match rate {
        Some(limit) if !response.body().is_end_stream() => {
            response.map(|body| Body::stream(PacedBody::new(body, limit)))
        }
        _ => response,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use attache_config::model::{Fault, FaultAbort, FaultDelay, FaultRate};
    use http::{HeaderName, StatusCode};
    use tokio::time::Instant;

    use super::*;
    use crate::{
        front,
        testing::{FakeUpstream, call, get},
    };

    const SECOND: Duration = Duration::from_secs(1);
    const ABORT: FaultAbort = FaultAbort { share: 1.0, status: StatusCode::IM_A_TEAPOT };

    fn route(fault: Fault) -> Arc<RouteState> {
        Arc::new(RouteState { limiter: None, fault: Some(fault) })
    }

    fn script() -> FakeUpstream {
        FakeUpstream::default().answer(1, || Ok(crate::testing::respond(200)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_is_exact_and_then_the_request_goes_on() {
        let start = Instant::now();
        let route = route(Fault { delay: Some(FaultDelay { share: 1.0, time: SECOND }), ..Fault::default() });
        assert_eq!(front(&route, script()).call(get()).await.unwrap().status(), 200);
        assert_eq!(start.elapsed(), SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn an_abort_comes_after_the_delay_and_nothing_reaches_the_upstream() {
        let start = Instant::now();
        let delay = Some(FaultDelay { share: 1.0, time: SECOND });
        let script = script();
        let route = route(Fault { delay, abort: Some(ABORT), ..Fault::default() });
        let error = front(&route, script.clone()).call(get()).await.unwrap_err();
        assert_eq!(
            (error.status, start.elapsed(), script.attempts()),
            (Some(StatusCode::IM_A_TEAPOT), SECOND, 0)
        );
        assert_eq!(error.reason, Reason::FaultInjected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_of_the_responses_comes_at_the_rate() {
        fastrand::seed(1);
        let response_rate = Some(FaultRate { share: 0.3, limit: 1000 });
        let route = route(Fault { response_rate, ..Fault::default() });
        let mut slow = 0;
        for _ in 0..1000 {
            let script = FakeUpstream::default()
                .answer(1, || Ok(crate::testing::respond(200).map(|_| Body::full(vec![0; 1000]))));
            let start = Instant::now();
            let mut response = front(&route, script).call(get()).await.unwrap();
            assert_eq!(crate::testing::read(response.body_mut()).await.unwrap().len(), 1000);
            match start.elapsed().as_millis() {
                0 => {}
                950..=990 => slow += 1,
                other => panic!("{other} ms"),
            }
        }
        assert!((250..350).contains(&slow), "{slow}");
    }

    #[tokio::test(start_paused = true)]
    async fn only_requests_with_the_header_get_the_fault() {
        for (wanted, value, status) in [
            (Some("yes".into()), None, 200),
            (Some("yes".into()), Some("no"), 200),
            (Some("yes".into()), Some("yes"), 418),
            (None, None, 200),
            (None, Some("no"), 418),
        ] {
            let header = Some((HeaderName::from_static("x-chaos"), wanted));
            let route = route(Fault { header, abort: Some(ABORT), ..Fault::default() });
            let mut request = http::Request::get("http://orders/");
            if let Some(value) = value {
                request = request.header("x-chaos", value);
            }
            let response = front(&route, script()).call(call(request.body(Body::empty()).unwrap())).await;
            let got = response.map_or_else(|error| error.status.unwrap(), |response| response.status());
            assert_eq!(got, status);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_abort_never_tells_the_client_of_a_connect_that_its_tunnel_is_open() {
        for (abort, status) in
            [(StatusCode::OK, None), (StatusCode::IM_A_TEAPOT, Some(StatusCode::IM_A_TEAPOT))]
        {
            let request = http::Request::connect("orders:443").body(Body::empty()).unwrap();
            let fault = Some(FaultAbort { status: abort, ..ABORT });
            let route = route(Fault { abort: fault, ..Fault::default() });
            let error = front(&route, script()).call(call(request)).await.unwrap_err();
            assert_eq!(error.status, status);
            let error = front(&route, script()).call(get()).await.unwrap_err();
            assert_eq!(error.status, Some(abort), "another method gets the status, whichever it is");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_configured_share_of_the_requests_gets_the_fault() {
        fastrand::seed(1);
        let abort = Some(FaultAbort { share: 0.3, ..ABORT });
        let route = route(Fault { abort, ..Fault::default() });
        let mut aborted = 0;
        for _ in 0..1000 {
            aborted += u32::from(front(&route, script()).call(get()).await.is_err());
        }
        assert!((250..350).contains(&aborted), "{aborted}");
    }
}
