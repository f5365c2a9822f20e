//! Adaptive concurrency and the queue of an upstream.

use super::fill;
use crate::{
    diagnostic::Problems,
    model::{AdaptiveConcurrency, Queue},
    raw,
};

pub(crate) fn adaptive(raw: raw::AdaptiveConcurrency, problems: &mut Problems) -> AdaptiveConcurrency {
    let mut adaptive = AdaptiveConcurrency::default();
    let most = raw.max_concurrency_limit.as_ref().map(|most| most.at);
    fill!(adaptive, raw, sample_aggregate_percentile, max_concurrency_limit, concurrency_update_interval);
    if let Some(raw) = raw.min_rtt {
        fill!(adaptive.min_rtt, raw, interval, jitter, request_count, min_concurrency, buffer);
        adaptive.min_rtt.fixed_value = raw.fixed_value.map(|value| value.0.0);
    }
    if let Some(at) = most.filter(|_| adaptive.max_concurrency_limit < adaptive.min_rtt.min_concurrency) {
        problems.wrong(
            at,
            "`max_concurrency_limit` is lower than `min_rtt.min_concurrency`",
            format!("at least {}", adaptive.min_rtt.min_concurrency),
        );
    }
    adaptive
}

pub(crate) fn queue(raw: raw::Queue, problems: &mut Problems) -> Queue {
    let mut queue = Queue::default();
    let at = raw.interval.as_ref().map(|interval| interval.at);
    fill!(queue, raw, max, target, interval);
    if let Some(header) = raw.priority_header {
        queue.priority_header = header.0.0;
    }
    match at {
        Some(at) if queue.interval < queue.target => {
            problems.wrong(at, "`interval` is shorter than `target`", format!("at least {:?}", queue.target));
        }
        // A longer target alone lengthens the interval, too.
        _ => queue.interval = queue.interval.max(queue.target),
    }
    queue
}
