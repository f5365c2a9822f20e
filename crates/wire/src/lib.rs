//! HTTP/1 messages as bytes, without input or output (RFC 9112), for a server and for a client.
//!
//! Bytes that were read go in; heads, pieces of bodies and errors come out. In the other direction messages go in, and bytes to write come
//! out. Nothing here waits, reads a clock or touches a socket. So every rule can be tested at every split of its bytes, fuzzed, and
//! compared with other people's parsers.
//!
//! - [`request`] and [`response`] read a head: one piece of the connection's read buffer, and an index of its fields.
//! - [`Fields`] is that index together with all later changes. [`Request`] and [`Response`] are what the layers pass on.
//! - [`body`] finds where a message ends and removes its framing; [`outbox`] adds framing.
//! - [`server`] reads the requests of one connection, with pipelining and upgrades.
//! - [`proxy_protocol`] reads and writes the header that a connection may begin with.
//! - [`write`] writes heads for the next hop, with the field names as the sender spelt them.
//!
//! If two parsers could read a message differently, it is refused (a [`MessageFault`]) or rewritten into one form. This is true for requests and
//! for responses.

pub mod body;
#[cfg(test)]
mod bounds_tests;
pub mod buffers;
pub mod chars;
mod fault;
mod field;
mod fields;
pub mod header;
mod line;
mod message;
pub mod outbox;
pub mod proxy_protocol;
pub mod request;
pub mod response;
mod scan;
pub mod server;
#[cfg(test)]
mod smuggling;
#[cfg(test)]
mod tests;
mod value;
pub mod write;

pub use fault::{FaultKind, ForbiddenByte, MessageFault};
pub use field::HeadLimits;
pub use fields::{FieldName, FieldValue, Fields, GetAll, InvalidValue, Iter, NameRef, ValueRef};
pub use header::{KnownName, KnownSet};
pub use line::decimal;
pub use message::{ConnectProtocol, RawQuery, Request, RequestHead, Response, ResponseHead, path_and_query};
