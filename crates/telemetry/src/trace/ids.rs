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

/// What each byte is as a digit; `NONE` where it is none.
const fn digits(upper: bool) -> [u8; 256] {
    let mut table = [NONE; 256];
    let mut digit = 0;
    while digit < 16 {
        let text = b"0123456789abcdef"[digit as usize];
        table[text as usize] = digit;
        if upper {
            table[text.to_ascii_uppercase() as usize] = digit;
        }
        digit += 1;
    }
    table
}

const NONE: u8 = u8::MAX;
static LOWER: [u8; 256] = digits(false);
static BOTH: [u8; 256] = digits(true);

/// At most 32 digits.
pub(super) fn hex(text: &[u8], upper: bool) -> Option<u128> {
    let table = if upper { &BOTH } else { &LOWER };
    // Two halves, since a number of 128 bits takes four times as long to shift.
    let half = |text: &[u8]| {
        let (mut number, mut wrong) = (0_u64, 0);
        for byte in text {
            let digit = table[usize::from(*byte)];
            wrong |= digit;
            number = number << 4 | u64::from(digit & 0xf);
        }
        (wrong <= 0xf).then_some(number)
    };
    let (high, low) = text.split_at_checked(text.len().saturating_sub(16))?;
    Some(u128::from(half(high)?) << 64 | u128::from(half(low)?))
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
