//! HTTP/2 (RFC 9113) and header compression (RFC 7541), for a server and for a client.
//!
//! A connection's [state](state) does no input or output: bytes that were read go in, and bytes to write come out. A [`Connection`]
//! connects the state to a socket; one task polls it. The code that serves or calls holds the two sides of a stream, [`SendStream`] and
//! [`RecvStream`], on any task of the same worker. There is no lock, and a stream costs no task and no channel.
//!
//! - [`Connection`] serves a client or calls a server; a [`StreamOpener`] opens streams.
//! - [`Incoming`] is the body of a stream; [`Http2Tunnel`] is a stream used as a tunnel. Both open the peer's window when data is taken.
//! - [`Flood`] charges the peer for frames that cost attache more than they cost the peer.
//! - [`Window`] lets the streams' receive window grow if the round trip is long and the reader is fast.
//!
//! Heads are read from frames into [`Fields`](attache_wire::Fields), and written from them, directly. `docs/http2.md` has the whole
//! picture.

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

pub use code::ErrorCode;
pub use connection::{Connection, IncomingRequest, StreamOpener};
pub use error::{Error, Initiator};
pub use flood::{Flood, FloodLimitExceeded, FloodLimits, FloodPayer, Meter, PART, TokenBucket};
pub use frame::{FrameHeader, HEAD, PREFACE, kind};
pub use handle::{RecvStream, SendStream};
pub use incoming::Incoming;
pub use state::{CONNECTION_WINDOW, Settings};
pub use tunnel::Http2Tunnel;
pub use window::Window;
