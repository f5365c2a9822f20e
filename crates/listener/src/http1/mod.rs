//! HTTP/1.0 and HTTP/1.1 (RFC 9112): connects a socket to the state machines of `attache-wire`.

mod body;
mod client;
mod context;
mod encode;
mod serve;
mod tunnel;

pub(crate) use attache_wire::chars::TOKEN;
pub(crate) use encode::date;
pub(crate) use serve::serve;
pub(crate) use tunnel::Http1Tunnel;
