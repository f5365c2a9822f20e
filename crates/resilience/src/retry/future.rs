//! The attempts of one request, one after the other.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use attache_http::time::{Sleep, sleep_until};
use attache_http::{Body, BodyError};
use attache_telemetry::{Reason, metrics};
use attache_upstream::{Call, Error, SentPart};
use attache_wire::Response;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;

use super::{
    AttemptSource, RetryRules, backoff,
    conditions::{self, ConditionKind},
    hedge::{Hedging, RetryContext},
    repeatable::{AttemptKind, RepeatableRequest},
};
use crate::{UpstreamState, budget::RetryPermit, counters::count};

/// Bytes of a discarded response that are read so that its connection can be used again.
const DISCARDED: usize = 16 << 10;

pin_project! {
    /// The future of [`RetryService`](super::RetryService).
    pub struct RetryFuture<S: Service<Call>> {
        #[pin]
        step: RetryStep<S, S::Future>,
        kept: RepeatableRequest,
        again: Rc<AttemptSource<S>>,
        retries: u32,
        raced: bool,
        permit: Option<RetryPermit>,
        // Only for routes that hedge: one allocation for each of their requests.
        hedging: Option<Box<Hedging<S::Future>>>,
    }
}

pin_project! {
    #[project = StepProjection]
    enum RetryStep<S, F> {
        Trying { #[pin] future: F },
        // Boxed, so that a call without a retry needs no memory for them.
        Waiting { sleep: Pin<Box<Sleep>>, discard: Option<Box<DiscardedResponse>> },
        Next { how: AttemptKind, service: S },
        Over,
    }
}

/// How the next attempt begins.
enum NextAttempt {
    /// A retry at this instant.
    After(Instant),
    /// At once, since nothing of the request was processed.
    AtOnce(AttemptKind),
}

impl<S: Service<Call>> RetryFuture<S> {
    pub(super) fn new(future: S::Future, kept: RepeatableRequest, again: Rc<AttemptSource<S>>) -> Self {
        let step = RetryStep::Trying { future };
        let policy = again.rules.hedge.as_ref();
        let hedging = policy.map(|policy| Box::new(Hedging::new(policy, &again.state, 0)));
        Self { step, kept, again, retries: 0, raced: false, permit: None, hedging }
    }
}

impl<S> Future for RetryFuture<S>
where
    S: Service<Call, Response = Response<Body>, Error = Error> + Clone,
{
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let AttemptSource { service, rules, state } = &**this.again;
        loop {
            let next = match this.step.as_mut().project() {
                StepProjection::Trying { future } => {
                    let outcome = match (this.hedging.as_deref_mut(), &rules.hedge) {
                        (Some(hedging), Some(policy)) => {
                            let first = if hedging.is_first_over() { Poll::Pending } else { future.poll(cx) };
                            let mut around = RetryContext {
                                policy,
                                kept: this.kept,
                                rules,
                                state,
                                service,
                                retries: this.retries,
                                permit: this.permit,
                            };
                            ready!(hedging.poll(cx, first, &mut around))
                        }
                        _ => ready!(future.poll(cx)),
                    };
                    let mut attempts = Attempts {
                        kept: this.kept,
                        rules,
                        state,
                        retries: this.retries,
                        raced: this.raced,
                        permit: this.permit,
                    };
                    match attempts.again(&outcome) {
                        None => {
                            let outcome = attempts.finish(outcome);
                            // An attempt that was slower than its hedge ends here, not later when this future is
                            // dropped.
                            this.step.set(RetryStep::Over);
                            return Poll::Ready(outcome);
                        }
                        Some(NextAttempt::AtOnce(how)) => RetryStep::Next { how, service: service.clone() },
                        Some(NextAttempt::After(when)) => RetryStep::Waiting {
                            sleep: Box::pin(sleep_until(when)),
                            discard: outcome.ok().map(DiscardedResponse::new).map(Box::new),
                        },
                    }
                }
                StepProjection::Waiting { sleep, discard } => {
                    if discard.as_mut().is_some_and(|discard| discard.poll(cx).is_ready()) {
                        *discard = None;
                    }
                    ready!(sleep.as_mut().poll(cx));
                    RetryStep::Next { how: AttemptKind::Retry, service: service.clone() }
                }
                StepProjection::Next { how, service } => {
                    ready!(service.poll_ready(cx))?;
                    let future = service.call(this.kept.again(*how));
                    if let (Some(hedging), Some(policy)) = (this.hedging.as_deref_mut(), &rules.hedge) {
                        hedging.again(policy, state);
                    }
                    RetryStep::Trying { future }
                }
                StepProjection::Over => return Poll::Pending,
            };
            this.step.set(next);
        }
    }
}

/// The decision after an attempt.
struct Attempts<'a> {
    kept: &'a mut RepeatableRequest,
    rules: &'a RetryRules,
    state: &'a Arc<UpstreamState>,
    retries: &'a mut u32,
    raced: &'a mut bool,
    permit: &'a mut Option<RetryPermit>,
}

impl Attempts<'_> {
    /// Whether, and when, the request is tried again.
    fn again(&mut self, outcome: &Result<Response<Body>, Error>) -> Option<NextAttempt> {
        let method = self.kept.head.method();
        let (asked, sent, reason) = match outcome {
            Err(error) => {
                let safe = self.rules.safe(method, error.sent);
                if error.reused && !*self.raced && safe && self.kept.whole() {
                    *self.raced = true;
                    // Its endpoint did not fail, and a hash may select it again.
                    self.kept.context.tried.forget_last();
                    count(&self.state.counters.close_races);
                    self.kept.context.exchange.tried_again(error.reason);
                    metrics().retry(&self.state.shared.config.name, error.reason);
                    return Some(NextAttempt::AtOnce(AttemptKind::Fresh));
                }
                if conditions::never_reached(error) && self.kept.whole() && self.kept.has_other(self.state) {
                    // This doesn't depend on the route's retries: no application has seen the request. It ends when
                    // every endpoint was tried.
                    count(&self.state.counters.failovers);
                    self.kept.context.exchange.tried_again(error.reason);
                    metrics().retry(&self.state.shared.config.name, error.reason);
                    return Some(NextAttempt::AtOnce(AttemptKind::Elsewhere));
                }
                if !safe || !self.rules.on.error(error) {
                    return None;
                }
                (None, error.sent, error.reason)
            }
            Ok(response) => {
                let (status, headers) = (response.status(), response.headers());
                let met = self.rules.on.response(status, headers)?;
                if met == ConditionKind::Http && !self.rules.may_repeat(method) {
                    return None;
                }
                let asked = backoff::asked(status, headers);
                if asked.is_some_and(|asked| asked > backoff::MAX_RETRY_AFTER) {
                    return None;
                }
                (asked, SentPart::Response, Reason::UpstreamError)
            }
        };
        if *self.retries >= self.rules.retry.attempts || !self.kept.whole() {
            return None;
        }
        let other = self.has_untried();
        let n = *self.retries + 1;
        let at_once = n == 1 && other && matches!(sent, SentPart::Nothing | SentPart::Refused);
        let wait = if at_once { Duration::ZERO } else { backoff::wait(&self.rules.retry, n) };
        let now = Instant::now();
        let when = now.checked_add(wait.max(asked.unwrap_or_default()))?;
        let late = |deadline: Option<Instant>| deadline.is_some_and(|deadline| when >= deadline);
        let caller = self.kept.grpc_timeout.and_then(|(timeout, since)| since.checked_add(timeout));
        if late(self.kept.context.deadline) || late(caller) {
            return None;
        }
        let name = &self.state.shared.config.name;
        // An admitted request keeps its permit for all of its `attempts`: it makes one retry at a time.
        if self.permit.is_none() {
            *self.permit = self.state.admit_retry(&self.rules.retry, now);
        }
        if self.permit.is_none() {
            count(&self.state.counters.budget_exhausted);
            metrics().overflow(name, Reason::RetryBudgetExhausted);
            tracing::debug!(upstream = %name, reason = %Reason::RetryBudgetExhausted, "not tried again");
            return None;
        }
        *self.retries = n;
        count(&self.state.counters.retries);
        self.kept.context.exchange.tried_again(reason);
        // Looked up only here, so that a call without a retry keeps no data for it.
        metrics().retry(name, reason);
        Some(NextAttempt::After(when))
    }

    /// Whether there is an endpoint that no attempt went to.
    fn has_untried(&self) -> bool {
        let set = self.state.shared.endpoints.load();
        set.endpoints.iter().any(|endpoint| !self.kept.context.tried.contains(endpoint))
    }

    /// Returns the outcome to the caller.
    fn finish(&mut self, outcome: Result<Response<Body>, Error>) -> Result<Response<Body>, Error> {
        if let Some(recording) = &self.kept.body {
            recording.stop();
        }
        let response = outcome?;
        let Some(permit) = self.permit.take() else {
            return Ok(response);
        };
        let hedged = self.kept.context.exchange.hedge_won.get();
        if !hedged && self.rules.on.response(response.status(), response.headers()).is_none() {
            count(&self.state.counters.retries_succeeded);
        }
        // One allocation, only after a retry, so that the budget counts the request until its end.
        Ok(response.map(|body| {
            if body.is_end_stream() { body } else { Body::stream(ChargedBody { body, _permit: permit }) }
        }))
    }
}

/// A response that the caller doesn't get. A short one is read during the wait for the next attempt, so that its HTTP/1
/// connection can be reused; the rest of a long one is dropped, which closes the connection or resets the stream.
struct DiscardedResponse {
    body: Body,
    left: usize,
}

impl DiscardedResponse {
    fn new(response: Response<Body>) -> Self {
        Self { body: response.into_body(), left: DISCARDED }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(Ok(frame)) = ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            match self.left.checked_sub(bytes) {
                Some(left) => self.left = left,
                None => break,
            }
        }
        Poll::Ready(())
    }
}

/// The body of a retry's response.
struct ChargedBody {
    body: Body,
    _permit: RetryPermit,
}

impl HttpBody for ChargedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
