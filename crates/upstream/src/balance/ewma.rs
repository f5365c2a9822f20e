//! Peak EWMA: latency that jumps up at once and comes down slowly (Finagle's `PeakEwma`, after "The power of two
//! choices with peak exponentially weighted moving average").
//!
//! Let `e` be the estimate, `t` the time since its last change, `tau` 10 s and `w = exp(-t/tau)`. A response of
//! latency `l` makes it `l` if `l > e`, else `e·w + l·(1-w)`. The cost of an endpoint is `e·w·(active + 1)`: without
//! responses the estimate fades, so a slow endpoint gets another chance. An endpoint that was never measured costs
//! nothing until it has a running request, and then more than any other.
//!
//! A failure is often fast, which must not attract traffic: it counts as the largest of its latency, 1 s and three times
//! the estimate, at most 60 s. Like any peak it fades with `tau`.
//!
//! Workers may write the two atomics at the same time; if an update is lost, one observation is not counted.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::time::Instant;

use crate::Endpoint;

const TAU: f64 = 10e9;
const FAILURE: f64 = 1e9;
const FAILURE_FACTOR: f64 = 3.0;
const FAILURE_MAX: f64 = 60e9;
/// Cost of a request running on an endpoint that was never measured.
const UNKNOWN: f64 = 1e15;

/// The estimate in nanoseconds, faded to `now`.
fn faded(endpoint: &Endpoint, now: Instant) -> (f64, f64) {
    let since = endpoint.since_added(now).saturating_sub(endpoint.ewma_at.load(Relaxed));
    let keep = (-(since as f64) / TAU).exp();
    (f64::from_bits(endpoint.ewma.load(Relaxed)), keep)
}

/// The estimate faded to `now`, for people; `None` if nothing was measured yet.
pub(crate) fn estimate(endpoint: &Endpoint, now: Instant) -> Option<Duration> {
    let (estimate, keep) = faded(endpoint, now);
    (estimate > 0.0).then(|| Duration::from_nanos((estimate * keep) as u64))
}

/// What one more request would cost, in nanoseconds times requests.
pub(super) fn cost(endpoint: &Endpoint, now: Instant) -> f64 {
    let (estimate, keep) = faded(endpoint, now);
    let active = f64::from(endpoint.active.load(Relaxed));
    if estimate == 0.0 { active * UNKNOWN } else { estimate * keep * (active + 1.0) }
}

/// Adds a finished request to the estimate.
pub(crate) fn observe(endpoint: &Endpoint, latency: Duration, success: bool, now: Instant) {
    let (estimate, keep) = faded(endpoint, now);
    let mut latency = latency.as_nanos() as f64;
    if !success {
        latency = latency.max((estimate * FAILURE_FACTOR).clamp(FAILURE, FAILURE_MAX));
    }
    let next = if latency > estimate { latency } else { estimate * keep + latency * (1.0 - keep) };
    endpoint.ewma.store(next.max(1.0).to_bits(), Relaxed);
    endpoint.ewma_at.store(endpoint.since_added(now), Relaxed);
}
