//! Why a stream or a connection ended.

use std::{fmt, io, sync::Arc};

use crate::Code;

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
pub struct Error(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Reset(Code, Initiator, &'static str),
    GoAway(Code, Initiator, Arc<str>),
    Io(Arc<io::Error>),
    /// The connection ended without an error, but before the stream.
    Closed,
}

impl Error {
    /// The stream was reset. `why` is the rule that the peer broke, or empty.
    pub(crate) const fn reset(code: Code, by: Initiator, why: &'static str) -> Self {
        Self(Kind::Reset(code, by, why))
    }

    /// The connection was ended with GOAWAY and this debug text.
    pub(crate) fn go_away(code: Code, by: Initiator, words: impl Into<Arc<str>>) -> Self {
        Self(Kind::GoAway(code, by, words.into()))
    }

    /// The peer broke a rule whose violation ends the connection (RFC 9113 section 5.4.1).
    pub(crate) fn rule(code: Code, words: &'static str) -> Self {
        Self::go_away(code, Initiator::Rule, words)
    }

    pub(crate) fn io(error: io::Error) -> Self {
        Self(Kind::Io(Arc::new(error)))
    }

    pub(crate) const fn closed() -> Self {
        Self(Kind::Closed)
    }

    /// The error code, if a frame carried one or would carry one.
    pub const fn code(&self) -> Option<Code> {
        match &self.0 {
            Kind::Reset(code, ..) | Kind::GoAway(code, ..) => Some(*code),
            Kind::Io(_) | Kind::Closed => None,
        }
    }

    /// Who ended it; `None` if no frame ended the connection.
    pub const fn by(&self) -> Option<Initiator> {
        match &self.0 {
            Kind::Reset(_, by, _) | Kind::GoAway(_, by, _) => Some(*by),
            Kind::Io(_) | Kind::Closed => None,
        }
    }

    /// Whether one stream was reset.
    pub const fn is_reset(&self) -> bool {
        matches!(self.0, Kind::Reset(..))
    }

    /// Whether the connection was ended with GOAWAY.
    pub const fn is_go_away(&self) -> bool {
        matches!(self.0, Kind::GoAway(..))
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
        self.is_rule() && self.code() == Some(Code::ENHANCE_YOUR_CALM)
    }

    /// The socket's error.
    pub fn as_io(&self) -> Option<&io::Error> {
        match &self.0 {
            Kind::Io(error) => Some(error),
            Kind::Reset(..) | Kind::GoAway(..) | Kind::Closed => None,
        }
    }

    /// The debug text of a GOAWAY, or the rule that the peer broke; may be empty.
    pub fn words(&self) -> &str {
        match &self.0 {
            Kind::Reset(_, _, why) => why,
            Kind::GoAway(_, _, words) => words,
            Kind::Io(_) | Kind::Closed => "",
        }
    }

    /// The error as an error of a byte stream.
    pub(crate) fn into_io(self) -> io::Error {
        match &self.0 {
            Kind::Io(error) => io::Error::new(error.kind(), self),
            Kind::Reset(..) | Kind::GoAway(..) => io::Error::new(io::ErrorKind::ConnectionReset, self),
            Kind::Closed => io::Error::new(io::ErrorKind::BrokenPipe, self),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, code, by, why) = match &self.0 {
            Kind::Reset(code, by, why) => ("stream", code, by, *why),
            Kind::GoAway(code, by, words) => ("connection", code, by, &**words),
            Kind::Io(error) => return write!(f, "{error}"),
            Kind::Closed => return f.write_str("the connection was closed before the stream ended"),
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
            Kind::Io(error) => Some(&**error),
            Kind::Reset(..) | Kind::GoAway(..) | Kind::Closed => None,
        }
    }
}
