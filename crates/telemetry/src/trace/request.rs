//! The spans of one sampled request, while it runs and when it has ended.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use attache_config::model::Name;
use attache_wire::{Fields, header::USER_AGENT};

use super::{Context, SpanId, TraceId, Tracer, w3c, wall_clock};
use crate::{Exchange, Reason};

/// What is noted of a sampled request for its spans. It stays on its worker.
#[derive(Debug)]
pub struct RequestTrace {
    tracer: Tracer,
    /// `parent` is this request's own span.
    context: Context,
    parent: Option<SpanId>,
    start: Instant,
    started: SystemTime,
    state: String,
    tls: bool,
    user_agent: Option<String>,
    attempts: RefCell<Vec<AttemptSpan>>,
    lookups: RefCell<Vec<LookupSpan>>,
}

/// One try, as times since the request's start.
#[derive(Debug)]
pub(super) struct AttemptSpan {
    pub(super) id: SpanId,
    pub(super) upstream: Name,
    /// What it was sent over.
    pub(super) tls: bool,
    pub(super) endpoint: Option<Name>,
    pub(super) begin: Duration,
    pub(super) end: Option<Duration>,
    pub(super) status: u16,
    pub(super) reason: Option<Reason>,
    pub(super) connects: Vec<ConnectSpan>,
}

/// A look-up of a name that the request brought with it.
#[derive(Debug)]
pub(super) struct LookupSpan {
    pub(super) id: SpanId,
    pub(super) name: String,
    pub(super) begin: Duration,
    pub(super) end: Duration,
    pub(super) reason: Option<Reason>,
}

/// An answer that is at hand takes less, and is no span.
const AT_HAND: Duration = Duration::from_micros(100);

/// One connection that was made, or was not.
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
        context: Context,
        parent: Option<SpanId>,
        exchange: &Exchange,
        headers: &Fields,
        tls: bool,
    ) -> Self {
        Self {
            tracer,
            context,
            parent,
            start: exchange.start,
            started: wall_clock(exchange.start.elapsed()),
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
        if end.saturating_sub(from) < AT_HAND {
            return;
        }
        let (id, reason) = (SpanId::new(), outcome.err());
        self.lookups.borrow_mut().push(LookupSpan { id, name: name.to_owned(), begin: from, end, reason });
    }

    /// The last try failed for this reason and is followed by another.
    pub fn tried_again(&self, reason: Reason) {
        if let Some(last) = self.attempts.borrow_mut().last_mut() {
            last.reason.get_or_insert(reason);
            last.end.get_or_insert(self.start.elapsed());
        }
    }
}

/// One try that runs. Dropped before it was told its end, it was given up.
#[derive(Debug)]
pub struct AttemptTrace {
    trace: Rc<RequestTrace>,
    index: usize,
    ended: Cell<bool>,
}

impl AttemptTrace {
    /// Begins the span of a try and writes its id into the request, where the exchange is sampled.
    pub fn begin(
        exchange: &Exchange,
        upstream: &Name,
        tls: bool,
        headers: Option<&mut Fields>,
    ) -> Option<Self> {
        let trace = exchange.trace.borrow().clone()?;
        let id = SpanId::new();
        if let Some(headers) = headers {
            trace.tracer.inject(headers, Context { parent: id, ..trace.context });
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

    /// Begins the span of a connection that this try needs. It ends when it is dropped.
    pub fn connecting(&self, endpoint: &Name) -> Connecting {
        let times = ConnectSpan {
            id: SpanId::new(),
            endpoint: Name::clone(endpoint),
            begin: self.trace.start.elapsed(),
            connected: None,
            secured: None,
            end: Duration::ZERO,
            reason: None,
        };
        Connecting { trace: self.trace.clone(), index: self.index, span: Some(times) }
    }

    /// The upstream answered: the try goes on until the response's end.
    pub fn responded(&self, exchange: &Exchange, status: u16) {
        self.note(exchange, |span, _| span.status = status);
    }

    /// The try brought no response.
    pub fn failed(&self, exchange: &Exchange, reason: Reason) {
        self.note(exchange, |span, now| (span.reason, span.end) = (Some(reason), Some(now)));
    }

    fn note(&self, exchange: &Exchange, change: impl FnOnce(&mut AttemptSpan, Duration)) {
        self.ended.set(true);
        let now = self.trace.start.elapsed();
        if let Some(span) = self.trace.attempts.borrow_mut().get_mut(self.index) {
            // A race may have ended at another endpoint than the picked one.
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

/// A connection that is being made for a try.
#[derive(Debug)]
pub struct Connecting {
    trace: Rc<RequestTrace>,
    index: usize,
    span: Option<ConnectSpan>,
}

impl Connecting {
    /// How it ended: how long TCP and TLS took, and why it failed if it did.
    pub fn ended(mut self, tcp: Option<Duration>, tls: Option<Duration>, outcome: Result<(), Reason>) {
        if let Some(span) = &mut self.span {
            span.connected = tcp.map(|tcp| span.begin + tcp);
            span.secured = tls.map(|tls| span.connected.unwrap_or(span.begin) + tls);
            span.reason = outcome.err();
        }
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        let Some(mut span) = self.span.take() else { return };
        span.end = self.trace.start.elapsed();
        if let Some(attempt) = self.trace.attempts.borrow_mut().get_mut(self.index) {
            attempt.connects.push(span);
        }
    }
}

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
    pub(super) tries: u32,
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
            tries: exchange.tries.get(),
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
