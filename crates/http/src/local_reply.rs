//! Header changes of answers (responses that attache makes itself, `local_reply`).
//!
//! Rule: removals come first, then sets, then additions, as for routes. Values come from the exchange's record, because a request that
//! could not be read has nothing else. An empty value is not written, and a `set` with an empty value removes the header.

use std::fmt::Write;

use attache_config::model::{HeaderEdits, Template, TemplatePart, Variable};
use attache_telemetry::Exchange;
use attache_wire::Fields;
use http::HeaderValue;

/// Applies the changes to `headers`.
pub fn edit_local_reply(edits: &HeaderEdits, exchange: &Exchange, headers: &mut Fields) {
    for name in &edits.remove {
        headers.remove(name);
    }
    for (name, template) in &edits.set {
        match value(template, exchange) {
            Some(value) => headers.insert(name, value),
            None => _ = headers.remove(name),
        }
    }
    for (name, template) in &edits.add {
        if let Some(value) = value(template, exchange) {
            headers.append(name, value);
        }
    }
}

fn value(template: &Template, exchange: &Exchange) -> Option<HeaderValue> {
    let mut value = Vec::new();
    for part in &template.0 {
        match part {
            TemplatePart::Text(text) => value.extend_from_slice(text.as_bytes()),
            TemplatePart::Variable(variable) => push(&mut value, variable, exchange),
        }
    }
    // The peer's bytes must not begin a new line.
    value.retain(|byte| !byte.is_ascii_control() || *byte == b'\t');
    let value = value.trim_ascii();
    if value.is_empty() { None } else { HeaderValue::from_bytes(value).ok() }
}

fn push(value: &mut Vec<u8>, variable: &Variable, exchange: &Exchange) {
    let mut number = String::new();
    let mut name = |name: &Option<attache_config::model::Name>| {
        value.extend_from_slice(name.as_deref().unwrap_or_default().as_bytes());
    };
    match variable {
        Variable::ClientIdentity => name(&exchange.identity.borrow()),
        Variable::Route => name(&exchange.route.borrow()),
        Variable::Upstream => name(&exchange.upstream.borrow()),
        Variable::Listener => value.extend_from_slice(exchange.listener.as_bytes()),
        Variable::Host => value.extend_from_slice(exchange.host.borrow().as_bytes()),
        Variable::Path => value.extend_from_slice(exchange.path.borrow().as_bytes()),
        Variable::Method => value.extend_from_slice(exchange.method.borrow().as_bytes()),
        Variable::RequestId => value.extend_from_slice(exchange.request_id.borrow().as_bytes()),
        Variable::ClientAddress | Variable::ClientPort => {
            if let Some(client) = exchange.client {
                // Writing to a String never fails.
                _ = match variable {
                    Variable::ClientPort => write!(number, "{}", client.port()),
                    _ => write!(number, "{}", client.ip().to_canonical()),
                };
            }
            value.extend_from_slice(number.as_bytes());
        }
        // `check` refuses these variables here.
        Variable::Scheme | Variable::Header(_) | Variable::Capture(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use attache_telemetry::SharedText;

    use super::*;

    fn edited(yaml: &str, exchange: &Exchange) -> Vec<String> {
        let text = format!(
            "listeners:\n  in: {{ bind: ':1', to: a, local_reply: {{ headers: {yaml} }} }}\nupstreams: {{ a: 'http://a' }}\n"
        );
        let config = attache_config::parse(&text, None, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        let mut headers = Fields::new();
        headers.append("x-attache-reason", HeaderValue::from_static("no-route"));
        headers.append("cache-control", HeaderValue::from_static("no-store"));
        edit_local_reply(&config.listeners[0].local_reply.headers, exchange, &mut headers);
        headers.iter().map(|(name, value)| format!("{name}: {}", value.as_bytes().escape_ascii())).collect()
    }

    #[test]
    fn removals_come_first_then_sets_then_additions() {
        let exchange = Exchange::new("in".into(), "http1", "1.2.3.4:5".parse().ok());
        let yaml = "{ remove: x-attache-reason, set: { cache-control: private, x-by: '%{listener} for %{client.address}' }, add: { cache-control: no-cache } }";
        assert_eq!(
            edited(yaml, &exchange),
            ["cache-control: private", "x-by: in for 1.2.3.4", "cache-control: no-cache"]
        );
    }

    #[test]
    fn a_peer_s_bytes_begin_no_line_and_an_unknown_value_is_not_written() {
        let exchange = Exchange::new("in".into(), "http1", None);
        exchange.host.replace(SharedText::of(b"a\r\nset-cookie: b"));
        let yaml = "{ set: { x-host: '%{request.host}', cache-control: '%{client.address}', x-id: '%{request.id}' } }";
        assert_eq!(edited(yaml, &exchange), ["x-attache-reason: no-route", "x-host: aset-cookie: b"]);
    }
}
