//! A route's rate limit and faults.

use crate::{
    diagnostic::Problems,
    model::{Fault, FaultHeader, RateLimit, RateLimitForm},
    section::ParsedSection,
    shapes::{Spanned, Text},
    text::RequestRate,
};

pub(crate) fn rate_limit(raw: RateLimitForm) -> RateLimit {
    match raw {
        RateLimitForm::Rate(Text(RequestRate { requests, per })) => {
            RateLimit { requests, per, burst: requests, ..RateLimit::default() }
        }
        RateLimitForm::Full(full) => full,
    }
}

pub(crate) fn fault(raw: ParsedSection<Fault>, problems: &mut Problems) -> Option<Fault> {
    let ParsedSection { section: mut fault, rest } = raw;
    if let Some(rate) = rest.response_rate.as_ref().filter(|rate| rate.value.limit == 0) {
        let at = rate.place("limit");
        problems.wrong(at, "at this rate no response would ever end", "at least `1B`");
        return None;
    }
    fault.response_rate = rest.response_rate.map(|rate| rate.value);
    fault.header = match rest.header {
        None => None,
        Some(Spanned { value: FaultHeader::Name(name), .. }) => Some((name.0, None)),
        Some(Spanned { at, value: FaultHeader::Value(map), wrong, .. }) => {
            let [entry] = map.entries.as_slice() else {
                if wrong.is_empty() {
                    problems.wrong(at, "a fault has exactly one header", "`header: { x-fault: please }`");
                }
                return None;
            };
            let name = http::HeaderName::from_bytes(entry.key.as_bytes()).ok()?;
            Some((name, Some(entry.value.0.clone())))
        }
    };
    Some(fault)
}
