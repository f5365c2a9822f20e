//! Retries: the caller doesn't see a failure that another attempt can avoid.
//!
//! **When.** A request is retried if all of these hold; otherwise the caller gets the outcome:
//! 1. the outcome meets a condition of `retry.on` (see [`conditions`], Envoy's words);
//! 2. it is safe to send the request again: nothing of it reached an application ([`SentPart::Nothing`],
//!    [`SentPart::Refused`]), or the method is idempotent, or the route allows it (`methods: all`). It is never safe if a
//!    part of a response came and was lost ([`SentPart::Response`]);
//! 3. every byte that was read of the client's body is still kept (see [`replay`]);
//! 4. fewer than `attempts` retries were made, and the wait ends before the deadline;
//! 5. the upstream's budget has room (see `budget`).
//!
//! **How.** At an endpoint that was not tried before, after the wait of [`backoff`], with `x-attache-attempt: N` (2 for
//! the first retry; a first attempt has no such header) and a `grpc-timeout` that is shortened to the remaining time.
//!
//! **The close race.** The peer may close a pooled connection at the moment when a request is sent on it
//! (envoyproxy/envoy#14981). If [`Error::reused`] shows this and rules 2 and 3 hold, the request is sent once more at
//! once, on a connection that is made for it ([`fresh`](attache_upstream::Call::fresh)). It is not a failure of the
//! upstream, so it counts neither as an attempt nor against the budget; once is enough, since a new connection can't
//! lose the same race.
//!
//! **Elsewhere.** A request that never reached an application (no connection, or the peer says that it did not process
//! it) is sent to every other usable endpoint, one after the other and without a wait, within the deadline. That is no
//! retry: it counts neither as an attempt nor against the budget, and `retry.on` and `attempts` don't limit it. For
//! connections alone the upstream does this itself, within one attempt.
//!
//! **Hedging** is in [`hedge`], for routes that ask for it: another attempt beside a slow one.
//!
//! **Cost.** For each call this layer keeps the parts of another attempt ([`repeatable`]). The head is shared with the
//! first attempt, and copied only if a later step changes it. A body costs two allocations (the recording and its
//! reader) and the list of the kept frames; a request without a body costs none.

mod backoff;
mod conditions;
mod future;
mod hedge;
mod repeatable;
mod replay;

use std::{
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use attache_config::model;
use attache_http::Body;
use attache_upstream::{Call, Error, SentPart};
use attache_wire::Response;
use conditions::RetryConditions;
pub use future::RetryFuture;
use http::Method;
use repeatable::RepeatableRequest;
use tower::{Layer, Service};

use crate::UpstreamState;

/// Makes [`RetryService`]s.
#[derive(Clone, Debug)]
pub struct RetryLayer {
    rules: Arc<RetryRules>,
    state: Arc<UpstreamState>,
}

impl RetryLayer {
    /// The retries of a route to this upstream.
    pub fn new(retry: model::Retry, state: Arc<UpstreamState>) -> Self {
        Self { rules: Arc::new(RetryRules::new(retry)), state }
    }
}

impl<S: Clone> Layer<S> for RetryLayer {
    type Service = RetryService<S>;

    fn layer(&self, inner: S) -> RetryService<S> {
        let again =
            AttemptSource { service: inner.clone(), rules: self.rules.clone(), state: self.state.clone() };
        RetryService { inner, again: Rc::new(again) }
    }
}

/// Retries a call if that is safe, useful, and within the budget.
#[derive(Clone, Debug)]
pub struct RetryService<S> {
    inner: S,
    again: Rc<AttemptSource<S>>,
}

/// The data for further attempts. It is shared, because a call rarely needs it: each call only raises one counter.
#[derive(Debug)]
struct AttemptSource<S> {
    /// Cloned for a further attempt, so that the clone whose readiness was polled is the one that is used.
    service: S,
    rules: Arc<RetryRules>,
    state: Arc<UpstreamState>,
}

impl<S: Clone> RetryService<S> {
    /// Puts these retries around a service.
    pub fn new(inner: S, retry: model::Retry, state: Arc<UpstreamState>) -> Self {
        RetryLayer::new(retry, state).layer(inner)
    }
}

impl<S> Service<Call> for RetryService<S>
where
    S: Service<Call, Response = Response<Body>, Error = Error> + Clone,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = RetryFuture<S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let (kept, call) = RepeatableRequest::new(call, &self.again.rules);
        RetryFuture::new(self.inner.call(call), kept, self.again.clone())
    }
}

/// The policy with its conditions, ready for use.
#[derive(Debug)]
struct RetryRules {
    retry: model::Retry,
    on: RetryConditions,
    hedge: Option<hedge::HedgePolicy>,
}

impl RetryRules {
    fn new(retry: model::Retry) -> Self {
        let on = RetryConditions::new(&retry.on);
        let hedge = retry.hedge.as_ref().map(hedge::HedgePolicy::new);
        Self { retry, on, hedge }
    }

    /// Whether a request of this method may be sent again although the upstream may have processed it.
    fn may_repeat(&self, method: &Method) -> bool {
        method.is_idempotent() || self.retry.methods == model::RetryMethods::All
    }

    /// Whether it is safe to send again after this error.
    fn safe(&self, method: &Method, sent: SentPart) -> bool {
        match sent {
            SentPart::Nothing | SentPart::Refused => true,
            SentPart::Request => self.may_repeat(method),
            SentPart::Response => false,
        }
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod record_tests;
#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod tests;
