//! Hedging: a second attempt beside a slow one. The caller gets the first good answer.
//!
//! **When.** No response head came within `hedge.after` of the attempt's begin: a time, or a percentile of this
//! upstream's answers to routes that hedge ([`Latency`]; never below `floor`, and not before `min_samples` answers).
//! And all of this holds: the method may be sent twice ([`RetryRules::may_repeat`]), the request asks for no upgrade, its
//! body was read to its end and is kept whole, another usable endpoint was not tried yet, `attempts` and the budget
//! have room. If one of these conditions is not met, the request is no longer hedged. Each further hedge, up to `max`,
//! waits as long after the one before.
//!
//! **The winner** is the first *good* answer: it is not a failure of the upstream, and meets no condition of
//! `retry.on`. A bad answer is kept while another attempt runs; if all are bad, the first attempt's end decides, as
//! without hedges.
//!
//! **The losers** are dropped: their HTTP/2 stream is reset, their HTTP/1 connection closed. That is no failure, so
//! neither ejection nor breaker counts it. The histogram counts a loser as if it had ended when it was dropped:
//! otherwise hedging would hide the slow answers from the percentile, and hedges would start earlier and earlier.
//!
//! **Source.** Dean and Barroso, "The Tail at Scale" (2013); tower's `hedge` (percentile, two halves of a histogram). Envoy's
//! `hedge_policy` hedges on the per-try deadline only.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use attache_config::model::{self, HedgeAfter};
use attache_http::Body;
use attache_telemetry::{Exchange, HedgeEnd, metrics};
use attache_upstream::{Call, Error};
use attache_wire::{Response, header::UPGRADE};

use attache_http::time::{Sleep, sleep_until};
use tokio::time::Instant;
use tower::Service;

use super::{RetryRules, repeatable::RepeatableRequest};
use crate::{CallResult, UpstreamState, budget::RetryPermit, counters::count, latency::Quantile};

/// A route's hedging, ready for use.
#[derive(Debug)]
pub(super) struct HedgePolicy {
    config: model::Hedge,
    quantile: Option<Quantile>,
}

impl HedgePolicy {
    pub(super) fn new(config: &model::Hedge) -> Self {
        let quantile = match config.after {
            HedgeAfter::Percentile(share) => Some(Quantile::new(share, config.min_samples)),
            HedgeAfter::Time(_) => None,
        };
        Self { config: config.clone(), quantile }
    }

    fn after(&self, state: &UpstreamState, now: Instant) -> Option<Duration> {
        match (self.config.after, &self.quantile) {
            (HedgeAfter::Time(time), _) => Some(time),
            (_, Some(quantile)) => Some(quantile.get(state.latency(), now)?.max(self.config.floor)),
            (_, None) => None,
        }
    }
}

/// The attempts of one request that run at once.
pub(super) struct Hedging<F> {
    /// When the first of them began.
    start: Instant,
    /// How long the next hedge waits; `None` if there will be none.
    after: Option<Duration>,
    /// Boxed, and made only for an attempt that does not end at once.
    sleep: Option<Pin<Box<Sleep>>>,
    running: Vec<RunningHedge<F>>,
    /// How the first one ended while others run.
    first: Option<CallResult>,
    /// The number of attempts that were sent for the request.
    sent: u32,
}

/// One running hedge.
struct RunningHedge<F> {
    future: Pin<Box<F>>,
    /// Its own record, so that two attempts don't write into one record.
    exchange: Rc<Exchange>,
    start: Instant,
    /// Taken if this hedge wins: then its response holds the permit.
    permit: Option<RetryPermit>,
}

impl<F> Drop for RunningHedge<F> {
    fn drop(&mut self) {
        if let Some(permit) = &self.permit {
            metrics().hedge(permit.upstream(), HedgeEnd::Lost);
        }
    }
}

/// The data that hedging needs from the retries around it.
pub(super) struct RetryContext<'a, S> {
    pub(super) policy: &'a HedgePolicy,
    pub(super) kept: &'a mut RepeatableRequest,
    pub(super) rules: &'a RetryRules,
    pub(super) state: &'a Arc<UpstreamState>,
    pub(super) service: &'a S,
    pub(super) retries: &'a mut u32,
    pub(super) permit: &'a mut Option<RetryPermit>,
}

impl<F> Hedging<F> {
    /// An attempt begins.
    pub(super) fn new(policy: &HedgePolicy, state: &UpstreamState, sent: u32) -> Self {
        let start = Instant::now();
        let after = policy.after(state, start).filter(|_| sent < policy.config.max);
        Self { start, after, sleep: None, running: Vec::new(), first: None, sent }
    }

    /// Another attempt begins, after those before have ended.
    pub(super) fn again(&mut self, policy: &HedgePolicy, state: &UpstreamState) {
        *self = Self::new(policy, state, self.sent);
    }

    /// The first attempt has ended and must not be polled again.
    pub(super) fn is_first_over(&self) -> bool {
        self.first.is_some()
    }

    /// Waits for the outcome that counts. `first` is the result of polling the first attempt.
    pub(super) fn poll<S>(
        &mut self,
        cx: &mut Context<'_>,
        first: Poll<CallResult>,
        around: &mut RetryContext<'_, S>,
    ) -> Poll<CallResult>
    where
        S: Service<Call, Response = Response<Body>, Error = Error, Future = F> + Clone,
        F: Future<Output = CallResult>,
    {
        if let Poll::Ready(outcome) = first {
            let good = around.is_good(&outcome);
            if good {
                around.measure(self.start);
            }
            if good || self.running.is_empty() {
                self.running.clear();
                return Poll::Ready(outcome);
            }
            self.first = Some(outcome);
        }
        loop {
            if let Some(outcome) = self.poll_running(cx, around) {
                return Poll::Ready(outcome);
            }
            if self.running.is_empty()
                && let Some(first) = self.first.take()
            {
                return Poll::Ready(first);
            }
            let Some(after) = self.after.filter(|_| self.first.is_none()) else {
                return Poll::Pending;
            };
            let since = self.running.last().map_or(self.start, |last| last.start);
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(since + after)));
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
            let mut service = around.service.clone();
            let ready = matches!(service.poll_ready(cx), Poll::Ready(Ok(())));
            match if ready { around.hedge(&mut service) } else { None } {
                Some(hedge) => {
                    self.running.push(hedge);
                    self.sent += 1;
                    self.after = self.after.filter(|_| self.sent < around.policy.config.max);
                }
                None => self.after = None,
            }
        }
    }

    fn poll_running<S>(
        &mut self,
        cx: &mut Context<'_>,
        around: &mut RetryContext<'_, S>,
    ) -> Option<CallResult>
    where
        F: Future<Output = CallResult>,
    {
        let mut at = 0;
        while let Some(hedge) = self.running.get_mut(at) {
            let Poll::Ready(outcome) = hedge.future.as_mut().poll(cx) else {
                at += 1;
                continue;
            };
            let mut ended = self.running.remove(at);
            if !around.is_good(&outcome) {
                continue;
            }
            around.measure(ended.start);
            if self.first.is_none() {
                around.measure(self.start);
            }
            around.won(&mut ended);
            self.running.clear();
            return Some(outcome);
        }
        None
    }
}

impl<S> RetryContext<'_, S> {
    fn is_good(&self, outcome: &CallResult) -> bool {
        let Ok(response) = outcome else { return false };
        let (status, headers) = (response.status(), response.headers());
        attache_upstream::Outcome::of_response(status, headers) == attache_upstream::Outcome::Success
            && self.rules.on.response(status, headers).is_none()
    }

    fn measure(&self, start: Instant) {
        if self.policy.quantile.is_some() {
            let now = Instant::now();
            self.state.latency().add(now.saturating_duration_since(start), now);
        }
    }

    fn won<F>(&mut self, hedge: &mut RunningHedge<F>) {
        let exchange = &self.kept.context.exchange;
        exchange.take_over(&hedge.exchange);
        exchange.hedge_won.set(true);
        *self.permit = hedge.permit.take();
        count(&self.state.counters.hedges_won);
        metrics().hedge(&self.state.shared.config.name, HedgeEnd::Won);
    }

    /// Sends another attempt beside those that run, if all conditions hold.
    fn hedge<F>(&mut self, service: &mut S) -> Option<RunningHedge<F>>
    where
        S: Service<Call, Response = Response<Body>, Error = Error, Future = F>,
    {
        let head = &self.kept.head;
        let may = *self.retries < self.rules.retry.attempts
            && self.rules.may_repeat(head.method())
            && !head.headers().contains_key(UPGRADE)
            && self.kept.body_is_complete();
        if !may || !self.kept.has_other(self.state) {
            return None;
        }
        let now = Instant::now();
        let name = &self.state.shared.config.name;
        let Some(permit) = self.state.admit_hedge(&self.rules.retry, now) else {
            metrics().hedge(name, HedgeEnd::Refused);
            return None;
        };
        *self.retries += 1;
        count(&self.state.counters.hedges);
        let exchange = &self.kept.context.exchange;
        exchange.hedges.set(exchange.hedges.get() + 1);
        exchange.attempts.set(exchange.attempts.get() + 1);
        let call = self.kept.beside();
        let exchange = call.context.exchange.clone();
        // One allocation for a hedge, which is rare by its own rule.
        let future = Box::pin(service.call(call));
        Some(RunningHedge { future, exchange, start: now, permit: Some(permit) })
    }
}

#[cfg(test)]
mod tests;
