//! Bytes to be written: heads, and bodies with their framing.
//!
//! Small pieces are gathered in one buffer, so that a message with a small body is one write. A large piece of a body is not copied: it
//! waits after the buffer, and nothing is added until it has been written. This also holds back the source of the body.

use std::io::{IoSlice, Write as _};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

/// A piece of a body up to this size, in bytes, is copied into the buffer with the head.
const SMALL: usize = 4096;
/// When so many bytes are gathered, no more are accepted.
const FULL: usize = 16 << 10;

/// How a body is framed when it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEncoder {
    /// There is no body, whatever the head says.
    None,
    /// So many bytes are still to come.
    Length(u64),
    /// In chunks.
    Chunked,
    /// The body ends when the connection ends.
    UntilEnd,
}

/// The body is longer or shorter than its head said. The connection must be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongLength;

/// What is to be written, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    flat: BytesMut,
    /// Boxed, because waiting connections have none. It costs one allocation for each large piece; writing such a piece costs far more.
    large: Option<Box<UncopiedPiece>>,
}

/// A piece of a body that is not copied.
#[derive(Debug)]
struct UncopiedPiece {
    data: Bytes,
    /// The bytes that end its chunk.
    tail: &'static [u8],
}

impl Outbox {
    /// Whether everything has been written.
    pub fn is_empty(&self) -> bool {
        self.flat.is_empty() && self.large.is_none()
    }

    /// Whether another piece of a body can be added.
    pub fn has_room(&self) -> bool {
        self.flat.len() < FULL && self.large.is_none()
    }

    /// How many bytes wait to be written.
    pub fn len(&self) -> usize {
        self.flat.len() + self.large.as_ref().map_or(0, |large| large.data.len() + large.tail.len())
    }

    /// The buffer that heads are written to. Use it only while [`has_room`](Self::has_room) is true.
    pub fn head(&mut self) -> &mut BytesMut {
        debug_assert!(self.large.is_none());
        &mut self.flat
    }

    /// The buffer itself. It can be taken away or put back while nothing waits to be written.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.flat
    }

    /// Adds a piece of a body.
    ///
    /// # Errors
    /// The piece is longer than the head promised. No part of it is added.
    pub fn body(&mut self, encoder: &mut BodyEncoder, data: Bytes) -> Result<(), WrongLength> {
        if data.is_empty() {
            return Ok(());
        }
        match encoder {
            BodyEncoder::None => return Err(WrongLength),
            BodyEncoder::UntilEnd => {}
            BodyEncoder::Length(left) => {
                let Some(rest) = left.checked_sub(data.len() as u64) else { return Err(WrongLength) };
                *left = rest;
            }
            BodyEncoder::Chunked => {
                let mut line = [0; 18];
                let mut rest = &mut line[..];
                let _ = write!(rest, "{:x}\r\n", data.len());
                let used = 18 - rest.len();
                self.flat.extend_from_slice(&line[..used]);
            }
        }
        let tail: &'static [u8] = if *encoder == BodyEncoder::Chunked { b"\r\n" } else { b"" };
        if data.len() <= SMALL {
            self.flat.extend_from_slice(&data);
            self.flat.extend_from_slice(tail);
        } else {
            self.large = Some(Box::new(UncopiedPiece { data, tail }));
        }
        Ok(())
    }

    /// Ends a body.
    ///
    /// # Errors
    /// The body was shorter than the head promised.
    pub fn end(&mut self, encoder: BodyEncoder, trailers: Option<&HeaderMap>) -> Result<(), WrongLength> {
        match encoder {
            BodyEncoder::None | BodyEncoder::UntilEnd | BodyEncoder::Length(0) => Ok(()),
            BodyEncoder::Length(_) => Err(WrongLength),
            BodyEncoder::Chunked => {
                if let Some(trailers) = trailers {
                    let out = self.settled();
                    out.extend_from_slice(b"0\r\n");
                    crate::Fields::write_map(out, trailers);
                    out.extend_from_slice(b"\r\n");
                } else if let Some(large) = &mut self.large {
                    large.tail = b"\r\n0\r\n\r\n";
                } else {
                    self.flat.extend_from_slice(b"0\r\n\r\n");
                }
                Ok(())
            }
        }
    }

    /// The buffer, after everything that waits has been moved into it.
    fn settled(&mut self) -> &mut BytesMut {
        if let Some(large) = self.large.take() {
            self.flat.extend_from_slice(&large.data);
            self.flat.extend_from_slice(large.tail);
        }
        &mut self.flat
    }

    /// The bytes to write next, if they are one piece.
    pub fn single(&self) -> Option<&[u8]> {
        if self.large.is_none() { Some(&self.flat) } else { None }
    }

    /// The bytes to write next.
    pub fn slices(&self) -> [IoSlice<'_>; 3] {
        let (data, tail) =
            self.large.as_ref().map_or((&b""[..], &b""[..]), |large| (&large.data, large.tail));
        [IoSlice::new(&self.flat), IoSlice::new(data), IoSlice::new(tail)]
    }

    /// Notes that `n` bytes were written.
    pub fn advance(&mut self, n: usize) {
        if n == self.flat.len() {
            // The usual case: everything was written, and the buffer starts again at its beginning.
            self.flat.clear();
            return;
        }
        let part = n.min(self.flat.len());
        self.flat.advance(part);
        let rest = n - part;
        let Some(large) = &mut self.large else { return };
        let part = rest.min(large.data.len());
        large.data.advance(part);
        large.tail = large.tail.get(rest - part..).unwrap_or_default();
        if large.data.is_empty() && large.tail.is_empty() {
            self.large = None;
        }
    }
}
