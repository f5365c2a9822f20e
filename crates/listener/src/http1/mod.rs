//! HTTP/1.0 and HTTP/1.1 (RFC 9112).

mod framing;
mod guard;
mod head;
mod serve;
mod shared;
#[cfg(test)]
mod smuggling;

pub(crate) use head::TOKEN;
pub(crate) use serve::serve;
pub(crate) use shared::{Shared, Switch};
