//! What is known about one request or connection. Each layer fills it in, and it is read once, at its end.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use attache_config::model::Name;
use attache_wire::{
    Fields, KnownName, ValueRef,
    header::{GRPC_MESSAGE, GRPC_STATUS},
};

use crate::{
    Reason, SeenHeaders, SharedText,
    access_log::NamedHeaders,
    grpc::{grpc_as_http, grpc_code},
    trace::{RequestTrace, TraceId},
};

/// The record of one HTTP request or of one opaque connection. It stays on its worker. Every layer that the exchange passes through writes
/// what only that layer knows.
#[derive(Debug)]
pub struct Exchange {
    /// The listener that received it.
    pub listener: Name,
    /// When its first byte was read.
    pub start: Instant,
    /// The client's address.
    pub client: Option<SocketAddr>,
    /// The protocol: `http1`, `http2`, `tcp` or `tls`.
    pub protocol: &'static str,
    /// Request method; empty for opaque connections.
    pub method: RefCell<SharedText>,
    /// Host or SNI.
    pub host: RefCell<SharedText>,
    /// Path without the query (queries carry secrets).
    pub path: RefCell<SharedText>,
    /// `X-Request-Id`.
    pub request_id: RefCell<SharedText>,
    /// The route that matched.
    pub route: RefCell<Option<Name>>,
    /// The identity that the client has proven (TLS).
    pub identity: RefCell<Option<Name>>,
    /// The identity that the upstream's endpoint has proven in the last attempt (TLS).
    pub peer: RefCell<Option<Name>>,
    /// The upstream that was chosen.
    pub upstream: RefCell<Option<Name>>,
    /// The endpoint of the last attempt, as text.
    pub endpoint: RefCell<Option<Name>>,
    /// How many attempts were started; 0 if attache answered by itself.
    pub attempts: Cell<u32>,
    /// How many of these were hedges: attempts that started while another one was still running.
    pub hedges: Cell<u32>,
    /// Whether the response came from a hedge.
    pub hedge_won: Cell<bool>,
    /// The status that was sent to the client; 0 for opaque connections, or if none was sent.
    pub status: Cell<u16>,
    /// The response's `grpc-status`, if it has one.
    pub grpc_status: Cell<Option<u8>>,
    /// Why it failed, if it did.
    pub reason: Cell<Option<Reason>>,
    /// The cause in the words of the system or the peer, for the log.
    pub detail: RefCell<Option<String>>,
    /// Body bytes from the client.
    pub received: Cell<u64>,
    /// Body bytes to the client.
    pub sent: Cell<u64>,
    /// The time from `start` to the head of the upstream's response.
    pub time_to_head: Cell<Option<Duration>>,
    /// The headers that the access log contains; empty if it contains none.
    pub(crate) noted: RefCell<NamedHeaders>,
    /// The trace that it belongs to, sampled or not.
    pub trace_id: Cell<Option<TraceId>>,
    /// Its spans, if the trace is sampled.
    pub trace: RefCell<Option<Rc<RequestTrace>>>,
    /// While an upstream has the request: when it was given to it.
    asked: Cell<Option<Instant>>,
    /// How long upstreams had the request, in attempts that have ended.
    waited: Cell<Duration>,
    /// Whether it came over TLS.
    pub secure: Cell<bool>,
    /// Whether it is counted as in flight; at its end it is subtracted.
    pub in_flight: Cell<bool>,
    /// It outlives its response (a tunnel): the code that set this reports its end, not the listener.
    pub handed_over: Cell<bool>,
    /// The client had waited, and ended its side before there was a response.
    pub(crate) left: Cell<bool>,
    /// Its headers, with secrets removed; kept only while somebody follows exchanges.
    pub seen: RefCell<Option<Box<SeenHeaders>>>,
}

impl Exchange {
    /// A record that starts now.
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

    /// Keeps the request's headers for those who follow exchanges.
    pub fn see_request(&self, headers: &Fields) {
        let request = SeenHeaders::redact(headers);
        *self.seen.borrow_mut() = Some(Box::new(SeenHeaders { request, ..SeenHeaders::default() }));
    }

    /// Keeps the response's headers, if the request's were kept.
    pub fn see_response(&self, headers: &Fields) {
        if let Some(seen) = &mut *self.seen.borrow_mut() {
            seen.response = SeenHeaders::redact(headers);
        }
    }

    /// A record for an attempt that runs beside another one. It is separate until [`Self::take_over`]. Its span belongs to the same trace.
    pub fn beside(&self) -> Self {
        let beside = Self::new(self.listener.clone(), self.protocol, self.client);
        beside.method.replace(self.method.borrow().clone());
        beside.trace_id.set(self.trace_id.get());
        beside.trace.replace(self.trace.borrow().clone());
        beside
    }

    /// Takes over the record `other`, because its attempt is the one that counts.
    pub fn take_over(&self, other: &Self) {
        self.endpoint.swap(&other.endpoint);
        self.asked.set(other.asked.get());
    }

    /// Notes a failure with its cause. A later failure replaces it.
    pub fn fail(&self, reason: Reason, detail: impl Into<String>) {
        self.reason.set(Some(reason));
        *self.detail.borrow_mut() = Some(detail.into());
    }

    /// Reads the response's trailers: in gRPC, they say how the call ended.
    pub fn ended_by_trailers(&self, trailers: &http::HeaderMap) {
        let value = |name: KnownName| trailers.get(name.as_str()).map(http::HeaderValue::as_bytes);
        self.ended_by(value(GRPC_STATUS), value(GRPC_MESSAGE));
    }

    /// The same for the head of a response without a body.
    pub fn ended_by_head(&self, headers: &Fields) {
        let value = |name: KnownName| headers.get(name).map(ValueRef::as_bytes);
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

    /// The HTTP status of the outcome. For a gRPC call it is the status that corresponds to its `grpc-status`, because the status of its
    /// response is always 200.
    pub fn outcome(&self) -> u16 {
        self.grpc_status.get().map_or(self.status.get(), grpc_as_http)
    }

    /// Notes that a name from the request was looked up, from `begun` until now.
    pub fn looked_up(&self, name: &str, begun: Instant, outcome: Result<(), Reason>) {
        if let Some(trace) = &*self.trace.borrow() {
            trace.looked_up(name, begun, outcome);
        }
    }

    /// Notes that a connection exists and the request is being sent on it: from now on the upstream is what takes time.
    pub fn handed_to_upstream(&self) {
        self.asked.set(Some(Instant::now()));
    }

    /// Notes that this attempt has ended, and that another one follows for this reason: from now on attache is what takes time.
    pub fn tried_again(&self, reason: Reason) {
        if let Some(asked) = self.asked.take() {
            self.waited.set(self.waited.get() + asked.elapsed());
        }
        if let Some(trace) = &*self.trace.borrow() {
            trace.tried_again(reason);
        }
    }

    /// Says what a timeout waited for: where the request was when the time was over.
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

    /// How long upstreams had the request before the head of a response arrived, if one arrived.
    pub fn upstream_time(&self) -> Option<Duration> {
        let head = self.time_to_head.get()?;
        let asked = self.asked.get()?.duration_since(self.start);
        Some(self.waited.get() + head.saturating_sub(asked))
    }
}
