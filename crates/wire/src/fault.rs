//! Why bytes are refused.

use std::fmt;

/// Which kind of rule was broken. It decides the status of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The bytes are no valid message, or two parsers could read them differently: 400 for a request, 502 for a response.
    Invalid,
    /// The first line is longer than allowed: 414.
    LineTooLong,
    /// The fields are too large or too many: 431.
    FieldsTooLarge,
    /// A transfer coding that is not implemented: 501 (RFC 9112 section 6.1).
    UnknownCoding,
}

/// The byte that breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForbiddenByte {
    /// The byte.
    pub byte: u8,
    /// Its position in the request's target, counted from 1.
    pub position: u32,
}

/// Why a message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageFault {
    /// Which kind of rule was broken.
    pub kind: FaultKind,
    /// The rule, as a whole sentence that contains no part of the message.
    pub rule: &'static str,
    /// The byte that broke the rule, if a single byte did.
    pub at: Option<ForbiddenByte>,
}

impl MessageFault {
    #[cold]
    #[inline(never)]
    pub(crate) const fn invalid(rule: &'static str) -> Self {
        Self { kind: FaultKind::Invalid, rule, at: None }
    }

    #[cold]
    #[inline(never)]
    pub(crate) const fn of(kind: FaultKind, rule: &'static str) -> Self {
        Self { kind, rule, at: None }
    }
}

impl fmt::Display for ForbiddenByte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte 0x{:02X}", self.byte)?;
        if self.byte.is_ascii_graphic() {
            write!(f, " (`{}`)", char::from(self.byte))?;
        }
        write!(f, " at position {} of the target", self.position)
    }
}

impl fmt::Display for MessageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule)?;
        self.at.map_or(Ok(()), |at| write!(f, " It is {at}."))
    }
}

impl std::error::Error for MessageFault {}
