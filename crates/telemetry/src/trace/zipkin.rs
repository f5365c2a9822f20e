//! Converts spans to Zipkin's form: a JSON list for `POST /api/v2/spans` (<https://zipkin.io/zipkin-api/>).
//!
//! They are made from OTLP's spans by OpenTelemetry's rules ("Span transformation to Zipkin"), so that both exports say the same:
//! attributes become tags, events become annotations, and the status becomes the tag `error`. Times are full microseconds, and a duration
//! is at least one.

use opentelemetry_proto::tonic::{
    common::v1::{KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use serde_json::{Map, json};

use super::{convert, finished::FinishedTrace};

pub(super) fn encode(resource: &Resource, finished: &[Box<FinishedTrace>]) -> Vec<u8> {
    let scopes = convert::resource_spans(resource, finished).scope_spans;
    let spans: Vec<_> = scopes.iter().flat_map(|scope| &scope.spans).map(|one| span(resource, one)).collect();
    // This could fail only for a map whose keys are not texts.
    serde_json::to_vec(&spans).unwrap_or_default()
}

fn span(resource: &Resource, of: &Span) -> serde_json::Value {
    let micros = |nanos: u64| nanos / 1000;
    let begin = micros(of.start_time_unix_nano);
    let mut out = json!({
        "traceId": hex(&of.trace_id),
        "id": hex(&of.span_id),
        "name": of.name,
        "timestamp": begin,
        "duration": micros(of.end_time_unix_nano).saturating_sub(begin).max(1),
        "localEndpoint": { "serviceName": find(&resource.attributes, "service.name").unwrap_or_default() },
    });
    if !of.parent_span_id.is_empty() {
        out["parentId"] = hex(&of.parent_span_id).into();
    }
    let server = of.kind == i32::from(SpanKind::Server);
    if server || of.kind == i32::from(SpanKind::Client) {
        out["kind"] = if server { "SERVER" } else { "CLIENT" }.into();
        out["remoteEndpoint"] = remote(of, server);
    }
    if !of.events.is_empty() {
        let annotation = of
            .events
            .iter()
            .map(|event| json!({ "timestamp": micros(event.time_unix_nano), "value": event.name }));
        out["annotations"] = annotation.collect();
    }
    // Zipkin has no resource: its attributes become tags of the request's span.
    let more = resource.attributes.iter().filter(|one| server && one.key != "service.name");
    let tags = of.attributes.iter().chain(more);
    let mut tags: Map<_, _> = tags.filter_map(|one| Some((one.key.clone(), text(one)?.into()))).collect();
    if let Some(status) = of.status.as_ref().filter(|status| status.code == i32::from(StatusCode::Error)) {
        let what = Some(status.message.clone()).filter(|message| !message.is_empty());
        tags.insert(
            "error".into(),
            what.or_else(|| find(&of.attributes, "error.type")).unwrap_or_default().into(),
        );
    }
    out["tags"] = tags.into();
    out
}

/// The other side: its address, and for an upstream its name.
fn remote(of: &Span, server: bool) -> serde_json::Value {
    let mut out = Map::new();
    if let Some(address) = find(&of.attributes, "network.peer.address") {
        let key = if address.contains(':') { "ipv6" } else { "ipv4" };
        out.insert(key.into(), address.into());
    }
    if let Some(port) = find(&of.attributes, "network.peer.port").and_then(|port| port.parse::<u16>().ok()) {
        out.insert("port".into(), port.into());
    }
    if let Some(name) = find(&of.attributes, "attache.upstream").filter(|_| !server) {
        out.insert("serviceName".into(), name.into());
    }
    out.into()
}

fn find(attributes: &[KeyValue], key: &str) -> Option<String> {
    attributes.iter().find(|one| one.key == key).and_then(text)
}

/// Tags can only be texts.
fn text(one: &KeyValue) -> Option<String> {
    match one.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        Value::BoolValue(is) => Some(is.to_string()),
        Value::DoubleValue(number) => Some(number.to_string()),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String never fails.
        let _ = write!(out, "{byte:02x}");
    }
    out
}
