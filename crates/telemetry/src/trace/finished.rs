//! A sampled request that has ended, for the export of its spans.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use attache_config::model::Name;

use super::{
    SpanId, TraceId,
    request::{AttemptSpan, LookupSpan, RequestTrace},
};
use crate::{Exchange, Reason};

/// Everything that the control thread makes spans of.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) trace: TraceId,
    pub(super) random: bool,
    pub(super) span: SpanId,
    pub(super) parent: Option<SpanId>,
    pub(super) state: String,
    pub(super) started: SystemTime,
    pub(super) total: Duration,
    pub(super) listener: Name,
    pub(super) protocol: &'static str,
    pub(super) tls: bool,
    pub(super) client: Option<SocketAddr>,
    pub(super) user_agent: Option<String>,
    pub(super) method: String,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) request_id: String,
    pub(super) route: Option<Name>,
    pub(super) upstream: Option<Name>,
    pub(super) attempt_count: u32,
    pub(super) status: u16,
    pub(super) reason: Option<Reason>,
    pub(super) detail: Option<String>,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) attempts: Vec<AttemptSpan>,
    pub(super) lookups: Vec<LookupSpan>,
}

impl Finished {
    pub(super) fn of(trace: &RequestTrace, exchange: &Exchange, total: Duration) -> Self {
        let mut attempts = trace.attempts.take();
        let count = attempts.len();
        for (index, attempt) in attempts.iter_mut().enumerate() {
            let last = index + 1 == count;
            // The last one's response went on to the client; what the others answered was thrown away.
            attempt.end.get_or_insert(total);
            if last && attempt.reason.is_none() {
                attempt.reason = exchange.reason.get();
            }
        }
        Self {
            trace: trace.context.trace,
            random: trace.context.random,
            span: trace.context.parent,
            parent: trace.parent,
            state: trace.state.clone(),
            started: trace.started,
            total,
            listener: Name::clone(&exchange.listener),
            protocol: exchange.protocol,
            tls: trace.tls,
            client: exchange.client,
            user_agent: trace.user_agent.clone(),
            method: exchange.method.borrow().to_string(),
            host: exchange.host.borrow().to_string(),
            path: exchange.path.borrow().to_string(),
            request_id: exchange.request_id.borrow().to_string(),
            route: exchange.route.borrow().clone(),
            upstream: exchange.upstream.borrow().clone(),
            attempt_count: exchange.attempts.get(),
            status: exchange.status.get(),
            reason: exchange.reason.get(),
            detail: exchange.detail.borrow().clone(),
            received: exchange.received.get(),
            sent: exchange.sent.get(),
            attempts,
            lookups: trace.lookups.take(),
        }
    }

    /// How many spans it is.
    pub(super) fn spans(&self) -> u64 {
        let connects: usize = self.attempts.iter().map(|attempt| attempt.connects.len()).sum();
        (1 + self.lookups.len() + self.attempts.len() + connects) as u64
    }
}
