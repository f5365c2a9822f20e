//! HTTP/2 (RFC 9113).

mod answer;
mod body;
mod flood;
mod serve;

pub(crate) use serve::serve;
