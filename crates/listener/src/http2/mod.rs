//! HTTP/2 (RFC 9113).

mod flood;
mod gather;
mod serve;

pub(crate) use serve::serve;
