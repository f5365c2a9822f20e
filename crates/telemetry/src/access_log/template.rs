//! Lines in a form that the config defines: templates of text, and JSON objects with keys of the config.
//!
//! Rule: as for the built-in lines (see `line`), no field can end a line or forge another field. In text, whitespace is escaped in a field
//! that is one word. Headers and `detail` keep their whitespace, and the template should put them in quotes.

use std::{
    fmt::{self, Display, Write as _},
    io::{self, Write},
    net::SocketAddr,
    time::Duration,
};

use attache_config::model::{LogField, LogPart, LogTemplate, Name};

use super::{
    LoggedHeaders,
    escaping::{AsText, Quoted, millis},
    put,
    time::LogTimestamp,
};
use crate::Exchange;

/// The exchange of one line.
pub(super) struct LineContext<'a> {
    pub(super) exchange: &'a Exchange,
    pub(super) total: Duration,
    pub(super) began: LogTimestamp,
    pub(super) names: &'a LoggedHeaders,
}

/// The value of a field.
enum LineValue<'a> {
    Nothing,
    Count(u64),
    Millis(Duration),
    Time(LogTimestamp),
    Address(SocketAddr),
    /// A field that is one word.
    Word(&'a str),
    /// Text that may contain whitespace.
    Text(&'a str),
    /// A value that attache itself makes.
    Made(&'a dyn Display),
}

pub(super) fn text(out: &mut Vec<u8>, template: &LogTemplate, line: &LineContext<'_>) -> io::Result<()> {
    for part in &template.0 {
        match part {
            LogPart::Text(text) => out.extend_from_slice(text.as_bytes()),
            LogPart::Field(field) => line.with(field, |value| {
                match value {
                    LineValue::Nothing => out.push(b'-'),
                    LineValue::Count(count) => put::number(out, "", count),
                    LineValue::Millis(duration) => put::millis(out, "", duration),
                    LineValue::Time(time) => put::time(out, time),
                    LineValue::Address(address) => put::address(out, "", address),
                    LineValue::Word(word) => put::word(out, "", word.as_bytes()),
                    LineValue::Text(text) => write!(out, "{}", Quoted(text))?,
                    LineValue::Made(made) => write!(out, "{made}")?,
                }
                io::Result::Ok(())
            })?,
        }
    }
    Ok(())
}

pub(super) fn json(
    out: &mut Vec<u8>,
    fields: &[(Name, LogTemplate)],
    line: &LineContext<'_>,
) -> io::Result<()> {
    for (index, (key, template)) in fields.iter().enumerate() {
        put::json(out, if index == 0 { "{" } else { "," }, Some(key.as_bytes()));
        out.push(b':');
        if let [LogPart::Field(field)] = template.0.as_slice() {
            line.with(field, |value| {
                match value {
                    LineValue::Nothing => put::json(out, "", None),
                    LineValue::Count(count) => put::number(out, "", count),
                    LineValue::Millis(duration) => put::json_millis(out, "", duration),
                    LineValue::Word(text) | LineValue::Text(text) => {
                        put::json(out, "", Some(text.as_bytes()));
                    }
                    LineValue::Time(time) => put::json(out, "", Some(&time.text())),
                    LineValue::Address(address) => {
                        put::address(out, "\"", address);
                        out.push(b'"');
                    }
                    LineValue::Made(made) => super::json::write(out, &AsText(made))?,
                }
                io::Result::Ok(())
            })?;
        } else {
            super::json::write(out, &AsText(FilledTemplate(template, line)))?;
        }
    }
    out.push(b'}');
    Ok(())
}

/// Text and fields, before JSON's own escapes are added.
struct FilledTemplate<'a>(&'a LogTemplate, &'a LineContext<'a>);

impl Display for FilledTemplate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0.0 {
            match part {
                LogPart::Text(text) => f.write_str(text)?,
                LogPart::Field(field) => self.1.with(field, |value| match value {
                    LineValue::Nothing => f.write_char('-'),
                    LineValue::Count(count) => count.fmt(f),
                    LineValue::Millis(duration) => millis(duration).fmt(f),
                    LineValue::Time(time) => time.fmt(f),
                    LineValue::Address(address) => address.fmt(f),
                    LineValue::Word(text) | LineValue::Text(text) => f.write_str(text),
                    LineValue::Made(made) => made.fmt(f),
                })?,
            }
        }
        Ok(())
    }
}

impl LineContext<'_> {
    fn with<T>(&self, field: &LogField, show: impl FnOnce(LineValue<'_>) -> T) -> T {
        let exchange = self.exchange;
        let word = |text: &str| if text.is_empty() { None } else { Some(()) };
        macro_rules! named {
            ($text:expr) => {{
                let text = $text;
                match word(&text) {
                    Some(()) => show(LineValue::Word(&text)),
                    None => show(LineValue::Nothing),
                }
            }};
        }
        macro_rules! optional {
            ($name:expr) => {
                match $name.borrow().as_deref() {
                    Some(name) => show(LineValue::Word(name)),
                    None => show(LineValue::Nothing),
                }
            };
        }
        match field {
            LogField::Time => show(LineValue::Time(self.began)),
            LogField::Status => match exchange.status.get() {
                0 => show(LineValue::Nothing),
                status => show(LineValue::Count(status.into())),
            },
            LogField::EnvoyFlag => match exchange.reason.get().map(crate::Reason::envoy_flag) {
                Some(flag) if flag != "-" => show(LineValue::Word(flag)),
                _ => show(LineValue::Nothing),
            },
            LogField::Reason => match exchange.reason.get() {
                Some(reason) => show(LineValue::Word(reason.as_str())),
                None => show(LineValue::Nothing),
            },
            LogField::Method => named!(exchange.method.borrow()),
            LogField::Host => named!(exchange.host.borrow()),
            LogField::Path => named!(exchange.path.borrow()),
            LogField::Protocol => show(LineValue::Word(exchange.protocol)),
            LogField::Listener => show(LineValue::Word(&exchange.listener)),
            LogField::Route => optional!(exchange.route),
            LogField::Upstream => optional!(exchange.upstream),
            LogField::Endpoint => optional!(exchange.endpoint),
            LogField::Attempts => show(LineValue::Count(exchange.attempts.get().into())),
            LogField::Hedges => show(LineValue::Count(exchange.hedges.get().into())),
            LogField::TotalMs => show(LineValue::Millis(self.total)),
            LogField::HeadMs => match exchange.time_to_head.get() {
                Some(head) => show(LineValue::Millis(head)),
                None => show(LineValue::Nothing),
            },
            LogField::Received => show(LineValue::Count(exchange.received.get())),
            LogField::Sent => show(LineValue::Count(exchange.sent.get())),
            LogField::Client => match exchange.client {
                Some(client) => show(LineValue::Address(client)),
                None => show(LineValue::Nothing),
            },
            LogField::Identity => optional!(exchange.identity),
            LogField::Peer => optional!(exchange.peer),
            LogField::RequestId => named!(exchange.request_id.borrow()),
            LogField::TraceId => match exchange.trace_id.get() {
                Some(id) => show(LineValue::Made(&id)),
                None => show(LineValue::Nothing),
            },
            LogField::SpanId => match exchange.trace.borrow().as_deref() {
                Some(trace) => show(LineValue::Made(&trace.span_id())),
                None => show(LineValue::Nothing),
            },
            LogField::Detail => match exchange.detail.borrow().as_deref() {
                Some(detail) => show(LineValue::Text(detail)),
                None => show(LineValue::Nothing),
            },
            LogField::RequestHeader(name) => self.header(self.names.request(name), show),
            LogField::ResponseHeader(name) => self.header(self.names.response(name), show),
        }
    }

    fn header<T>(&self, at: Option<usize>, show: impl FnOnce(LineValue<'_>) -> T) -> T {
        let noted = self.exchange.noted.borrow();
        match at.and_then(|at| self.names.noted(&noted, at)) {
            Some(value) => show(LineValue::Text(&String::from_utf8_lossy(value.as_bytes()))),
            None => show(LineValue::Nothing),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use http::{HeaderName, HeaderValue};

    use attache_wire::Fields;

    use super::*;
    use crate::Reason;

    fn template(text: &str) -> LogTemplate {
        // The config has the parser of the syntax; here only the parts are put together.
        let mut parts = Vec::new();
        for piece in text.split_inclusive(['{', '}']) {
            match piece.strip_suffix('}') {
                Some(field) => parts.push(LogPart::Field(match field.split_once(':') {
                    Some(("request", name)) => LogField::RequestHeader(HeaderName::try_from(name).unwrap()),
                    Some((_, name)) => LogField::ResponseHeader(HeaderName::try_from(name).unwrap()),
                    None => LogField::of(field).unwrap(),
                })),
                None => parts.push(LogPart::Text(piece.trim_end_matches('{').into())),
            }
        }
        parts.retain(|part| !matches!(part, LogPart::Text(text) if text.is_empty()));
        LogTemplate(parts)
    }

    fn exchange() -> Exchange {
        let exchange = Exchange::new("outbound".into(), "http1", None);
        exchange.path.replace("/a b\n".into());
        exchange.status.set(503);
        exchange.attempts.set(2);
        exchange.hedges.set(1);
        exchange.fail(Reason::ConnectRefused, "Connection refused");
        exchange
    }

    fn show(templates: &[&str], json_keys: bool) -> String {
        let fields: Vec<_> = templates.iter().map(|text| (Name::from("k"), template(text))).collect();
        let names = LoggedHeaders::of(fields.iter().map(|(_, template)| template));
        let exchange = exchange();
        let mut headers = Fields::new();
        headers.insert("user-agent", HeaderValue::from_static("a \"b\" c"));
        names.note_request(&exchange.noted, &headers);
        headers.insert("x-version", HeaderValue::from_bytes(b"\xff7").unwrap());
        names.note_response(&exchange.noted, &headers);
        let line = LineContext {
            exchange: &exchange,
            total: Duration::from_micros(1_500),
            began: LogTimestamp(SystemTime::UNIX_EPOCH),
            names: &names,
        };
        let mut out = Vec::new();
        if json_keys {
            json(&mut out, &fields, &line).unwrap();
        } else {
            text(&mut out, &fields[0].1, &line).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_template_is_filled_in_and_stays_one_line() {
        let shown = show(
            &[
                "[{time}] {status} {reason} {path} {route} {total_ms} \"{request:user-agent}\" {response:x-version}",
            ],
            false,
        );
        insta::assert_snapshot!(shown, @r#"[1970-01-01T00:00:00.000Z] 503 connect-refused /a\u{20}b\u{a} - 1.5 "a \"b\" c" �7"#);
    }

    #[test]
    fn one_field_alone_keeps_its_type_in_json() {
        let shown = show(
            &[
                "{status}",
                "{head_ms}",
                "{total_ms}",
                "{path}",
                "{status} of {attempts}",
                "{hedges}",
                "{response:none}",
            ],
            true,
        );
        insta::assert_snapshot!(shown, @r#"{"k":503,"k":null,"k":1.5,"k":"/a b\n","k":"503 of 2","k":1,"k":null}"#);
    }
}
