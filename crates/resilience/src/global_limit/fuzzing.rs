//! An interface for `tests/fuzz`: applies an answer of the rate limit service to heads.

use std::time::Duration;

use attache_wire::Fields;
use prost::Message as _;

use super::{add, messages, over_limit};

/// What happened to a request.
#[derive(Debug)]
pub enum GlobalLimited {
    /// It continues; both heads have the fields that the service added.
    Through,
    /// It was refused, with these fields and this `Retry-After`.
    Refused(Option<Box<Fields>>, Option<Duration>),
}

/// Applies a `RateLimitResponse` to the heads of a request and of its response; `None` if `message` is not one.
pub fn apply(message: &[u8], request: &mut Fields, response: &mut Fields) -> Option<GlobalLimited> {
    let answer = messages::LimitAnswer::from(messages::RateLimitResponse::decode(message).ok()?);
    if answer.over_limit {
        let error = over_limit(&answer);
        return Some(GlobalLimited::Refused(error.headers, error.retry_after));
    }
    add(request, &answer.request_headers);
    add(response, &answer.response_headers);
    Some(GlobalLimited::Through)
}
