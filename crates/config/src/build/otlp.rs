//! Collectors of OpenTelemetry: traces, metrics and logs. What the file doesn't say is taken from OpenTelemetry's own environment
//! variables (OTLP exporter specification); an empty variable counts as none.

use std::time::Duration;

use http::HeaderValue;

use super::{fill, tls};
use crate::{
    diagnostic::{Place, Problems},
    model::{
        Collector, ExportProtocol, Name, OtlpCompression, OtlpLogs, OtlpMetrics, OtlpSignal, OtlpSignals,
        Propagation, TlsClient, Tracing,
    },
    raw::{self, CollectorKeys},
    shapes::{At, Map, OneOrMany, Txt},
    text::{HeaderText, Otlp, OtlpUrl, Ratio, Text as _, Word},
};

/// Looks up environment variables.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What distinguishes the signals on the way to a collector.
struct Signal {
    /// Part of the names of its environment variables.
    variable: &'static str,
    /// The path that is put behind that of the collector.
    path: &'static str,
    /// The method of its gRPC service.
    method: &'static str,
}

const TRACES: Signal = Signal {
    variable: "TRACES",
    path: "/v1/traces",
    method: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
};
const METRICS: Signal = Signal {
    variable: "METRICS",
    path: "/v1/metrics",
    method: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
};
const LOGS: Signal = Signal {
    variable: "LOGS",
    path: "/v1/logs",
    method: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
};

pub(crate) fn tracing(form: raw::TracingForm, env: Env<'_>, problems: &mut Problems) -> Option<Tracing> {
    let (at, mut raw) = match form {
        raw::TracingForm::To(otlp) => (otlp.at, raw::Tracing { otlp: Some(otlp), ..raw::Tracing::default() }),
        raw::TracingForm::Full(full) => (full.at, full.value),
    };
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    if let (Some(zipkin), true) = (&raw.zipkin, raw.otlp.is_some() || raw.protocol.is_some()) {
        problems.wrong(
            zipkin.at,
            "`zipkin` beside `otlp` or `protocol`",
            "spans go to one collector: keep one of them",
        );
    }
    let mut given = raw.take_collector();
    given.protocol = given.protocol.or(raw.zipkin.is_some().then_some(ExportProtocol::Zipkin));
    let to = raw.zipkin.or(raw.otlp);
    let [collector] = collectors((at, to), given, [&TRACES], &env, problems);
    let mut tracing = Tracing {
        collector: collector?,
        sample: env("OTEL_TRACES_SAMPLER_ARG")
            .and_then(|share| Ratio::parse(&share).ok())
            .map_or(Tracing::SAMPLE, |share| share.0),
        propagation: propagation(&env),
        queue: Tracing::QUEUE,
        interval: Tracing::INTERVAL,
    };
    let explicit_sample = raw.sample.is_some();
    fill!(tracing, raw, sample, interval, queue);
    if !explicit_sample {
        match env("OTEL_TRACES_SAMPLER").as_deref() {
            Some("always_on" | "parentbased_always_on") => tracing.sample = 1.0,
            Some("always_off" | "parentbased_always_off") => tracing.sample = 0.0,
            _ => {}
        }
    }
    if let Some(formats) = raw.propagation {
        tracing.propagation = formats.into_vec();
    }
    Some(tracing)
}

pub(crate) fn signals(form: raw::OtlpForm, env: Env<'_>, problems: &mut Problems) -> OtlpSignals {
    let (at, mut raw) = match form {
        raw::OtlpForm::To(to) => (to.at, raw::OtlpSignals { to: Some(to), ..raw::OtlpSignals::default() }),
        raw::OtlpForm::Full(full) => (full.at, full.value),
    };
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    let given = raw.take_collector();
    let [metrics, logs] = collectors((at, raw.to), given, [&METRICS, &LOGS], &env, problems);
    let wanted = raw.signals.map(OneOrMany::into_vec);
    let wanted = |signal| wanted.as_ref().is_none_or(|wanted| wanted.contains(&signal));
    let interval = raw.interval.map(|interval| interval.0.0).or_else(|| {
        let millis = env("OTEL_METRIC_EXPORT_INTERVAL")?.parse().ok()?;
        (millis > 0).then_some(Duration::from_millis(millis))
    });
    OtlpSignals {
        metrics: metrics
            .filter(|_| wanted(OtlpSignal::Metrics))
            .map(|collector| OtlpMetrics { collector, interval: interval.unwrap_or(OtlpMetrics::INTERVAL) }),
        logs: logs
            .filter(|_| wanted(OtlpSignal::Logs))
            .map(|collector| OtlpLogs { collector, queue: raw.queue.unwrap_or(OtlpLogs::QUEUE) }),
    }
}

/// The collector of each signal; `None` where it is off, or where something is wrong with it. `to` is its URL, and where the section stands.
fn collectors<const N: usize>(
    (at, to): (Place, Option<At<Txt<Otlp>>>),
    given: CollectorKeys,
    signals: [&Signal; N],
    env: &dyn Fn(&str) -> Option<String>,
    problems: &mut Problems,
) -> [Option<Collector>; N] {
    let to = to.map(|to| to.value.0.0);
    let urls = signals.map(|signal| match &to {
        Some(to) => to.clone().map(|url| (url, false)),
        None => from_env(signal, env, at, problems),
    });
    let secure = urls.iter().flatten().any(|(url, _)| url.tls);
    let tls = match given.tls.as_ref().map(|tls| tls.at) {
        Some(at) if !secure && urls.iter().any(Option::is_some) => {
            problems.wrong(
                at,
                "`tls` to a collector that is called in plaintext",
                "write its URL with `https://`",
            );
            None
        }
        _ if secure => tls::client(given.tls, problems).ok(),
        _ => None,
    };
    let headers = given.headers.map(|map| headers(map, problems));
    let (service, resource) = resource(given.service, given.resource, env);
    let mut index = 0;
    urls.map(|url| {
        let signal = signals[index];
        index += 1;
        let (url, whole) = url?;
        // What the environment says of the OTLP collector is nobody else's business, its key least of all.
        let otlp = given.protocol != Some(ExportProtocol::Zipkin);
        let compression = given.compression.or_else(|| {
            let of = |name: &str| env(&format!("OTEL_EXPORTER_OTLP_{name}COMPRESSION"));
            let named = of(&format!("{}_", signal.variable)).or_else(|| of(""))?;
            (otlp && named == "gzip").then_some(OtlpCompression::Gzip)
        });
        let base = Collector {
            service: service.clone(),
            resource: resource.clone(),
            compression: compression.unwrap_or_default(),
            timeout: given.timeout.as_ref().map_or(Collector::TIMEOUT, |timeout| timeout.0.0),
            headers: headers
                .clone()
                .unwrap_or_else(|| if otlp { headers_of_env(signal, env) } else { Vec::new() }),
            ..called(url, whole, given.protocol, signal, env, tls.as_ref())
        };
        Some(base)
    })
}

/// A collector by its URL.
fn called(
    mut url: OtlpUrl,
    whole: bool,
    protocol: Option<ExportProtocol>,
    signal: &Signal,
    env: &dyn Fn(&str) -> Option<String>,
    tls: Option<&TlsClient>,
) -> Collector {
    let protocol = protocol.or_else(|| {
        let own = env(&format!("OTEL_EXPORTER_OTLP_{}_PROTOCOL", signal.variable));
        match own.or_else(|| env("OTEL_EXPORTER_OTLP_PROTOCOL"))?.as_str() {
            "grpc" => Some(ExportProtocol::Grpc),
            "http/protobuf" => Some(ExportProtocol::HttpProtobuf),
            _ => None,
        }
    });
    let by_port = if url.port == Some(4317) { ExportProtocol::Grpc } else { ExportProtocol::HttpProtobuf };
    let protocol = protocol.unwrap_or(by_port);
    let path: Name = match protocol {
        ExportProtocol::Grpc => signal.method.into(),
        ExportProtocol::Zipkin if url.path.is_empty() => "/api/v2/spans".into(),
        ExportProtocol::Zipkin => std::mem::replace(&mut url.path, "".into()),
        _ if whole || url.path.ends_with(signal.path) => std::mem::replace(&mut url.path, "".into()),
        ExportProtocol::HttpProtobuf => format!("{}{}", url.path, signal.path).into(),
    };
    Collector {
        port: url.port.unwrap_or(match protocol {
            ExportProtocol::Grpc => 4317,
            ExportProtocol::HttpProtobuf => 4318,
            ExportProtocol::Zipkin => 9411,
        }),
        host: url.host,
        path: if path.is_empty() { "/".into() } else { path },
        protocol,
        compression: OtlpCompression::None,
        tls: tls.filter(|_| url.tls).cloned(),
        headers: Vec::new(),
        service: Collector::SERVICE.into(),
        resource: Vec::new(),
        timeout: Collector::TIMEOUT,
    }
}

fn resource(
    service: Option<Txt<Word>>,
    given: Option<Map<Word, Txt<Word>>>,
    env: &dyn Fn(&str) -> Option<String>,
) -> (Name, Vec<(Name, Name)>) {
    let named = service.map(|service| service.0.0).or_else(|| env("OTEL_SERVICE_NAME").map(Name::from));
    let mut service = named.clone().unwrap_or_else(|| Collector::SERVICE.into());
    let given = given.map(|map| map.entries).unwrap_or_default();
    let mut resource: Vec<(Name, Name)> =
        given.into_iter().map(|entry| (entry.key.into(), entry.value.0.0)).collect();
    for (key, value) in pairs(&env("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default()) {
        if key == "service.name" {
            // OTEL_SERVICE_NAME takes precedence over it.
            if named.is_none() {
                service = value.into();
            }
        } else if !resource.iter().any(|(known, _)| **known == *key) {
            resource.push((key.into(), value.into()));
        }
    }
    (service, resource)
}

type Headers = Vec<(http::HeaderName, HeaderValue)>;

fn headers(map: Map<HeaderText, At<Txt<Word>>>, problems: &mut Problems) -> Headers {
    let mut out = Vec::new();
    for entry in map.entries {
        if let Some(header) = header(&entry.key, &entry.value.value.0.0) {
            out.push(header);
        } else {
            let help = "visible ASCII characters and spaces";
            problems.wrong(entry.value.at, "this can't be a header's value", help);
        }
    }
    out
}

fn headers_of_env(signal: &Signal, env: &dyn Fn(&str) -> Option<String>) -> Headers {
    let own = env(&format!("OTEL_EXPORTER_OTLP_{}_HEADERS", signal.variable));
    let given = own.or_else(|| env("OTEL_EXPORTER_OTLP_HEADERS")).unwrap_or_default();
    pairs(&given).into_iter().filter_map(|(name, value)| header(&name, &value)).collect()
}

/// A header whose value is never shown.
fn header(name: &str, value: &str) -> Option<(http::HeaderName, HeaderValue)> {
    let name = http::HeaderName::from_bytes(name.as_bytes()).ok()?;
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

/// The collector that the environment names; true if its URL is the whole one.
fn from_env(
    signal: &Signal,
    env: &dyn Fn(&str) -> Option<String>,
    at: Place,
    problems: &mut Problems,
) -> Option<(OtlpUrl, bool)> {
    let own = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.variable);
    let variables = [(own.as_str(), true), ("OTEL_EXPORTER_OTLP_ENDPOINT", false)];
    let found = variables.iter().find_map(|(name, whole)| Some((*name, env(name)?, *whole)));
    let (name, text, whole) = found.unwrap_or(("", Collector::ENDPOINT.to_owned(), false));
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
