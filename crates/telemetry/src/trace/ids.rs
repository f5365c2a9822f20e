//! Ids of traces and spans: random, never zero, lower-case hex.

use std::fmt;

/// The id of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub(super) u128);

/// The id of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(pub(super) u64);

impl TraceId {
    /// From the worker's fast generator: unique, not secret.
    pub(super) fn new() -> Self {
        Self(fastrand::u128(1..))
    }

    /// 32 or (B3) 16 hex digits.
    pub(super) fn parse(text: &[u8], upper: bool) -> Option<Self> {
        if text.len() != 32 && text.len() != 16 {
            return None;
        }
        Some(Self(hex(text, upper)?)).filter(|id| id.0 != 0)
    }

    /// The last 56 bits.
    pub(super) const fn randomness(self) -> u64 {
        self.0 as u64 & (super::RANDOM - 1)
    }

    pub(crate) const fn halves(self) -> [u64; 2] {
        [(self.0 >> 64) as u64, self.0 as u64]
    }

    pub(crate) const fn of_halves([high, low]: [u64; 2]) -> Self {
        Self((high as u128) << 64 | low as u128)
    }
}

impl SpanId {
    pub(super) fn new() -> Self {
        Self(fastrand::u64(1..))
    }

    /// 16 hex digits.
    pub(super) fn parse(text: &[u8], upper: bool) -> Option<Self> {
        if text.len() != 16 {
            return None;
        }
        Some(Self(hex(text, upper)? as u64)).filter(|id| id.0 != 0)
    }
}

/// At most 32 digits.
pub(super) fn hex(text: &[u8], upper: bool) -> Option<u128> {
    text.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            b'A'..=b'F' if upper => digit - b'A' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
