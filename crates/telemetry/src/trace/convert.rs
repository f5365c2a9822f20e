//! Converts spans to OTLP, with the attributes of OpenTelemetry's semantic conventions for HTTP (stable since 1.23).
//!
//! In contrast to the conventions, queries are left out, because they carry secrets: `url.full` ends before the query. Attributes that the
//! conventions don't have begin with `attache.`.

use std::time::Duration;

use opentelemetry_proto::tonic::{
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Event, SpanKind},
        status::StatusCode,
    },
};

use super::{
    SpanId,
    finished::FinishedTrace,
    request::{AttemptSpan, ConnectSpan},
};
use crate::{
    Reason,
    otlp::{Attributes, method_word, nanos, scope},
};

/// The third flag of a span: it is known whether its parent is in another process (OTLP, `SpanFlags`).
const REMOTE_KNOWN: u32 = 0x100;
const REMOTE: u32 = 0x200;

pub(super) fn resource_spans(resource: &Resource, finished: &[Box<FinishedTrace>]) -> ResourceSpans {
    let mut spans = Vec::with_capacity(finished.iter().map(|one| one.spans() as usize).sum());
    for one in finished {
        request(one, &mut spans);
    }
    ResourceSpans {
        resource: Some(resource.clone()),
        scope_spans: vec![ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    }
}

/// The name of a span: the method, or `HTTP` if the method isn't a known one.
fn name_of(method: &str) -> &str {
    match method_word(method) {
        "" | "_OTHER" => "HTTP",
        _ => method,
    }
}

fn span(of: &FinishedTrace, id: SpanId, parent: Option<SpanId>, kind: SpanKind, name: &str) -> Span {
    let sampled = 1 | if of.random { 2 } else { 0 };
    Span {
        trace_id: of.trace.0.to_be_bytes().to_vec(),
        span_id: id.0.to_be_bytes().to_vec(),
        parent_span_id: parent.map(|parent| parent.0.to_be_bytes().to_vec()).unwrap_or_default(),
        trace_state: of.state.clone(),
        flags: sampled | REMOTE_KNOWN | if parent.is_some() && parent == of.parent { REMOTE } else { 0 },
        name: name.into(),
        kind: kind.into(),
        ..Span::default()
    }
}

fn timed(span: &mut Span, of: &FinishedTrace, begin: Duration, end: Duration) {
    span.start_time_unix_nano = nanos(of.started + begin);
    span.end_time_unix_nano = nanos(of.started + end.max(begin));
}

fn failed(reason: Option<Reason>, detail: Option<&str>) -> Status {
    let message = match (reason, detail) {
        (Some(reason), Some(detail)) if !detail.is_empty() => format!("{reason}: {detail}"),
        (Some(reason), _) => reason.to_string(),
        (None, _) => String::new(),
    };
    Status { code: StatusCode::Error.into(), message }
}

fn request(of: &FinishedTrace, out: &mut Vec<Span>) {
    let mut server = span(of, of.span, of.parent, SpanKind::Server, name_of(&of.exchange.method));
    timed(&mut server, of, Duration::ZERO, of.exchange.total);
    let mut about = Attributes::default();
    about.method(&of.exchange.method);
    about.text("url.scheme", if of.tls { "https" } else { "http" });
    about.text("url.path", &of.exchange.path);
    about.server(&of.exchange.host, of.tls);
    about.text("network.protocol.version", if of.exchange.protocol == "http2" { "2" } else { "1.1" });
    if let Some(client) = of.exchange.client {
        about.text("client.address", &client.ip().to_string());
        about.number("client.port", client.port().into());
    }
    about.peer(of.exchange.client);
    about.text("user_agent.original", of.user_agent.as_deref().unwrap_or_default());
    about.number("http.request.body.size", of.exchange.received);
    about.number("http.response.body.size", of.exchange.sent);
    if of.exchange.status != 0 {
        about.number("http.response.status_code", of.exchange.status.into());
    }
    about.text("attache.listener", &of.exchange.listener);
    about.text("attache.route", of.exchange.route.as_deref().unwrap_or_default());
    about.text("attache.upstream", of.exchange.upstream.as_deref().unwrap_or_default());
    about.text("attache.request_id", &of.exchange.request_id);
    about.number("attache.attempts", of.exchange.attempts.into());
    about.reason(of.exchange.reason);
    // If a server answers with a 4xx, it is the client's error, and the span has no error (semantic conventions, "Status").
    if of.exchange.status >= 500
        || (of.exchange.reason.is_some() && !(400..500).contains(&of.exchange.status))
    {
        about.error(of.exchange.reason, of.exchange.status);
        server.status = Some(failed(of.exchange.reason, of.exchange.detail.as_deref()));
    }
    server.attributes = about.0;
    out.push(server);
    for one in &of.lookups {
        let mut lookup = span(of, one.id, Some(of.span), SpanKind::Internal, "look-up");
        timed(&mut lookup, of, one.begin, one.end);
        let mut about = Attributes::default();
        about.text("dns.question.name", &one.name);
        about.reason(one.reason);
        if one.reason.is_some() {
            about.error(one.reason, 0);
            lookup.status = Some(failed(one.reason, None));
        }
        lookup.attributes = about.0;
        out.push(lookup);
    }
    for (index, one) in of.attempts.iter().enumerate() {
        attempt(of, index, one, out);
    }
}

fn attempt(of: &FinishedTrace, index: usize, one: &AttemptSpan, out: &mut Vec<Span>) {
    let mut client = span(of, one.id, Some(of.span), SpanKind::Client, name_of(&of.exchange.method));
    timed(&mut client, of, one.begin, one.end.unwrap_or(of.exchange.total));
    let mut about = Attributes::default();
    about.method(&of.exchange.method);
    let scheme = if one.tls { "https" } else { "http" };
    about.text("url.full", &format!("{scheme}://{}{}", of.exchange.host, of.exchange.path));
    about.server(&of.exchange.host, one.tls);
    about.peer(one.endpoint.as_deref().and_then(|endpoint| endpoint.parse().ok()));
    if index > 0 {
        about.number("http.request.resend_count", index as u64);
    }
    if one.status != 0 {
        about.number("http.response.status_code", one.status.into());
    }
    about.text("attache.upstream", &one.upstream);
    about.text("attache.endpoint", one.endpoint.as_deref().unwrap_or_default());
    about.reason(one.reason);
    if one.reason.is_some() || one.status >= 400 {
        about.error(one.reason, one.status);
        let last = index + 1 == of.attempts.len();
        client.status = Some(failed(one.reason, of.exchange.detail.as_deref().filter(|_| last)));
    }
    client.attributes = about.0;
    out.push(client);
    out.extend(one.connects.iter().map(|connect| connection(of, one.id, connect)));
}

fn connection(of: &FinishedTrace, parent: SpanId, one: &ConnectSpan) -> Span {
    let mut connect = span(of, one.id, Some(parent), SpanKind::Internal, "connect");
    timed(&mut connect, of, one.begin, one.end);
    let mut about = Attributes::default();
    about.text("attache.endpoint", &one.endpoint);
    about.peer(one.endpoint.parse().ok());
    about.reason(one.reason);
    if one.reason.is_some() {
        about.error(one.reason, 0);
        connect.status = Some(failed(one.reason, None));
    }
    connect.attributes = about.0;
    let event = |name: &str, at: Option<Duration>| {
        at.map(|at| Event { name: name.into(), time_unix_nano: nanos(of.started + at), ..Event::default() })
    };
    connect.events = [event("connected", one.connected), event("tls established", one.secured)]
        .into_iter()
        .flatten()
        .collect();
    connect
}
