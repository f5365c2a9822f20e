//! What of a route's requests is let through, and what is done to them on purpose.

use super::fill;
use crate::{
    diagnostic::Problems,
    model::{Fault, LimitKey, RateLimit},
    raw::{self, At, FaultHeader, RateLimitForm},
};

pub(crate) fn rate_limit(raw: RateLimitForm) -> RateLimit {
    let mut limit = RateLimit {
        requests: 1,
        per: RateLimit::PER,
        burst: 1,
        by: LimitKey::Route,
        max_keys: RateLimit::MAX_KEYS,
    };
    match raw {
        RateLimitForm::Rate(rate) => {
            (limit.requests, limit.per) = (rate.0.requests, rate.0.per);
            limit.burst = limit.requests;
        }
        RateLimitForm::Full(full) => {
            limit.requests = full.requests;
            limit.burst = full.burst.unwrap_or(full.requests);
            fill!(limit, full, per, max_keys);
            limit.by = full.by.map(|by| by.0.0).unwrap_or_default();
        }
    }
    limit
}

pub(crate) fn fault(raw: At<raw::Fault>, problems: &mut Problems) -> Option<Fault> {
    let whole = raw.whole();
    let At { at, value: raw, .. } = raw;
    if raw.delay.is_none() && raw.abort.is_none() && raw.response_rate.is_none() {
        if whole {
            problems.wrong(
                at,
                "this fault does nothing",
                "give it `delay: { time: 1s }`, `abort: {}` or `response_rate: { limit: 10KiB }`",
            );
        }
        return None;
    }
    if let Some(rate) = raw.response_rate.as_ref().filter(|rate| rate.value.limit == 0) {
        let at = rate.key("limit").unwrap_or(rate.at);
        problems.wrong(at, "at this rate no response ever ends", "at least `1B`");
        return None;
    }
    let header = match raw.header {
        None => None,
        Some(At { value: FaultHeader::Name(name), .. }) => Some((name.0.0, None)),
        Some(At { at, value: FaultHeader::Value(map), wrong, .. }) => {
            let [entry] = map.entries.as_slice() else {
                if wrong.is_empty() {
                    problems.wrong(at, "a fault looks at one header", "`header: { x-fault: please }`");
                }
                return None;
            };
            let name = http::HeaderName::from_bytes(entry.key.as_bytes()).ok()?;
            Some((name, Some(entry.value.0.0.clone())))
        }
    };
    let response_rate = raw.response_rate.map(|rate| rate.value);
    Some(Fault { header, delay: raw.delay, abort: raw.abort, response_rate })
}
