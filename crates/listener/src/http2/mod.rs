//! HTTP/2 (RFC 9113), through the h2 crate.

mod answer;
mod body;
mod flood;
mod gather;
mod serve;

pub(crate) use serve::serve;
