//! What is sent to a collector of OpenTelemetry, and how.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Name, TlsClient};

/// Where one signal is sent by OTLP, and what is said of the sender.
#[derive(Clone, Debug, PartialEq)]
pub struct Collector {
    /// The collector's host.
    pub host: Name,
    /// Its port.
    pub port: u16,
    /// Path that exports are posted to.
    pub path: Name,
    /// How they are sent.
    pub protocol: ExportProtocol,
    /// How they are compressed. Default not at all.
    pub compression: OtlpCompression,
    /// TLS to the collector.
    pub tls: Option<TlsClient>,
    /// Headers of every export, such as a key; their values are never shown.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// `service.name`. Default `attache`.
    pub service: Name,
    /// More attributes of the resource.
    pub resource: Vec<(Name, Name)>,
    /// How long an export may take. Default 10 s.
    pub timeout: Duration,
}

impl Collector {
    /// `service.name` by default.
    pub const SERVICE: &str = "attache";
    /// Where a collector is by default (OTLP exporter specification).
    pub const ENDPOINT: &str = "http://localhost:4318";
    /// How long an export may take by default.
    pub const TIMEOUT: Duration = Duration::from_secs(10);
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
    /// How often. Default 60 s.
    pub interval: Duration,
}

impl OtlpMetrics {
    /// How often metrics are sent by default (OpenTelemetry's `OTEL_METRIC_EXPORT_INTERVAL`).
    pub const INTERVAL: Duration = Duration::from_mins(1);
}

/// How log records are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct OtlpLogs {
    /// Where they are sent.
    pub collector: Collector,
    /// Records that may wait for the export; more are dropped and counted. Default 8192.
    pub queue: usize,
}

impl OtlpLogs {
    /// Records that may wait by default.
    pub const QUEUE: usize = 8192;
}

/// What is sent by OTLP beside traces.
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
