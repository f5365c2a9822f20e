//! The signals that attache sends to a collector of OpenTelemetry, and how it sends them.

use super::prelude::*;

section! {
    "a collector"
    /// Where one signal is sent, and the description of the sender.
    pub struct Collector {
        /// How exports are sent. By default `OTEL_EXPORTER_OTLP_PROTOCOL`; without that, gRPC to port 4317, and
        /// `http/protobuf` to any other port.
        #[schema(default = Value::Null)]
        protocol: ExportProtocol = ExportProtocol::HttpProtobuf,
        /// How exports are compressed. By default `OTEL_EXPORTER_OTLP_COMPRESSION`.
        compression: OtlpCompression = OtlpCompression::None,
        /// TLS to the collector, where the URL is `https`.
        tls(Spanned<ParsedSection<TlsClient>>): Option<TlsClient> as Optional<Nested> = None,
        /// Headers of every export, such as a key. By default `OTEL_EXPORTER_OTLP_HEADERS`.
        #[schema(examples = [json!({ "x-api-key": "${COLLECTOR_KEY}" })])]
        headers(Mapping<HeaderText, Spanned<Text<Word>>>): Vec<(HeaderName, HeaderValue)> as HiddenValues = Vec::new(),
        /// Name of the service. By default `OTEL_SERVICE_NAME`.
        service: Name as Word = "attache".into(),
        /// More attributes of the resource, before those of `OTEL_RESOURCE_ATTRIBUTES`.
        #[schema(examples = [json!({ "deployment.environment.name": "test" })])]
        resource: Vec<(Name, Name)> as Pairs<Word, Word> = Vec::new(),
        /// How long an export may take, all attempts together. Then its spans or log records are lost, and metrics are
        /// sent with the next one.
        timeout: Duration as Positive = Duration::from_secs(10),
    }
    holds {
        /// The collector's host.
        host: Name = "localhost".into(),
        /// Its port.
        port: u16 = 4318,
        /// Path that exports are posted to.
        path: Name = "/".into(),
    }
}

impl Collector {
    /// Where a collector is by default (OTLP exporter specification).
    pub const ENDPOINT: &str = "http://localhost:4318";

    /// Its URL, without a query.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}:{}{}", self.host, self.port, without_query(&self.path))
    }
}

/// Names of headers; their values carry keys, so nothing shows them.
pub(crate) struct HiddenValues;

impl Show<Vec<(HeaderName, HeaderValue)>> for HiddenValues {
    fn show(value: &Vec<(HeaderName, HeaderValue)>) -> Value {
        Value::Object(value.iter().map(|(name, _)| (name.to_string(), HIDDEN.into())).collect())
    }
}

section! {
    "`otlp`"
    /// Metrics and logs by OpenTelemetry. Keys that are not set are taken from OpenTelemetry's environment variables.
    pub struct OtlpKeys {
        /// The collector, or `off`. By default `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT` and
        /// `OTEL_EXPORTER_OTLP_LOGS_ENDPOINT` (which are whole URLs), then `OTEL_EXPORTER_OTLP_ENDPOINT`, then
        /// `http://localhost:4318`.
        #[schema(default = Collector::ENDPOINT)]
        to(Spanned<Text<Otlp>>),
        /// Which signals are sent; by default both.
        #[schema(default = Value::Null, examples = [json!("metrics"), json!(["metrics", "logs"])])]
        signals: Vec<OtlpSignal> as List<Plain> = vec![OtlpSignal::Metrics, OtlpSignal::Logs],
        /// The collector's keys, for both signals.
        ..collector: Collector,
        /// How often metrics are sent. By default `OTEL_METRIC_EXPORT_INTERVAL`, in milliseconds.
        interval: Duration as Positive = Duration::from_mins(1),
        /// Log records that may wait for the export; more are dropped and counted.
        #[schema(minimum = 1, maximum = 1_000_000)]
        queue: usize = 8192,
    }
    or to
}

/// Metrics and logs that are sent by OTLP; `None` is not sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OtlpSignals {
    /// All metrics.
    pub metrics: Option<OtlpMetrics>,
    /// Records of finished requests, and the program's own log.
    pub logs: Option<OtlpLogs>,
}

/// How metrics are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct OtlpMetrics {
    /// Where they are sent.
    pub collector: Collector,
    /// How often. Default 1 min.
    pub interval: Duration,
}

/// How log records are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct OtlpLogs {
    /// Where they are sent.
    pub collector: Collector,
    /// Records that may wait for the export; more are dropped and counted. Default 8192.
    pub queue: usize,
}

/// Each signal with its own collector, since the environment can name one for each.
impl Serialize for OtlpSignals {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let of = |collector: &Collector, key: &str, value: Value| -> Object<String, Value> {
            let to = ("to".to_owned(), collector.url().into());
            [to].into_iter().chain(collector.show()).chain([(key.to_owned(), value)]).collect()
        };
        let metrics =
            self.metrics.as_ref().map(|to| of(&to.collector, "interval", show_duration(to.interval).into()));
        let logs = self.logs.as_ref().map(|to| of(&to.collector, "queue", to.queue.into()));
        json!({ "metrics": metrics, "logs": logs }).serialize(serializer)
    }
}

/// The signals that are sent by OTLP in addition to traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OtlpSignal {
    /// All metrics, those of OpenTelemetry's semantic conventions among them.
    Metrics,
    /// A record of each finished request or connection that `access_log.filter` lets through, and the program's own log.
    Logs,
}

/// How a signal is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ExportProtocol {
    /// Protobuf in an HTTP POST; port 4318 unless another is given.
    #[default]
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
    /// gRPC; port 4317 unless another is given.
    #[serde(rename = "grpc")]
    Grpc,
    /// Zipkin's JSON (v2) in an HTTP POST, for traces alone; port 9411 unless another is given. What the key `zipkin` means.
    #[serde(rename = "zipkin", skip_deserializing)]
    Zipkin,
}

/// How exports are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OtlpCompression {
    /// Not at all.
    #[default]
    None,
    /// gzip (RFC 1952).
    Gzip,
}
