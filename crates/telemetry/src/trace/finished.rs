//! A sampled request that has ended, for the export of its spans.

use std::time::{Duration, SystemTime};

use super::{
    SpanId, TraceId,
    request::{AttemptSpan, LookupSpan, RequestTrace},
};
use crate::{Exchange, snapshot::ExchangeSnapshot};

/// Everything from which the control thread makes the spans.
#[derive(Debug)]
pub(super) struct FinishedTrace {
    pub(super) trace: TraceId,
    pub(super) random: bool,
    pub(super) span: SpanId,
    pub(super) parent: Option<SpanId>,
    pub(super) state: String,
    pub(super) started: SystemTime,
    pub(super) exchange: ExchangeSnapshot,
    pub(super) tls: bool,
    pub(super) user_agent: Option<String>,
    pub(super) attempts: Vec<AttemptSpan>,
    pub(super) lookups: Vec<LookupSpan>,
}

impl FinishedTrace {
    pub(super) fn of(trace: &RequestTrace, exchange: &Exchange, total: Duration) -> Self {
        let mut attempts = trace.attempts.take();
        let count = attempts.len();
        for (index, attempt) in attempts.iter_mut().enumerate() {
            let last = index + 1 == count;
            // The last attempt's response was passed on to the client; the responses of the others were dropped.
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
            exchange: ExchangeSnapshot::of(exchange, total),
            tls: trace.tls,
            user_agent: trace.user_agent.clone(),
            attempts,
            lookups: trace.lookups.take(),
        }
    }

    /// How many spans it has.
    pub(super) fn spans(&self) -> u64 {
        let connects: usize = self.attempts.iter().map(|attempt| attempt.connects.len()).sum();
        (1 + self.lookups.len() + self.attempts.len() + connects) as u64
    }
}
