//! Where one message ends and the next begins.
//!
//! A machine without input or output: it is shown the bytes of a connection in any pieces and says how many of them may be passed on.
//! Heads and trailers are passed whole or not at all, so that a bad one is never seen by what reads behind; body bytes
//! pass as they come. After a refusal nothing is interpreted any more.

use super::head::{self, Framing, Limits, bad};
use crate::request::Refusal;

/// Bytes of one chunk's extension; nobody is known to use them, but for smuggling and for exhausting (CVE-2023-39326).
const MAX_EXTENSION: u32 = 256;
/// Bytes of all extensions of one body.
const MAX_EXTENSIONS: u32 = 8 << 10;
/// Bytes and lines of trailers; hyper's own bounds are 16 KiB and 100.
const MAX_TRAILERS: usize = 8 << 10;
const MAX_TRAILER_LINES: usize = 64;

#[derive(Debug)]
pub(crate) struct Framer {
    state: State,
    limits: Limits,
    /// The message that runs may switch protocols at its end.
    may_switch: bool,
    extensions: u32,
    heads: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before a head; one empty line may stand there (RFC 9112 section 2.2).
    Start {
        line_skipped: bool,
    },
    Body(u64),
    ChunkSize {
        size: u64,
        digits: u8,
    },
    ChunkExtension {
        size: u64,
        len: u32,
    },
    ChunkSizeLf(u64),
    ChunkData(u64),
    ChunkDataCr,
    ChunkDataLf,
    Trailers,
    Switching,
    Refused(Refusal),
}

/// Why no more bytes were passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// There were no more.
    All,
    /// The rest is the begin of a head or of trailers: show it again with what follows.
    Partial,
    /// The rest is held until it is known whether the protocol changes.
    Switching,
    /// The rest begins with a head that is refused.
    Refused(Refusal),
    /// The rest breaks the body of the message that runs.
    Broken(Refusal),
}

impl Framer {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            state: State::Start { line_skipped: false },
            limits,
            may_switch: false,
            extensions: 0,
            heads: 0,
        }
    }

    /// Heads that were passed.
    pub(crate) fn heads(&self) -> u64 {
        self.heads
    }

    /// Between two messages.
    pub(crate) fn at_start(&self) -> bool {
        matches!(self.state, State::Start { .. })
    }

    /// What follows may not be HTTP.
    pub(crate) fn is_switching(&self) -> bool {
        self.state == State::Switching
    }

    /// A look at `held` would refuse it for its size alone.
    pub(crate) fn is_too_much(&self, held: &[u8]) -> bool {
        let most = match self.state {
            State::Start { .. } if memchr::memchr(b'\n', held).is_none() => self.limits.request_line + 2,
            State::Start { .. } => self.limits.request_line + self.limits.headers_size + 4,
            _ => MAX_TRAILERS + 2,
        };
        held.len() > most
    }

    /// The protocol did not change: what was held is HTTP.
    pub(crate) fn resume(&mut self) {
        if self.state == State::Switching {
            self.state = State::Start { line_skipped: false };
        }
    }

    /// How many of `bytes` may be passed on, and why not more.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> (usize, Stop) {
        let mut passed = 0;
        loop {
            let rest = bytes.get(passed..).unwrap_or_default();
            if rest.is_empty() && self.state != State::Switching {
                return (passed, Stop::All);
            }
            match self.step(rest) {
                Ok(Some(n)) => passed += n,
                Ok(None) if self.state == State::Switching => return (passed, Stop::Switching),
                Ok(None) => return (passed, Stop::Partial),
                Err(refusal) => {
                    let head = self.at_start();
                    if !matches!(self.state, State::Refused(_)) {
                        self.state = State::Refused(refusal);
                    }
                    return (passed, if head { Stop::Refused(refusal) } else { Stop::Broken(refusal) });
                }
            }
        }
    }

    /// Passes some of `rest`, which is not empty; `None` when it must be held.
    fn step(&mut self, rest: &[u8]) -> Result<Option<usize>, Refusal> {
        let (next, n) = match self.state {
            State::Start { line_skipped } => return self.start(rest, line_skipped),
            State::Trailers => return self.trailers(rest),
            State::Switching => return Ok(None),
            State::Refused(refusal) => return Err(refusal),
            State::Body(left) | State::ChunkData(left) => {
                let n = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - n as u64;
                let next = match (self.state, left) {
                    (State::Body(_), 0) => self.message_end(),
                    (State::Body(_), _) => State::Body(left),
                    (_, 0) => State::ChunkDataCr,
                    (_, _) => State::ChunkData(left),
                };
                (next, n)
            }
            state => (self.chunk_byte(state, rest.first().copied().unwrap_or_default())?, 1),
        };
        self.state = next;
        Ok(Some(n))
    }

    fn start(&mut self, rest: &[u8], line_skipped: bool) -> Result<Option<usize>, Refusal> {
        match rest {
            [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] if !line_skipped => {
                self.state = State::Start { line_skipped: true };
                return Ok(Some(2));
            }
            [b'\r' | b'\n', ..] => return Err(bad("There are empty lines before the request.")),
            _ => {}
        }
        let Some(head) = head::parse(rest, &self.limits)? else { return Ok(None) };
        self.heads += 1;
        self.may_switch = head.may_switch;
        self.extensions = 0;
        self.state = match head.framing {
            Framing::None => self.message_end(),
            Framing::Length(n) => State::Body(n),
            Framing::Chunked => State::ChunkSize { size: 0, digits: 0 },
        };
        Ok(Some(head.len))
    }

    fn message_end(&self) -> State {
        if self.may_switch { State::Switching } else { State::Start { line_skipped: false } }
    }

    fn trailers(&mut self, rest: &[u8]) -> Result<Option<usize>, Refusal> {
        let len = head::trailers(rest, MAX_TRAILERS, MAX_TRAILER_LINES)?;
        if len.is_some() {
            self.state = self.message_end();
        }
        Ok(len)
    }

    fn chunk_byte(&mut self, state: State, byte: u8) -> Result<State, Refusal> {
        Ok(match (state, byte) {
            (State::ChunkSize { size, digits }, byte) if byte.is_ascii_hexdigit() => {
                // 15 digits are 2^60 bytes: enough, and no sum of it overflows.
                if digits == 15 {
                    return Err(bad("A chunk's size has too many digits."));
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                State::ChunkSize { size: size * 16 + u64::from(digit), digits: digits + 1 }
            }
            (State::ChunkSize { digits: 0, .. }, _) => return Err(bad("A chunk has no size.")),
            (State::ChunkSize { size, .. }, b';') => State::ChunkExtension { size, len: 0 },
            (State::ChunkSize { size, .. } | State::ChunkExtension { size, .. }, b'\r') => {
                State::ChunkSizeLf(size)
            }
            (State::ChunkSize { .. }, _) => return Err(bad("A chunk's size is not a hexadecimal number.")),
            (State::ChunkExtension { .. }, byte) if byte != b'\t' && (byte < 0x20 || byte == 0x7f) => {
                return Err(bad("A chunk's extension has a control character (or a bare LF)."));
            }
            (State::ChunkExtension { size, len }, _) => {
                self.extensions += 1;
                if len >= MAX_EXTENSION || self.extensions > MAX_EXTENSIONS {
                    return Err(bad("The chunks' extensions are longer than allowed."));
                }
                State::ChunkExtension { size, len: len + 1 }
            }
            (State::ChunkSizeLf(0), b'\n') => State::Trailers,
            (State::ChunkSizeLf(size), b'\n') => State::ChunkData(size),
            (State::ChunkSizeLf(_), _) => return Err(bad("A chunk's size line has a bare CR.")),
            (State::ChunkDataCr, b'\r') => State::ChunkDataLf,
            (State::ChunkDataLf, b'\n') => State::ChunkSize { size: 0, digits: 0 },
            (_, _) => return Err(bad("A chunk is longer than its size.")),
        })
    }
}
