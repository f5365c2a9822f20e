//! Finds where a body ends, and which of its bytes are content.
//!
//! The decoder takes pieces off the front of the read buffer. It cuts content out of that buffer without copying it. It sends chunk sizes
//! and extensions byte by byte through a table of states, so it doesn't matter how reads split them. It reads trailers as a whole.

use bytes::{Buf, Bytes, BytesMut};

use http::HeaderMap;

use crate::{Fault, Fields, chars::TOKEN, field, header::Known, request, response, value};

/// The most bytes of one chunk's extension. Nobody is known to use extensions except for request smuggling and to exhaust memory
/// (CVE-2023-39326).
const MAX_EXTENSION: u32 = 256;
/// The most bytes of all extensions of one body.
const MAX_EXTENSIONS: u32 = 8 << 10;
/// The most bytes, and the most lines, of trailers.
const MAX_TRAILERS: usize = 8 << 10;
const MAX_TRAILER_LINES: usize = 64;

/// A body that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoder {
    state: State,
    extensions: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Done,
    Length(u64),
    UntilEnd,
    ChunkSize { size: u64, digits: u8 },
    ChunkExtension { size: u64, len: u32, part: Extension },
    ChunkSizeLf(u64),
    ChunkData(u64),
    ChunkDataCr,
    ChunkDataLf,
    Trailers,
    Broken(Fault),
}

/// The reader's position in the extensions of a chunk: `*( ";" name [ "=" ( token / quoted-string ) ] )` (RFC 9112 section 7.1.1). The
/// grammar allows bad whitespace here (BWS); it is refused, as other parsers refuse it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    BeforeName,
    Name,
    BeforeValue,
    Value,
    Quoted,
    Escaped,
    BehindQuoted,
}

impl Extension {
    fn next(self, byte: u8) -> Option<Self> {
        let token = TOKEN[usize::from(byte)];
        match (self, byte) {
            (Self::BeforeName | Self::Name, _) if token => Some(Self::Name),
            (Self::BeforeValue | Self::Value, _) if token => Some(Self::Value),
            (Self::Name | Self::Value | Self::BehindQuoted, b';') => Some(Self::BeforeName),
            (Self::Name, b'=') => Some(Self::BeforeValue),
            (Self::Quoted, b'"') => Some(Self::BehindQuoted),
            (Self::Quoted, b'\\') => Some(Self::Escaped),
            (Self::BeforeValue, b'"') | (Self::Quoted | Self::Escaped, _) => Some(Self::Quoted),
            _ => None,
        }
    }

    /// Whether the line may end here.
    const fn is_whole(self) -> bool {
        matches!(self, Self::Name | Self::Value | Self::BehindQuoted)
    }
}

/// What was found at the front of the buffer.
#[derive(Debug)]
pub enum Piece {
    /// Content, never empty.
    Data(Bytes),
    /// Trailers. The body ends after them.
    Trailers(HeaderMap),
    /// The body has ended; the rest of the buffer doesn't belong to it.
    End,
    /// More bytes are needed.
    More,
}

impl From<request::Framing> for Decoder {
    fn from(framing: request::Framing) -> Self {
        Self::new(match framing {
            request::Framing::None => State::Done,
            request::Framing::Length(n) => State::Length(n),
            request::Framing::Chunked => State::ChunkSize { size: 0, digits: 0 },
        })
    }
}

impl From<response::Framing> for Decoder {
    fn from(framing: response::Framing) -> Self {
        Self::new(match framing {
            response::Framing::None => State::Done,
            response::Framing::Length(n) => State::Length(n),
            response::Framing::Chunked => State::ChunkSize { size: 0, digits: 0 },
            response::Framing::UntilEnd => State::UntilEnd,
        })
    }
}

impl Decoder {
    const fn new(state: State) -> Self {
        Self { state, extensions: 0 }
    }

    /// The body of a message that has none.
    pub const fn none() -> Self {
        Self::new(State::Done)
    }

    /// Whether the whole body has been read.
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// How many bytes are still to come, if that is known.
    pub const fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Length(n) => Some(n),
            _ => None,
        }
    }

    /// The sender has closed its side. Returns whether the body is complete then.
    pub fn end(&mut self) -> bool {
        if self.state == State::UntilEnd {
            self.state = State::Done;
        }
        self.state == State::Done
    }

    /// Takes the next piece out of the buffer.
    ///
    /// # Errors
    /// The framing is invalid: the body is not complete, and nothing after it can be read.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Piece, Fault> {
        let piece = self.step(buf);
        if let Err(fault) = piece {
            self.state = State::Broken(fault);
        }
        piece
    }

    fn step(&mut self, buf: &mut BytesMut) -> Result<Piece, Fault> {
        loop {
            match self.state {
                State::Done => return Ok(Piece::End),
                State::Broken(fault) => return Err(fault),
                _ if buf.is_empty() => return Ok(Piece::More),
                State::UntilEnd => return Ok(Piece::Data(buf.split().freeze())),
                State::Length(left) | State::ChunkData(left) => {
                    let n = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let left = left - n as u64;
                    self.state = match (self.state, left) {
                        (State::Length(_), 0) => State::Done,
                        (State::Length(_), _) => State::Length(left),
                        (_, 0) => State::ChunkDataCr,
                        (_, _) => State::ChunkData(left),
                    };
                    return Ok(Piece::Data(buf.split_to(n).freeze()));
                }
                State::Trailers => return self.trailers(buf),
                state => {
                    let byte = buf.first().copied().unwrap_or_default();
                    self.state = self.chunk_byte(state, byte)?;
                    buf.advance(1);
                }
            }
        }
    }

    fn trailers(&mut self, buf: &mut BytesMut) -> Result<Piece, Fault> {
        if buf.starts_with(b"\r\n") {
            buf.advance(2);
            self.state = State::Done;
            return Ok(Piece::End);
        }
        let check = |name: Known, _: &[u8]| value::check_trailer(name);
        let read = field::fields(buf, 0, MAX_TRAILERS, MAX_TRAILER_LINES, check)?;
        let Some((len, index)) = read else { return Ok(Piece::More) };
        self.state = State::Done;
        // `http_body` carries trailers as the `http` crate's map.
        Ok(Piece::Trailers(Fields::of_head(buf.split_to(len).freeze(), index).into()))
    }

    fn chunk_byte(&mut self, state: State, byte: u8) -> Result<State, Fault> {
        let bad = |rule| Err(Fault::invalid(rule));
        Ok(match (state, byte) {
            (State::ChunkSize { size, digits }, byte) if byte.is_ascii_hexdigit() => {
                // 15 digits allow 2^60 bytes: more than anybody sends, and sums of such sizes don't overflow.
                if digits == 15 {
                    return bad("A chunk's size has too many digits.");
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                State::ChunkSize { size: size * 16 + u64::from(digit), digits: digits + 1 }
            }
            (State::ChunkSize { digits: 0, .. }, _) => return bad("A chunk has no size."),
            (State::ChunkSize { size, .. }, b';') => {
                State::ChunkExtension { size, len: 0, part: Extension::BeforeName }
            }
            (State::ChunkSize { size, .. }, b'\r') => State::ChunkSizeLf(size),
            (State::ChunkExtension { size, part, .. }, b'\r') if part.is_whole() => State::ChunkSizeLf(size),
            (State::ChunkSize { .. }, _) => return bad("A chunk's size is not a hexadecimal number."),
            (State::ChunkExtension { .. }, byte) if byte != b'\t' && (byte < 0x20 || byte == 0x7f) => {
                return bad("A chunk's extension has a control character (or a bare LF).");
            }
            (State::ChunkExtension { size, len, part }, _) => {
                let Some(part) = part.next(byte) else {
                    return bad("A chunk's extension is not NAME or NAME=VALUE.");
                };
                self.extensions += 1;
                if len >= MAX_EXTENSION || self.extensions > MAX_EXTENSIONS {
                    return bad("The chunks' extensions are longer than allowed.");
                }
                State::ChunkExtension { size, len: len + 1, part }
            }
            (State::ChunkSizeLf(0), b'\n') => State::Trailers,
            (State::ChunkSizeLf(size), b'\n') => State::ChunkData(size),
            (State::ChunkSizeLf(_), _) => return bad("A chunk's size line has a bare CR."),
            (State::ChunkDataCr, b'\r') => State::ChunkDataLf,
            (State::ChunkDataLf, b'\n') => State::ChunkSize { size: 0, digits: 0 },
            (_, _) => return bad("A chunk is longer than its size."),
        })
    }
}
