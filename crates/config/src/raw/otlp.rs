//! `otlp:`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, CollectorKeys, Map, OneOrMany, Txt, collector::with_collector};
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

with_collector! {
    /// Metrics and logs by OpenTelemetry. What isn't said here is taken from OpenTelemetry's own environment variables.
    #[schemars(title = "`otlp`")]
    OtlpSignals {
        /// The collector, or `off`. By default `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT` and `OTEL_EXPORTER_OTLP_LOGS_ENDPOINT` (which are whole
        /// URLs), then `OTEL_EXPORTER_OTLP_ENDPOINT`, then `http://localhost:4318`.
        #[schemars(extend("default" = model::Collector::ENDPOINT))]
        to: Option<At<Txt<Otlp>>>,
        /// What is sent; by default both.
        #[schemars(extend("examples" = ["metrics", ["metrics", "logs"]]))]
        signals: Option<OneOrMany<model::OtlpSignal>>,
        ..
        /// How often metrics are sent. By default `OTEL_METRIC_EXPORT_INTERVAL`, in milliseconds.
        #[schemars(extend("default" = show_duration(model::OtlpMetrics::INTERVAL)))]
        interval: Option<Txt<Positive>>,
        /// Log records that may wait for the export; more are dropped and counted.
        #[schemars(range(min = 1, max = 1_000_000), extend("default" = model::OtlpLogs::QUEUE))]
        queue: Option<usize>,
    }
}
