//! `adaptive_concurrency:` and `queue:` of an upstream.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, Txt};
use crate::{
    model,
    text::{HeaderText, Positive, Ratio, show_duration, show_ratio},
};

fn adaptive() -> model::AdaptiveConcurrency {
    model::AdaptiveConcurrency::default()
}

fn queue() -> model::Queue {
    model::Queue::default()
}

/// A concurrency limit that follows the upstream's latency: as long as it answers as fast as without load, the limit rises; when it
/// slows down, the limit falls. What is beyond is answered 503 `overflow-adaptive` at once, or waits in the `queue`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`adaptive_concurrency`")]
pub(crate) struct AdaptiveConcurrency {
    /// Which latency of a window stands for all of them: `50%` is the median.
    #[schemars(extend("default" = show_ratio(adaptive().sample_aggregate_percentile)))]
    pub(crate) sample_aggregate_percentile: Option<Txt<Ratio>>,
    /// The limit is never higher.
    #[schemars(range(min = 1), extend("default" = adaptive().max_concurrency_limit))]
    pub(crate) max_concurrency_limit: Option<At<u32>>,
    /// How often the limit is set anew.
    #[schemars(extend("default" = show_duration(adaptive().concurrency_update_interval)))]
    pub(crate) concurrency_update_interval: Option<Txt<Positive>>,
    /// How the latency without load is found.
    pub(crate) min_rtt: Option<MinRtt>,
}

/// The latency without load: measured from time to time with a few calls at once.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`min_rtt`")]
pub(crate) struct MinRtt {
    /// Time between two measurements.
    #[schemars(extend("default" = show_duration(adaptive().min_rtt.interval)))]
    pub(crate) interval: Option<Txt<Positive>>,
    /// Up to this share of `interval` is added at random, so that many proxies don't measure together.
    #[schemars(extend("default" = show_ratio(adaptive().min_rtt.jitter)))]
    pub(crate) jitter: Option<Txt<Ratio>>,
    /// Calls that a measurement takes.
    #[schemars(range(min = 1), extend("default" = adaptive().min_rtt.request_count))]
    pub(crate) request_count: Option<u32>,
    /// The limit while it is measured, and the lowest at any time.
    #[schemars(range(min = 1), extend("default" = adaptive().min_rtt.min_concurrency))]
    pub(crate) min_concurrency: Option<u32>,
    /// How much slower than without load is still as it should be.
    #[schemars(extend("default" = show_ratio(adaptive().min_rtt.buffer)))]
    pub(crate) buffer: Option<Txt<Ratio>>,
    /// A latency that is known: it is never measured.
    #[schemars(extend("examples" = ["10ms"]))]
    pub(crate) fixed_value: Option<Txt<Positive>>,
}

/// A short queue for calls beyond `max_requests` or `adaptive_concurrency`. The most urgent go first; when it doesn't drain, waits
/// become short, the newest goes first, and what waits too long is answered 503 `overflow-queue`, the least urgent first.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`queue`")]
pub(crate) struct Queue {
    /// Calls that wait at once, over all workers.
    #[schemars(range(min = 1), extend("default" = queue().max))]
    pub(crate) max: Option<u32>,
    /// The longest wait once the queue has not been empty for `interval`.
    #[schemars(extend("default" = show_duration(queue().target)))]
    pub(crate) target: Option<Txt<Positive>>,
    /// The longest wait before that.
    #[schemars(extend("default" = show_duration(queue().interval)))]
    pub(crate) interval: Option<At<Txt<Positive>>>,
    /// The header in which a call says how urgent it is: `u=0` (first) to `u=7` (last) as in RFC 9218, or the number alone. Without it, 3.
    #[schemars(extend("default" = queue().priority_header.as_str()))]
    pub(crate) priority_header: Option<Txt<HeaderText>>,
}
