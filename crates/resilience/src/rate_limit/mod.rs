//! Local rate limits: how much of a route one attache lets through.
//!
//! **Rule.** A token bucket of `burst` tokens that gains `requests` in every `per`, evenly; a request takes one or is
//! refused with 429 and `rate-limited`. The answer says when the next token is there (`Retry-After`, RFC 9110 section 10.2.3) and what the
//! limit is (`RateLimit-Limit`, `-Remaining`, `-Reset` in seconds; draft-ietf-httpapi-ratelimit-headers-03, the form in use).
//! Answers that are let through carry nothing.
//!
//! **Keys.** With `by`, each value has a bucket of its own, found by a keyed 64-bit hash in a table of fixed size (see [`table`]).
//! A new key takes the place of one whose bucket is full again, which loses nothing; where there is none it shares
//! one bucket with all others like it. So memory is bounded, and a client that invents keys can neither get around its limit
//! for long nor push out the buckets of others.
//!
//! **Source.** Envoy's `local_ratelimit`, whose bucket is refilled all at once each `fill_interval`; the generic cell rate algorithm
//! of ITU-T I.371, by which a bucket is one word and a request one compare-and-swap.
//!
//! The limit is each attache's own; a limit over all of them needs a service that counts.

mod table;

use std::{
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use attache_config::model::{self, LimitKey};
use attache_http::{Body, Client};
use attache_telemetry::Reason;
use attache_upstream::{Call, Error, Sent};
use attache_wire::{Fields, Response, Value};
use pin_project_lite::pin_project;
use table::{Bucket, Table};
use tokio::time::Instant;
use tower::Service;

use crate::RouteState;

/// The buckets of one route, shared by all workers.
#[derive(Debug)]
pub struct Limiter {
    config: model::RateLimit,
    rate: Rate,
    epoch: Instant,
    all: Bucket,
    table: Table,
}

/// A bucket's measures, nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Rate {
    token: u64,
    full: u64,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// When the next token is there.
    pub retry_after: Duration,
    /// Requests at once.
    pub limit: u32,
    /// When the whole bucket is there.
    pub reset: Duration,
}

impl Limiter {
    /// Full buckets.
    pub fn new(config: model::RateLimit) -> Self {
        let per = u64::try_from(config.per.as_nanos()).unwrap_or(u64::MAX);
        let token = (per / u64::from(config.requests.max(1))).max(1);
        let rate = Rate { token, full: token.saturating_mul(u64::from(config.burst.max(1))) };
        let keys = if config.by == LimitKey::Route { 0 } else { config.max_keys };
        let epoch = Instant::now();
        Self { config, rate, epoch, all: Bucket::default(), table: Table::new(keys) }
    }

    /// Takes a token for a request.
    pub fn check(&self, headers: &Fields, client: &Client, now: Instant) -> Result<(), Limited> {
        let now = u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX);
        let by = |key: &[u8]| self.table.bucket(key, now).unwrap_or(&self.all);
        let bucket = match &self.config.by {
            LimitKey::Route => &self.all,
            LimitKey::Header(name) => by(headers.get(name).map_or(b"", Value::as_bytes)),
            LimitKey::Client => match client.address.map(|address| address.ip()) {
                Some(IpAddr::V4(ip)) => by(&ip.octets()),
                Some(IpAddr::V6(ip)) => by(&ip.octets()),
                None => by(b""),
            },
            LimitKey::Identity => by(client.identities.first().map_or(b"", |name| name.as_bytes())),
        };
        bucket.take(self.rate.token, self.rate.full, now).map_err(|full_at| Limited {
            retry_after: Duration::from_nanos(
                full_at.saturating_add(self.rate.token).saturating_sub(now.saturating_add(self.rate.full)),
            ),
            limit: self.config.burst.max(1),
            reset: Duration::from_nanos(full_at.saturating_sub(now)),
        })
    }
}

impl From<Limited> for Error {
    fn from(limited: Limited) -> Self {
        let mut error = Self::new(Reason::RateLimited, Sent::Nothing);
        let mut headers = Fields::new();
        headers.insert("ratelimit-limit", limited.limit);
        headers.insert("ratelimit-remaining", 0_u64);
        headers.insert("ratelimit-reset", limited.reset.as_nanos().div_ceil(1_000_000_000) as u64);
        error.retry_after = Some(limited.retry_after);
        error.headers = Some(Box::new(headers));
        error
    }
}

/// Refuses what is above the route's rate.
#[derive(Clone, Debug)]
pub struct RateLimit<S> {
    inner: S,
    route: Arc<RouteState>,
}

impl<S> RateLimit<S> {
    /// Puts the route's limit before a service.
    pub fn new(inner: S, route: Arc<RouteState>) -> Self {
        Self { inner, route }
    }
}

impl<S> Service<Call> for RateLimit<S>
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
    /// The future of [`RateLimit`].
    pub struct RateLimitFuture<F> {
        #[pin]
        inner: Option<F>,
        refused: Option<Limited>,
    }
}

impl<F: Future<Output = Result<Response<Body>, Error>>> Future for RateLimitFuture<F> {
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match (this.inner.as_pin_mut(), *this.refused) {
            (_, Some(limited)) => Poll::Ready(Err(limited.into())),
            (Some(inner), None) => inner.poll(cx),
            (None, None) => Poll::Ready(Err(Error::new(Reason::RateLimited, Sent::Nothing))),
        }
    }
}

#[cfg(test)]
mod tests;
