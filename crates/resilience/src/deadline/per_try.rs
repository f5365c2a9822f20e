//! The deadline of one attempt.
//!
//! It ends with the response's head, as Envoy's does: a response that has started belongs to the caller, and no other
//! attempt could replace it.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use attache_http::Body;
use attache_telemetry::Reason;
use attache_upstream::{Call, Error, SentPart};
use attache_wire::Response;

use attache_http::time::{Sleep, sleep_until};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;

use crate::UpstreamState;

/// Cuts one attempt at its deadline. Below the retries.
#[derive(Clone, Debug)]
pub struct PerTry<S> {
    inner: S,
    timeout: Duration,
    state: Arc<UpstreamState>,
}

impl<S> PerTry<S> {
    /// Gives each attempt this long; zero means no limit.
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
        if let Some(end) = end {
            call.context_mut().overdue_at(end, Reason::PerTryTimeout);
        }
        let state = end.map(|_| self.state.clone());
        // One allocation for each attempt with a deadline. An attempt without one carries no timer from layer to layer.
        let sleep = end.map(|end| Box::pin(AttemptDue { sleep: sleep_until(end), timeout: self.timeout }));
        PerTryFuture { inner: Some(self.inner.call(call)), sleep, state }
    }
}

pin_project! {
    struct AttemptDue {
        #[pin]
        sleep: Sleep,
        timeout: Duration,
    }
}

pin_project! {
    /// The future of [`PerTry`].
    pub struct PerTryFuture<F> {
        #[pin]
        inner: Option<F>,
        sleep: Option<Pin<Box<AttemptDue>>>,
        state: Option<Arc<UpstreamState>>,
    }
}

impl<F: Future<Output = Result<Response<Body>, Error>>> Future for PerTryFuture<F> {
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(inner) = this.inner.as_mut().as_pin_mut()
            && let Poll::Ready(outcome) = inner.poll(cx)
        {
            return Poll::Ready(outcome);
        }
        let (Some(sleep), Some(state)) = (this.sleep, this.state) else {
            return Poll::Pending;
        };
        ready!(sleep.as_mut().project().sleep.poll(cx));
        let cause = format!("no answer within `per_try_timeout` ({:?})", sleep.timeout);
        // The attempt ends here, and reports that it was overdue.
        this.inner.set(None);
        super::note(state, Reason::PerTryTimeout);
        // How much the upstream has processed is unknown.
        Poll::Ready(Err(Error::with_source(Reason::PerTryTimeout, SentPart::Request, cause)))
    }
}
