//! HTTP/2 (RFC 9113) and header compression (RFC 7541), for a server and for a client.
//!
//! A connection's [state](state) has no input or output: bytes that were read go in, and bytes to be written come out.
//! A [`Connection`] puts a socket under it, and is polled by one task. The code that serves or calls holds the two sides of a
//! stream, [`SendStream`] and [`RecvStream`], on any task of the same worker: nothing is locked, and no stream costs a
//! task or a channel.
//!
//! - [`Connection`] serves a client or calls a server; a [`Caller`] opens streams.
//! - [`Incoming`] is a stream's body, [`Tunnel`] a stream that is a tunnel: both open the peer's window with what was taken.
//! - [`Flood`] charges the peer for frames that cost us more than they cost it.
//! - [`Window`] lets the streams' receive window grow where the path is long and the reader is fast.
//!
//! Heads go between frames and [`Fields`](attache_wire::Fields) directly. `docs/http2.md` has the whole picture.

mod code;
mod connection;
mod error;
mod flood;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod head;
mod hpack;
mod incoming;
mod queue;
mod receive;
mod send;
mod state;
mod stream;
mod tunnel;
mod window;

#[cfg(test)]
mod tests;

pub use code::Code;
pub use connection::{Caller, Connection, IncomingRequest};
pub use error::{Error, Initiator};
pub use flood::{Bounds, Flood, Flooded, Meter, PART, Payer, TokenBucket};
pub use frame::{HEAD, Head, PREFACE, kind};
pub use handle::{RecvStream, SendStream};
pub use incoming::Incoming;
pub use state::{CONNECTION_WINDOW, Settings};
pub use tunnel::Tunnel;
pub use window::Window;
