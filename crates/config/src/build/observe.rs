//! Access log, traces, and what is told of the application.

use http::{HeaderValue, StatusCode};

use super::{fill, tls};
use crate::{
    diagnostic::{Place, Problems},
    model::{
        AccessLog, Adapt, Adapter, AppMetrics, AppTold, Expect, Listener, LogFile, LogFilter, LogFormat,
        LogTarget, Name, OtlpProtocol, Propagation, Syslog, Tracing,
    },
    raw::{self, At, JsonScalar, OneOrMany},
    suggest,
    text::{Otlp, OtlpUrl, Ratio, Text as _},
};

/// Looks up environment variables.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(crate) fn access_log(
    raw: Option<raw::AccessLogForm>,
    listeners: &[Listener],
    problems: &mut Problems,
) -> AccessLog {
    match raw {
        None => AccessLog::default(),
        Some(raw::AccessLogForm::To(to)) => AccessLog { to: to.0.0, ..AccessLog::default() },
        Some(raw::AccessLogForm::Full(log)) => AccessLog {
            to: match log.to {
                raw::LogTo::Path(to) => to.0.0,
                raw::LogTo::Mapping(target) => log_target(*target, problems).unwrap_or_default(),
            },
            format: log.format.map_or_else(LogFormat::default, |format| log_format(format, problems)),
            filter: log
                .filter
                .map(OneOrMany::into_vec)
                .unwrap_or_default()
                .into_iter()
                .filter_map(|raw| log_filter(raw, listeners, problems))
                .collect(),
        },
    }
}

fn log_target(raw: At<raw::LogTarget>, problems: &mut Problems) -> Option<LogTarget> {
    let At { at, wrong, value: raw, .. } = raw;
    let of_files = [
        ("max_size", raw.max_size.as_ref().map(|value| value.at)),
        ("max_age", raw.max_age.as_ref().map(|value| value.at)),
        ("keep", raw.keep.as_ref().map(|value| value.at)),
    ];
    let of_syslog = [
        ("facility", raw.facility.as_ref().map(|value| value.at)),
        ("app", raw.app.as_ref().map(|value| value.at)),
    ];
    let mut misplaced = |keys: &[(&str, Option<Place>)], owner: &str| {
        for (key, at) in keys {
            if let Some(at) = at {
                problems.wrong(
                    *at,
                    format!("`{key}` belongs to `{owner}`"),
                    format!("remove it, or use `{owner}`"),
                );
            }
        }
    };
    match (raw.file, raw.syslog) {
        (Some(file), None) => {
            misplaced(&of_syslog, "syslog");
            let rotates = raw.max_size.is_some() || raw.max_age.is_some();
            if let Some(keep) = raw.keep.as_ref().filter(|_| !rotates) {
                let help = "add `max_size: 100MiB` or `max_age: 24h`, or remove `keep`";
                problems.wrong(
                    keep.at,
                    "`keep` without `max_size` or `max_age`: the file is never put aside",
                    help,
                );
            }
            Some(LogTarget::File(LogFile {
                max_size: raw.max_size.map(|size| size.value.0.0 as u64),
                max_age: raw.max_age.map(|age| age.value.0.0),
                keep: raw.keep.map_or(LogFile::KEEP, |keep| keep.value),
                ..LogFile::at(file.value.0.0)
            }))
        }
        (None, Some(to)) => {
            misplaced(&of_files, "file");
            Some(LogTarget::Syslog(Syslog {
                to: to.value.0.0,
                facility: raw.facility.map(|facility| facility.value).unwrap_or_default(),
                app: raw.app.map_or_else(|| Syslog::APP.into(), |app| app.value.0.0),
            }))
        }
        (Some(_), Some(syslog)) => {
            problems.wrong(syslog.at, "both `file` and `syslog`", "keep one of them");
            None
        }
        (None, None) => {
            if wrong.is_empty() {
                problems.wrong(
                    at,
                    "this goes nowhere",
                    "`to: { file: /var/log/access.log }` or `to: { syslog: unix:/dev/log }`",
                );
            }
            None
        }
    }
}

fn log_format(raw: raw::LogFormatForm, problems: &mut Problems) -> LogFormat {
    let own = match raw {
        raw::LogFormatForm::Word(raw::LogFormatWord::Text) => return LogFormat::Text,
        raw::LogFormatForm::Word(raw::LogFormatWord::Json) => return LogFormat::Json,
        raw::LogFormatForm::Own(own) => *own,
    };
    let whole = own.whole();
    match (own.value.template, own.value.json) {
        (Some(template), None) => LogFormat::Template(template.0.0),
        (None, Some(map)) if !map.entries.is_empty() => LogFormat::Fields(
            map.entries.into_iter().map(|entry| (entry.key.into(), entry.value.0.0)).collect(),
        ),
        (template, _) => {
            if whole {
                let what = if template.is_some() {
                    "both `template` and `json`"
                } else {
                    "a format without a field"
                };
                problems.wrong(
                    own.at,
                    what,
                    "`{ template: \"%{status} %{path}\" }` or `{ json: { code: \"%{status}\" } }`",
                );
            }
            LogFormat::default()
        }
    }
}

fn log_filter(raw: At<raw::LogFilter>, listeners: &[Listener], problems: &mut Problems) -> Option<LogFilter> {
    let whole = raw.whole();
    let At { at, value: raw, .. } = raw;
    let mut filter = LogFilter {
        errors: raw.errors.unwrap_or(false),
        status: statuses(raw.status),
        slower_than: raw.slower_than.map(|least| least.0.0),
        routes: Vec::new(),
        sample: raw.sample.map(|share| share.0.0),
    };
    let known = || listeners.iter().flat_map(|listener| &listener.routes).map(|route| &*route.name);
    let mut unknown = false;
    for name in raw.routes.map(OneOrMany::into_vec).unwrap_or_default() {
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
    if filter == LogFilter::default() && whole && !unknown {
        problems.wrong(
            at,
            "this filter says nothing, so everything is logged",
            "remove it, or say for example `errors: true`",
        );
        return None;
    }
    Some(filter)
}

fn statuses(
    raw: Option<OneOrMany<raw::Txt<crate::text::StatusRangeText>>>,
) -> Vec<crate::model::StatusRange> {
    raw.map(OneOrMany::into_vec).unwrap_or_default().into_iter().map(|range| range.0.0).collect()
}

pub(crate) fn app(rest: raw::MetricsRest) -> AppTold {
    let raw::MetricsRest { app, adapt: adapters, names, workload, namespace } = rest;
    let metrics = app.map(OneOrMany::into_vec).unwrap_or_default().into_iter().map(|form| {
        let (from, full) = match form {
            raw::AppMetricsForm::Url(url) => (url.0.0, None),
            raw::AppMetricsForm::Full(full) => (full.from.0.0.clone(), Some(full)),
        };
        let mut page = AppMetrics {
            from,
            timeout: AppMetrics::TIMEOUT,
            max_size: AppMetrics::MAX_SIZE,
            gauges: Vec::new(),
        };
        if let Some(full) = full {
            fill!(page, full, timeout, max_size);
            let gauges = full.gauges.map(|map| map.entries).unwrap_or_default();
            page.gauges = gauges.into_iter().map(|entry| (entry.key.into(), entry.value.0.0)).collect();
        }
        page
    });
    let adapt = adapters.map(|map| map.entries).unwrap_or_default().into_iter().map(|entry| {
        let raw = entry.value;
        let passes = raw.status.is_none() && raw.json.is_none() && raw.ok.is_none() && raw.failed.is_none();
        let mut expect = Expect::default();
        if let status @ Some(_) = raw.status {
            expect.status = statuses(status);
        }
        let code = |code: Option<u16>| code.and_then(|code| StatusCode::from_u16(code).ok());
        expect.ok = code(raw.ok).unwrap_or(expect.ok);
        expect.failed = code(raw.failed).unwrap_or(expect.failed);
        let json = raw.json.map(|map| map.entries).unwrap_or_default();
        expect.json = json
            .into_iter()
            .map(|entry| {
                let value: Name = match entry.value {
                    JsonScalar::Truth(truth) => truth.to_string().into(),
                    JsonScalar::Text(text) => text.0.0,
                };
                (entry.key.into(), value)
            })
            .collect();
        Adapter {
            path: entry.key.into(),
            from: raw.from.0.0,
            timeout: raw.timeout.map_or(Adapter::TIMEOUT, |timeout| timeout.0.0),
            answer: if passes { Adapt::Pass } else { Adapt::Expect(expect) },
        }
    });
    AppTold {
        metrics: metrics.collect(),
        adapt: adapt.collect(),
        names: names.unwrap_or_default(),
        workload: workload.map(|text| text.0.0),
        namespace: namespace.map(|text| text.0.0),
    }
}

pub(crate) fn tracing(form: raw::TracingForm, env: Env<'_>, problems: &mut Problems) -> Option<Tracing> {
    let (at, raw) = match form {
        raw::TracingForm::To(otlp) => (otlp.at, raw::Tracing { otlp: Some(otlp), ..empty() }),
        raw::TracingForm::Full(full) => (full.at, full.value),
    };
    // An empty variable counts as none (OpenTelemetry specification, environment variables).
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    let (mut url, whole_url) = match raw.otlp {
        Some(otlp) => (otlp.value.0.0?, false),
        None => from_env(&env, at, problems)?,
    };
    let protocol = raw.protocol.or_else(|| {
        match env("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
            .or_else(|| env("OTEL_EXPORTER_OTLP_PROTOCOL"))?
            .as_str()
        {
            "grpc" => Some(OtlpProtocol::Grpc),
            "http/protobuf" => Some(OtlpProtocol::HttpProtobuf),
            _ => None,
        }
    });
    let protocol = protocol.unwrap_or(if url.port == Some(4317) {
        OtlpProtocol::Grpc
    } else {
        OtlpProtocol::HttpProtobuf
    });
    let path: Name = match protocol {
        OtlpProtocol::Grpc => "/opentelemetry.proto.collector.trace.v1.TraceService/Export".into(),
        _ if whole_url || url.path.ends_with("/v1/traces") => std::mem::replace(&mut url.path, "".into()),
        OtlpProtocol::HttpProtobuf => format!("{}/v1/traces", url.path).into(),
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
            OtlpProtocol::Grpc => 4317,
            OtlpProtocol::HttpProtobuf => 4318,
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
    } else {
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
