//! HTTP/2 (RFC 9113), through the h2 crate.

mod account;
mod answer;
mod body;
mod flood;
mod gather;
mod serve;
mod tunnel;

pub(crate) use serve::serve;
pub(crate) use tunnel::Tunnel;
