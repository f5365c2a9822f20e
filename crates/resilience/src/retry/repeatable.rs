//! The parts of a request that are kept for further attempts.

use std::{rc::Rc, time::Duration};

use attache_http::Body;
use attache_upstream::{Call, CallContext, CallKind};
use attache_wire::Request;
use http::HeaderName;
use http_body::Body as _;
use tokio::time::Instant;

use super::{RetryRules, replay::Recording};
use crate::UpstreamState;

const ATTEMPT: HeaderName = HeaderName::from_static("x-attache-attempt");

/// The kind of a further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptKind {
    /// One of the route's `attempts`.
    Retry,
    /// The same attempt again on a new connection: the peer was closing the one before.
    Fresh,
    /// The same attempt again at another endpoint: the request never reached an application.
    Elsewhere,
}

/// The parts from which another attempt is made.
#[derive(Debug)]
pub(super) struct RepeatableRequest {
    pub(super) head: Request<()>,
    pub(super) body: Option<Recording>,
    wants: CallKind,
    pub(super) context: Rc<CallContext>,
    /// The caller's `grpc-timeout`, and when it began to run.
    pub(super) grpc_timeout: Option<(Duration, Instant)>,
    /// The number of the running attempt, from 1.
    attempt: u32,
}

impl RepeatableRequest {
    /// Splits a call into the parts that are kept and the first attempt.
    pub(super) fn new(call: Call, rules: &RetryRules) -> (Self, Call) {
        let Call { mut request, wants, context, judges, fresh } = call;
        let grpc_timeout =
            attache_rpc::timeout::timeout(request.headers()).map(|timeout| (timeout, Instant::now()));
        let head = request.with_body(());
        let body = (!request.body().is_end_stream()).then(|| {
            let recording = Recording::new(std::mem::take(request.body_mut()), rules.retry.buffer);
            *request.body_mut() = recording.body();
            recording
        });
        let first = Call { request, wants, context: context.clone(), judges, fresh };
        (Self { head, body, wants, context, grpc_timeout, attempt: 1 }, first)
    }

    /// The call for another attempt; the old one's endpoint is avoided.
    pub(super) fn again(&mut self, how: AttemptKind) -> Call {
        if how == AttemptKind::Retry {
            self.attempt = self.attempt.saturating_add(1);
        } else {
            // Hidden from the caller: it is the same attempt.
            let attempts = &self.context.exchange.attempts;
            attempts.set(attempts.get().saturating_sub(1));
        }
        let mut call = self.next(self.context.clone());
        call.fresh = how == AttemptKind::Fresh;
        call
    }

    /// The call for an attempt beside the running one, with its own record.
    pub(super) fn beside(&mut self) -> Call {
        let exchange = Rc::new(self.context.exchange.beside());
        self.attempt = self.attempt.saturating_add(1);
        // Only the first attempt passes on 1xx responses.
        self.next(Rc::new(CallContext {
            exchange,
            on_informational: None,
            ..CallContext::clone(&self.context)
        }))
    }

    fn next(&mut self, context: Rc<CallContext>) -> Call {
        let body = self.body.as_ref().map_or_else(Body::empty, Recording::body);
        let mut request = self.head.with_body(body);
        if self.attempt > 1 {
            request.headers_mut().insert(ATTEMPT, self.attempt);
        }
        if let Some((timeout, since)) = self.grpc_timeout {
            attache_rpc::timeout::set(request.headers_mut(), timeout.saturating_sub(since.elapsed()));
        }
        Call { wants: self.wants, ..Call::new(request, context) }
    }

    pub(super) fn body_is_complete(&self) -> bool {
        self.body.as_ref().is_none_or(Recording::complete)
    }

    /// Whether there is a usable endpoint that no attempt went to.
    pub(super) fn has_other(&self, state: &UpstreamState) -> bool {
        let set = state.shared.endpoints.load();
        set.endpoints.iter().any(|endpoint| endpoint.usable() && !self.context.tried.contains(endpoint))
    }

    pub(super) fn whole(&self) -> bool {
        self.body.as_ref().is_none_or(Recording::whole)
    }
}
