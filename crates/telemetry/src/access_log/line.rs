//! Writes one line for one exchange.
//!
//! Rule: whatever a client or an upstream sends, a line stays one line and each field keeps its position. In text, everything that isn't
//! visible ASCII or a printable letter is escaped; in fields without quotes, whitespace is escaped too. JSON has the escapes of
//! [`json`](super::json).
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
    io::{self, Write as _},
    time::{Duration, SystemTime},
};

use attache_config::model::{LogFormat, Name};

use super::{
    LoggedHeaders,
    escaping::Quoted,
    put,
    template::{self, LineContext},
    time::LogTimestamp,
};
use crate::{Exchange, SharedText};

/// How many bytes are reserved for a line at once.
const USUAL_LINE_BYTES: usize = 512;

/// Appends the line with its line end.
pub(crate) fn write(
    out: &mut Vec<u8>,
    format: &LogFormat,
    names: &LoggedHeaders,
    exchange: &Exchange,
    total: Duration,
    now: SystemTime,
) -> io::Result<()> {
    let began = LogTimestamp(now.checked_sub(total).unwrap_or(now));
    // Most lines are shorter, so the buffer grows only once per line.
    out.reserve(USUAL_LINE_BYTES);
    match format {
        LogFormat::Text => text(out, exchange, total, began),
        LogFormat::Json => json(out, exchange, total, began),
        LogFormat::Template(template) => {
            template::text(out, template, &LineContext { exchange, total, began, names })?;
        }
        LogFormat::Fields(fields) => {
            template::json(out, fields, &LineContext { exchange, total, began, names })?;
        }
    }
    out.push(b'\n');
    Ok(())
}

fn text(out: &mut Vec<u8>, exchange: &Exchange, total: Duration, began: LogTimestamp) {
    let reason = exchange.reason.get();
    put::time(out, began);
    match exchange.status.get() {
        0 => out.extend_from_slice(b" -"),
        status => put::number(out, " ", status.into()),
    }
    put::word(out, " ", reason.map_or("-", crate::Reason::envoy_flag).as_bytes());
    put::word(out, " ", reason.map_or("", crate::Reason::as_str).as_bytes());
    put::word(out, " ", exchange.method.borrow().as_bytes());
    put::word(out, " ", exchange.host.borrow().as_bytes());
    put::word(out, " ", exchange.path.borrow().as_bytes());
    put::word(out, " ", exchange.protocol.as_bytes());
    put::word(out, " listener=", exchange.listener.as_bytes());
    put::word(out, " route=", name(exchange.route.borrow().as_ref()));
    put::word(out, " upstream=", name(exchange.upstream.borrow().as_ref()));
    put::word(out, " endpoint=", name(exchange.endpoint.borrow().as_ref()));
    put::number(out, " attempts=", exchange.attempts.get().into());
    put::millis(out, " total_ms=", total);
    match exchange.time_to_head.get() {
        Some(head) => put::millis(out, " head_ms=", head),
        None => out.extend_from_slice(b" head_ms=-"),
    }
    put::number(out, " received=", exchange.received.get());
    put::number(out, " sent=", exchange.sent.get());
    match exchange.client {
        Some(client) => put::address(out, " client=", client),
        None => out.extend_from_slice(b" client=-"),
    }
    put::word(out, " identity=", name(exchange.identity.borrow().as_ref()));
    put::word(out, " peer=", name(exchange.peer.borrow().as_ref()));
    put::word(out, " id=", exchange.request_id.borrow().as_bytes());
    match exchange.detail.borrow().as_deref() {
        // Writing to a vector can't fail.
        Some(detail) => drop(write!(out, " detail=\"{}\"", Quoted(detail))),
        None => out.extend_from_slice(b" detail=-"),
    }
}

/// The bytes of a name, which may be missing.
fn name(name: Option<&Name>) -> &[u8] {
    name.map_or(b"", |name| name.as_bytes())
}

/// Every key is always present: a missing value is `null`.
fn json(out: &mut Vec<u8>, exchange: &Exchange, total: Duration, began: LogTimestamp) {
    fn some(text: &SharedText) -> Option<&[u8]> {
        Some(text.as_bytes()).filter(|text| !text.is_empty())
    }
    fn name(name: Option<&Name>) -> Option<&[u8]> {
        name.map(|name| name.as_bytes())
    }
    let reason = exchange.reason.get();
    out.extend_from_slice(b"{\"time\":\"");
    put::time(out, began);
    match exchange.status.get() {
        0 => out.extend_from_slice(b"\",\"status\":null"),
        status => put::number(out, "\",\"status\":", status.into()),
    }
    let flag = reason.map(crate::Reason::envoy_flag).filter(|flag| *flag != "-");
    put::json(out, ",\"envoy_flag\":", flag.map(str::as_bytes));
    put::json(out, ",\"reason\":", reason.map(|reason| reason.as_str().as_bytes()));
    put::json(out, ",\"method\":", some(&exchange.method.borrow()));
    put::json(out, ",\"host\":", some(&exchange.host.borrow()));
    put::json(out, ",\"path\":", some(&exchange.path.borrow()));
    put::json(out, ",\"protocol\":", Some(exchange.protocol.as_bytes()));
    put::json(out, ",\"listener\":", Some(exchange.listener.as_bytes()));
    put::json(out, ",\"route\":", name(exchange.route.borrow().as_ref()));
    put::json(out, ",\"upstream\":", name(exchange.upstream.borrow().as_ref()));
    put::json(out, ",\"endpoint\":", name(exchange.endpoint.borrow().as_ref()));
    put::number(out, ",\"attempts\":", exchange.attempts.get().into());
    put::json_millis(out, ",\"total_ms\":", total);
    match exchange.time_to_head.get() {
        Some(head) => put::json_millis(out, ",\"head_ms\":", head),
        None => out.extend_from_slice(b",\"head_ms\":null"),
    }
    put::number(out, ",\"received_bytes\":", exchange.received.get());
    put::number(out, ",\"sent_bytes\":", exchange.sent.get());
    match exchange.client {
        Some(client) => {
            put::address(out, ",\"client\":\"", client);
            out.push(b'"');
        }
        None => out.extend_from_slice(b",\"client\":null"),
    }
    put::json(out, ",\"identity\":", name(exchange.identity.borrow().as_ref()));
    put::json(out, ",\"peer\":", name(exchange.peer.borrow().as_ref()));
    put::json(out, ",\"request_id\":", some(&exchange.request_id.borrow()));
    put::json(out, ",\"detail\":", exchange.detail.borrow().as_deref().map(str::as_bytes));
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Reason;

    fn show(format: LogFormat, exchange: &Exchange) -> String {
        let mut out = Vec::new();
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_248_001_123);
        write(&mut out, &format, &LoggedHeaders::default(), exchange, Duration::from_micros(1_002_500), now)
            .unwrap();
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
