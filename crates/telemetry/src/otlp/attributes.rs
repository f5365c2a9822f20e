//! Attributes of OpenTelemetry's semantic conventions (HTTP: stable since 1.23), and the description of the sender.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use attache_config::model::Collector;
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
};

use crate::Reason;

/// Methods of RFC 9110 and RFC 5789. Other methods become `_OTHER`, because the number of values must be small.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// `http.request.method`, as one word out of a few; empty if there is no method.
pub(crate) fn method_word(method: &str) -> &'static str {
    if method.is_empty() {
        return "";
    }
    METHODS.into_iter().find(|known| *known == method).unwrap_or("_OTHER")
}

/// `network.protocol.version` of a client's protocol; empty if that isn't HTTP.
pub(crate) fn version_word(protocol: &str) -> &'static str {
    match protocol {
        "http1" => "1.1",
        "http2" => "2",
        _ => "",
    }
}

/// The sender.
pub(crate) fn resource(of: &Collector) -> Resource {
    let mut attributes = Attributes::default();
    attributes.text("service.name", &of.service);
    for (key, value) in &of.resource {
        attributes.text(key, value);
    }
    Resource { attributes: attributes.0, ..Resource::default() }
}

/// The program that made the data.
pub(crate) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "attache".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    }
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn nanos(at: SystemTime) -> u64 {
    whole(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn whole(since: Duration) -> u64 {
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The attributes of one span, record or series. Attributes without a value are left out.
#[derive(Debug, Default)]
pub(crate) struct Attributes(pub(crate) Vec<KeyValue>);

impl Attributes {
    fn put(&mut self, key: &str, value: Value) {
        let value = Some(AnyValue { value: Some(value) });
        self.0.push(KeyValue { key: key.into(), value, ..KeyValue::default() });
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.put(key, Value::StringValue(value.into()));
        }
    }

    pub(crate) fn number(&mut self, key: &str, value: u64) {
        self.put(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    pub(crate) fn seconds(&mut self, key: &str, value: Duration) {
        self.put(key, Value::DoubleValue(value.as_secs_f64()));
    }

    pub(crate) fn reason(&mut self, reason: Option<Reason>) {
        if let Some(reason) = reason {
            self.text("attache.reason", reason.as_str());
        }
    }

    /// `http.request.method`, and the original method if it isn't one of the known ones.
    pub(crate) fn method(&mut self, method: &str) {
        let word = method_word(method);
        self.text("http.request.method", word);
        if word == "_OTHER" {
            self.text("http.request.method_original", method);
        }
    }

    /// `server.address` and `server.port` of an authority. If no port is written, it is the default port of the scheme.
    pub(crate) fn server(&mut self, authority: &str, tls: bool) {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && !port.contains(']') => (host, port.parse().ok()),
            _ => (authority, None),
        };
        if host.is_empty() {
            return;
        }
        self.text("server.address", host.trim_start_matches('[').trim_end_matches(']'));
        self.number("server.port", port.unwrap_or(if tls { 443 } else { 80 }));
    }

    pub(crate) fn peer(&mut self, address: Option<SocketAddr>) {
        if let Some(address) = address {
            self.text("network.peer.address", &address.ip().to_string());
            self.number("network.peer.port", address.port().into());
        }
    }

    /// `error.type`: attache's reason, or else the status.
    pub(crate) fn error(&mut self, reason: Option<Reason>, status: u16) {
        match reason {
            Some(reason) => self.text("error.type", reason.as_str()),
            None => self.text("error.type", &status.to_string()),
        }
    }
}
