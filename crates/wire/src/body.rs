//! Finds where a body ends, and which of its bytes are content.
//!
//! The decoder takes pieces off the front of the read buffer. It cuts content out of that buffer without copying it. It sends chunk sizes
//! and extensions byte by byte through a table of states, so it doesn't matter how reads split them. It reads trailers as a whole.

use bytes::{Buf, Bytes, BytesMut};

use http::HeaderMap;

use crate::{Fields, MessageFault, chars::TOKEN, field, header::KnownName, request, response, value};

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
pub struct BodyDecoder {
    state: BodyState,
    extensions: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyState {
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
    Broken(MessageFault),
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
pub enum BodyPiece {
    /// Content, never empty.
    Data(Bytes),
    /// Trailers. The body ends after them.
    Trailers(HeaderMap),
    /// The body has ended; the rest of the buffer doesn't belong to it.
    End,
    /// More bytes are needed.
    More,
}

impl From<request::RequestFraming> for BodyDecoder {
    fn from(framing: request::RequestFraming) -> Self {
        Self::new(match framing {
            request::RequestFraming::None => BodyState::Done,
            request::RequestFraming::Length(n) => BodyState::Length(n),
            request::RequestFraming::Chunked => BodyState::ChunkSize { size: 0, digits: 0 },
        })
    }
}

impl From<response::ResponseFraming> for BodyDecoder {
    fn from(framing: response::ResponseFraming) -> Self {
        Self::new(match framing {
            response::ResponseFraming::None => BodyState::Done,
            response::ResponseFraming::Length(n) => BodyState::Length(n),
            response::ResponseFraming::Chunked => BodyState::ChunkSize { size: 0, digits: 0 },
            response::ResponseFraming::UntilEnd => BodyState::UntilEnd,
        })
    }
}

impl BodyDecoder {
    const fn new(state: BodyState) -> Self {
        Self { state, extensions: 0 }
    }

    /// The body of a message that has none.
    pub const fn none() -> Self {
        Self::new(BodyState::Done)
    }

    /// Whether the whole body has been read.
    pub const fn is_done(&self) -> bool {
        matches!(self.state, BodyState::Done)
    }

    /// How many bytes are still to come, if that is known.
    pub const fn remaining(&self) -> Option<u64> {
        match self.state {
            BodyState::Done => Some(0),
            BodyState::Length(n) => Some(n),
            _ => None,
        }
    }

    /// The sender has closed its side. Returns whether the body is complete then.
    pub fn end(&mut self) -> bool {
        if self.state == BodyState::UntilEnd {
            self.state = BodyState::Done;
        }
        self.state == BodyState::Done
    }

    /// Takes the next piece out of the buffer.
    ///
    /// # Errors
    /// The framing is invalid: the body is not complete, and nothing after it can be read.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<BodyPiece, MessageFault> {
        let piece = self.step(buf);
        if let Err(fault) = piece {
            self.state = BodyState::Broken(fault);
        }
        piece
    }

    fn step(&mut self, buf: &mut BytesMut) -> Result<BodyPiece, MessageFault> {
        loop {
            match self.state {
                BodyState::Done => return Ok(BodyPiece::End),
                BodyState::Broken(fault) => return Err(fault),
                _ if buf.is_empty() => return Ok(BodyPiece::More),
                BodyState::UntilEnd => return Ok(BodyPiece::Data(buf.split().freeze())),
                BodyState::Length(left) | BodyState::ChunkData(left) => {
                    let n = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let left = left - n as u64;
                    self.state = match (self.state, left) {
                        (BodyState::Length(_), 0) => BodyState::Done,
                        (BodyState::Length(_), _) => BodyState::Length(left),
                        (_, 0) => BodyState::ChunkDataCr,
                        (_, _) => BodyState::ChunkData(left),
                    };
                    return Ok(BodyPiece::Data(buf.split_to(n).freeze()));
                }
                BodyState::Trailers => return self.trailers(buf),
                state => {
                    let byte = buf.first().copied().unwrap_or_default();
                    self.state = self.chunk_byte(state, byte)?;
                    buf.advance(1);
                }
            }
        }
    }

    fn trailers(&mut self, buf: &mut BytesMut) -> Result<BodyPiece, MessageFault> {
        if buf.starts_with(b"\r\n") {
            buf.advance(2);
            self.state = BodyState::Done;
            return Ok(BodyPiece::End);
        }
        let check = |name: KnownName, _: &[u8]| value::check_trailer(name);
        let read = field::fields(buf, 0, MAX_TRAILERS, MAX_TRAILER_LINES, check)?;
        let Some((len, index)) = read else { return Ok(BodyPiece::More) };
        self.state = BodyState::Done;
        // `http_body` carries trailers as the `http` crate's map.
        Ok(BodyPiece::Trailers(Fields::of_head(buf.split_to(len).freeze(), index).into()))
    }

    fn chunk_byte(&mut self, state: BodyState, byte: u8) -> Result<BodyState, MessageFault> {
        let bad = |rule| Err(MessageFault::invalid(rule));
        Ok(match (state, byte) {
            (BodyState::ChunkSize { size, digits }, byte) if byte.is_ascii_hexdigit() => {
                // 15 digits allow 2^60 bytes: more than anybody sends, and sums of such sizes don't overflow.
                if digits == 15 {
                    return bad("A chunk's size has too many digits.");
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                BodyState::ChunkSize { size: size * 16 + u64::from(digit), digits: digits + 1 }
            }
            (BodyState::ChunkSize { digits: 0, .. }, _) => return bad("A chunk has no size."),
            (BodyState::ChunkSize { size, .. }, b';') => {
                BodyState::ChunkExtension { size, len: 0, part: Extension::BeforeName }
            }
            (BodyState::ChunkSize { size, .. }, b'\r') => BodyState::ChunkSizeLf(size),
            (BodyState::ChunkExtension { size, part, .. }, b'\r') if part.is_whole() => {
                BodyState::ChunkSizeLf(size)
            }
            (BodyState::ChunkSize { .. }, _) => return bad("A chunk's size is not a hexadecimal number."),
            (BodyState::ChunkExtension { .. }, byte) if byte != b'\t' && (byte < 0x20 || byte == 0x7f) => {
                return bad("A chunk's extension has a control character (or a bare LF).");
            }
            (BodyState::ChunkExtension { size, len, part }, _) => {
                let Some(part) = part.next(byte) else {
                    return bad("A chunk's extension is not NAME or NAME=VALUE.");
                };
                self.extensions += 1;
                if len >= MAX_EXTENSION || self.extensions > MAX_EXTENSIONS {
                    return bad("The chunks' extensions are longer than allowed.");
                }
                BodyState::ChunkExtension { size, len: len + 1, part }
            }
            (BodyState::ChunkSizeLf(0), b'\n') => BodyState::Trailers,
            (BodyState::ChunkSizeLf(size), b'\n') => BodyState::ChunkData(size),
            (BodyState::ChunkSizeLf(_), _) => return bad("A chunk's size line has a bare CR."),
            (BodyState::ChunkDataCr, b'\r') => BodyState::ChunkDataLf,
            (BodyState::ChunkDataLf, b'\n') => BodyState::ChunkSize { size: 0, digits: 0 },
            (_, _) => return bad("A chunk is longer than its size."),
        })
    }
}
