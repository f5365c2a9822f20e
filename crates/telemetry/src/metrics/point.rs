//! One point of the dashboard's history of the last hour.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::counts::RowCounts;

/// 15 seconds of all traffic. An hour of these points needs 13 KiB.
#[derive(Debug)]
pub(super) struct Point {
    /// When it ended.
    at: Instant,
    requests_per_second: f64,
    failed_per_second: f64,
    /// p50, p90 and p99 in milliseconds.
    percentiles: [Option<f64>; 3],
}

impl Point {
    pub(super) fn new(at: Instant, counts: &RowCounts, over: Duration) -> Self {
        let seconds = over.as_secs_f64().max(0.001);
        let rate = |count: u64| (count as f64 / seconds * 100.0).round() / 100.0;
        Self {
            at,
            requests_per_second: rate(counts.requests()),
            failed_per_second: rate(counts.failed),
            percentiles: [0.5, 0.9, 0.99].map(|share| counts.millis(share)),
        }
    }

    /// The seconds before now, the requests and failures per second, and the percentiles.
    pub(super) fn json(&self, now: Instant) -> Value {
        let [p50, p90, p99] = self.percentiles;
        let ago = now.saturating_duration_since(self.at).as_secs();
        json!([ago, self.requests_per_second, self.failed_per_second, p50, p90, p99])
    }
}
