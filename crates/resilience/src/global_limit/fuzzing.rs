//! What `tests/fuzz` needs beside the public interface: what an answer of the rate limit service does to heads.

use std::time::Duration;

use attache_wire::Fields;
use prost::Message as _;

use super::{add, messages, over_limit};

/// What became of a request.
#[derive(Debug)]
pub enum Limited {
    /// It goes on; both heads have what the service wanted added.
    Through,
    /// It was refused, with these fields and this `Retry-After`.
    Refused(Option<Box<Fields>>, Option<Duration>),
}

/// Does to the heads of a request and of its response what a `RateLimitResponse` says; `None` where `message` is none.
pub fn apply(message: &[u8], request: &mut Fields, response: &mut Fields) -> Option<Limited> {
    let answer = messages::Answer::from(messages::Response::decode(message).ok()?);
    if answer.over_limit {
        let error = over_limit(&answer);
        return Some(Limited::Refused(error.headers, error.retry_after));
    }
    add(request, &answer.request_headers);
    add(response, &answer.response_headers);
    Some(Limited::Through)
}
