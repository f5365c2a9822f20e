//! What is known of one request or connection: filled as it travels, read once at its end.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use attache_config::model::Name;
use attache_wire::{
    Fields, Known, Value,
    header::{GRPC_MESSAGE, GRPC_STATUS},
};

use crate::{
    Reason, SeenHeaders, Text,
    access_log::NamedHeaders,
    grpc::{grpc_as_http, grpc_code},
    trace::{RequestTrace, TraceId},
};

/// The record of one HTTP request, or of one opaque connection. It stays on its worker; every layer
/// that the exchange passes through writes what it alone knows.
#[derive(Debug)]
pub struct Exchange {
    /// The listener it came in by.
    pub listener: Name,
    /// When its first byte was read.
    pub start: Instant,
    /// Who called.
    pub client: Option<SocketAddr>,
    /// `http1`, `http2`, `tcp`, `tls`.
    pub protocol: &'static str,
    /// Request method; empty for opaque connections.
    pub method: RefCell<Text>,
    /// Host or SNI.
    pub host: RefCell<Text>,
    /// Path without the query (queries carry secrets).
    pub path: RefCell<Text>,
    /// `X-Request-Id`.
    pub request_id: RefCell<Text>,
    /// The route that matched.
    pub route: RefCell<Option<Name>>,
    /// Who the client has proven to be (TLS).
    pub identity: RefCell<Option<Name>>,
    /// Who the upstream of the last attempt has proven to be (TLS).
    pub peer: RefCell<Option<Name>>,
    /// The upstream that was chosen.
    pub upstream: RefCell<Option<Name>>,
    /// The endpoint of the last attempt, as text.
    pub endpoint: RefCell<Option<Name>>,
    /// Started attempts; 0 if attache answered by itself.
    pub attempts: Cell<u32>,
    /// Hedges among them: attempts that were started beside a slow one.
    pub hedges: Cell<u32>,
    /// The answer came from a hedge.
    pub hedge_won: Cell<bool>,
    /// Status that the client was sent; 0 for opaque connections or where none was sent.
    pub status: Cell<u16>,
    /// The answer's `grpc-status`, where it has one.
    pub grpc_status: Cell<Option<u8>>,
    /// Why it failed, if it did.
    pub reason: Cell<Option<Reason>>,
    /// The cause in the system's or peer's words, for the log.
    pub detail: RefCell<Option<String>>,
    /// Body bytes from the client.
    pub received: Cell<u64>,
    /// Body bytes to the client.
    pub sent: Cell<u64>,
    /// From `start` to the upstream's response head.
    pub time_to_head: Cell<Option<Duration>>,
    /// Headers that the access log names; empty where it names none.
    pub(crate) noted: RefCell<NamedHeaders>,
    /// The trace that it belongs to, sampled or not.
    pub trace_id: Cell<Option<TraceId>>,
    /// Its spans, where the trace is sampled.
    pub trace: RefCell<Option<Rc<RequestTrace>>>,
    /// When the upstream was last given the request, while it has it.
    asked: Cell<Option<Instant>>,
    /// How long upstreams had the request, in attempts that are over.
    waited: Cell<Duration>,
    /// It came over TLS.
    pub secure: Cell<bool>,
    /// It is counted as in flight; its end takes it off again.
    pub in_flight: Cell<bool>,
    /// It outlives its response (a tunnel): the code that set this reports its end, and not the listener.
    pub handed_over: Cell<bool>,
    /// Its client had waited, and ended its side before there was an answer.
    pub(crate) left: Cell<bool>,
    /// Its headers, redacted; only while somebody follows exchanges.
    pub seen: RefCell<Option<Box<SeenHeaders>>>,
}

impl Exchange {
    /// A record that begins now.
    #[inline]
    pub fn new(listener: Name, protocol: &'static str, client: Option<SocketAddr>) -> Self {
        Self {
            listener,
            start: Instant::now(),
            client,
            protocol,
            method: RefCell::default(),
            host: RefCell::default(),
            path: RefCell::default(),
            request_id: RefCell::default(),
            route: RefCell::default(),
            identity: RefCell::default(),
            peer: RefCell::default(),
            upstream: RefCell::default(),
            endpoint: RefCell::default(),
            attempts: Cell::new(0),
            hedges: Cell::new(0),
            hedge_won: Cell::new(false),
            status: Cell::new(0),
            grpc_status: Cell::new(None),
            reason: Cell::new(None),
            detail: RefCell::default(),
            received: Cell::new(0),
            sent: Cell::new(0),
            time_to_head: Cell::new(None),
            noted: RefCell::default(),
            trace_id: Cell::new(None),
            trace: RefCell::default(),
            asked: Cell::new(None),
            waited: Cell::new(Duration::ZERO),
            secure: Cell::new(false),
            in_flight: Cell::new(false),
            handed_over: Cell::new(false),
            left: Cell::new(false),
            seen: RefCell::default(),
        }
    }

    /// Notes the request's headers for those who follow exchanges.
    pub fn see_request(&self, headers: &Fields) {
        let request = SeenHeaders::redact(headers);
        *self.seen.borrow_mut() = Some(Box::new(SeenHeaders { request, ..SeenHeaders::default() }));
    }

    /// Notes the response's headers, if the request's were noted.
    pub fn see_response(&self, headers: &Fields) {
        if let Some(seen) = &mut *self.seen.borrow_mut() {
            seen.response = SeenHeaders::redact(headers);
        }
    }

    /// The record of an attempt that runs beside another one: what it writes is its own until [`Self::take_over`].
    /// Its span belongs to the same trace.
    pub fn beside(&self) -> Self {
        let beside = Self::new(self.listener.clone(), self.protocol, self.client);
        beside.method.replace(self.method.borrow().clone());
        beside.trace_id.set(self.trace_id.get());
        beside.trace.replace(self.trace.borrow().clone());
        beside
    }

    /// The attempt that wrote to `other` is the one that counts.
    pub fn take_over(&self, other: &Self) {
        self.endpoint.swap(&other.endpoint);
        self.asked.set(other.asked.get());
    }

    /// Notes a failure with its cause; the last one stands.
    pub fn fail(&self, reason: Reason, detail: impl Into<String>) {
        self.reason.set(Some(reason));
        *self.detail.borrow_mut() = Some(detail.into());
    }

    /// The answer's trailers: a gRPC call says there how it ended.
    pub fn ended_by_trailers(&self, trailers: &http::HeaderMap) {
        let value = |name: Known| trailers.get(name.as_str()).map(http::HeaderValue::as_bytes);
        self.ended_by(value(GRPC_STATUS), value(GRPC_MESSAGE));
    }

    /// The same for the head of an answer without a body.
    pub fn ended_by_head(&self, headers: &Fields) {
        let value = |name: Known| headers.get(name).map(Value::as_bytes);
        self.ended_by(value(GRPC_STATUS), value(GRPC_MESSAGE));
    }

    fn ended_by(&self, status: Option<&[u8]>, message: Option<&[u8]>) {
        let Some(status) = status.and_then(grpc_code) else { return };
        self.grpc_status.set(Some(status));
        if self.outcome() >= 500 && self.reason.get().is_none() {
            let message = String::from_utf8_lossy(message.unwrap_or_default());
            let message = if message.is_empty() { message } else { format!(": {message}").into() };
            *self.detail.borrow_mut() = Some(format!("grpc-status {status} from the upstream{message}"));
        }
    }

    /// The HTTP status of the outcome: for a gRPC call the one that corresponds to its `grpc-status`, because its own
    /// is always 200.
    pub fn outcome(&self) -> u16 {
        self.grpc_status.get().map_or(self.status.get(), grpc_as_http)
    }

    /// A name from the request was looked up, from `begun` until now.
    pub fn looked_up(&self, name: &str, begun: Instant, outcome: Result<(), Reason>) {
        if let Some(trace) = &*self.trace.borrow() {
            trace.looked_up(name, begun, outcome);
        }
    }

    /// A connection is there and the request goes out on it: from now on it is the upstream that takes time.
    pub fn handed_to_upstream(&self) {
        self.asked.set(Some(Instant::now()));
    }

    /// The upstream is done with this attempt, and another follows for this reason: from now on it is we who take time.
    pub fn tried_again(&self, reason: Reason) {
        if let Some(asked) = self.asked.take() {
            self.waited.set(self.waited.get() + asked.elapsed());
        }
        if let Some(trace) = &*self.trace.borrow() {
            trace.tried_again(reason);
        }
    }

    /// Where the request was when its time was over: what a timeout waited for.
    pub fn waited_for(&self) -> String {
        let shown = |time: Duration| format!("{:?}", Duration::from_millis(time.as_millis() as u64));
        match self.asked.get() {
            Some(at) => format!("the endpoint had the request for {}", shown(at.elapsed())),
            None if !self.waited.get().is_zero() => {
                format!("endpoints had it for {} in all, and none had it then", shown(self.waited.get()))
            }
            None => "no endpoint had the request yet: it waited for a connection".to_owned(),
        }
    }

    /// How long upstreams had the request before there was the head of a response, where there was one.
    pub fn upstream_time(&self) -> Option<Duration> {
        let head = self.time_to_head.get()?;
        let asked = self.asked.get()?.duration_since(self.start);
        Some(self.waited.get() + head.saturating_sub(asked))
    }
}
