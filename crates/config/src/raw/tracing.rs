//! `tracing:`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, Map, OneOrMany, Txt};
use crate::{
    model,
    section::Read,
    text::{HeaderText, Otlp, Positive, Ratio, Word, show_duration},
};

/// Where spans go, alone or with options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum TracingForm {
    To(At<Txt<Otlp>>),
    Full(Box<At<Tracing>>),
}

/// Traces by OpenTelemetry. What isn't said here is taken from OpenTelemetry's own environment variables.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`tracing`")]
pub(crate) struct Tracing {
    /// Where spans are sent by OTLP, or `off`. By default `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` (which is a whole URL), then
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, then `http://localhost:4318`.
    #[schemars(extend("default" = model::Collector::ENDPOINT))]
    pub(crate) otlp: Option<At<Txt<Otlp>>>,
    /// Where spans are sent as Zipkin's JSON (v2), in place of `otlp`. Without a path, to `/api/v2/spans`.
    pub(crate) zipkin: Option<At<Txt<Otlp>>>,
    /// How they are sent. By default `OTEL_EXPORTER_OTLP_PROTOCOL`; without that, gRPC to port 4317, and `http/protobuf` to any other.
    pub(crate) protocol: Option<model::ExportProtocol>,
    /// How exports are compressed. By default `OTEL_EXPORTER_OTLP_COMPRESSION`.
    #[schemars(extend("default" = "none"))]
    pub(crate) compression: Option<model::OtlpCompression>,
    /// TLS to the collector, where the URL is `https`.
    pub(crate) tls: Option<At<Read<model::TlsClient>>>,
    /// Headers of every export, such as a key. By default `OTEL_EXPORTER_OTLP_HEADERS`.
    #[schemars(extend("examples" = [{ "x-api-key": "${COLLECTOR_KEY}" }]))]
    pub(crate) headers: Option<Map<HeaderText, At<Txt<Word>>>>,
    /// Share of the traces that begin here which is sampled; one that comes with a request is sampled as its parent was. By default
    /// `OTEL_TRACES_SAMPLER_ARG`.
    #[schemars(extend("default" = "1%"))]
    pub(crate) sample: Option<Txt<Ratio>>,
    /// Name of the service. By default `OTEL_SERVICE_NAME`.
    #[schemars(extend("default" = model::Collector::SERVICE))]
    pub(crate) service: Option<Txt<Word>>,
    /// More attributes of the resource, before those of `OTEL_RESOURCE_ATTRIBUTES`.
    #[schemars(extend("examples" = [{ "deployment.environment.name": "test" }]))]
    pub(crate) resource: Option<Map<Word, Txt<Word>>>,
    /// Headers that carry the context: the first of these that a request has is believed, all of them are written. By default
    /// `OTEL_PROPAGATORS`.
    #[schemars(extend("default" = "tracecontext"))]
    pub(crate) propagation: Option<OneOrMany<model::Propagation>>,
    /// How long an export may take, all attempts together; then its spans are lost.
    #[schemars(extend("default" = show_duration(model::Collector::TIMEOUT)))]
    pub(crate) timeout: Option<Txt<Positive>>,
    /// How long spans gather before they are sent.
    #[schemars(extend("default" = show_duration(model::Tracing::INTERVAL)))]
    pub(crate) interval: Option<Txt<Positive>>,
    /// Spans that may wait for the export; more are dropped and counted.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = model::Tracing::QUEUE))]
    pub(crate) queue: Option<usize>,
}
