//! Reads the requests of one connection, one after the other.
//!
//! The rule: after a refusal no further byte is interpreted. After a request that may switch protocols, no further byte is interpreted
//! until it is known whether the connection did switch.

use std::rc::Rc;

use bytes::{Buf as _, BytesMut};

use crate::{
    HeadLimits, MessageFault, RequestHead,
    body::{BodyDecoder, BodyPiece},
    request::{self, ParsedRequest, TargetStrictness},
};

/// How far the requests of one connection have been read.
#[derive(Clone, Copy, Debug)]
pub struct RequestReader {
    target: TargetStrictness,
    state: ReaderState,
    body: BodyDecoder,
    may_switch: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReaderState {
    /// Before a head; one empty line is allowed here (RFC 9112 section 2.2).
    Start { line_skipped: bool },
    /// A body is being read.
    Body,
    /// The bytes are kept until it is known whether the connection switches protocols.
    Switching,
    /// A head was refused, or the connection can't be read any further.
    Refused(MessageFault),
}

impl RequestReader {
    /// The state of a new connection.
    pub const fn new(target: TargetStrictness) -> Self {
        Self {
            target,
            state: ReaderState::Start { line_skipped: false },
            body: BodyDecoder::none(),
            may_switch: false,
        }
    }

    /// Whether the reader is between two messages.
    pub const fn at_start(&self) -> bool {
        matches!(self.state, ReaderState::Start { .. })
    }

    /// Whether the next bytes may be another protocol.
    pub fn is_switching(&self) -> bool {
        self.state == ReaderState::Switching
    }

    /// The body that is being read.
    pub const fn body(&self) -> &BodyDecoder {
        &self.body
    }

    /// The connection did not switch protocols: the kept bytes are HTTP.
    pub fn resume(&mut self) {
        if self.state == ReaderState::Switching {
            self.state = ReaderState::Start { line_skipped: false };
        }
    }

    /// Whether reading `buf` can find more than last time, when `buf` had `seen` bytes. A client that sends byte by byte must not cause a
    /// scan of all bytes for every byte.
    pub fn is_worth_a_look(&self, buf: &[u8], seen: usize, limits: &HeadLimits) -> bool {
        let line = memchr::memchr(b'\n', buf.get(seen..).unwrap_or_default()).is_some();
        // A method is short, and its bytes show at once if this is not HTTP.
        line || memchr::memchr(b' ', buf.get(..seen).unwrap_or_default()).is_none()
            || Self::is_too_much(buf, limits)
    }

    fn is_too_much(buf: &[u8], limits: &HeadLimits) -> bool {
        let most = match memchr::memchr(b'\n', buf) {
            None => limits.line + 2,
            Some(_) => limits.line + limits.size + 4,
        };
        buf.len() > most
    }

    /// Takes the next head off the buffer. `None` while its end has not arrived, or while the state allows no head.
    ///
    /// # Errors
    /// The head is refused, and with it everything after it.
    pub fn head(
        &mut self,
        buf: &mut BytesMut,
        limits: &HeadLimits,
    ) -> Result<Option<(ParsedRequest, Rc<RequestHead>)>, MessageFault> {
        if let ReaderState::Refused(fault) = self.state {
            return Err(fault);
        }
        let ReaderState::Start { line_skipped } = self.state else { return Ok(None) };
        if matches!(buf.first(), Some(b'\r' | b'\n')) && self.skip(buf, line_skipped)? {
            return Ok(None);
        }
        if buf.is_empty() {
            return Ok(None);
        }
        let read = request::read(buf, limits, self.target);
        match &read {
            Ok(Some((head, _))) => {
                self.may_switch = head.may_switch;
                self.body = head.framing.into();
                self.state = ReaderState::Body;
                self.ended();
            }
            Ok(None) => {}
            Err(fault) => self.state = ReaderState::Refused(*fault),
        }
        read
    }

    /// Skips the one empty line that is allowed before a head. Returns whether more bytes are needed to decide.
    #[cold]
    fn skip(&mut self, buf: &mut BytesMut, line_skipped: bool) -> Result<bool, MessageFault> {
        match &**buf {
            [b'\r'] => return Ok(true),
            [b'\r', b'\n', ..] if !line_skipped => {
                self.state = ReaderState::Start { line_skipped: true };
                buf.advance(2);
                if !matches!(buf.first(), Some(b'\r' | b'\n')) {
                    return Ok(false);
                }
                if **buf == *b"\r" {
                    return Ok(true);
                }
            }
            _ => {}
        }
        let behind = buf.strip_prefix(b"\r\n").unwrap_or(buf);
        let fault = request::another_protocol(behind)
            .unwrap_or(MessageFault::invalid("There are empty lines before the request."));
        self.state = ReaderState::Refused(fault);
        Err(fault)
    }

    /// Takes the next piece of the body out of the buffer.
    ///
    /// # Errors
    /// The body's framing is invalid; nothing after it can be read.
    pub fn piece(&mut self, buf: &mut BytesMut) -> Result<BodyPiece, MessageFault> {
        let piece = self.body.decode(buf);
        self.ended();
        piece
    }

    /// Gives up the rest of the body. No other request can be read on this connection.
    pub fn abandon(&mut self) {
        if self.state == ReaderState::Body {
            self.state = ReaderState::Refused(MessageFault::invalid(
                "The body of the request before was not read to its end.",
            ));
        }
    }

    fn ended(&mut self) {
        if self.state == ReaderState::Body && self.body.is_done() {
            self.state = if self.may_switch {
                ReaderState::Switching
            } else {
                ReaderState::Start { line_skipped: false }
            };
        }
    }
}
