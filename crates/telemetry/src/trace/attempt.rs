//! The span of one attempt while it runs, and those of its connections.

use std::{cell::Cell, rc::Rc, time::Duration};

use attache_config::model::Name;
use attache_wire::Fields;

use super::{
    SpanId, TraceContext,
    request::{AttemptSpan, ConnectSpan, RequestTrace},
};
use crate::{Exchange, Reason};

/// A running attempt. If it is dropped before its end was reported, the attempt was abandoned.
#[derive(Debug)]
pub struct AttemptTrace {
    trace: Rc<RequestTrace>,
    index: usize,
    ended: Cell<bool>,
}

impl AttemptTrace {
    /// Begins the span of an attempt and writes its id into the request, if the exchange is sampled.
    pub fn begin(
        exchange: &Exchange,
        upstream: &Name,
        tls: bool,
        headers: Option<&mut Fields>,
    ) -> Option<Self> {
        let trace = exchange.trace.borrow().clone()?;
        let id = SpanId::new();
        if let Some(headers) = headers {
            trace.tracer.inject(headers, TraceContext { parent: id, ..trace.context });
        }
        let mut attempts = trace.attempts.borrow_mut();
        let index = attempts.len();
        attempts.push(AttemptSpan {
            id,
            upstream: Name::clone(upstream),
            tls,
            endpoint: exchange.endpoint.borrow().clone(),
            begin: trace.start.elapsed(),
            end: None,
            status: 0,
            reason: None,
            connects: Vec::new(),
        });
        drop(attempts);
        Some(Self { trace, index, ended: Cell::new(false) })
    }

    /// Begins the span of a connection that this attempt needs. It ends when it is dropped.
    pub fn connecting(&self, endpoint: &Name) -> ConnectingSpan {
        let times = ConnectSpan {
            id: SpanId::new(),
            endpoint: Name::clone(endpoint),
            begin: self.trace.start.elapsed(),
            connected: None,
            secured: None,
            end: Duration::ZERO,
            reason: None,
        };
        ConnectingSpan { trace: self.trace.clone(), index: self.index, span: Some(times) }
    }

    /// The upstream has responded: the attempt lasts until the end of the response.
    pub fn responded(&self, exchange: &Exchange, status: u16) {
        self.note(exchange, |span, _| span.status = status);
    }

    /// The attempt ended without a response.
    pub fn failed(&self, exchange: &Exchange, reason: Reason) {
        self.note(exchange, |span, now| (span.reason, span.end) = (Some(reason), Some(now)));
    }

    fn note(&self, exchange: &Exchange, change: impl FnOnce(&mut AttemptSpan, Duration)) {
        self.ended.set(true);
        let now = self.trace.start.elapsed();
        if let Some(span) = self.trace.attempts.borrow_mut().get_mut(self.index) {
            // If several connections were tried, the attempt may have used another endpoint than the one that was picked.
            if let Some(endpoint) = &*exchange.endpoint.borrow() {
                span.endpoint = Some(Name::clone(endpoint));
            }
            change(span, now);
        }
    }
}

impl Drop for AttemptTrace {
    fn drop(&mut self) {
        if !self.ended.get()
            && let Some(span) = self.trace.attempts.borrow_mut().get_mut(self.index)
        {
            span.end = Some(self.trace.start.elapsed());
        }
    }
}

/// A connection that is being opened for an attempt.
#[derive(Debug)]
pub struct ConnectingSpan {
    trace: Rc<RequestTrace>,
    index: usize,
    span: Option<ConnectSpan>,
}

impl ConnectingSpan {
    /// The connection was opened or failed: how long TCP and TLS took, and the reason of a failure.
    pub fn ended(mut self, tcp: Option<Duration>, tls: Option<Duration>, outcome: Result<(), Reason>) {
        if let Some(span) = &mut self.span {
            span.connected = tcp.map(|tcp| span.begin + tcp);
            span.secured = tls.map(|tls| span.connected.unwrap_or(span.begin) + tls);
            span.reason = outcome.err();
        }
    }
}

impl Drop for ConnectingSpan {
    fn drop(&mut self) {
        let Some(mut span) = self.span.take() else { return };
        span.end = self.trace.start.elapsed();
        if let Some(attempt) = self.trace.attempts.borrow_mut().get_mut(self.index) {
            attempt.connects.push(span);
        }
    }
}
