//! Values that decide the framing.

use crate::{
    MessageFault,
    header::{self, KnownName},
};

/// One decimal number.
pub(crate) fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
}

/// The elements of a comma-separated list (RFC 9110 section 5.6.1).
pub(crate) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(trim).filter(|element| !element.is_empty())
}

pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = bytes.iter().position(|b| !blank(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|b| !blank(b)).map_or(start, |last| last + 1);
    bytes.get(start..end).unwrap_or_default()
}

/// What `Connection` says about the connection itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnectionOptions {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
}

impl ConnectionOptions {
    pub(crate) fn add(&mut self, value: &[u8]) {
        // The values that nearly all messages have.
        match value {
            b"keep-alive" | b"Keep-Alive" => {
                self.keep_alive = true;
                return;
            }
            b"close" | b"Close" => {
                self.close = true;
                return;
            }
            _ => {}
        }
        for element in elements(value) {
            self.close |= element.eq_ignore_ascii_case(b"close");
            self.keep_alive |= element.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// Whether another message may follow (RFC 9112 section 9.3).
    pub(crate) fn persists(self, http11: bool) -> bool {
        !self.close && (http11 || self.keep_alive)
    }
}

/// Refuses a name that trailers must not have (RFC 9110 section 6.5.1: trailers have no fields for framing or routing).
pub(crate) fn check_trailer(name: KnownName) -> Result<(), MessageFault> {
    if matches!(name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::HOST) {
        return Err(MessageFault::invalid("A trailer has a name that is allowed in headers only."));
    }
    Ok(())
}
