//! Why a stream or a connection ended.

use std::{fmt, io, sync::Arc};

use crate::ErrorCode;

/// Who ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initiator {
    /// The proxy, without an error of the peer.
    Us,
    /// The proxy, because the peer broke a rule of the protocol.
    Rule,
    /// The peer, by RST_STREAM or GOAWAY.
    Peer,
}

/// Why a stream or its connection ended, if not by END_STREAM.
#[derive(Clone, Debug)]
pub struct Error(ErrorKind);

#[derive(Clone, Debug)]
enum ErrorKind {
    Reset(ErrorCode, Initiator, &'static str),
    GoAway(ErrorCode, Initiator, Arc<str>),
    Io(Arc<io::Error>),
    /// The connection ended without an error, but before the stream.
    Closed,
}

impl Error {
    /// The stream was reset. `why` is the rule that the peer broke, or empty.
    pub(crate) const fn reset(code: ErrorCode, by: Initiator, why: &'static str) -> Self {
        Self(ErrorKind::Reset(code, by, why))
    }

    /// The connection was ended with GOAWAY and this debug text.
    pub(crate) fn go_away(code: ErrorCode, by: Initiator, words: impl Into<Arc<str>>) -> Self {
        Self(ErrorKind::GoAway(code, by, words.into()))
    }

    /// The peer broke a rule whose violation ends the connection (RFC 9113 section 5.4.1).
    pub(crate) fn rule(code: ErrorCode, words: &'static str) -> Self {
        Self::go_away(code, Initiator::Rule, words)
    }

    pub(crate) fn io(error: io::Error) -> Self {
        Self(ErrorKind::Io(Arc::new(error)))
    }

    pub(crate) const fn closed() -> Self {
        Self(ErrorKind::Closed)
    }

    /// The error code, if a frame carried one or would carry one.
    pub const fn code(&self) -> Option<ErrorCode> {
        match &self.0 {
            ErrorKind::Reset(code, ..) | ErrorKind::GoAway(code, ..) => Some(*code),
            ErrorKind::Io(_) | ErrorKind::Closed => None,
        }
    }

    /// Who ended it; `None` if no frame ended the connection.
    pub const fn by(&self) -> Option<Initiator> {
        match &self.0 {
            ErrorKind::Reset(_, by, _) | ErrorKind::GoAway(_, by, _) => Some(*by),
            ErrorKind::Io(_) | ErrorKind::Closed => None,
        }
    }

    /// Whether one stream was reset.
    pub const fn is_reset(&self) -> bool {
        matches!(self.0, ErrorKind::Reset(..))
    }

    /// Whether the connection was ended with GOAWAY.
    pub const fn is_go_away(&self) -> bool {
        matches!(self.0, ErrorKind::GoAway(..))
    }

    /// Whether the peer ended it.
    pub fn is_remote(&self) -> bool {
        self.by() == Some(Initiator::Peer)
    }

    /// Whether the peer broke a rule.
    pub fn is_rule(&self) -> bool {
        self.by() == Some(Initiator::Rule)
    }

    /// Whether the connection was ended because of a flood, see [`Flood`](crate::Flood).
    pub fn is_flood(&self) -> bool {
        self.is_rule() && self.code() == Some(ErrorCode::ENHANCE_YOUR_CALM)
    }

    /// The socket's error.
    pub fn as_io(&self) -> Option<&io::Error> {
        match &self.0 {
            ErrorKind::Io(error) => Some(error),
            ErrorKind::Reset(..) | ErrorKind::GoAway(..) | ErrorKind::Closed => None,
        }
    }

    /// The debug text of a GOAWAY, or the rule that the peer broke; may be empty.
    pub fn words(&self) -> &str {
        match &self.0 {
            ErrorKind::Reset(_, _, why) => why,
            ErrorKind::GoAway(_, _, words) => words,
            ErrorKind::Io(_) | ErrorKind::Closed => "",
        }
    }

    /// The error as an error of a byte stream.
    pub(crate) fn into_io(self) -> io::Error {
        match &self.0 {
            ErrorKind::Io(error) => io::Error::new(error.kind(), self),
            ErrorKind::Reset(..) | ErrorKind::GoAway(..) => {
                io::Error::new(io::ErrorKind::ConnectionReset, self)
            }
            ErrorKind::Closed => io::Error::new(io::ErrorKind::BrokenPipe, self),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, code, by, why) = match &self.0 {
            ErrorKind::Reset(code, by, why) => ("stream", code, by, *why),
            ErrorKind::GoAway(code, by, words) => ("connection", code, by, &**words),
            ErrorKind::Io(error) => return write!(f, "{error}"),
            ErrorKind::Closed => return f.write_str("the connection was closed before the stream ended"),
        };
        match by {
            Initiator::Peer => write!(f, "the peer ended the {what} with {code}")?,
            Initiator::Us => write!(f, "the {what} was ended with {code}")?,
            Initiator::Rule => write!(f, "the peer broke the rules of HTTP/2: {code}")?,
        }
        if why.is_empty() { Ok(()) } else { write!(f, ": {why}") }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            ErrorKind::Io(error) => Some(&**error),
            ErrorKind::Reset(..) | ErrorKind::GoAway(..) | ErrorKind::Closed => None,
        }
    }
}
