//! Local rate limits: how much of a route one attache lets through.
//!
//! **Rule.** A token bucket of `burst` tokens that gains `requests` in every `per`, evenly; a request takes one or is
//! refused with 429 and `rate-limited`. The answer says when the next token is there (`Retry-After`, RFC 9110 section
//! 10.2.3) and what the limit is (`RateLimit-Limit`, `-Remaining`, `-Reset` in seconds;
//! draft-ietf-httpapi-ratelimit-headers-03, the form in use). Responses of allowed requests carry no such headers.
//!
//! **Keys.** With `by`, each value has its own bucket, found by a keyed 64-bit hash in a table of fixed size (see
//! [`table`]). A new key replaces one whose bucket is full again, which loses nothing. If there is none, the new key
//! shares one bucket with all other such keys. So memory is limited, and a client that invents keys can neither bypass
//! its limit for long nor remove the buckets of others.
//!
//! **Source.** Envoy's `local_ratelimit`, whose bucket is refilled all at once each `fill_interval`; the generic cell rate algorithm
//! of ITU-T I.371, by which a bucket is one word and a request one compare-and-swap.
//!
//! Each attache counts for itself; a limit over all of them needs a rate limit service.

mod limiter;
mod table;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use attache_http::Body;
use attache_telemetry::Reason;
use attache_upstream::{Call, Error, SentPart};
use attache_wire::{Fields, Response};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;

pub use self::limiter::{Limiter, RateLimited};
use crate::RouteState;

impl From<RateLimited> for Error {
    fn from(limited: RateLimited) -> Self {
        let mut error = Self::new(Reason::RateLimited, SentPart::Nothing);
        let mut headers = Fields::new();
        headers.insert("ratelimit-limit", limited.limit);
        headers.insert("ratelimit-remaining", 0_u64);
        headers.insert("ratelimit-reset", limited.reset.as_nanos().div_ceil(1_000_000_000) as u64);
        error.retry_after = Some(limited.retry_after);
        error.headers = Some(Box::new(headers));
        error
    }
}

/// Refuses requests above the route's rate.
#[derive(Clone, Debug)]
pub struct RateLimitService<S> {
    inner: S,
    route: Arc<RouteState>,
}

impl<S> RateLimitService<S> {
    /// Puts the route's limit before a service.
    pub fn new(inner: S, route: Arc<RouteState>) -> Self {
        Self { inner, route }
    }
}

impl<S> Service<Call> for RateLimitService<S>
where
    S: Service<Call, Response = Response<Body>, Error = Error>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = RateLimitFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let refused = self.route.limiter.as_ref().and_then(|limiter| {
            limiter.check(call.request.headers(), &call.context.client, Instant::now()).err()
        });
        match refused {
            None => RateLimitFuture { inner: Some(self.inner.call(call)), refused },
            Some(_) => RateLimitFuture { inner: None, refused },
        }
    }
}

pin_project! {
    /// The future of [`RateLimitService`].
    pub struct RateLimitFuture<F> {
        #[pin]
        inner: Option<F>,
        refused: Option<RateLimited>,
    }
}

impl<F: Future<Output = Result<Response<Body>, Error>>> Future for RateLimitFuture<F> {
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match (this.inner.as_pin_mut(), *this.refused) {
            (_, Some(limited)) => Poll::Ready(Err(limited.into())),
            (Some(inner), None) => inner.poll(cx),
            (None, None) => Poll::Ready(Err(Error::new(Reason::RateLimited, SentPart::Nothing))),
        }
    }
}

#[cfg(test)]
mod tests;
