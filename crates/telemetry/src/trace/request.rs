//! What is recorded about one sampled request for its spans.

use std::{
    cell::RefCell,
    time::{Duration, Instant, SystemTime},
};

use attache_config::model::Name;
use attache_wire::{Fields, header::USER_AGENT};

use super::{SpanId, TraceContext, Tracer, w3c, wall_clock};
use crate::Reason;

/// What is recorded about a sampled request for its spans. It stays on its worker.
#[derive(Debug)]
pub struct RequestTrace {
    pub(super) tracer: Tracer,
    /// The context for the next service: its `parent` is the span of this request.
    pub(super) context: TraceContext,
    pub(super) parent: Option<SpanId>,
    pub(super) start: Instant,
    pub(super) started: SystemTime,
    pub(super) state: String,
    pub(super) tls: bool,
    pub(super) user_agent: Option<String>,
    pub(super) attempts: RefCell<Vec<AttemptSpan>>,
    pub(super) lookups: RefCell<Vec<LookupSpan>>,
}

/// One attempt. Its times count from the request's start.
#[derive(Debug)]
pub(super) struct AttemptSpan {
    pub(super) id: SpanId,
    pub(super) upstream: Name,
    /// Whether it was sent over TLS.
    pub(super) tls: bool,
    pub(super) endpoint: Option<Name>,
    pub(super) begin: Duration,
    pub(super) end: Option<Duration>,
    pub(super) status: u16,
    pub(super) reason: Option<Reason>,
    pub(super) connects: Vec<ConnectSpan>,
}

/// A look-up of a name that came with the request.
#[derive(Debug)]
pub(super) struct LookupSpan {
    pub(super) id: SpanId,
    pub(super) name: String,
    pub(super) begin: Duration,
    pub(super) end: Duration,
    pub(super) reason: Option<Reason>,
}

/// A look-up that takes less was answered from the cache, and gets no span.
const CACHED_LOOKUP: Duration = Duration::from_micros(100);

/// One connection that was opened, or that failed.
#[derive(Debug)]
pub(super) struct ConnectSpan {
    pub(super) id: SpanId,
    pub(super) endpoint: Name,
    pub(super) begin: Duration,
    /// When TCP (or the Unix socket) was connected.
    pub(super) connected: Option<Duration>,
    /// When TLS was established.
    pub(super) secured: Option<Duration>,
    pub(super) end: Duration,
    pub(super) reason: Option<Reason>,
}

impl RequestTrace {
    pub(super) fn new(
        tracer: Tracer,
        context: TraceContext,
        parent: Option<SpanId>,
        start: Instant,
        headers: &Fields,
        tls: bool,
    ) -> Self {
        Self {
            tracer,
            context,
            parent,
            start,
            started: wall_clock(start.elapsed()),
            state: w3c::state(headers),
            tls,
            user_agent: headers
                .get(USER_AGENT)
                .map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned()),
            attempts: RefCell::default(),
            lookups: RefCell::default(),
        }
    }

    pub(super) fn tracer(&self) -> Tracer {
        self.tracer.clone()
    }

    /// The id of the request's own span.
    pub const fn span_id(&self) -> SpanId {
        self.context.parent
    }

    pub(crate) fn looked_up(&self, name: &str, begun: Instant, outcome: Result<(), Reason>) {
        let (from, end) = (begun.saturating_duration_since(self.start), self.start.elapsed());
        if end.saturating_sub(from) < CACHED_LOOKUP {
            return;
        }
        let (id, reason) = (SpanId::new(), outcome.err());
        self.lookups.borrow_mut().push(LookupSpan { id, name: name.to_owned(), begin: from, end, reason });
    }

    /// The last attempt failed for this reason, and another one follows.
    pub fn tried_again(&self, reason: Reason) {
        if let Some(last) = self.attempts.borrow_mut().last_mut() {
            last.reason.get_or_insert(reason);
            last.end.get_or_insert(self.start.elapsed());
        }
    }
}
