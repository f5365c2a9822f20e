//! One attempt: a call at one endpoint, from the choice of the endpoint to the end of its answer.
//!
//! An [`Attempt`] is the only thing that knows to which endpoint an attempt of a request went. It ends exactly once,
//! with an [`Outcome`]. Only this module then informs the others:
//!
//! | receiver | what it learns | when |
//! | --- | --- | --- |
//! | ejection ([`outlier`](crate::outlier)) | success or failure | the end |
//! | the endpoint's breaker, the upstream's breaker | success or failure | the end; a probe's success at the answer's head |
//! | the balancer (EWMA, failures as load) | latency; success or failure | the answer's head; the end |
//! | adaptive concurrency ([`LatencyMeter`]) | whether its latency is a sample | the answer's head, or the end if no head came |
//! | the span, the exchange's record | endpoint, status, reason | as it happens |
//! | the counts of running requests | one less | when the attempt, or the tunnel that it became, is dropped |
//!
//! **Ends.** An answer that is a failure (5xx, a failing grpc-status) ends the attempt at once; a good one ends it with
//! its body: a body that is cut is a failure of the endpoint, although its head said 200. If an attempt is dropped
//! before its answer's head, [`CallContext::overdue`] says why: after that instant (the route's deadline, or the
//! attempt's own) the endpoint was too slow. Before it, the caller left or had a shorter deadline, which counts neither
//! for nor against the endpoint. An attempt that is dropped after a good head was a success: the caller did not wait
//! for its end.
//!
//! A probe of a half-open breaker has succeeded with its head: an answer that streams for an hour must not keep the
//! breaker half-open for as long.

mod outcome;
#[cfg(test)]
mod tests;

use std::{fmt, rc::Rc, sync::Arc};

use attache_telemetry::{AttemptTrace, Exchange, Reason, metrics};
use attache_wire::Fields;
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

pub use self::outcome::{EndpointFailure, Outcome};
use crate::{
    CallContext, Endpoint, Error, SharedUpstream,
    balance::policy::BalancePolicy,
    circuit::AdmittedCall,
    limit::{Charge, RequestPermit},
    outlier::{self, circuits, rates},
    overdue::Overdue,
};

/// Observers of the end of an attempt, in addition to its endpoint. The layers above the choice of the endpoint add
/// them.
#[derive(Debug, Default)]
pub struct OutcomeReceivers {
    /// The upstream's breaker let it through.
    pub circuit: Option<AdmittedCall>,
    /// The measurement of the upstream's latency.
    pub load: Option<Rc<dyn LatencyMeter>>,
}

/// Measures how long an upstream takes.
pub trait LatencyMeter: fmt::Debug {
    /// The head of the answer came, or none will come.
    fn answered(&self, outcome: Outcome);
}

/// One attempt of a call at one endpoint. See the module.
#[derive(Debug)]
pub struct Attempt {
    /// `None` once a tunnel has taken it.
    charge: Option<Charge>,
    exchange: Rc<Exchange>,
    span: Option<Rc<AttemptTrace>>,
    judges: OutcomeReceivers,
    /// The endpoint's breaker let it through.
    admitted: Option<AdmittedCall>,
    /// When it began. Only where latency is wanted: reading the clock is not free.
    started: Option<Instant>,
    /// The instant after which a missing answer is the endpoint's failure.
    deadline: Option<Overdue>,
    stage: AttemptStage,
    measured: Option<AttemptMeasurement>,
}

/// The data of the attempt for `http.client.request.duration`, if that metric is used.
#[derive(Debug)]
struct AttemptMeasurement {
    began: Instant,
    /// The version of HTTP, once it is known.
    version: &'static str,
    /// 0 before there is an answer.
    status: u16,
    failed: Option<Reason>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AttemptStage {
    /// No answer yet.
    Asked,
    /// The head of a good answer came.
    Answered,
    /// All observers were informed.
    Ended,
}

impl Attempt {
    /// Begins an attempt at `endpoint`, and asks the endpoint's breaker for a permit. Without a permit the call goes
    /// there all the same, and the breaker doesn't count it.
    pub fn begin(
        permit: RequestPermit,
        endpoint: Arc<Endpoint>,
        context: &CallContext,
        judges: OutcomeReceivers,
    ) -> Self {
        let admitted = circuits::admit(permit.shared(), &endpoint).ok().flatten();
        Self::admitted(permit, endpoint, admitted, context, judges)
    }

    /// The same for an endpoint whose breaker was already asked.
    pub(crate) fn admitted(
        permit: RequestPermit,
        endpoint: Arc<Endpoint>,
        admitted: Option<AdmittedCall>,
        context: &CallContext,
        judges: OutcomeReceivers,
    ) -> Self {
        let exchange = context.exchange.clone();
        exchange.attempts.set(exchange.attempts.get() + 1);
        *exchange.endpoint.borrow_mut() = Some(Arc::clone(&endpoint.label));
        context.tried.push(&endpoint);
        let started = began(permit.shared(), &endpoint);
        Self {
            charge: Some(Charge::new(permit, endpoint)),
            exchange,
            span: None,
            judges,
            admitted,
            started,
            deadline: context.overdue.clone(),
            stage: AttemptStage::Asked,
            measured: metrics().semantic().then(|| AttemptMeasurement {
                began: Instant::now(),
                version: "",
                status: 0,
                failed: None,
            }),
        }
    }

    /// Its endpoint; `None` once a tunnel has taken over.
    pub fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        self.charge.as_ref().map(Charge::endpoint)
    }

    /// Begins its span, where the exchange is traced, and writes the span's id into the request.
    pub(crate) fn trace(&mut self, tls: bool, headers: Option<&mut Fields>) {
        let Some(charge) = &self.charge else { return };
        let upstream = &charge.shared().config.name;
        self.span = AttemptTrace::begin(&self.exchange, upstream, tls, headers).map(Rc::new);
    }

    pub(crate) fn span(&self) -> Option<Rc<AttemptTrace>> {
        self.span.clone()
    }

    /// Its connection goes to another endpoint than the chosen one. `why` is the reason why the chosen one failed;
    /// `None` is neutral about it.
    pub(crate) fn moved_to(&mut self, endpoint: &Arc<Endpoint>, why: Option<Reason>) {
        if self.charge.as_ref().is_none_or(|charge| Arc::ptr_eq(charge.endpoint(), endpoint)) {
            return;
        }
        let outcome =
            why.map_or(Outcome::Inconclusive, |reason| Outcome::Failed(EndpointFailure::NoAnswer(reason)));
        self.tell_endpoint(outcome);
        let Some(charge) = &mut self.charge else { return };
        charge.moved_to(endpoint);
        self.admitted = circuits::admit(charge.shared(), endpoint).ok().flatten();
        self.started = began(charge.shared(), endpoint);
        *self.exchange.endpoint.borrow_mut() = Some(Arc::clone(&endpoint.label));
    }

    /// Which version of HTTP is spoken with the endpoint.
    pub(crate) const fn spoken(&mut self, version: &'static str) {
        if let Some(measured) = &mut self.measured {
            measured.version = version;
        }
    }

    /// The head of the answer came.
    pub fn answered(&mut self, status: StatusCode, headers: &Fields) {
        if let Some(span) = &self.span {
            span.responded(&self.exchange, status.as_u16());
        }
        if let Some(measured) = &mut self.measured {
            measured.status = status.as_u16();
        }
        match Outcome::of_response(status, headers) {
            Outcome::Success => self.good(),
            failure => self.conclude(failure),
        }
    }

    /// The trailers of the answer came.
    pub(crate) fn trailers(&mut self, trailers: &HeaderMap) {
        self.conclude(Outcome::of_trailers(trailers));
    }

    /// There is no answer, or no more of it.
    pub fn failed(&mut self, error: &Error) {
        if let Some(span) = &self.span {
            span.failed(&self.exchange, error.reason);
        }
        self.note_failure(error.reason);
        self.conclude(Outcome::of_error(error));
    }

    /// The answer's body was cut.
    pub(crate) fn cut(&mut self, reason: Reason) {
        self.note_failure(reason);
        self.conclude(Outcome::of_cut(reason));
    }

    /// It has become a tunnel. From now on the tunnel holds the attempt's part of the counts.
    pub(crate) fn opened(mut self) -> Option<Charge> {
        if self.stage == AttemptStage::Asked {
            if let Some(span) = &self.span {
                span.responded(&self.exchange, 0);
            }
            self.good();
        }
        self.conclude(Outcome::Success);
        self.charge.take()
    }

    /// Ends it.
    pub fn end(mut self, outcome: Outcome) {
        self.conclude(outcome);
    }

    const fn note_failure(&mut self, reason: Reason) {
        if let Some(measured) = &mut self.measured {
            measured.failed = Some(reason);
        }
    }

    /// Records its duration, which ends with the answer's body. A tunnel is no longer a request.
    fn tell_duration(&mut self) {
        if let (Some(measured), Some(charge)) = (self.measured.take(), &self.charge) {
            let AttemptMeasurement { began, version, status, failed } = measured;
            let upstream = &charge.shared().config.name;
            metrics().client_request(upstream, &self.exchange, version, status, failed, began.elapsed());
        }
    }

    /// The head of a good response has arrived.
    fn good(&mut self) {
        if self.stage != AttemptStage::Asked {
            return;
        }
        self.stage = AttemptStage::Answered;
        if let Some(load) = self.judges.load.take() {
            load.answered(Outcome::Success);
        }
        if let (Some(started), Some(charge)) = (self.started, &self.charge) {
            tell_latency(charge.shared(), charge.endpoint(), started, true);
        }
        if let Some(circuit) = &mut self.judges.circuit {
            circuit.proved(|circuit, ticket| circuit.record(ticket, true, Instant::now()));
        }
        if let (Some(admitted), Some(charge)) = (&mut self.admitted, &self.charge) {
            admitted.proved(|circuit, ticket| {
                circuits::ended(charge.shared(), charge.endpoint(), circuit, ticket, true, Instant::now());
            });
        }
    }

    /// Informs all observers, once.
    fn conclude(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.stage, AttemptStage::Ended) == AttemptStage::Ended {
            return;
        }
        if let Some(load) = self.judges.load.take() {
            load.answered(outcome);
        }
        if let (Some(circuit), Some(success)) = (self.judges.circuit.take(), outcome.is_success()) {
            circuit.record(success, Instant::now());
        }
        self.tell_endpoint(outcome);
    }

    /// Informs the observers of the endpoint.
    fn tell_endpoint(&mut self, outcome: Outcome) {
        let admitted = self.admitted.take();
        let (Some(charge), Some(success)) = (&self.charge, outcome.is_success()) else { return };
        let (shared, endpoint) = (charge.shared(), charge.endpoint());
        if let (Some(started), false) = (self.started, success) {
            tell_latency(shared, endpoint, started, false);
        }
        if let Some(outcome) = policy(shared).outcome {
            outcome(endpoint, success);
        }
        if let Some(admitted) = admitted {
            admitted.end(|circuit, ticket| {
                circuits::ended(shared, endpoint, circuit, ticket, success, Instant::now());
            });
        }
        // A success matters only where some endpoint has failures in a row.
        if !success || outlier::failing(shared) {
            outlier::report(shared, endpoint, outcome, Instant::now());
        }
    }
}

/// Counts an attempt as started at this endpoint; returns the instant, if it is needed.
fn began(shared: &SharedUpstream, endpoint: &Endpoint) -> Option<Instant> {
    rates::begun(shared, endpoint);
    policy(shared).latency.map(|_| Instant::now())
}

fn policy(shared: &SharedUpstream) -> BalancePolicy {
    BalancePolicy::of(&shared.config.balance.algorithm)
}

fn tell_latency(shared: &SharedUpstream, endpoint: &Endpoint, started: Instant, success: bool) {
    let now = Instant::now();
    if let Some(latency) = policy(shared).latency {
        latency(endpoint, now.saturating_duration_since(started), success, now);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let outcome = match (self.stage, &self.deadline) {
            (AttemptStage::Ended, _) => return self.tell_duration(),
            (AttemptStage::Answered, _) => Outcome::Success,
            (AttemptStage::Asked, Some(late)) if late.is_over() => Outcome::Overdue(late.reason),
            (AttemptStage::Asked, _) => Outcome::CallerGaveUp,
        };
        if let Outcome::Overdue(reason) = outcome {
            self.note_failure(reason);
        }
        self.tell_duration();
        self.conclude(outcome);
    }
}
