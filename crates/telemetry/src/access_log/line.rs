//! One line for one exchange.
//!
//! Rule: whatever a client or an upstream sends, a line stays one line and each field stays in its position. In text,
//! everything that isn't visible ASCII or a printable letter is escaped, in fields without quotes blanks too; in JSON
//! the escapes are those of RFC 8259 section 7.
//!
//! Text, in this order (`-` for a missing value):
//!
//! ```text
//! TIME STATUS FLAG REASON METHOD HOST PATH PROTOCOL listener= route= upstream= endpoint= attempts= total_ms= head_ms=
//! received= sent= client= identity= peer= id= detail="…"
//! ```
//!
//! TIME is when the exchange began; FLAG is Envoy's response flag for REASON.

use std::{
    fmt,
    io::{self, Write as _},
    time::{Duration, SystemTime},
};

use attache_config::model::LogFormat;
use serde::Serialize;

use super::{
    Names,
    escaping::{AsText, Quoted, Word, millis},
    template::{self, Line},
    time::Timestamp,
};
use crate::Exchange;

/// Appends the line, its end included.
pub(crate) fn write(
    out: &mut Vec<u8>,
    format: &LogFormat,
    names: &Names,
    exchange: &Exchange,
    total: Duration,
    now: SystemTime,
) -> io::Result<()> {
    let began = Timestamp(now.checked_sub(total).unwrap_or(now));
    match format {
        LogFormat::Text => text(out, exchange, total, began)?,
        LogFormat::Json => json(out, exchange, total, began)?,
        LogFormat::Template(template) => {
            template::text(out, template, &Line { exchange, total, began, names })?;
        }
        LogFormat::Fields(fields) => template::json(out, fields, &Line { exchange, total, began, names })?,
    }
    out.push(b'\n');
    Ok(())
}

fn text(out: &mut Vec<u8>, exchange: &Exchange, total: Duration, began: Timestamp) -> io::Result<()> {
    let (route, upstream, endpoint) =
        (exchange.route.borrow(), exchange.upstream.borrow(), exchange.endpoint.borrow());
    let reason = exchange.reason.get();
    write!(
        out,
        "{began} {} {} {} {} {} {} {} listener={} route={} upstream={} endpoint={} attempts={} total_ms={} head_ms={} received={} sent={} client={} identity={} peer={} id={}",
        Optional(Some(exchange.status.get()).filter(|status| *status != 0)),
        reason.map_or("-", crate::Reason::envoy_flag),
        Optional(reason),
        Word(&exchange.method.borrow()),
        Word(&exchange.host.borrow()),
        Word(&exchange.path.borrow()),
        Word(exchange.protocol),
        Word(&exchange.listener),
        Word(route.as_deref().unwrap_or_default()),
        Word(upstream.as_deref().unwrap_or_default()),
        Word(endpoint.as_deref().unwrap_or_default()),
        exchange.attempts.get(),
        millis(total),
        Optional(exchange.time_to_head.get().map(millis)),
        exchange.received.get(),
        exchange.sent.get(),
        Optional(exchange.client),
        Word(exchange.identity.borrow().as_deref().unwrap_or_default()),
        Word(exchange.peer.borrow().as_deref().unwrap_or_default()),
        Word(&exchange.request_id.borrow()),
    )?;
    if let Some(detail) = exchange.detail.borrow().as_deref() {
        write!(out, " detail=\"{}\"", Quoted(detail))?;
    } else {
        out.extend_from_slice(b" detail=-");
    }
    Ok(())
}

struct Optional<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for Optional<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

fn json(out: &mut Vec<u8>, exchange: &Exchange, total: Duration, began: Timestamp) -> io::Result<()> {
    let (route, upstream, endpoint) =
        (exchange.route.borrow(), exchange.upstream.borrow(), exchange.endpoint.borrow());
    let (method, host, path, id, detail) = (
        exchange.method.borrow(),
        exchange.host.borrow(),
        exchange.path.borrow(),
        exchange.request_id.borrow(),
        exchange.detail.borrow(),
    );
    let (identity, peer) = (exchange.identity.borrow(), exchange.peer.borrow());
    let some = |text| Some(text).filter(|text: &&str| !text.is_empty());
    let reason = exchange.reason.get();
    let line = Json {
        time: AsText(began),
        status: Some(exchange.status.get()).filter(|status| *status != 0),
        envoy_flag: reason.map(crate::Reason::envoy_flag).filter(|flag| *flag != "-"),
        reason: reason.map(crate::Reason::as_str),
        method: some(&method),
        host: some(&host),
        path: some(&path),
        protocol: exchange.protocol,
        listener: &exchange.listener,
        route: route.as_deref(),
        upstream: upstream.as_deref(),
        endpoint: endpoint.as_deref(),
        attempts: exchange.attempts.get(),
        total_ms: millis(total),
        head_ms: exchange.time_to_head.get().map(millis),
        received_bytes: exchange.received.get(),
        sent_bytes: exchange.sent.get(),
        client: exchange.client.map(AsText),
        identity: identity.as_deref(),
        peer: peer.as_deref(),
        request_id: some(&id),
        detail: detail.as_deref(),
    };
    Ok(serde_json::to_writer(out, &line)?)
}

/// Every key is always there: `null` for a missing value.
#[derive(Serialize)]
struct Json<'a> {
    time: AsText<Timestamp>,
    status: Option<u16>,
    envoy_flag: Option<&'a str>,
    reason: Option<&'a str>,
    method: Option<&'a str>,
    host: Option<&'a str>,
    path: Option<&'a str>,
    protocol: &'a str,
    listener: &'a str,
    route: Option<&'a str>,
    upstream: Option<&'a str>,
    endpoint: Option<&'a str>,
    attempts: u32,
    total_ms: f64,
    head_ms: Option<f64>,
    received_bytes: u64,
    sent_bytes: u64,
    client: Option<AsText<std::net::SocketAddr>>,
    identity: Option<&'a str>,
    peer: Option<&'a str>,
    request_id: Option<&'a str>,
    detail: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Reason;

    fn show(format: LogFormat, exchange: &Exchange) -> String {
        let mut out = Vec::new();
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_248_001_123);
        write(&mut out, &format, &Names::default(), exchange, Duration::from_micros(1_002_500), now).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn full() -> Exchange {
        let exchange = Exchange::new("outbound".into(), "http1", Some("127.0.0.1:40112".parse().unwrap()));
        exchange.method.replace("GET".into());
        exchange.host.replace("orders.internal".into());
        exchange.path.replace("/v1/items".into());
        exchange.request_id.replace("7f3a".into());
        exchange.route.replace(Some("orders-v1".into()));
        exchange.upstream.replace(Some("orders".into()));
        exchange.endpoint.replace(Some("10.0.0.8:8443".into()));
        exchange.identity.replace(Some("spiffe://shop/web".into()));
        exchange.peer.replace(Some("orders.internal".into()));
        exchange.attempts.set(3);
        exchange.status.set(503);
        exchange.received.set(5);
        exchange.sent.set(120);
        exchange.time_to_head.set(Some(Duration::from_micros(12_340)));
        exchange.fail(Reason::ConnectRefused, "Connection refused (os error 111)");
        exchange
    }

    #[test]
    fn text_is_one_readable_line() {
        insta::assert_snapshot!(show(LogFormat::Text, &full()).trim_end(), @r#"2026-11-21T08:00:00.120Z 503 UF connect-refused GET orders.internal /v1/items http1 listener=outbound route=orders-v1 upstream=orders endpoint=10.0.0.8:8443 attempts=3 total_ms=1002.5 head_ms=12.34 received=5 sent=120 client=127.0.0.1:40112 identity=spiffe://shop/web peer=orders.internal id=7f3a detail="Connection refused (os error 111)""#);
        let opaque = Exchange::new("outbound".into(), "tcp", None);
        insta::assert_snapshot!(show(LogFormat::Text, &opaque).trim_end(), @r#"2026-11-21T08:00:00.120Z - - - - - - tcp listener=outbound route=- upstream=- endpoint=- attempts=0 total_ms=1002.5 head_ms=- received=0 sent=0 client=- identity=- peer=- id=- detail=-"#);
    }

    #[test]
    fn json_has_every_field() {
        insta::assert_snapshot!(show(LogFormat::Json, &full()).trim_end(), @r#"{"time":"2026-11-21T08:00:00.120Z","status":503,"envoy_flag":"UF","reason":"connect-refused","method":"GET","host":"orders.internal","path":"/v1/items","protocol":"http1","listener":"outbound","route":"orders-v1","upstream":"orders","endpoint":"10.0.0.8:8443","attempts":3,"total_ms":1002.5,"head_ms":12.34,"received_bytes":5,"sent_bytes":120,"client":"127.0.0.1:40112","identity":"spiffe://shop/web","peer":"orders.internal","request_id":"7f3a","detail":"Connection refused (os error 111)"}"#);
        let opaque = Exchange::new("outbound".into(), "tcp", None);
        insta::assert_snapshot!(show(LogFormat::Json, &opaque).trim_end(), @r#"{"time":"2026-11-21T08:00:00.120Z","status":null,"envoy_flag":null,"reason":null,"method":null,"host":null,"path":null,"protocol":"tcp","listener":"outbound","route":null,"upstream":null,"endpoint":null,"attempts":0,"total_ms":1002.5,"head_ms":null,"received_bytes":0,"sent_bytes":0,"client":null,"identity":null,"peer":null,"request_id":null,"detail":null}"#);
    }

    #[test]
    fn what_a_client_sends_can_not_forge_a_line_or_a_field() {
        let exchange = full();
        exchange
            .path
            .replace("/a\r\n2026-01-01T00:00:00.000Z 200 - - attempts=1 \u{1b}[2J\u{202e}\u{85}\"é".into());
        exchange.detail.replace(Some("said \"no\"\n\\ \u{7}".into()));
        insta::assert_snapshot!(show(LogFormat::Text, &exchange).trim_end(), @r#"2026-11-21T08:00:00.120Z 503 UF connect-refused GET orders.internal /a\u{d}\u{a}2026-01-01T00:00:00.000Z\u{20}200\u{20}-\u{20}-\u{20}attempts=1\u{20}\u{1b}[2J\u{202e}\u{85}\"é http1 listener=outbound route=orders-v1 upstream=orders endpoint=10.0.0.8:8443 attempts=3 total_ms=1002.5 head_ms=12.34 received=5 sent=120 client=127.0.0.1:40112 identity=spiffe://shop/web peer=orders.internal id=7f3a detail="said \"no\"\u{a}\\ \u{7}""#);
    }

    proptest! {
        #[test]
        fn a_text_line_keeps_its_shape_whatever_is_in_it(
            method in ".*", host in any::<String>(), path in any::<String>(), id in any::<String>(), detail in any::<String>(),
        ) {
            let exchange = full();
            exchange.method.replace(method.into());
            exchange.host.replace(host.into());
            exchange.path.replace(path.into());
            exchange.request_id.replace(id.into());
            exchange.detail.replace(Some(detail));
            let line = show(LogFormat::Text, &exchange);
            let line = line.strip_suffix('\n').unwrap();
            prop_assert!(!line.chars().any(|c| c.is_control() || c.is_whitespace() && c != ' '), "{line:?}");
            let (fields, detail) = line.split_once(" detail=\"").unwrap();
            prop_assert_eq!(fields.split(' ').count(), 21);
            prop_assert!(fields.split(' ').all(|field| !field.is_empty()));
            let detail = detail.strip_suffix('"').unwrap().replace("\\\\", "").replace("\\\"", "");
            prop_assert!(!detail.contains('"'));
        }

        #[test]
        fn a_json_line_reads_back_as_what_was_put_in(path in any::<String>(), detail in any::<String>()) {
            let exchange = full();
            exchange.path.replace(path.clone().into());
            exchange.detail.replace(Some(detail.clone()));
            let line = show(LogFormat::Json, &exchange);
            prop_assert_eq!(line.matches('\n').count(), 1);
            let read: serde_json::Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(read["path"].as_str().unwrap_or_default(), path);
            prop_assert_eq!(read["detail"].as_str(), Some(&*detail));
        }
    }
}
