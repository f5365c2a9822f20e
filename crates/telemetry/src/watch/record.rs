//! One exchange that ended, as text.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use attache_config::model::Name;
use serde_json::{Value, json};

use super::SeenHeaders;
use crate::{Exchange, Reason, access_log::LogTimestamp};

/// The most bytes of one text that are kept, because clients decide how long texts are.
const MAX_TEXT_BYTES: usize = 512;

/// One exchange that ended: the contents of its access log line, and its headers if they were kept.
#[derive(Clone, Debug)]
pub struct ExchangeRecord {
    /// When it ended.
    pub at: SystemTime,
    /// The listener that received it.
    pub listener: Name,
    /// The protocol: `http1`, `http2`, `tcp` or `tls`.
    pub protocol: &'static str,
    /// The client's address.
    pub client: Option<SocketAddr>,
    /// Method; empty for opaque connections.
    pub method: String,
    /// Host or SNI.
    pub host: String,
    /// Path without the query.
    pub path: String,
    /// `X-Request-Id`.
    pub request_id: String,
    /// The route that matched.
    pub route: Option<Name>,
    /// The upstream that was chosen.
    pub upstream: Option<Name>,
    /// The endpoint of the last attempt.
    pub endpoint: Option<Name>,
    /// How many attempts were started.
    pub attempts: u32,
    /// The status that was sent to the client; 0 if none was.
    pub status: u16,
    /// Why it failed, if it did.
    pub reason: Option<Reason>,
    /// The cause in the system's or peer's words.
    pub detail: String,
    /// How long it took.
    pub total: Duration,
    /// The time until the head of the upstream's response.
    pub head: Option<Duration>,
    /// Body bytes from the client.
    pub received: u64,
    /// Body bytes to the client.
    pub sent: u64,
    /// The headers, with secrets removed; kept only while somebody follows exchanges.
    pub headers: Option<Box<SeenHeaders>>,
}

impl ExchangeRecord {
    /// The record of an exchange that ended now.
    pub(crate) fn of(exchange: &Exchange, total: Duration) -> Self {
        let mut record = Self {
            at: SystemTime::UNIX_EPOCH,
            listener: exchange.listener.clone(),
            protocol: "",
            client: None,
            method: String::new(),
            host: String::new(),
            path: String::new(),
            request_id: String::new(),
            route: None,
            upstream: None,
            endpoint: None,
            attempts: 0,
            status: 0,
            reason: None,
            detail: String::new(),
            total,
            head: None,
            received: 0,
            sent: 0,
            headers: None,
        };
        record.fill(exchange, total);
        record
    }

    /// Turns it into the record of another exchange. Its texts keep their memory.
    pub(super) fn fill(&mut self, exchange: &Exchange, total: Duration) {
        self.at = SystemTime::now();
        self.listener = exchange.listener.clone();
        self.protocol = exchange.protocol;
        self.client = exchange.client;
        put(&mut self.method, &exchange.method.borrow());
        put(&mut self.host, &exchange.host.borrow());
        put(&mut self.path, &exchange.path.borrow());
        put(&mut self.request_id, &exchange.request_id.borrow());
        self.route.clone_from(&exchange.route.borrow());
        self.upstream.clone_from(&exchange.upstream.borrow());
        self.endpoint.clone_from(&exchange.endpoint.borrow());
        self.attempts = exchange.attempts.get();
        self.status = exchange.status.get();
        self.reason = exchange.reason.get();
        put(&mut self.detail, exchange.detail.borrow().as_deref().unwrap_or_default());
        self.total = total;
        self.head = exchange.time_to_head.get();
        self.received = exchange.received.get();
        self.sent = exchange.sent.get();
        self.headers.clone_from(&exchange.seen.borrow());
    }

    /// As JSON, with the access log's keys; a missing value is `null`.
    pub fn json(&self) -> Value {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let millis = |duration: Duration| duration.as_micros() as f64 / 1000.0;
        let mut value = json!({
            "time": LogTimestamp(self.at).to_string(),
            "status": Some(self.status).filter(|status| *status != 0),
            "reason": self.reason.map(Reason::as_str),
            "envoy_flag": self.reason.map(Reason::envoy_flag).filter(|flag| *flag != "-"),
            "detail": some(&self.detail),
            "method": some(&self.method),
            "host": some(&self.host),
            "path": some(&self.path),
            "protocol": self.protocol,
            "listener": &*self.listener,
            "route": self.route.as_deref(),
            "upstream": self.upstream.as_deref(),
            "endpoint": self.endpoint.as_deref(),
            "attempts": self.attempts,
            "total_ms": millis(self.total),
            "head_ms": self.head.map(millis),
            "received_bytes": self.received,
            "sent_bytes": self.sent,
            "client": self.client.map(|client| client.to_string()),
            "request_id": some(&self.request_id),
        });
        if let (Some(headers), Some(object)) = (&self.headers, value.as_object_mut()) {
            object.insert("request_headers".to_owned(), SeenHeaders::json(&headers.request));
            object.insert("response_headers".to_owned(), SeenHeaders::json(&headers.response));
        }
        value
    }
}

/// Replaces a text; a long one is cut.
fn put(into: &mut String, text: &str) {
    into.clear();
    let end = (0..=text.len().min(MAX_TEXT_BYTES)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    into.push_str(text.get(..end).unwrap_or_default());
    if end < text.len() {
        into.push('…');
    }
}
