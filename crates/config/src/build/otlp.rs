//! Collectors of OpenTelemetry: traces, metrics and logs. What the file doesn't say is taken from OpenTelemetry's own environment
//! variables (OTLP exporter specification); an empty variable counts as none.

use std::time::Duration;

use http::HeaderValue;
use percent_encoding::percent_decode_str;

use super::tls;
use crate::{
    diagnostic::{Place, Problems},
    model::{
        Collector, ExportProtocol, Name, OtlpCompression, OtlpKeys, OtlpLogs, OtlpMetrics, OtlpSignal,
        OtlpSignals, Propagation, Tracing,
    },
    section::{ParsedSection, Shorthand},
    shapes::{Mapping, Spanned, Text},
    text::{HeaderText, Otlp, OtlpUrl, Ratio, TextNotation as _, Word},
};

/// Looks up environment variables.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The differences between signals on the way to a collector.
struct Signal {
    /// The signal's word in the names of its environment variables.
    variable: &'static str,
    /// The path that is appended to the collector's path.
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

pub(crate) fn tracing(raw: Shorthand<Tracing>, env: Env<'_>, problems: &mut Problems) -> Option<Tracing> {
    let (given, ParsedSection { section: mut tracing, rest }) = raw.0.open();
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    let zipkin = rest.zipkin.is_some();
    if zipkin {
        tracing.collector.protocol = ExportProtocol::Zipkin;
    }
    let to = rest.zipkin.or(rest.otlp);
    let read = ParsedSection { section: tracing.collector, rest: rest.collector };
    let [collector] = collectors(&given, to, read, [&TRACES], &env, problems);
    tracing.collector = collector?;
    if given.key("sample").is_none() {
        tracing.sample = sample(&env).unwrap_or(tracing.sample);
    }
    if given.key("propagation").is_none() {
        tracing.propagation = propagation(&env).unwrap_or(tracing.propagation);
    }
    Some(tracing)
}

pub(crate) fn signals(raw: Shorthand<OtlpKeys>, env: Env<'_>, problems: &mut Problems) -> OtlpSignals {
    let (given, ParsedSection { section: keys, rest }) = raw.0.open();
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    let read = ParsedSection { section: keys.collector, rest: rest.collector };
    let [metrics, logs] = collectors(&given, rest.to, read, [&METRICS, &LOGS], &env, problems);
    let mut interval = keys.interval;
    if given.key("interval").is_none()
        && let Some(millis) = env("OTEL_METRIC_EXPORT_INTERVAL").and_then(|millis| millis.parse().ok())
        && millis > 0
    {
        interval = Duration::from_millis(millis);
    }
    let metrics = metrics.filter(|_| keys.signals.contains(&OtlpSignal::Metrics));
    let logs = logs.filter(|_| keys.signals.contains(&OtlpSignal::Logs));
    OtlpSignals {
        metrics: metrics.map(|collector| OtlpMetrics { collector, interval }),
        logs: logs.map(|collector| OtlpLogs { collector, queue: keys.queue }),
    }
}

/// The collector of each signal; `None` where it is off, or where something is wrong with it. `to` is its URL.
fn collectors<const N: usize>(
    given: &Spanned<()>,
    to: Option<Spanned<Text<Otlp>>>,
    read: ParsedSection<Collector>,
    signals: [&Signal; N],
    env: &dyn Fn(&str) -> Option<String>,
    problems: &mut Problems,
) -> [Option<Collector>; N] {
    let ParsedSection { section: mut base, rest } = read;
    let to = to.map(|to| to.value.0);
    let urls = signals.map(|signal| {
        let url = match &to {
            Some(to) => to.clone().map(|url| (url, false)),
            None => from_env(signal, env, given.at, problems),
        };
        url.map(|(url, whole)| (signal, url, whole))
    });
    let secure = urls.iter().flatten().any(|(_, url, _)| url.tls);
    base.tls = match rest.tls.as_ref().map(|tls| tls.at) {
        Some(at) if !secure && urls.iter().any(Option::is_some) => {
            problems.wrong(
                at,
                "`tls` to a collector that is called in plaintext",
                "write its URL with `https://`",
            );
            None
        }
        _ if secure => tls::client(rest.tls, problems).ok(),
        _ => None,
    };
    if let Some(map) = rest.headers {
        base.headers = headers(map, problems);
    }
    resource(&mut base, given.key("service").is_some(), env);
    urls.map(|url| {
        let (signal, url, whole) = url?;
        let mut collector = base.clone();
        collector.tls = collector.tls.filter(|_| url.tls);
        // The environment describes the OTLP collector. Zipkin must not get the key of that collector.
        if collector.protocol != ExportProtocol::Zipkin {
            from_environment(&mut collector, given, url.port, signal, env);
        }
        called(&mut collector, url, whole, signal);
        Some(collector)
    })
}

/// Fills in settings of a collector of OTLP from the environment, for keys that the file doesn't give.
fn from_environment(
    collector: &mut Collector,
    given: &Spanned<()>,
    port: Option<u16>,
    signal: &Signal,
    env: &dyn Fn(&str) -> Option<String>,
) {
    // The variable of the signal comes before that of all signals.
    let variable = |name: &str| {
        let own = env(&format!("OTEL_EXPORTER_OTLP_{}_{name}", signal.variable));
        own.or_else(|| env(&format!("OTEL_EXPORTER_OTLP_{name}")))
    };
    if given.key("protocol").is_none() {
        collector.protocol = match variable("PROTOCOL").as_deref() {
            Some("grpc") => ExportProtocol::Grpc,
            Some("http/protobuf") => ExportProtocol::HttpProtobuf,
            _ if port == Some(4317) => ExportProtocol::Grpc,
            _ => ExportProtocol::HttpProtobuf,
        };
    }
    if given.key("compression").is_none() && variable("COMPRESSION").as_deref() == Some("gzip") {
        collector.compression = OtlpCompression::Gzip;
    }
    if given.key("headers").is_none() {
        let pairs = pairs(&variable("HEADERS").unwrap_or_default());
        collector.headers = pairs.into_iter().filter_map(|(name, value)| header(&name, &value)).collect();
    }
}

/// Host, port and path of a collector by its URL. `whole`: the URL's path is that of the signal.
fn called(collector: &mut Collector, url: OtlpUrl, whole: bool, signal: &Signal) {
    let (port, path): (u16, Name) = match collector.protocol {
        ExportProtocol::Grpc => (4317, signal.method.into()),
        ExportProtocol::Zipkin if url.path.is_empty() => (9411, "/api/v2/spans".into()),
        ExportProtocol::Zipkin => (9411, url.path),
        ExportProtocol::HttpProtobuf if whole || url.path.ends_with(signal.path) => (4318, url.path),
        ExportProtocol::HttpProtobuf => (4318, format!("{}{}", url.path, signal.path).into()),
    };
    collector.path = if path.is_empty() { "/".into() } else { path };
    (collector.host, collector.port) = (url.host, url.port.unwrap_or(port));
}

/// Completes name and attributes of the resource. `named`: the file gives the service's name.
fn resource(collector: &mut Collector, named: bool, env: &dyn Fn(&str) -> Option<String>) {
    let service = env("OTEL_SERVICE_NAME").filter(|_| !named);
    let named = named || service.is_some();
    if let Some(service) = service {
        collector.service = service.into();
    }
    for (key, value) in pairs(&env("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default()) {
        if key == "service.name" {
            // OTEL_SERVICE_NAME and the file take precedence over this attribute.
            if !named {
                collector.service = value.into();
            }
        } else if !collector.resource.iter().any(|(known, _)| **known == *key) {
            collector.resource.push((key.into(), value.into()));
        }
    }
}

type CollectorHeaders = Vec<(http::HeaderName, HeaderValue)>;

fn headers(map: Mapping<HeaderText, Spanned<Text<Word>>>, problems: &mut Problems) -> CollectorHeaders {
    let mut out = Vec::new();
    for entry in map.entries {
        if let Some(header) = header(&entry.key, &entry.value.value.0) {
            out.push(header);
        } else {
            let help = "no line breaks, and no other control characters than tabs";
            problems.wrong(entry.value.at, "this can't be a header's value", help);
        }
    }
    out
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
        Ok(otlp) => Some((otlp?, whole)),
        Err(wrong) => {
            let what = wrong.message(&format!("`{text}`"));
            problems.wrong(at, format!("the environment's {name}: {what}"), wrong.help);
            None
        }
    }
}

/// The share of sampled traces that the environment names.
fn sample(env: &dyn Fn(&str) -> Option<String>) -> Option<f64> {
    match env("OTEL_TRACES_SAMPLER").as_deref() {
        Some("always_on" | "parentbased_always_on") => Some(1.0),
        Some("always_off" | "parentbased_always_off") => Some(0.0),
        _ => Ratio::parse(&env("OTEL_TRACES_SAMPLER_ARG")?).ok(),
    }
}

/// The formats that the environment names, as far as they are known.
fn propagation(env: &dyn Fn(&str) -> Option<String>) -> Option<Vec<Propagation>> {
    let named = env("OTEL_PROPAGATORS")?;
    let known = named.split(',').filter_map(|name| match name.trim() {
        "tracecontext" => Some(Propagation::TraceContext),
        "b3" => Some(Propagation::B3),
        "b3multi" => Some(Propagation::B3Multi),
        _ => None,
    });
    Some(known.collect::<Vec<_>>()).filter(|known| !known.is_empty())
}

/// `key=value,key=value`, values percent-encoded, as the variables of OpenTelemetry are written.
fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        let key = key.trim();
        (!key.is_empty())
            .then(|| (key.to_owned(), percent_decode_str(value.trim()).decode_utf8_lossy().into_owned()))
    };
    text.split(',').filter_map(pair).collect()
}
