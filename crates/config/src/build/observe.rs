//! Access log, traces, and what is told of the application.

use http::{HeaderValue, StatusCode};

use super::{fill, tls};
use crate::{
    diagnostic::{Place, Problems},
    model::{
        AccessLog, Adapt, Adapter, Expect, JsonScalar, Listener, LogFile, LogFilter, LogFormat,
        LogFormatForm, LogFormatWord, LogOutput, LogTarget, LogTo, Name, Propagation, SpanProtocol, Syslog,
        Tracing,
    },
    raw,
    section::{Read, Short},
    shapes::{At, Entry, OneOrMany},
    suggest,
    text::{Otlp, OtlpUrl, Ratio, Text as _},
};

/// Looks up environment variables.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(crate) fn access_log(
    raw: Option<Short<AccessLog>>,
    listeners: &[Listener],
    problems: &mut Problems,
) -> AccessLog {
    let Some(Short(raw)) = raw else { return AccessLog::default() };
    let Read { section: mut log, rest } = raw.value;
    log.to = match rest.to {
        None => LogTarget::Off,
        Some(LogTo::Path(to)) => to.0.0,
        Some(LogTo::Mapping(output)) => log_target(output, problems).unwrap_or_default(),
    };
    if let Some(format) = rest.format {
        log.format = log_format(format, problems);
    }
    for filter in rest.filter.map(OneOrMany::into_vec).unwrap_or_default() {
        log.filter.extend(log_filter(filter, listeners, problems));
    }
    log
}

fn log_target(raw: At<LogOutput>, problems: &mut Problems) -> Option<LogTarget> {
    let (given, output) = raw.open();
    let mut misplaced = |keys: &[&str], owner: &str| {
        for key in keys {
            if let Some(at) = given.key(key) {
                let message = format!("`{key}` belongs to `{owner}`");
                problems.wrong(at, message, format!("remove it, or use `{owner}`"));
            }
        }
    };
    let LogOutput { file, max_size, max_age, keep, syslog, facility, app } = output;
    match (file, syslog) {
        (Some(path), None) => {
            misplaced(&["facility", "app"], "syslog");
            let rotates = max_size.is_some() || max_age.is_some();
            if let Some(at) = given.key("keep").filter(|_| !rotates) {
                let help = "add `max_size: 100MiB` or `max_age: 24h`, or remove `keep`";
                let message = "`keep` without `max_size` or `max_age`: the file is never put aside";
                problems.wrong(at, message, help);
            }
            let max_size = max_size.map(|size| size as u64);
            Some(LogTarget::File(LogFile { path, max_size, max_age, keep }))
        }
        (None, Some(to)) => {
            misplaced(&["max_size", "max_age", "keep"], "file");
            Some(LogTarget::Syslog(Syslog { to, facility, app }))
        }
        (Some(_), Some(_)) => {
            let at = given.key("syslog").unwrap_or(given.at);
            problems.wrong(at, "both `file` and `syslog`", "keep one of them");
            None
        }
        (None, None) => {
            if given.whole() {
                problems.wrong(
                    given.at,
                    "this goes nowhere",
                    "`to: { file: /var/log/access.log }` or `to: { syslog: unix:/dev/log }`",
                );
            }
            None
        }
    }
}

fn log_format(raw: LogFormatForm, problems: &mut Problems) -> LogFormat {
    let own = match raw {
        LogFormatForm::Word(LogFormatWord::Text) => return LogFormat::Text,
        LogFormatForm::Word(LogFormatWord::Json) => return LogFormat::Json,
        LogFormatForm::Own(own) => own,
    };
    let (given, own) = own.open();
    match (own.template, own.json) {
        (Some(template), None) => LogFormat::Template(template),
        (None, Some(fields)) if !fields.is_empty() => LogFormat::Fields(fields),
        (template, _) => {
            if given.whole() {
                let both = template.is_some();
                let what = if both { "both `template` and `json`" } else { "a format without a field" };
                let help = "`{ template: \"%{status} %{path}\" }` or `{ json: { code: \"%{status}\" } }`";
                problems.wrong(given.at, what, help);
            }
            LogFormat::default()
        }
    }
}

fn log_filter(
    raw: At<Read<LogFilter>>,
    listeners: &[Listener],
    problems: &mut Problems,
) -> Option<LogFilter> {
    let (given, Read { section: mut filter, rest }) = raw.open();
    let known = || listeners.iter().flat_map(|listener| &listener.routes).map(|route| &*route.name);
    let mut unknown = false;
    for name in rest.routes.map(OneOrMany::into_vec).unwrap_or_default() {
        let route = name.value.0.0;
        if !known().any(|name| *name == *route) {
            unknown = true;
            let help = match suggest::nearest(&route, known()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "the name of a route, which it has by `name:`".into(),
            };
            problems.wrong(name.at, format!("no route is called `{route}`"), help);
        }
        filter.routes.push(route);
    }
    if filter == LogFilter::default() && given.whole() && !unknown {
        problems.wrong(
            given.at,
            "this filter says nothing, so everything is logged",
            "remove it, or say for example `errors: true`",
        );
        return None;
    }
    Some(filter)
}

/// An endpoint of the application at this path.
pub(crate) fn adapter(entry: Entry<Read<Adapter>>) -> Adapter {
    let Read { section: mut adapter, rest } = entry.value;
    adapter.path = entry.key.into();
    if rest.status.is_none() && rest.json.is_none() && rest.ok.is_none() && rest.failed.is_none() {
        return adapter;
    }
    let mut expect = Expect::default();
    if let Some(status) = rest.status {
        expect.status = status.into_vec().into_iter().map(|range| range.0.0).collect();
    }
    let code = |code: Option<u16>| code.and_then(|code| StatusCode::from_u16(code).ok());
    expect.ok = code(rest.ok).unwrap_or(expect.ok);
    expect.failed = code(rest.failed).unwrap_or(expect.failed);
    for entry in rest.json.map(|map| map.entries).unwrap_or_default() {
        let value: Name = match entry.value {
            JsonScalar::Truth(truth) => truth.to_string().into(),
            JsonScalar::Text(text) => text.0.0,
        };
        expect.json.push((entry.key.into(), value));
    }
    adapter.answer = Adapt::Expect(expect);
    adapter
}

pub(crate) fn tracing(form: raw::TracingForm, env: Env<'_>, problems: &mut Problems) -> Option<Tracing> {
    let (at, raw) = match form {
        raw::TracingForm::To(otlp) => (otlp.at, raw::Tracing { otlp: Some(otlp), ..empty() }),
        raw::TracingForm::Full(full) => (full.at, full.value),
    };
    // An empty variable counts as none (OpenTelemetry specification, environment variables).
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    if let (Some(zipkin), true) = (&raw.zipkin, raw.otlp.is_some() || raw.protocol.is_some()) {
        problems.wrong(
            zipkin.at,
            "`zipkin` beside `otlp` or `protocol`",
            "spans go to one collector: keep one of them",
        );
    }
    let to_zipkin = raw.zipkin.is_some();
    let (mut url, whole_url) = match raw.zipkin.or(raw.otlp) {
        Some(url) => (url.value.0.0?, false),
        None => from_env(&env, at, problems)?,
    };
    let protocol = raw.protocol.or(to_zipkin.then_some(SpanProtocol::Zipkin)).or_else(|| {
        match env("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
            .or_else(|| env("OTEL_EXPORTER_OTLP_PROTOCOL"))?
            .as_str()
        {
            "grpc" => Some(SpanProtocol::Grpc),
            "http/protobuf" => Some(SpanProtocol::HttpProtobuf),
            _ => None,
        }
    });
    let protocol = protocol.unwrap_or(if url.port == Some(4317) {
        SpanProtocol::Grpc
    } else {
        SpanProtocol::HttpProtobuf
    });
    let path: Name = match protocol {
        SpanProtocol::Grpc => "/opentelemetry.proto.collector.trace.v1.TraceService/Export".into(),
        SpanProtocol::Zipkin if url.path.is_empty() => "/api/v2/spans".into(),
        SpanProtocol::Zipkin => std::mem::replace(&mut url.path, "".into()),
        _ if whole_url || url.path.ends_with("/v1/traces") => std::mem::replace(&mut url.path, "".into()),
        SpanProtocol::HttpProtobuf => format!("{}/v1/traces", url.path).into(),
    };
    let tls_at = raw.tls.as_ref().map(|tls| tls.at);
    let tls = match (url.tls, tls_at) {
        (false, Some(at)) => {
            problems.wrong(
                at,
                "`tls` to a collector that is called in plaintext",
                "write its URL with `https://`",
            );
            None
        }
        (false, None) => None,
        (true, _) => tls::client(raw.tls, problems).ok(),
    };
    let mut tracing = Tracing {
        port: url.port.unwrap_or(match protocol {
            SpanProtocol::Grpc => 4317,
            SpanProtocol::HttpProtobuf => 4318,
            SpanProtocol::Zipkin => 9411,
        }),
        host: url.host,
        path: if path.is_empty() { "/".into() } else { path },
        protocol,
        tls,
        headers: Vec::new(),
        sample: env("OTEL_TRACES_SAMPLER_ARG")
            .and_then(|share| Ratio::parse(&share).ok())
            .map_or(Tracing::SAMPLE, |share| share.0),
        service: env("OTEL_SERVICE_NAME").map_or_else(|| Tracing::SERVICE.into(), Name::from),
        resource: Vec::new(),
        propagation: propagation(&env),
        timeout: Tracing::TIMEOUT,
        queue: Tracing::QUEUE,
        interval: Tracing::INTERVAL,
    };
    let (explicit_sample, explicit_service) = (raw.sample.is_some(), raw.service.is_some());
    fill!(tracing, raw, sample, timeout, interval, queue);
    if !explicit_sample {
        match env("OTEL_TRACES_SAMPLER").as_deref() {
            Some("always_on" | "parentbased_always_on") => tracing.sample = 1.0,
            Some("always_off" | "parentbased_always_off") => tracing.sample = 0.0,
            _ => {}
        }
    }
    if let Some(service) = raw.service {
        tracing.service = service.0.0;
    }
    if let Some(formats) = raw.propagation {
        tracing.propagation = formats.into_vec();
    }
    let given = raw.resource.map(|map| map.entries).unwrap_or_default();
    tracing.resource = given.into_iter().map(|entry| (entry.key.into(), entry.value.0.0)).collect();
    for (key, value) in pairs(&env("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default()) {
        if key == "service.name" {
            // OTEL_SERVICE_NAME takes precedence over it.
            if !explicit_service && env("OTEL_SERVICE_NAME").is_none() {
                tracing.service = value.into();
            }
        } else if !tracing.resource.iter().any(|(known, _)| **known == *key) {
            tracing.resource.push((key.into(), value.into()));
        }
    }
    if let Some(map) = raw.headers {
        for entry in map.entries {
            let name = http::HeaderName::from_bytes(entry.key.as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(&entry.value.value.0.0)) {
                tracing.headers.push((name, value));
            } else {
                let help = "visible ASCII characters and spaces";
                problems.wrong(entry.value.at, "this can't be a header's value", help);
            }
        }
    } else if !to_zipkin {
        // A key of the OTLP collector is nobody else's business.
        let given = env("OTEL_EXPORTER_OTLP_TRACES_HEADERS").or_else(|| env("OTEL_EXPORTER_OTLP_HEADERS"));
        for (name, value) in pairs(&given.unwrap_or_default()) {
            let name = http::HeaderName::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(&value)) {
                tracing.headers.push((name, value));
            }
        }
    }
    for (_, value) in &mut tracing.headers {
        value.set_sensitive(true);
    }
    Some(tracing)
}

fn empty() -> raw::Tracing {
    raw::Tracing {
        otlp: None,
        zipkin: None,
        protocol: None,
        tls: None,
        headers: None,
        sample: None,
        service: None,
        resource: None,
        propagation: None,
        timeout: None,
        interval: None,
        queue: None,
    }
}

/// The collector that the environment names; true if its URL is the whole one.
fn from_env(
    env: &dyn Fn(&str) -> Option<String>,
    at: Place,
    problems: &mut Problems,
) -> Option<(OtlpUrl, bool)> {
    let variables = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", true), ("OTEL_EXPORTER_OTLP_ENDPOINT", false)];
    let found = variables.iter().find_map(|(name, whole)| Some((*name, env(name)?, *whole)));
    let (name, text, whole) = found.unwrap_or(("", Tracing::ENDPOINT.to_owned(), false));
    match Otlp::parse(&text) {
        Ok(otlp) => Some((otlp.0?, whole)),
        Err(wrong) => {
            let what = wrong.what.replace("{}", &format!("`{text}`"));
            problems.wrong(at, format!("the environment's {name}: {what}"), wrong.help);
            None
        }
    }
}

fn propagation(env: &dyn Fn(&str) -> Option<String>) -> Vec<Propagation> {
    let named = env("OTEL_PROPAGATORS").unwrap_or_default();
    let known = named.split(',').filter_map(|name| match name.trim() {
        "tracecontext" => Some(Propagation::TraceContext),
        "b3" => Some(Propagation::B3),
        "b3multi" => Some(Propagation::B3Multi),
        _ => None,
    });
    let known: Vec<_> = known.collect();
    if known.is_empty() { vec![Propagation::TraceContext] } else { known }
}

/// `key=value,key=value`, values percent-encoded, as the variables of OpenTelemetry are written.
fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        let key = key.trim();
        (!key.is_empty()).then(|| (key.to_owned(), percent_decoded(value.trim())))
    };
    text.split(',').filter_map(pair).collect()
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = (*first == b'%').then(|| after.get(..2)).flatten();
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
