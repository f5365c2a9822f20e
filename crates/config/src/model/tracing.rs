//! Traces by OpenTelemetry, and to Zipkin.

use super::prelude::*;

section! {
    "`tracing`"
    /// Traces by OpenTelemetry. Keys that are not set are taken from OpenTelemetry's environment variables.
    pub struct Tracing {
        /// Where spans are sent by OTLP, or `off`. By default `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` (which is a whole
        /// URL), then `OTEL_EXPORTER_OTLP_ENDPOINT`, then `http://localhost:4318`.
        #[schema(default = Collector::ENDPOINT)]
        otlp(Spanned<Text<Otlp>>),
        /// Where spans are sent as Zipkin's JSON (v2), in place of `otlp`. Without a path, to `/api/v2/spans`.
        #[schema(examples = ["http://zipkin:9411"])]
        zipkin(Spanned<Text<Otlp>>),
        /// Where spans are sent, and how.
        ..collector: Collector,
        /// Share of the traces started here that is sampled; a trace that comes with a request is sampled if its parent
        /// is. By default `OTEL_TRACES_SAMPLER_ARG`.
        sample: f64 as Ratio = 0.01,
        /// Headers that carry the context: attache uses the first of these that a request has, and writes all of them.
        /// By default `OTEL_PROPAGATORS`.
        #[schema(default = "tracecontext")]
        propagation: Vec<Propagation> as List<Plain> = vec![Propagation::TraceContext],
        /// How long spans gather before they are sent.
        interval: Duration as Positive = Duration::from_secs(2),
        /// Spans that may wait for the export; more are dropped and counted.
        #[schema(minimum = 1, maximum = 1_000_000)]
        queue: usize = 8192,
    }
    or otlp
    shows Self::show_url
    rules {
        excludes [zipkin] [otlp, protocol]
            "`{}` together with `otlp` or `protocol`"
            "spans go to one collector: keep one of them";
    }
}

impl Tracing {
    fn show_url(&self, shown: &mut Object<String, Value>) {
        let key = if self.collector.protocol == ExportProtocol::Zipkin { "zipkin" } else { "otlp" };
        shown.insert(key.into(), self.collector.url().into());
    }
}

/// Headers that carry a trace's context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// `traceparent` and `tracestate` (W3C Trace Context).
    TraceContext,
    /// `b3`, in one header.
    B3,
    /// `X-B3-TraceId`, `X-B3-SpanId`, `X-B3-Sampled` and others.
    B3Multi,
}
