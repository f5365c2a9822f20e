//! Counts of many exchanges together, and the values that are computed from them.
//!
//! Percentiles are computed from the metrics' buckets, linearly within a bucket (as Prometheus' `histogram_quantile`): the bucket is exact,
//! and the position within it is an estimate. Opaque connections have no typical duration, and count in no percentile.

use std::time::Duration;

use serde_json::{Value, json};

use super::{cell, histogram::BOUNDS};
use crate::{Class, Reason};

pub(super) const BUCKETS: usize = BOUNDS.len() + 1;

/// Whether an exchange with this class of status (1 to 5; 0 means no status) and this end is a failure. Failures are: a 5xx; no response
/// although the client was there; a response that was cut; and an answer that attache made for a gRPC call, because its status is always
/// 200. A refusal because of what the client did (a reason with a 4xx) is not a failure.
pub(super) fn failed(class: usize, reason: Option<Reason>) -> bool {
    let ours = |reason: Reason| !reason.is(Class::NoFailure);
    match class {
        5 => true,
        4 => false,
        0 => reason.is_some_and(ours),
        _ => reason.is_some_and(|reason| ours(reason) && reason.status().is_server_error()),
    }
}

/// A client that leaves sooner than this may have its own reason: a probe, a user who goes to another page, a hedge that was not needed.
/// The value is a bound of the histogram, because it is read from the histogram.
pub(crate) const MIN_CLIENT_WAIT: Duration = Duration::from_millis(500);

/// How many of these durations were longer than [`MIN_CLIENT_WAIT`].
pub(super) fn longer_waits(durations: &[u64; BUCKETS]) -> u64 {
    let within = BOUNDS.partition_point(|bound| u128::from(*bound) <= MIN_CLIENT_WAIT.as_micros());
    durations.iter().skip(within).sum()
}

/// What a row counts: the sum over all workers since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowCounts {
    /// By class: 1xx to 5xx, and without a status.
    pub(super) classes: [u64; cell::CLASSES],
    pub(super) failed: u64,
    /// How many attache answered itself with a 4xx.
    pub(super) refused: u64,
    /// HTTP requests whose client left before there was a response.
    pub(super) given_up: u64,
    /// How many of these had waited for longer than [`MIN_CLIENT_WAIT`]; and requests that still run, or ended later, although their client has
    /// left.
    pub(super) waited: u64,
    pub(super) attempts: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) durations: [u64; BUCKETS],
}

impl Default for RowCounts {
    fn default() -> Self {
        Self {
            classes: [0; cell::CLASSES],
            failed: 0,
            refused: 0,
            given_up: 0,
            waited: 0,
            attempts: 0,
            received: 0,
            sent: 0,
            durations: [0; BUCKETS],
        }
    }
}

impl RowCounts {
    fn each(&mut self, other: &Self, with: impl Fn(u64, u64) -> u64) {
        let ours = self.classes.iter_mut().chain(&mut self.durations);
        let ours = ours.chain([&mut self.failed, &mut self.refused, &mut self.given_up, &mut self.waited]);
        let ours = ours.chain([&mut self.attempts, &mut self.received, &mut self.sent]);
        let theirs = other.classes.iter().chain(&other.durations);
        let theirs = theirs.chain([&other.failed, &other.refused, &other.given_up, &other.waited]);
        let theirs = theirs.chain([&other.attempts, &other.received, &other.sent]);
        for (a, b) in ours.zip(theirs) {
            *a = with(*a, *b);
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.each(other, u64::wrapping_add);
    }

    /// What was counted since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let mut since = *self;
        since.each(before, u64::saturating_sub);
        since
    }

    pub(super) fn requests(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// All known calls, including those that still run although their client has left.
    pub(super) fn seen(&self) -> u64 {
        self.requests().max(self.waited)
    }

    /// Calls that got their response.
    pub(super) fn served(&self) -> u64 {
        self.requests().saturating_sub(self.failed + self.refused + self.given_up)
    }

    /// 4xx responses of the upstream itself.
    pub(super) fn client_errors(&self) -> u64 {
        self.classes[3].saturating_sub(self.refused)
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The duration below which this share of the durations lies, in milliseconds.
    fn percentile(&self, share: f64) -> Option<f64> {
        let all: u64 = self.durations.iter().sum();
        if all == 0 {
            return None;
        }
        let rank = share * all as f64;
        let mut below = 0;
        for (bucket, count) in self.durations.iter().enumerate() {
            let until = below + count;
            if until as f64 >= rank && *count > 0 {
                let from = bucket.checked_sub(1).and_then(|before| BOUNDS.get(before)).copied().unwrap_or(0);
                // Nothing is known about durations above the last bound.
                let to = BOUNDS.get(bucket).copied().unwrap_or(from);
                let within = (rank - below as f64) / *count as f64;
                return Some((from as f64 + (to - from) as f64 * within) / 1000.0);
            }
            below = until;
        }
        None
    }

    /// The same, rounded to a hundredth for display.
    pub(super) fn millis(&self, share: f64) -> Option<f64> {
        self.percentile(share).map(|millis| (millis * 100.0).round() / 100.0)
    }

    pub(super) fn window(&self, over: Duration) -> Value {
        let (requests, seconds) = (self.requests(), over.as_secs_f64().max(0.001));
        json!({
            "seconds": (seconds * 10.0).round() / 10.0,
            "requests": requests,
            "per_second": (requests as f64 / seconds * 10.0).round() / 10.0,
            "failed": self.failed,
            "client_errors": self.client_errors(),
            "attempts": self.attempts,
            "success_rate": (requests > 0).then(|| 1.0 - self.failed as f64 / requests as f64),
            "p50_ms": self.millis(0.5),
            "p90_ms": self.millis(0.9),
            "p99_ms": self.millis(0.99),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::histogram, *};

    #[test]
    fn a_percentile_lies_within_its_bucket() {
        let mut counts = RowCounts::default();
        assert_eq!(counts.percentile(0.5), None);
        counts.durations[3] = 100; // 2.5 ms to 5 ms
        assert_eq!(counts.percentile(0.5), Some(3.75));
        assert_eq!(counts.percentile(1.0), Some(5.0));
        counts.durations[16] = 100; // above a minute
        assert_eq!(counts.percentile(0.99), Some(60_000.0));
    }

    #[test]
    fn a_client_counts_as_waiting_after_half_a_second() {
        let of = |millis: u64| {
            let mut durations = [0; BUCKETS];
            durations[histogram::observe(Duration::from_millis(millis)).0] = 1;
            longer_waits(&durations)
        };
        assert_eq!([0, 100, 500, 501, 2_000, 90_000].map(of), [0, 0, 0, 1, 1, 1]);
    }

    #[test]
    fn an_error_of_the_client_is_no_failure() {
        assert!(failed(5, None));
        assert!(failed(0, Some(Reason::TlsUntrusted)));
        assert!(!failed(0, Some(Reason::ClientClosed)));
        assert!(!failed(4, Some(Reason::NoRoute)));
        assert!(!failed(0, None));
    }

    #[test]
    fn a_cut_answer_and_a_grpc_call_that_failed_are_failures_although_they_are_200s() {
        assert!(failed(2, Some(Reason::UpstreamClosedMidBody)));
        assert!(failed(2, Some(Reason::ConnectRefused)));
        assert!(!failed(2, None));
        assert!(!failed(2, Some(Reason::ClientClosed)), "the client went away");
        assert!(!failed(2, Some(Reason::RateLimited)), "caused by the client itself");
        assert!(!failed(1, Some(Reason::ShuttingDown)), "a tunnel");
    }
}
