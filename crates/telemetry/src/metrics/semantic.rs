//! Durations by OpenTelemetry's semantic conventions for HTTP metrics: `http.server.request.duration` and `http.client.request.duration`
//! (stable since 1.23), with their attributes and bucket boundaries; and the sizes of bodies.
//!
//! They distinguish single statuses and methods, which `/metrics` doesn't, so they have many times as many series. Rule: nothing is counted
//! here unless it is used: by an export of metrics by OTLP, or by Istio's and Envoy's names, which have single statuses too.

use attache_config::model::{Config, MetricNames};

use super::series::{Sums, families};

/// The conventions' bucket boundaries, in microseconds.
pub(crate) const BOUNDS: [u64; 14] = [
    5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 750_000, 1_000_000, 2_500_000,
    5_000_000, 7_500_000, 10_000_000,
];

/// The number of cells of a duration: one per bucket, one above the last bound, and the sum in microseconds.
pub(crate) const CELLS: usize = BOUNDS.len() + 2;

/// Bucket boundaries of sizes, in bytes; the conventions have none.
pub(crate) const SIZES: [u64; 7] = [100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];
/// The number of cells of one histogram of sizes.
pub(crate) const SIZE_CELLS: usize = SIZES.len() + 2;
/// The number of cells of a request: the duration, and the sizes of request and response.
pub(crate) const SERVER_CELLS: usize = CELLS + 2 * SIZE_CELLS;

/// The labels of a request: listener, route, upstream, method, status, version, scheme, error.
pub(crate) const SERVER: usize = 8;
/// The labels of an attempt: upstream, method, status, version, error.
pub(crate) const CLIENT: usize = 5;

families! { pub(super) Families, Tables {
    server: SERVER, SERVER_CELLS;
    client: CLIENT, CELLS;
} }

/// Whether these counts are used.
pub(super) fn wanted(config: &Config) -> bool {
    config.otlp.metrics.is_some()
        || config.app.names != MetricNames::default()
        || config.admin.envoy_compatible
}

/// Requests by labels.
pub(crate) type ServerSums = Sums<SERVER, SERVER_CELLS>;
/// Attempts by labels.
pub(crate) type ClientSums = Sums<CLIENT, CELLS>;
