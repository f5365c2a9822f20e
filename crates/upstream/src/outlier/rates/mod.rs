//! Ejection by rates: endpoints that fail often without ever failing five times in a row.
//!
//! At the end of every `interval` the endpoints in use are judged by their counts in it, then all counts are cleared:
//! - **success rate**: of the endpoints with at least `request_volume` requests, if they are `minimum_hosts` or more,
//!   each one with a success rate below mean − `stdev_factor` ÷ 1000 × standard deviation is ejected. On by default.
//! - **failure percentage**: of those with its own `request_volume`, if they are `minimum_hosts` or more, each one of
//!   whose requests the share `threshold` or more failed is ejected. Off by default.
//!
//! The limits of [the parent](super) apply to both: never more than the share, never the last one, the same times.
//!
//! **Source.** Envoy's outlier detection, with its defaults. A difference: a request counts when it starts, not when it
//! ends, so that a success needs no look-up of its endpoint. A request that runs across the end of an interval is only
//! one of a hundred or more, and a request whose caller left counts as a success.
//!
//! In an upstream with fewer endpoints than `minimum_hosts`, each request costs only one load of a flag.

use std::{fmt, sync::atomic::Ordering::Relaxed};

use attache_config::model::{FailurePercentage, OutlierEjection, SuccessRate};
use attache_telemetry::Reason;
use tokio::time::Instant;

use super::eject;
use crate::{Endpoint, SharedUpstream};

/// A request was sent to the endpoint.
pub(crate) fn begun(shared: &SharedUpstream, endpoint: &Endpoint) {
    if shared.ejections.rates.0.load(Relaxed) {
        endpoint.passive.rates.begun.fetch_add(1, Relaxed);
    }
}

pub(super) fn failed(shared: &SharedUpstream, endpoint: &Endpoint) {
    if shared.ejections.rates.0.load(Relaxed) {
        endpoint.passive.rates.failed.fetch_add(1, Relaxed);
    }
}

/// Judges every `interval`, for as long as it is polled. [`super::run`] does.
pub(super) async fn run(shared: &SharedUpstream) {
    let config = &shared.config.outlier_ejection;
    if fewest(config).is_none() {
        return;
    }
    loop {
        judge(shared, Instant::now());
        tokio::time::sleep(config.interval).await;
    }
}

/// The smallest number of endpoints that one of the two rules needs.
fn fewest(config: &OutlierEjection) -> Option<u32> {
    let by_success = config.success_rate.as_ref().map(|rule| rule.minimum_hosts);
    let by_failure = config.failure_percentage.as_ref().map(|rule| rule.minimum_hosts);
    by_success.into_iter().chain(by_failure).min()
}

/// One endpoint's interval.
struct EndpointSample<'a> {
    endpoint: &'a Endpoint,
    begun: u32,
    /// 0 to 1.
    success: f64,
}

/// Judges the interval that ends now and begins the next.
pub fn judge(shared: &SharedUpstream, now: Instant) {
    let config = &shared.config.outlier_ejection;
    let set = shared.endpoints.load();
    let enough = fewest(config).is_some_and(|fewest| set.endpoints.len() >= fewest as usize);
    let samples: Vec<_> = set
        .endpoints
        .iter()
        .filter_map(|endpoint| {
            let counts = &endpoint.passive.rates;
            let (begun, failed) = (counts.begun.swap(0, Relaxed), counts.failed.swap(0, Relaxed));
            // An endpoint that came back in the middle is judged by its requests since then.
            let used = endpoint.usable() && begun > 0;
            let success = 1.0 - (f64::from(failed) / f64::from(begun.max(1))).min(1.0);
            used.then_some(EndpointSample { endpoint, begun, success })
        })
        .collect();
    // Counting begins with the next interval, so that the first counted interval is a whole one.
    shared.ejections.rates.0.store(enough, Relaxed);

    if let Some(rule) = &config.success_rate {
        by_success_rate(shared, rule, &samples, now);
    }
    if let Some(rule) = &config.failure_percentage {
        by_failures(shared, rule, &samples, now);
    }
}

fn by_success_rate(
    shared: &SharedUpstream,
    rule: &SuccessRate,
    samples: &[EndpointSample<'_>],
    now: Instant,
) {
    let compared = with_volume(samples, rule.request_volume);
    if compared.is_empty() || compared.len() < rule.minimum_hosts as usize {
        return;
    }
    let least = least(compared.iter().map(|sample| sample.success), f64::from(rule.stdev_factor) / 1000.0);
    for sample in compared.iter().filter(|sample| sample.success < least) {
        let why = EjectionCause { rate: sample.success, bound: least };
        eject(shared, sample.endpoint, Some(Reason::UpstreamError), &why, now);
    }
}

fn by_failures(
    shared: &SharedUpstream,
    rule: &FailurePercentage,
    samples: &[EndpointSample<'_>],
    now: Instant,
) {
    let judged = with_volume(samples, rule.request_volume);
    if judged.len() < rule.minimum_hosts as usize {
        return;
    }
    for sample in judged.iter().filter(|sample| 1.0 - sample.success >= rule.threshold) {
        let why = EjectionCause { rate: sample.success, bound: 1.0 - rule.threshold };
        eject(shared, sample.endpoint, Some(Reason::UpstreamError), &why, now);
    }
}

fn with_volume<'a, 'b>(samples: &'a [EndpointSample<'b>], volume: u32) -> Vec<&'a EndpointSample<'b>> {
    samples.iter().filter(|sample| sample.begun >= volume).collect()
}

/// Mean − `factor` × standard deviation (of the population, as in Envoy).
fn least(rates: impl ExactSizeIterator<Item = f64> + Clone, factor: f64) -> f64 {
    let n = rates.len() as f64;
    let mean = rates.clone().sum::<f64>() / n;
    let variance = rates.map(|rate| (rate - mean).powi(2)).sum::<f64>() / n;
    mean - factor * variance.sqrt()
}

/// For the log.
struct EjectionCause {
    rate: f64,
    bound: f64,
}

impl fmt::Display for EjectionCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "success rate {:.1} %, below {:.1} %", self.rate * 100.0, self.bound * 100.0)
    }
}

#[cfg(test)]
mod tests;
