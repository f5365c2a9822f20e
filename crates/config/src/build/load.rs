//! Adaptive concurrency and the queue of an upstream.

use crate::{
    diagnostic::Problems,
    model::{AdaptiveConcurrency, Queue},
    shapes::Spanned,
};

pub(crate) fn adaptive(given: Spanned<AdaptiveConcurrency>, problems: &mut Problems) -> AdaptiveConcurrency {
    let (most, lowest) = (given.value.max_concurrency_limit, given.value.min_rtt.min_concurrency);
    if let Some(at) = given.key("max_concurrency_limit").filter(|_| most < lowest) {
        problems.wrong(
            at,
            "`max_concurrency_limit` is lower than `min_rtt.min_concurrency`",
            format!("at least {lowest}"),
        );
    }
    given.value
}

pub(crate) fn queue(given: Spanned<Queue>, problems: &mut Problems) -> Queue {
    let at = given.key("interval");
    let mut queue = given.value;
    match at {
        Some(at) if queue.interval < queue.target => {
            problems.wrong(at, "`interval` is shorter than `target`", format!("at least {:?}", queue.target));
        }
        // If the file gives only a longer target, the interval becomes as long.
        _ => queue.interval = queue.interval.max(queue.target),
    }
    queue
}
