//! The PROXY protocol (haproxy.org, proxy-protocol.txt): the addresses of a client, sent before its first byte. Both
//! versions, 1 (a line of text) and 2 (binary), in both directions.
//!
//! This is code of our own instead of the `ppp` crate. The whole format fits on two screens. Here the reader must be incremental, bounded,
//! and strict about every byte that two parsers could read differently; `ppp` accepts any line end, leading zeros and text after the ports.

mod read;
mod write;

pub use read::{ProxyHeader, ProxyHeaderResult, read};
pub use write::{Version, write};

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its CRLF (section 2.1). Version 2 is shorter where there are no TLVs.
const V1_MAX: usize = 107;
