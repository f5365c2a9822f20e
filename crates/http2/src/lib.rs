//! What stands between a socket and the h2 crate, on both sides of the proxy.
//!
//! The h2 crate speaks HTTP/2 (RFC 9113). It bounds some things for the life of a connection that well-known peers exceed in a day, and
//! keeps each DATA frame that nobody has read yet as an entry of its own, however small. This crate reads the frames first:
//!
//! - [`Outlet`] puts our own frames between those of the h2 crate.
//! - [`Flood`] charges the peer for frames that cost us more than they cost it.
//! - [`Frames`] finds the frames in a stream of bytes, in pieces of any size.
//! - [`Inlet`] gathers small DATA frames into larger ones, takes out those that say nothing, and finds messages that are malformed where the h2
//!   crate does not look.
//! - [`Reader`] is told what the reader of one stream took, which is what the inlet and the window follow.
//! - [`Incoming`] is a stream's body, [`Tunnel`] a stream that is a tunnel: both open the peer's window with what was taken.
//! - [`Window`] lets the streams' receive window grow where the path is long and the reader is fast.
//!
//! `docs/http2.md` has the whole picture.

mod flood;
mod frame;
mod gather;
mod hpack;
mod incoming;
mod inlet;
mod outlet;
mod tunnel;
mod window;

pub use flood::{Account, Bounds, Flood, Flooded, PART, Payer, Verdict};
pub use frame::{Frames, HEAD, Head, PREFACE, kind};
pub use gather::{Reader, Streams};
pub use incoming::Incoming;
pub use inlet::Inlet;
pub use outlet::Outlet;
pub use tunnel::Tunnel;
pub use window::Window;

/// The connection's receive window: the largest that there is (RFC 9113 section 6.9.1).
///
/// So a stream whose reader is slow holds back itself alone (section 5.2.2): its bytes wait within its own window, and those of
/// the connection are given back with their receipt as far as any peer can tell. What one connection may make us hold is the
/// streams' windows times their number.
pub const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
