//! Converts all metrics to OTLP, and sends them periodically.
//!
//! Sums and histograms are cumulative since the start of the process. So a lost export loses nothing: the next one contains everything.

use std::time::SystemTime;

use attache_config::model::{Collector, Name, OtlpMetrics};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
    },
    resource::v1::Resource,
};
use prost::Message;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{
    Dial, ExportHandle, Exporter, PartialSuccess,
    attributes::{Attributes, nanos, resource, scope},
    ending::ExportEnding,
};
use crate::{
    Metrics,
    metrics::{
        BOUNDS, ConfiguredParts, FamilyPage, MetricKind, SEMANTIC_BOUNDS, SEMANTIC_CELLS, SIZE_CELLS, SIZES,
        SeriesValue, Sums,
    },
};

/// The export of a config's metrics.
#[derive(Debug)]
pub struct MetricExports {
    config: OtlpMetrics,
    ended: ExportEnding,
    metrics: Metrics,
}

impl MetricExports {
    /// The export, and the handle that keeps it running.
    pub fn new(config: OtlpMetrics, metrics: &Metrics) -> (ExportHandle, Self) {
        let (ending, ended) = ExportHandle::new();
        (ending, Self { config, ended, metrics: metrics.clone() })
    }

    /// The collector: its address, and what a connection to it needs.
    pub const fn collector(&self) -> &Collector {
        &self.config.collector
    }

    /// Exports until every [`ExportHandle`] is dropped or one of them was told to end; then once more. Call it within a `LocalSet` or
    /// `LocalRuntime`.
    pub async fn run(mut self, dial: Dial) {
        let resource = resource(&self.config.collector);
        let worker = self.metrics.worker();
        let mut exporter = Exporter::new(self.config.collector.clone(), dial, "metrics");
        let mut ticks = interval_at(Instant::now() + self.config.interval, self.config.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let ended = tokio::select! {
                _ = ticks.tick() => false,
                () = self.ended.wait() => true,
            };
            let request = request(&self.metrics, &resource, SystemTime::now());
            worker.metric_export(match exporter.export(&request.encode_to_vec(), rejected).await {
                Some(0) => "ok",
                Some(_) => "rejected",
                None => "failed",
            });
            if ended {
                return;
            }
        }
    }
}

fn rejected(answer: &[u8]) -> Option<PartialSuccess> {
    let partial = ExportMetricsServiceResponse::decode(answer).ok()?.partial_success?;
    Some(PartialSuccess { count: partial.rejected_data_points, message: partial.error_message })
}

/// When counting began, and when the values were read.
#[derive(Clone, Copy)]
struct TimeRange {
    start: u64,
    now: u64,
}

/// All values now.
pub(super) fn request(
    metrics: &Metrics,
    resource: &Resource,
    now: SystemTime,
) -> ExportMetricsServiceRequest {
    let start = Metrics::started().unwrap_or(now);
    let times = TimeRange { start: nanos(start), now: nanos(now) };
    let mut all = own(&metrics.page(), times);
    let known = metrics.known();
    let (server, client) = metrics.semantic_sums();
    let of_server = |cells: HistogramCells| server_points(&server, &known, cells, times);
    all.extend(histograms(
        "http.server.request.duration",
        "Duration of HTTP server requests.",
        "s",
        of_server(DURATION),
    ));
    let sizes = [("request", CELLS_OF_REQUEST), ("response", CELLS_OF_RESPONSE)];
    for (what, cells) in sizes {
        let description = format!("Size of HTTP server {what} bodies.");
        let name = format!("http.server.{what}.body.size");
        all.extend(histograms(&name, &description, "By", of_server(cells)));
    }
    all.extend(histograms(
        "http.client.request.duration",
        "Duration of HTTP client requests: of each attempt at an upstream.",
        "s",
        client_points(&client, &known, times),
    ));
    let scope = ScopeMetrics { scope: Some(scope()), metrics: all, ..ScopeMetrics::default() };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource.clone()),
            scope_metrics: vec![scope],
            ..ResourceMetrics::default()
        }],
    }
}

/// The bounds of `/metrics`.
fn seconds() -> Vec<f64> {
    BOUNDS.iter().map(|micros| *micros as f64 / 1e6).collect()
}

/// The families of `/metrics`, under their names there.
fn own(page: &FamilyPage, times: TimeRange) -> Vec<Metric> {
    let metrics = page.0.iter().map(|family| {
        let what = family.what;
        let attributes = |labels: &[Name]| {
            let mut attributes = Attributes::default();
            for (name, value) in what.labels.iter().zip(labels) {
                attributes.text(name, value);
            }
            attributes
        };
        let mut numbers = Vec::new();
        let mut histograms = Vec::new();
        for (labels, value) in &family.samples {
            match value {
                SeriesValue::Number(value) => numbers.push(NumberDataPoint {
                    attributes: attributes(labels).0,
                    start_time_unix_nano: if what.kind == MetricKind::Counter { times.start } else { 0 },
                    time_unix_nano: times.now,
                    value: Some(number_data_point::Value::AsDouble(*value)),
                    ..NumberDataPoint::default()
                }),
                SeriesValue::Histogram(of) => {
                    let mut before = 0;
                    let mut counts: Vec<u64> = of
                        .buckets
                        .iter()
                        .map(|cumulative| cumulative - std::mem::replace(&mut before, *cumulative))
                        .collect();
                    counts.push(of.count - before);
                    histograms.push(histogram(attributes(labels), counts, seconds(), of.sum, times));
                }
            }
        }
        let data = match what.kind {
            MetricKind::Counter => Data::Sum(Sum {
                data_points: numbers,
                aggregation_temporality: AggregationTemporality::Cumulative.into(),
                is_monotonic: true,
            }),
            MetricKind::Gauge => Data::Gauge(Gauge { data_points: numbers }),
            MetricKind::Histogram => cumulative(histograms),
        };
        Metric {
            name: what.name.into(),
            description: what.help.into(),
            unit: match what.unit() {
                Some("seconds") => "s",
                Some("bytes") => "By",
                _ => "1",
            }
            .into(),
            data: Some(data),
            ..Metric::default()
        }
    });
    metrics.collect()
}

fn cumulative(data_points: Vec<HistogramDataPoint>) -> Data {
    let aggregation_temporality = AggregationTemporality::Cumulative.into();
    Data::Histogram(Histogram { data_points, aggregation_temporality })
}

fn histogram(
    attributes: Attributes,
    bucket_counts: Vec<u64>,
    explicit_bounds: Vec<f64>,
    sum: f64,
    times: TimeRange,
) -> HistogramDataPoint {
    HistogramDataPoint {
        attributes: attributes.0,
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        count: bucket_counts.iter().sum(),
        sum: Some(sum),
        bucket_counts,
        explicit_bounds,
        ..HistogramDataPoint::default()
    }
}

fn histograms(name: &str, description: &str, unit: &str, points: Vec<HistogramDataPoint>) -> Option<Metric> {
    (!points.is_empty()).then(|| Metric {
        name: name.into(),
        description: description.into(),
        unit: unit.into(),
        data: Some(cumulative(points)),
        ..Metric::default()
    })
}

/// The positions of a histogram's cells in a series, and their meaning.
#[derive(Clone, Copy)]
struct HistogramCells {
    first: usize,
    bounds: &'static [u64],
    /// The divisor for values.
    scale: f64,
}

const DURATION: HistogramCells = HistogramCells { first: 0, bounds: &SEMANTIC_BOUNDS, scale: 1e6 };
const CELLS_OF_REQUEST: HistogramCells = HistogramCells { first: SEMANTIC_CELLS, bounds: &SIZES, scale: 1.0 };
const CELLS_OF_RESPONSE: HistogramCells =
    HistogramCells { first: SEMANTIC_CELLS + SIZE_CELLS, bounds: &SIZES, scale: 1.0 };

fn point(
    attributes: Attributes,
    series: &[u64],
    cells: HistogramCells,
    times: TimeRange,
) -> HistogramDataPoint {
    let HistogramCells { first, bounds, scale } = cells;
    let above = first + bounds.len() + 1;
    let counts = series.get(first..above).unwrap_or_default().to_vec();
    let sum = series.get(above).map_or(0.0, |sum| *sum as f64 / scale);
    let bounds = bounds.iter().map(|bound| *bound as f64 / scale);
    histogram(attributes, counts, bounds.collect(), sum, times)
}

/// The attributes that requests and attempts have in common.
fn call(method: &Name, status: &Name, version: &Name, error: &Name) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.text("http.request.method", method);
    if let Ok(status) = status.parse() {
        attributes.number("http.response.status_code", status);
    }
    if !version.is_empty() {
        attributes.text("network.protocol.name", "http");
        attributes.text("network.protocol.version", version);
    }
    attributes.text("error.type", error);
    attributes
}

fn server_points<const C: usize>(
    sums: &Sums<8, C>,
    known: &ConfiguredParts,
    cells: HistogramCells,
    times: TimeRange,
) -> Vec<HistogramDataPoint> {
    let points =
        sums.iter().map(|([listener, route, upstream, method, status, version, scheme, error], series)| {
            let mut attributes = call(method, status, version, error);
            attributes.text("url.scheme", scheme);
            if !route.is_empty() {
                attributes.text("http.route", known.route(listener, route));
            }
            attributes.text("attache.listener", listener);
            attributes.text("attache.route", route);
            attributes.text("attache.upstream", upstream);
            point(attributes, series, cells, times)
        });
    points.collect()
}

fn client_points<const C: usize>(
    sums: &Sums<5, C>,
    known: &ConfiguredParts,
    times: TimeRange,
) -> Vec<HistogramDataPoint> {
    let points = sums.iter().map(|([upstream, method, status, version, error], series)| {
        let mut attributes = call(method, status, version, error);
        let (address, port) = known.server(upstream);
        attributes.text("server.address", address);
        if let Some(port) = port {
            attributes.number("server.port", port.into());
        }
        attributes.text("attache.upstream", upstream);
        point(attributes, series, DURATION, times)
    });
    points.collect()
}
