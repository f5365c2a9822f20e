//! Deadlines: no upstream works longer for a call than its caller waits.
//!
//! | deadline | from | until | reason |
//! | --- | --- | --- | --- |
//! | `request`, by default | the request's end | the response's head | `request-timeout` |
//! | `request`, where the config sets a `timeout` | the request's head | the response's end, unless it streams | `request-timeout` |
//! | `grpc-timeout` (the caller's) | the request's head | the response's end, always | `request-timeout` |
//! | `deadline_header` (the caller's) | the request's head | the response's end, always | `request-timeout` |
//! | `per_try` | the attempt's begin | the response's head | `per-try-timeout` |
//! | `idle` | the last byte either way | | `idle-timeout` |
//!
//! **Rules.** Until the response's head the shorter of `request` and `grpc-timeout` applies. A response that streams
//! (`text/event-stream`, `application/grpc*`, an upgrade, a CONNECT) may last longer than `request`, but not longer
//! than `grpc-timeout`: the gRPC deadline is that of the whole call. A response that is cut ends with an error, never
//! with a clean end.
//!
//! **Sources.** Envoy's route `timeout`, `per_try_timeout` and `stream_idle_timeout`; gRPC over HTTP/2
//! (grpc/doc/PROTOCOL-HTTP2.md, "Timeout"). Envoy counts `timeout` from the request's end, and so does attache by
//! default: only the idle timeout applies to an upload. A timeout that the config sets counts from the request's head,
//! so it also applies to a slow upload.
//!
//! If a client doesn't read, nothing polls its response: [`held`] still ends the exchange with the upstream.
//!
//! A timer is registered only for a real wait: an answer that is ready at the first poll, or a body of one frame, needs
//! none. No frame reads the clock (see [`timer`]).

mod body;
mod header;
mod per_try;
mod stalled;
mod timer;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use attache_config::model::Timeouts;
use attache_http::Body;
use attache_telemetry::Reason;
use attache_upstream::{BodyProgress, Call, Error, SentPart, boxed};
use attache_wire::{Response, header::CONTENT_TYPE};
use body::{ActiveBody, TimedBody};
use http::{HeaderName, Method, StatusCode};
use http_body::Body as _;
use pin_project_lite::pin_project;
use timer::{Activity, ShownDeadline, StreamLimits, Timer};
use tokio::time::Instant;
use tower::{Layer, Service};

pub use header::PassDeadlineOn;
pub use per_try::{PerTry, PerTryFuture};
pub use stalled::{keep, press};

use crate::{UpstreamState, counters::count};

/// Makes [`Deadline`]s.
#[derive(Clone, Debug)]
pub struct DeadlineLayer {
    timeouts: Timeouts,
    state: Arc<UpstreamState>,
}

impl DeadlineLayer {
    /// The deadlines of a route to this upstream.
    pub fn new(timeouts: Timeouts, state: Arc<UpstreamState>) -> Self {
        Self { timeouts, state }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline::new(inner, self.timeouts, self.state.clone())
    }
}

/// Cuts a request and its response at their deadlines, and when they are idle for too long.
#[derive(Clone, Debug)]
pub struct Deadline<S> {
    inner: S,
    timeouts: Timeouts,
    header: Option<HeaderName>,
    state: Arc<UpstreamState>,
}

impl<S> Deadline<S> {
    /// Puts these deadlines around a service.
    pub fn new(inner: S, timeouts: Timeouts, state: Arc<UpstreamState>) -> Self {
        Self { inner, timeouts, header: None, state }
    }

    /// Also reads the caller's deadline from this header.
    #[must_use]
    pub fn with_header(mut self, header: Option<HeaderName>) -> Self {
        self.header = header;
        self
    }
}

impl<S> Service<Call> for Deadline<S>
where
    S: Service<Call, Response = Response<Body>, Error = Error>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut call: Call) -> Self::Future {
        let headers = call.request.headers();
        let named = self.header.as_ref().and_then(|name| header::timeout(headers, name));
        let caller = [attache_rpc::timeout::timeout(headers), named].into_iter().flatten().min();
        // The one clock read of a request.
        let now = Instant::now();
        let after = |time| now.checked_add(time);
        let request = (!self.timeouts.request.is_zero()).then_some(self.timeouts.request).and_then(after);
        let caller_deadline = caller.and_then(after);
        let outer = [caller_deadline, call.context.deadline].into_iter().flatten().min();
        let head = request.into_iter().chain(outer).min();
        // The default timeout begins when the request is whole; a timeout from the config applies to all of it.
        let after_upload =
            (!self.timeouts.whole && request.is_some() && !call.request.body().is_end_stream())
                .then_some(self.timeouts.request);

        let idle = self.timeouts.idle;
        let mut upload = None;
        if (!idle.is_zero() || after_upload.is_some()) && !call.request.body().is_end_stream() {
            // Two allocations for a request with a body: the response's side must see that the upload still sends
            // bytes.
            let activity = Activity::new(BodyProgress { earliest: request, ..BodyProgress::default() });
            let body = std::mem::take(call.request.body_mut());
            *call.request.body_mut() = Body::stream(ActiveBody::new(body, activity.clone()));
            upload = Some(activity);
        }
        let context = call.context_mut();
        context.deadline = head;
        // A caller may wait for any short time; only the route's timeout shows that an endpoint is slow.
        match (upload.clone().filter(|_| after_upload.is_some()), request) {
            (Some(upload), _) => context.overdue_after(upload, Reason::RequestTimeout),
            (None, Some(request)) => context.overdue_at(request, Reason::RequestTimeout),
            (None, None) => {}
        }
        let expired = caller.is_some_and(|time| time.is_zero());
        let tunnel = call.request.method() == Method::CONNECT;
        let limits = StreamLimits {
            deadline: if after_upload.is_some() { outer } else { head },
            after_upload,
            idle,
            upload,
        };
        let timed = boxed(|| TimedAttempts {
            // No work is done for a caller that no longer waits.
            inner: (!expired).then(|| self.inner.call(call)),
            timer: Timer::new(limits, Some(now)),
            request,
            whole: self.timeouts.whole && !tunnel,
            caller: caller_deadline,
            state: self.state.clone(),
        });
        DeadlineFuture { timed }
    }
}

/// The future of [`Deadline`].
///
/// Its content, all attempts, is large. So it is made inside of a box: otherwise every layer around it would copy it
/// once, which together costs ten times as much as the allocation.
pub struct DeadlineFuture<F> {
    timed: Pin<Box<TimedAttempts<F>>>,
}

pin_project! {
    /// All attempts, and their common deadline.
    struct TimedAttempts<F> {
        #[pin]
        inner: Option<F>,
        #[pin]
        timer: Timer,
        request: Option<Instant>,
        whole: bool,
        caller: Option<Instant>,
        state: Arc<UpstreamState>,
    }
}

impl<F: Future<Output = Result<Response<Body>, Error>>> Future for DeadlineFuture<F> {
    type Output = Result<Response<Body>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.timed.as_mut().project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            let cause = "the caller's deadline was over before the call began".to_owned();
            return Poll::Ready(Err(cut(this.state, Reason::RequestTimeout, SentPart::Nothing, cause)));
        };
        if let Poll::Ready(outcome) = inner.poll(cx) {
            return Poll::Ready(outcome.map(|response| {
                let request = this.request.filter(|_| *this.whole && !streams(&response));
                let deadline = [request, *this.caller].into_iter().flatten().min();
                let limit = this.timer.start().zip(deadline).map(|(start, deadline)| ShownDeadline {
                    time: deadline.duration_since(start),
                    is_callers: *this.caller == Some(deadline),
                });
                watch(response, this.timer.limits(deadline), limit, this.state)
            }));
        }
        let reason = ready!(this.timer.as_mut().poll(cx, false));
        // The attempt ends here, and knows whose deadline has passed.
        this.inner.set(None);
        // The upstream may have received the whole request: only the caller could send it again.
        let own = this.request.filter(|own| this.timer.deadline().is_none_or(|deadline| deadline >= *own));
        let deadline = own.or(this.timer.deadline());
        let limit = this.timer.start().zip(deadline).map(|(start, deadline)| ShownDeadline {
            time: deadline.duration_since(start),
            is_callers: own.is_none(),
        });
        let cause = this.timer.cause(reason, "no answer", limit.as_ref());
        Poll::Ready(Err(cut(this.state, reason, SentPart::Request, cause)))
    }
}

fn cut(state: &UpstreamState, reason: Reason, sent: SentPart, cause: String) -> Error {
    note(state, reason);
    Error::with_source(reason, sent, cause)
}

fn note(state: &UpstreamState, reason: Reason) {
    count(match reason {
        Reason::IdleTimeout => &state.counters.idle_timeouts,
        Reason::PerTryTimeout => &state.counters.per_try_timeouts,
        Reason::ClientStalled => &state.counters.clients_stalled,
        _ => &state.counters.request_timeouts,
    });
    tracing::debug!(upstream = %state.shared.config.name, %reason, "cut");
}

/// Whether a response may stream without a limit of time.
pub(crate) fn streams(response: &Response<Body>) -> bool {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return true;
    }
    let content_type = response.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    ["text/event-stream", "application/grpc"].iter().any(|stream| {
        content_type.get(..stream.len()).is_some_and(|start| start.eq_ignore_ascii_case(stream.as_bytes()))
    })
}

/// Puts a timer around a response's body, if it is not yet complete. Without a limit as well: the answer of a client
/// that reads nothing may have to end for others.
fn watch(
    response: Response<Body>,
    limits: StreamLimits,
    limit: Option<ShownDeadline>,
    state: &Arc<UpstreamState>,
) -> Response<Body> {
    if response.body().is_whole() || response.body().is_end_stream() {
        return response;
    }
    // One allocation for a response with an incomplete body: the deadline must be where the frames are awaited.
    response.map(|body| Body::stream(TimedBody::new(body, Timer::new(limits, None), limit, state.clone())))
}

#[cfg(test)]
mod tests;
