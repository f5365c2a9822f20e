//! Which calls go to an upstream now, which wait for a short time, and which are refused at once with `Retry-After`.
//!
//! **Limit.** The adaptive one ([`crate::adaptive`]), if it is on; with a queue also `circuit_breaker.max_requests`
//! (and `max_connections`, where a connection carries one call). A call counts from here to its response's end; under
//! an adaptive limit a response that streams counts only to its head, since an open stream causes no work.
//!
//! **Without a queue** a call beyond the limit is refused at once: 503, `overflow-adaptive`.
//!
//! **With one** it waits, at most `interval`; but once the queue has not been empty for `interval`, at most `target`,
//! and the newest goes first. So a short burst waits as a whole, while a standing queue, which only adds latency, stays
//! near `target`. Served calls are then new ones: the caller of an old call has probably left. A call that waited too
//! long, or finds the queue full, is refused: 503, `overflow-queue`.
//!
//! **Urgency** (`priority_header`): a permit goes to the most urgent call that waits. When one is refused after its
//! wait, less urgent ones are refused with it, and a full queue refuses its least urgent call to make room: within one
//! worker no call is refused while a less urgent one waits.
//!
//! **Deadlines.** A call whose deadline has passed is not sent. A gRPC call that waited is sent with the time that remains.
//!
//! **Sources.** Controlled delay and adaptive LIFO: Maurer, *Fail at Scale* (ACM Queue 13.8, 2015), after Nichols and
//! Jacobson, *Controlling Queue Delay* (2012), whose 5 ms and 100 ms are the defaults. Urgencies: RFC 9218.
//!
//! Each worker has its own queue ([`line`]), without a lock; all workers together count the permits ([`gate`]).

mod gate;
mod line;
#[cfg(test)]
mod tests;
mod urgency;
#[cfg(test)]
mod worker_tests;

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use attache_http::{Body, BodyError};
use attache_telemetry::Reason;
use attache_upstream::{Call, Error, LatencyMeter, Outcome, SentPart};
use attache_wire::Response;
use bytes::Bytes;

use attache_http::time::{Sleep, sleep_until};
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;

pub use gate::{GateReading, UpstreamPermits};
use line::{ArrivalResult, QueuePermit, QueueWait, WorkerQueue};
pub use urgency::urgency;

use crate::{UpstreamState, deadline};

/// Lets calls to an upstream through as it has permits.
#[derive(Clone)]
pub struct QueueAdmission<S> {
    inner: S,
    line: Option<Rc<WorkerQueue>>,
}

impl<S> QueueAdmission<S> {
    /// Puts the upstream's gate before a service. It must be made on the worker that uses it.
    pub fn new(inner: S, state: &Arc<UpstreamState>) -> Self {
        Self { inner, line: state.gate.as_ref().map(WorkerQueue::of) }
    }
}

impl<S: std::fmt::Debug> std::fmt::Debug for QueueAdmission<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueueAdmission").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S> Service<Call> for QueueAdmission<S>
where
    S: Service<Call, Response = Response<Body>, Error = Error> + Clone,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = AdmissionFuture<S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut call: Call) -> Self::Future {
        let Some(line) = &self.line else {
            return AdmissionFuture {
                step: QueueStep::Running { future: self.inner.call(call), permit: None },
            };
        };
        let deadline = call.context.deadline;
        let class = line
            .gate
            .queue
            .as_ref()
            .map_or(0, |queue| urgency(call.request.headers(), &queue.priority_header));
        let now = Instant::now();
        let step = match line.arrive(class, deadline, now) {
            ArrivalResult::Enters(permit) => {
                let permit = SharedPermit::new(permit);
                permit.judges(&mut call);
                QueueStep::Running { future: self.inner.call(call), permit: Some(permit) }
            }
            ArrivalResult::Refused => {
                QueueStep::Refused { error: Some(Box::new(refusal(line.gate.refuse(false)))) }
            }
            ArrivalResult::Waits(wait) => {
                // Two allocations, only for a call that has to wait.
                let waiting = QueuedCall {
                    timer: wait.waiter.expires.map(|expires| Box::pin(sleep_until(expires))),
                    service: self.inner.clone(),
                    call: Some(call),
                    since: now,
                    gate: line.gate.clone(),
                    wait,
                };
                QueueStep::Waiting { waiting: Box::new(waiting) }
            }
        };
        AdmissionFuture { step }
    }
}

fn refusal(reason: Reason) -> Error {
    Error::new(reason, SentPart::Nothing)
}

struct QueuedCall<S> {
    wait: QueueWait,
    timer: Option<Pin<Box<Sleep>>>,
    service: S,
    call: Option<Call>,
    since: Instant,
    gate: Arc<UpstreamPermits>,
}

impl<S: Service<Call>> QueuedCall<S> {
    /// Ready when the call may continue, or with its refusal.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(S::Future, SharedPermit), Error>> {
        let expired = self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
        let permit = ready!(self.wait.poll(cx, expired));
        let (Some(mut call), Some(permit)) = (self.call.take(), permit) else {
            return Poll::Ready(Err(refusal(self.gate.refuse(true))));
        };
        let now = Instant::now();
        if call.context.deadline.is_some_and(|deadline| deadline <= now) {
            let cause = "the deadline came while the call waited in the queue";
            return Poll::Ready(Err(Error::with_source(Reason::RequestTimeout, SentPart::Nothing, cause)));
        }
        let headers = call.request.headers_mut();
        if let Some(timeout) = attache_rpc::timeout::timeout(headers) {
            attache_rpc::timeout::set(
                headers,
                timeout.saturating_sub(now.saturating_duration_since(self.since)),
            );
        }
        let permit = SharedPermit::new(permit);
        permit.judges(&mut call);
        Poll::Ready(Ok((self.service.call(call), permit)))
    }
}

pin_project! {
    /// The future of [`QueueAdmission`].
    pub struct AdmissionFuture<S: Service<Call>> {
        #[pin]
        step: QueueStep<S, S::Future>,
    }
}

pin_project! {
    #[project = StepProjection]
    enum QueueStep<S, F> {
        Waiting { waiting: Box<QueuedCall<S>> },
        Running { #[pin] future: F, permit: Option<SharedPermit> },
        // Rarely used, so it is boxed.
        Refused { error: Option<Box<Error>> },
    }
}

impl<S> Future for AdmissionFuture<S>
where
    S: Service<Call, Response = Response<Body>, Error = Error>,
{
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut step = self.project().step;
        loop {
            let next = match step.as_mut().project() {
                StepProjection::Waiting { waiting } => match ready!(waiting.poll(cx)) {
                    Ok((future, permit)) => QueueStep::Running { future, permit: Some(permit) },
                    Err(error) => return Poll::Ready(Err(error)),
                },
                StepProjection::Running { future, permit } => {
                    let outcome = ready!(future.poll(cx));
                    return Poll::Ready(match permit.take() {
                        None => outcome,
                        Some(permit) => answered(outcome, permit),
                    });
                }
                StepProjection::Refused { error } => {
                    let error = error.take().map_or_else(|| refusal(Reason::OverflowQueue), |error| *error);
                    return Poll::Ready(Err(error));
                }
            };
            step.set(next);
        }
    }
}

/// A call's permit, from its entry to the end of its answer. One allocation for each call, only where a gate is configured.
#[derive(Clone)]
struct SharedPermit(Rc<QueuePermit>);

impl SharedPermit {
    fn new(permit: QueuePermit) -> Self {
        Self(Rc::new(permit))
    }

    /// The attempt reports when its answer's head came: this latency is measured.
    fn judges(&self, call: &mut Call) {
        if self.0.adaptive() {
            call.judges.load = Some(self.0.clone());
        }
    }
}

impl LatencyMeter for QueuePermit {
    fn answered(&self, outcome: Outcome) {
        // An upstream that fails at once must not look fast. An overdue call would have taken even longer.
        if matches!(outcome, Outcome::Success | Outcome::Overdue(_)) {
            self.sample();
        }
    }
}

/// The response has arrived, or none will come. Its body keeps the permit.
fn answered(outcome: Result<Response<Body>, Error>, permit: SharedPermit) -> Result<Response<Body>, Error> {
    let response = outcome?;
    if response.body().is_end_stream() || (permit.0.adaptive() && deadline::streams(&response)) {
        return Ok(response);
    }
    // One allocation for a response with a body, only where a gate is configured.
    Ok(response.map(|body| Body::stream(BodyWithPermit { body, permit: Some(permit) })))
}

/// A response's body, with its call's permit.
struct BodyWithPermit {
    body: Body,
    permit: Option<SharedPermit>,
}

impl HttpBody for BodyWithPermit {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || self.body.is_end_stream() {
            self.permit = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
