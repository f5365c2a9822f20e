//! `otlp:`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, Map, OneOrMany, Txt};
use crate::{
    model,
    section::Read,
    text::{HeaderText, Otlp, Positive, Word, show_duration},
};

/// Where metrics and logs go, alone or with options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum OtlpForm {
    To(At<Txt<Otlp>>),
    Full(Box<At<OtlpSignals>>),
}

/// Metrics and logs by OpenTelemetry. What isn't said here is taken from OpenTelemetry's own environment variables.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`otlp`")]
pub(crate) struct OtlpSignals {
    /// The collector, or `off`. By default `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT` and `OTEL_EXPORTER_OTLP_LOGS_ENDPOINT` (which are whole
    /// URLs), then `OTEL_EXPORTER_OTLP_ENDPOINT`, then `http://localhost:4318`.
    #[schemars(extend("default" = model::Collector::ENDPOINT))]
    pub(crate) to: Option<At<Txt<Otlp>>>,
    /// What is sent; by default both.
    #[schemars(extend("examples" = ["metrics", ["metrics", "logs"]]))]
    pub(crate) signals: Option<OneOrMany<model::OtlpSignal>>,
    /// How it is sent. By default `OTEL_EXPORTER_OTLP_PROTOCOL`; without that, gRPC to port 4317, and `http/protobuf` to any other.
    pub(crate) protocol: Option<model::ExportProtocol>,
    /// How exports are compressed. By default `OTEL_EXPORTER_OTLP_COMPRESSION`.
    #[schemars(extend("default" = "none"))]
    pub(crate) compression: Option<model::OtlpCompression>,
    /// TLS to the collector, where the URL is `https`.
    pub(crate) tls: Option<At<Read<model::TlsClient>>>,
    /// Headers of every export, such as a key. By default `OTEL_EXPORTER_OTLP_HEADERS`.
    #[schemars(extend("examples" = [{ "x-api-key": "${COLLECTOR_KEY}" }]))]
    pub(crate) headers: Option<Map<HeaderText, At<Txt<Word>>>>,
    /// Name of the service. By default `OTEL_SERVICE_NAME`.
    #[schemars(extend("default" = model::Collector::SERVICE))]
    pub(crate) service: Option<Txt<Word>>,
    /// More attributes of the resource, before those of `OTEL_RESOURCE_ATTRIBUTES`.
    #[schemars(extend("examples" = [{ "deployment.environment.name": "test" }]))]
    pub(crate) resource: Option<Map<Word, Txt<Word>>>,
    /// How long an export may take, all attempts together; then its log records are lost, and metrics are sent with the next one.
    #[schemars(extend("default" = show_duration(model::Collector::TIMEOUT)))]
    pub(crate) timeout: Option<Txt<Positive>>,
    /// How often metrics are sent. By default `OTEL_METRIC_EXPORT_INTERVAL`, in milliseconds.
    #[schemars(extend("default" = show_duration(model::OtlpMetrics::INTERVAL)))]
    pub(crate) interval: Option<Txt<Positive>>,
    /// Log records that may wait for the export; more are dropped and counted.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = model::OtlpLogs::QUEUE))]
    pub(crate) queue: Option<usize>,
}
