//! What stands between a socket and the h2 crate, on both sides of the proxy.
//!
//! The h2 crate speaks HTTP/2 (RFC 9113). It bounds some things for the life of a connection that well-known peers exceed in a day, and
//! keeps each DATA frame that nobody has read yet as an entry of its own, however small. This crate reads the frames first:
//!
//! - [`Frames`] finds the frames in a stream of bytes, in pieces of any size.
//! - [`Inlet`] gathers small DATA frames into larger ones, takes out those that say nothing, and finds messages that are malformed where the h2
//!   crate does not look.
//! - [`Reader`] is told what the reader of one stream took, which is what the inlet and the window follow.
//! - [`Window`] lets the streams' receive window grow where the path is long and the reader is fast.
//!
//! `docs/http2.md` has the whole picture.

mod frame;
mod gather;
mod hpack;
mod inlet;
mod window;

pub use frame::{Frames, HEAD, Head, PREFACE, kind};
pub use gather::{Reader, Streams};
pub use inlet::Inlet;
pub use window::Window;

/// The connection's receive window: the largest that there is (RFC 9113 section 6.9.1).
///
/// So a stream whose reader is slow holds back itself alone (section 5.2.2): its bytes wait within its own window, and those of
/// the connection are given back with their receipt as far as any peer can tell. What one connection may make us hold is the
/// streams' windows times their number.
pub const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
