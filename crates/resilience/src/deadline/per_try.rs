//! The deadline of one try.
//!
//! It ends with the response's head, as Envoy's does: a response that has begun is the caller's, and no other try
//! could replace it.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use attache_http::Body;
use attache_telemetry::{Exchange, Reason};
use attache_upstream::{Call, Error, Sent, outlier::Outcome};
use http::Response;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::Service;

use crate::UpstreamState;

/// Cuts one try at its deadline. Below the retries.
#[derive(Clone, Debug)]
pub struct PerTry<S> {
    inner: S,
    timeout: Duration,
    state: Arc<UpstreamState>,
}

impl<S> PerTry<S> {
    /// Gives each call this long; zero is no bound.
    pub fn new(inner: S, timeout: Duration, state: Arc<UpstreamState>) -> Self {
        Self { inner, timeout, state }
    }
}

impl<S> Service<Call> for PerTry<S>
where
    S: Service<Call, Response = Response<Body>, Error = Error>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = PerTryFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut call: Call) -> Self::Future {
        let end = (!self.timeout.is_zero()).then(|| Instant::now().checked_add(self.timeout)).flatten();
        let limit = end.map(|_| Limit { state: self.state.clone(), exchange: call.context.exchange.clone() });
        call.context.blame_after = [end, call.context.blame_after].into_iter().flatten().min();
        PerTryFuture { sleep: end.map(sleep_until), inner: self.inner.call(call), limit }
    }
}

struct Limit {
    state: Arc<UpstreamState>,
    exchange: Rc<Exchange>,
}

pin_project! {
    /// The future of [`PerTry`].
    pub struct PerTryFuture<F> {
        #[pin]
        inner: F,
        #[pin]
        sleep: Option<Sleep>,
        limit: Option<Limit>,
    }
}

impl<F: Future<Output = Result<Response<Body>, Error>>> Future for PerTryFuture<F> {
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(outcome) = this.inner.poll(cx) {
            return Poll::Ready(outcome);
        }
        let (Some(sleep), Some(limit)) = (this.sleep.as_pin_mut(), this.limit) else {
            return Poll::Pending;
        };
        sleep.poll(cx).map(|()| {
            super::note(&limit.state, Reason::PerTryTimeout);
            limit.state.judge(&limit.exchange, Outcome::Local(Reason::PerTryTimeout));
            // Nobody knows how far it got.
            Err(Error::new(Reason::PerTryTimeout, Sent::Request))
        })
    }
}
