//! The failure breaker: an upstream that fails as a whole gets no calls for a while.
//!
//! **Closed** lets everything through and counts. It opens by either of two criteria, since each misses cases that the
//! other finds. Failures *in a row* show a dead upstream within moments and at any rate of traffic, but never add up if
//! one call in three still succeeds. The *success rate* over a sliding window finds that case, but needs samples, and
//! counts a dead upstream's earlier successes for the length of the window.
//!
//! **Open** refuses calls at once: 503, `circuit-open`, `Retry-After`. It lasts `open`, doubled each time it opens from
//! half-open, at most `open_max`, and up to 20 % longer at random, so that many proxies don't come back together.
//!
//! **Half-open** lets exactly `probes` calls through. It closes when all of them have succeeded, and opens with the
//! first that failed. A probe whose caller left proves nothing: its permit goes to the next call.
//!
//! [`Outcome`](attache_upstream::Outcome) defines failures: 5xx, no answer, a cut answer, and attempts that ended by
//! the route's deadline or their own. This layer only takes the permit: the attempt keeps it, and reports its end to
//! the breaker. A call counts in the state that it began in, so late answers to calls of an earlier closed state change
//! nothing.
//!
//! **Source.** Nygard, *Release It!* (2007), "Circuit Breaker"; both criteria together as in Linkerd's failure accrual.
//! Envoy's `circuit_breakers` are concurrency limits (here those of the pool); its counterpart of this breaker is
//! ejection per endpoint.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use attache_http::Body;
use attache_telemetry::{Reason, metrics};
pub use attache_upstream::circuit::{BreakerState, Circuit, CircuitStatus};
use attache_upstream::{Call, Error, SentPart, circuit::AdmittedCall};
use attache_wire::Response;

use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::{UpstreamState, counters::count};

/// Makes [`Breaker`]s.
#[derive(Clone, Debug)]
pub struct BreakerLayer(Arc<UpstreamState>);

impl BreakerLayer {
    /// The breaker of this upstream.
    pub fn new(state: Arc<UpstreamState>) -> Self {
        Self(state)
    }
}

impl<S> Layer<S> for BreakerLayer {
    type Service = Breaker<S>;

    fn layer(&self, inner: S) -> Breaker<S> {
        Breaker::new(inner, self.0.clone())
    }
}

/// Lets a call through if the upstream's breaker does.
#[derive(Clone, Debug)]
pub struct Breaker<S> {
    inner: S,
    state: Arc<UpstreamState>,
}

impl<S> Breaker<S> {
    /// Puts the upstream's breaker before a service.
    pub fn new(inner: S, state: Arc<UpstreamState>) -> Self {
        Self { inner, state }
    }
}

impl<S> Service<Call> for Breaker<S>
where
    S: Service<Call, Response = Response<Body>, Error = Error>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = BreakerFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut call: Call) -> Self::Future {
        if let Some(circuit) = &self.state.breaker {
            match AdmittedCall::by(circuit) {
                Ok(admitted) => call.judges.circuit = Some(admitted),
                Err(wait) => {
                    count(&self.state.counters.circuit_open);
                    // Looked up only here, so that a call which passes keeps no data for it.
                    metrics().overflow(&self.state.shared.config.name, Reason::CircuitOpen);
                    let mut error = Error::new(Reason::CircuitOpen, SentPart::Nothing);
                    error.retry_after = Some(wait);
                    return BreakerFuture { inner: None, refused: Some(Box::new(error)) };
                }
            }
        }
        BreakerFuture { inner: Some(self.inner.call(call)), refused: None }
    }
}

pin_project! {
    /// The future of [`Breaker`].
    pub struct BreakerFuture<F> {
        #[pin]
        inner: Option<F>,
        // Rarely used, so it is boxed.
        refused: Option<Box<Error>>,
    }
}

impl<F: Future<Output = Result<Response<Body>, Error>>> Future for BreakerFuture<F> {
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(inner) = this.inner.as_pin_mut() {
            return inner.poll(cx);
        }
        let refused = this.refused.take();
        let refused = refused.map(|error| *error);
        Poll::Ready(Err(refused.unwrap_or_else(|| Error::new(Reason::CircuitOpen, SentPart::Nothing))))
    }
}

#[cfg(test)]
mod tests;
