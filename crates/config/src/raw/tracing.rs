//! `tracing:`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, CollectorKeys, Map, OneOrMany, Txt, collector::with_collector};
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

with_collector! {
    /// Traces by OpenTelemetry. What isn't said here is taken from OpenTelemetry's own environment variables.
    #[schemars(title = "`tracing`")]
    Tracing {
        /// Where spans are sent by OTLP, or `off`. By default `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` (which is a whole URL), then
        /// `OTEL_EXPORTER_OTLP_ENDPOINT`, then `http://localhost:4318`.
        #[schemars(extend("default" = model::Collector::ENDPOINT))]
        otlp: Option<At<Txt<Otlp>>>,
        /// Where spans are sent as Zipkin's JSON (v2), in place of `otlp`. Without a path, to `/api/v2/spans`.
        zipkin: Option<At<Txt<Otlp>>>,
        ..
        /// Share of the traces that begin here which is sampled; one that comes with a request is sampled as its parent was. By default
        /// `OTEL_TRACES_SAMPLER_ARG`.
        #[schemars(extend("default" = "1%"))]
        sample: Option<Txt<Ratio>>,
        /// Headers that carry the context: the first of these that a request has is believed, all of them are written. By default
        /// `OTEL_PROPAGATORS`.
        #[schemars(extend("default" = "tracecontext"))]
        propagation: Option<OneOrMany<model::Propagation>>,
        /// How long spans gather before they are sent.
        #[schemars(extend("default" = show_duration(model::Tracing::INTERVAL)))]
        interval: Option<Txt<Positive>>,
        /// Spans that may wait for the export; more are dropped and counted.
        #[schemars(range(min = 1, max = 1_000_000), extend("default" = model::Tracing::QUEUE))]
        queue: Option<usize>,
    }
}
