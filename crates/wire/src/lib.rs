//! HTTP/1 messages as bytes, without input or output (RFC 9112), for a server and for a client.
//!
//! Bytes that were read go in, and out come heads, pieces of bodies and verdicts; messages go in, and out come bytes to be written.
//! Nothing here waits, reads a clock or touches a socket, so that every rule can be tested at every split of its bytes, fuzzed, and
//! held against other people's parsers.
//!
//! - [`request`] and [`response`] read a head: one piece of the connection's read buffer, and an index of its fields.
//! - [`Fields`] is that index, with what is changed on the way; [`Request`] and [`Response`] are what is passed on.
//! - [`body`] finds where a message ends and takes its framing off; [`outbox`] puts framing on.
//! - [`server`] reads the requests of one connection, with pipelining and upgrades.
//! - [`proxy_protocol`] reads and writes the header that may stand before all of it.
//! - [`write`] copies them to the next hop, with the field names as the sender spelt them.
//!
//! Whatever two parsers could read in two ways is refused (a [`Fault`]) or rewritten into one form, in requests and in answers.

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

pub use fault::{At, Fault, Kind};
pub use field::Limits;
pub use fields::{FieldName, FieldValue, Fields, GetAll, InvalidValue, Iter, Name, Value};
pub use header::{Known, KnownSet};
pub use line::decimal;
pub use message::{Protocol, RawQuery, Request, RequestHead, Response, ResponseHead, path_and_query};
