//! HTTP/1 messages as bytes, without input or output (RFC 9112), for a server and for a client.
//!
//! Bytes that were read go in, and out come heads, pieces of bodies and verdicts; messages go in, and out come bytes to be written.
//! Nothing here waits, reads a clock or touches a socket, so that every rule can be tested at every split of its bytes, fuzzed, and
//! held against other people's parsers.
//!
//! - [`request`] and [`response`] read a head: one piece of the connection's read buffer, and an index of its fields.
//! - [`body`] finds where a message ends and takes its framing off; [`outbox`] puts framing on.
//! - [`server`] reads the requests of one connection, with pipelining and upgrades.
//! - [`message`] turns a head into the `http` crate's types without a copy, and [`write`] turns those back into bytes, with the
//!   field names as the sender spelt them.
//!
//! Whatever two parsers could read in two ways is refused (a [`Fault`]) or rewritten into one form, in requests and in answers.

pub mod body;
pub mod buffers;
pub mod chars;
mod fault;
mod field;
pub mod message;
mod names;
pub mod outbox;
pub mod request;
pub mod response;
pub mod server;
#[cfg(test)]
mod smuggling;
#[cfg(test)]
mod tests;
mod value;
mod value_unchecked;
pub mod write;

pub use fault::{At, Fault, Kind};
pub use field::{Field, Limits, Lines};
