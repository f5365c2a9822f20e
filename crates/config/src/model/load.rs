//! How much of an upstream's load is let through, and what waits.

use std::time::Duration;

use http::HeaderName;

/// A concurrency limit that follows the upstream's latency (Envoy's gradient controller, with its names and defaults).
#[derive(Clone, Debug, PartialEq)]
pub struct AdaptiveConcurrency {
    /// Which part of the samples of a window stands for them all, 0 to 1. Default 0.5.
    pub sample_aggregate_percentile: f64,
    /// The limit is never higher. Default 1000.
    pub max_concurrency_limit: u32,
    /// How often the limit is set anew. Default 100 ms.
    pub concurrency_update_interval: Duration,
    /// How the latency without load is found.
    pub min_rtt: MinRtt,
}

impl Default for AdaptiveConcurrency {
    fn default() -> Self {
        Self {
            sample_aggregate_percentile: 0.5,
            max_concurrency_limit: 1000,
            concurrency_update_interval: Duration::from_millis(100),
            min_rtt: MinRtt::default(),
        }
    }
}

/// How the latency of an upstream without load is found.
#[derive(Clone, Debug, PartialEq)]
pub struct MinRtt {
    /// Time between two measurements. Default 60 s.
    pub interval: Duration,
    /// Up to this share of `interval` is added at random, 0 to 1. Default 0.15.
    pub jitter: f64,
    /// Calls that a measurement takes; at least 1. Default 50.
    pub request_count: u32,
    /// The limit while it is measured, and the lowest at any time; at least 1. Default 3.
    pub min_concurrency: u32,
    /// How much slower than without load is still as it should be, as a share. Default 0.25.
    pub buffer: f64,
    /// A latency that is known is never measured. Default `None`.
    pub fixed_value: Option<Duration>,
}

impl Default for MinRtt {
    fn default() -> Self {
        Self {
            interval: Duration::from_mins(1),
            jitter: 0.15,
            request_count: 50,
            min_concurrency: 3,
            buffer: 0.25,
            fixed_value: None,
        }
    }
}

/// Calls that a limit would refuse wait for a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Calls waiting at once, over all workers. Default 1024.
    pub max: u32,
    /// The longest wait while the queue has not been empty for `interval`. Default 5 ms.
    pub target: Duration,
    /// The longest wait before that. Default 100 ms.
    pub interval: Duration,
    /// Where a call says its urgency: `u=0` (first) to `u=7` (RFC 9218), or the number alone. Default `priority`.
    pub priority_header: HeaderName,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            max: 1024,
            target: Duration::from_millis(5),
            interval: Duration::from_millis(100),
            priority_header: HeaderName::from_static("priority"),
        }
    }
}
