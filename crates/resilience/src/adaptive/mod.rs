//! Adaptive concurrency: finds out from the upstream's latency how many calls it can process at once.
//!
//! **Rule.** After every `concurrency_update_interval` with samples:
//!
//! ```text
//! gradient = (minRTT × (1 + buffer)) / sampleRTT, at least 0.5 and at most 2
//! limit    = limit × gradient + √(limit × gradient), from min_concurrency to max_concurrency_limit
//! ```
//!
//! `sampleRTT` is the `sample_aggregate_percentile` of the window. While the upstream is as fast as without load the
//! limit rises by the square root (headroom for bursts); once calls queue up inside of it, latency rises, and the limit
//! falls until the queue is gone.
//!
//! **minRTT** is measured at the start, and then every `interval` plus jitter: the limit falls to `min_concurrency`
//! until `request_count` calls that began since have been answered, then returns to its earlier value. It is also
//! measured after five windows in a row at the lowest limit, since the upstream has then probably become slower
//! permanently.
//!
//! **Sources.** Envoy's `adaptive_concurrency` filter with its gradient controller, names and defaults; the ideas of Netflix's
//! concurrency-limits (gradient; "TCP Vegas" before it: Brakmo, Peterson 1995; Little's law).
//!
//! **Differences from Envoy**, each for a reason:
//! - a window in which less than half of the limit was used changes nothing (Netflix): an unused limit would rise to
//!   its maximum, and would not limit anything when it is needed;
//! - a sample ends with the response's head, so a client that reads slowly doesn't look like a slow upstream;
//! - failures are no samples: an upstream that fails at once must not look fast. A call that ended by a deadline is a
//!   sample, with the time until the deadline;
//! - there is one controller for each upstream, not for each filter chain.
//!
//! Everything is atomic: a sample is one addition to a bucket, and the worker that notices the end of a window sets the
//! limit.

mod limit;
mod samples;
#[cfg(test)]
mod tests;

use std::{
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{AcqRel, Relaxed},
    },
    time::Duration,
};

use attache_config::model::AdaptiveConcurrency;
use limit::{AdaptiveLimit, measuring};
use samples::LatencySamples;
use tokio::time::Instant;

/// Windows in a row at the lowest limit after which minRTT is measured again.
const WINDOWS_AT_MINIMUM: u32 = 5;

/// The gradient controller of one upstream, shared by all workers.
#[derive(Debug)]
pub struct Gradient {
    config: AdaptiveConcurrency,
    epoch: Instant,
    limit: AdaptiveLimit,
    /// Microseconds; 0 is unknown.
    min_rtt: AtomicU64,
    sample_rtt: AtomicU64,
    /// Nanoseconds since `epoch`.
    update_at: AtomicU64,
    measure_at: AtomicU64,
    /// The most calls at once in this window.
    peak: AtomicU32,
    at_lowest: AtomicU32,
    samples: LatencySamples,
}

/// The current state of a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveReading {
    /// Calls at once.
    pub limit: u32,
    /// Latency without load; `None` before the first measurement.
    pub min_rtt: Option<Duration>,
    /// Latency of the last window; `None` before the first.
    pub sample_rtt: Option<Duration>,
    /// minRTT is being measured, so the limit is the lowest.
    pub measuring: bool,
}

impl Gradient {
    /// A controller that begins with a measurement, unless minRTT is known.
    pub fn new(config: AdaptiveConcurrency, now: Instant) -> Self {
        let lowest = config.min_rtt.min_concurrency.max(1);
        let fixed = config.min_rtt.fixed_value;
        Self {
            epoch: now,
            limit: AdaptiveLimit::new(lowest, fixed.is_none()),
            min_rtt: AtomicU64::new(fixed.map_or(0, micros)),
            sample_rtt: AtomicU64::new(0),
            update_at: AtomicU64::new(nanos(config.concurrency_update_interval)),
            measure_at: AtomicU64::new(u64::MAX),
            peak: AtomicU32::new(0),
            at_lowest: AtomicU32::new(0),
            samples: LatencySamples::default(),
            config,
        }
    }

    /// The limit now.
    pub fn limit(&self) -> u32 {
        self.limit.get()
    }

    /// The current state.
    pub fn reading(&self) -> AdaptiveReading {
        let time = |cell: &AtomicU64| Some(cell.load(Relaxed)).filter(|t| *t > 0).map(Duration::from_micros);
        AdaptiveReading {
            limit: self.limit(),
            min_rtt: time(&self.min_rtt),
            sample_rtt: time(&self.sample_rtt),
            measuring: measuring(self.limit.phase()),
        }
    }

    /// A call begins; `running` calls run now, this one included. Returns the phase for [`Self::sample`].
    pub(crate) fn begun(&self, running: u32, now: Instant) -> u32 {
        self.peak.fetch_max(running, Relaxed);
        let phase = self.limit.phase();
        if !measuring(phase) && self.since(now) >= self.measure_at.load(Relaxed) {
            self.measure(phase);
            return self.limit.phase();
        }
        phase
    }

    /// A call that began in `phase` took `rtt`; `running` calls run now.
    pub(crate) fn sample(&self, phase: u32, rtt: Duration, running: u32, now: Instant) {
        let current = self.limit.phase();
        if measuring(current) {
            // Calls that began before the measurement ran beside too many others.
            if phase == current {
                self.samples.record(micros(rtt));
                if self.limit.counts(phase, self.config.min_rtt.request_count.max(1)) {
                    self.measurement_ends(phase, now);
                }
            }
            return;
        }
        self.samples.record(micros(rtt));
        let (due, since) = (self.update_at.load(Relaxed), self.since(now));
        let next = since.saturating_add(nanos(self.config.concurrency_update_interval));
        if since >= due && self.update_at.compare_exchange(due, next, AcqRel, Relaxed).is_ok() {
            self.update(current, running);
        }
    }

    fn update(&self, phase: u32, running: u32) {
        let Some(sample) = self.samples.take(self.config.sample_aggregate_percentile) else { return };
        self.sample_rtt.store(sample, Relaxed);
        let peak = self.peak.swap(running, Relaxed).max(running);
        let old = self.limit();
        let lowest = self.config.min_rtt.min_concurrency.max(1);
        if peak.saturating_mul(2) < old {
            return;
        }
        let ideal = self.min_rtt.load(Relaxed) as f64 * (1.0 + self.config.min_rtt.buffer);
        let gradient = (ideal / sample.max(1) as f64).clamp(0.5, 2.0);
        let scaled = f64::from(old) * gradient;
        let new = (scaled + scaled.sqrt()) as u32;
        let new = new.clamp(lowest, self.config.max_concurrency_limit.max(lowest));
        // Another worker may have begun a measurement meanwhile: then its limit stays.
        if !self.limit.change(old, new) {
            return;
        }
        if new > lowest {
            self.at_lowest.store(0, Relaxed);
        } else if self.at_lowest.fetch_add(1, Relaxed) + 1 >= WINDOWS_AT_MINIMUM {
            self.measure(phase);
        }
    }

    /// Begins a measurement.
    fn measure(&self, phase: u32) {
        if self.config.min_rtt.fixed_value.is_some() {
            return;
        }
        self.limit.begin(phase, self.config.min_rtt.min_concurrency.max(1), || {
            self.samples.clear();
            self.at_lowest.store(0, Relaxed);
        });
    }

    fn measurement_ends(&self, phase: u32, now: Instant) {
        if let Some(rtt) = self.samples.take(self.config.sample_aggregate_percentile) {
            self.min_rtt.store(rtt.max(1), Relaxed);
        }
        let min = &self.config.min_rtt;
        let now = self.since(now);
        let interval = nanos(min.interval) as f64 * (1.0 + min.jitter * fastrand::f64());
        self.measure_at.store(now.saturating_add(interval as u64), Relaxed);
        self.update_at.store(now.saturating_add(nanos(self.config.concurrency_update_interval)), Relaxed);
        self.limit.end(phase);
    }

    fn since(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.epoch))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}
