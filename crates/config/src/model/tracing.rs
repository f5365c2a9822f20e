//! Traces by OpenTelemetry, and to Zipkin.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Collector;

/// Which traces are begun, and where spans are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// Where spans are sent.
    pub collector: Collector,
    /// Share of the traces without a parent that are sampled; those with one follow it. Default 1%.
    pub sample: f64,
    /// Headers that carry the context, read in this order and all written. Default W3C's.
    pub propagation: Vec<Propagation>,
    /// Spans that may wait for the export; more are dropped and counted. Default 8192.
    pub queue: usize,
    /// How long spans gather before they are sent. Default 2 s.
    pub interval: Duration,
}

impl Tracing {
    /// Share of the traces that is sampled by default.
    pub const SAMPLE: f64 = 0.01;
    /// Spans that may wait by default.
    pub const QUEUE: usize = 8192;
    /// How long spans gather by default.
    pub const INTERVAL: Duration = Duration::from_secs(2);
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
