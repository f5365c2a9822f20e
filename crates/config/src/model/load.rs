//! Limits that follow an upstream's latency, and the queue of calls beyond them.

use super::prelude::*;

section! {
    "`adaptive_concurrency`"
    /// A concurrency limit that follows the upstream's latency: as long as it answers as fast as without load, the limit rises; when it
    /// slows down, the limit falls. Calls above the limit are answered 503 `overflow-adaptive` at once, or wait in the `queue`.
    // Envoy's gradient controller, with its names and defaults.
    pub struct AdaptiveConcurrency {
        /// The percentile of the latencies of a window that is used: `50%` is the median.
        sample_aggregate_percentile: f64 as Ratio = 0.5,
        /// The limit is never higher.
        #[schema(minimum = 1)]
        max_concurrency_limit: u32 = 1000,
        /// How often the limit is set anew.
        concurrency_update_interval: Duration as Positive = Duration::from_millis(100),
        /// How the latency without load is found.
        min_rtt: MinRtt as Nested = MinRtt::default(),
    }
}

section! {
    "`min_rtt`"
    /// The latency without load: measured from time to time with a few calls at once.
    pub struct MinRtt {
        /// Time between two measurements.
        interval: Duration as Positive = Duration::from_mins(1),
        /// Up to this share of `interval` is added at random, so that many proxies don't measure together.
        jitter: f64 as Ratio = 0.15,
        /// Calls that a measurement takes.
        #[schema(minimum = 1)]
        request_count: u32 = 50,
        /// The limit while it is measured, and the lowest at any time.
        #[schema(minimum = 1)]
        min_concurrency: u32 = 3,
        /// How much slower than without load an answer may be before the limit falls.
        buffer: f64 as Ratio = 0.25,
        /// The latency, if it is known. attache then never measures it.
        #[schema(examples = ["10ms"])]
        fixed_value: Option<Duration> as Optional<Positive> = None,
    }
}

section! {
    "`queue`"
    /// A short queue for calls beyond `max_requests` or `adaptive_concurrency`. The most urgent calls go first. If the queue doesn't become
    /// empty, waits become short and the newest calls go first. Calls that wait too long are answered 503 `overflow-queue`, the least
    /// urgent first.
    pub struct Queue: Eq {
        /// Calls that wait at once, over all workers.
        #[schema(minimum = 1)]
        max: u32 = 1024,
        /// The longest wait once the queue has not been empty for `interval`.
        target: Duration as Positive = Duration::from_millis(5),
        /// The longest wait before that.
        interval: Duration as Positive = Duration::from_millis(100),
        /// The header in which a call says how urgent it is: `u=0` (first) to `u=7` (last) as in RFC 9218, or the
        /// number alone. Without it, 3.
        priority_header: HeaderName as HeaderText = HeaderName::from_static("priority"),
    }
}
