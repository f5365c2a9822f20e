//! Why bytes are refused.

use std::fmt;

/// Which kind of rule was broken; it decides on the answer's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The bytes are no valid message, or can be read in two ways: 400 for a request, 502 for an answer.
    Invalid,
    /// The first line is longer than allowed: 414.
    LineTooLong,
    /// The fields are larger, or more, than allowed: 431.
    FieldsTooLarge,
    /// A transfer coding that is not implemented: 501 (RFC 9112 section 6.1).
    UnknownCoding,
}

/// The byte that a rule forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The byte.
    pub byte: u8,
    /// Its position in the request's target, counted from 1.
    pub position: u32,
}

/// A message that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which kind of rule was broken.
    pub kind: Kind,
    /// The rule, as a whole sentence that repeats nothing of the message.
    pub rule: &'static str,
    /// The byte that broke it, where one byte did.
    pub at: Option<At>,
}

impl Fault {
    #[cold]
    #[inline(never)]
    pub(crate) const fn invalid(rule: &'static str) -> Self {
        Self { kind: Kind::Invalid, rule, at: None }
    }

    #[cold]
    #[inline(never)]
    pub(crate) const fn of(kind: Kind, rule: &'static str) -> Self {
        Self { kind, rule, at: None }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte 0x{:02X}", self.byte)?;
        if self.byte.is_ascii_graphic() {
            write!(f, " (`{}`)", char::from(self.byte))?;
        }
        write!(f, " at position {} of the target", self.position)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule)?;
        self.at.map_or(Ok(()), |at| write!(f, " It is {at}."))
    }
}

impl std::error::Error for Fault {}
