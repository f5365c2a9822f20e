//! Traces by OpenTelemetry, and to Zipkin.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Name, TlsClient};

/// Which traces are begun, and where spans are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// The collector's host.
    pub host: Name,
    /// Its port.
    pub port: u16,
    /// Path that spans are posted to.
    pub path: Name,
    /// How they are sent.
    pub protocol: SpanProtocol,
    /// TLS to the collector.
    pub tls: Option<TlsClient>,
    /// Headers of every export, such as a key; their values are never shown.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Share of the traces without a parent that are sampled; those with one follow it. Default 1%.
    pub sample: f64,
    /// `service.name`. Default `attache`.
    pub service: Name,
    /// More attributes of the resource.
    pub resource: Vec<(Name, Name)>,
    /// Headers that carry the context, read in this order and all written. Default W3C's.
    pub propagation: Vec<Propagation>,
    /// How long an export may take. Default 10 s.
    pub timeout: Duration,
    /// Spans that may wait for the export; more are dropped and counted. Default 8192.
    pub queue: usize,
    /// How long spans gather before they are sent. Default 2 s.
    pub interval: Duration,
}

impl Tracing {
    /// Share of the traces that is sampled by default.
    pub const SAMPLE: f64 = 0.01;
    /// `service.name` by default.
    pub const SERVICE: &str = "attache";
    /// Where a collector is by default (OTLP exporter specification).
    pub const ENDPOINT: &str = "http://localhost:4318";
    /// How long an export may take by default.
    pub const TIMEOUT: Duration = Duration::from_secs(10);
    /// Spans that may wait by default.
    pub const QUEUE: usize = 8192;
    /// How long spans gather by default.
    pub const INTERVAL: Duration = Duration::from_secs(2);
}

/// How spans are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum SpanProtocol {
    /// Protobuf in an HTTP POST; port 4318 unless another is given.
    #[default]
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
    /// gRPC; port 4317 unless another is given.
    #[serde(rename = "grpc")]
    Grpc,
    /// Zipkin's JSON (v2) in an HTTP POST; port 9411 unless another is given. What the key `zipkin` means.
    #[serde(rename = "zipkin", skip_deserializing)]
    Zipkin,
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
