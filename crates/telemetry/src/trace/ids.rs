//! Ids of traces and spans: random, never zero, lower-case hex.

use std::fmt;

/// The id of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub(crate) u128);

/// The id of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(pub(crate) u64);

impl TraceId {
    /// A random id from the worker's fast generator: it is unique but not secret.
    pub(super) fn new() -> Self {
        Self(fastrand::u128(1..))
    }

    /// Parses 32 or (B3) 16 hex digits.
    pub(super) fn parse(text: &[u8], upper: bool) -> Option<Self> {
        if text.len() != 32 && text.len() != 16 {
            return None;
        }
        Some(Self(hex(text, upper)?)).filter(|id| id.0 != 0)
    }

    /// The last 56 bits, which are random.
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

    /// Parses 16 hex digits.
    pub(super) fn parse(text: &[u8], upper: bool) -> Option<Self> {
        if text.len() != 16 {
            return None;
        }
        Some(Self(hex(text, upper)? as u64)).filter(|id| id.0 != 0)
    }
}

/// Parses at most 32 digits.
pub(super) fn hex(text: &[u8], upper: bool) -> Option<u128> {
    // In two halves, because shifting a number of 128 bits takes four times as long.
    let (high, low) = text.split_at_checked(text.len().saturating_sub(16))?;
    Some(u128::from(half(high, upper)?) << 64 | u128::from(half(low, upper)?))
}

/// Parses at most 16 digits: eight at once, then one by one.
fn half(text: &[u8], upper: bool) -> Option<u64> {
    let (eights, rest) = text.as_chunks();
    let mut number = 0_u64;
    for eight in eights {
        number = number << 32 | eight_digits(*eight, upper)?;
    }
    for byte in rest {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' if upper => byte - b'A' + 10,
            _ => return None,
        };
        number = number << 4 | u64::from(digit);
    }
    Some(number)
}

/// Parses eight digits at once in one word, because every request with a trace has six times as many. No byte overflows into its neighbour:
/// each sum below stays under 256.
fn eight_digits(text: [u8; 8], upper: bool) -> Option<u64> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut word = u64::from_be_bytes(text);
    // 1 for a byte that could be a letter (0x41 to 0x46, 0x61 to 0x66), 0 for one that could be a digit (0x30 to 0x39).
    let letter = word >> 6 & ONES;
    if upper {
        word |= letter << 5;
    }
    let low = word & (0x0f * ONES);
    let high_is_right = word & (0xf0 * ONES) == 0x30 * (ONES + letter);
    let value = low + 9 * letter;
    // A digit must be at most 9 and a letter at least 10, and neither may be more than 15.
    let tens = (value + 6 * ONES) >> 4 & ONES;
    if !high_is_right || tens != letter || value & (0x10 * ONES) != 0 {
        return None;
    }
    // Neighbours are joined: pairs of digits to bytes, then to two bytes, then to four.
    let pairs = (value >> 4 | value) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs >> 8 | pairs) & 0x0000_ffff_0000_ffff;
    Some((fours >> 16 | fours) & 0xffff_ffff)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn eight_digits_at_once_have_the_same_value_as_one_by_one(
            text in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..33),
                proptest::collection::vec(proptest::sample::select(b"0123456789abcdefABCDEF".to_vec()), 0..33),
                proptest::collection::vec(proptest::sample::select(b"09afAF/:@`gG09afAF09afAF".to_vec()), 0..33),
            ],
            upper: bool,
        ) {
            let one_by_one = text.iter().try_fold(0_u128, |number, byte| {
                let digit = char::from(*byte).to_digit(16).filter(|_| upper || !byte.is_ascii_uppercase())?;
                Some(number << 4 | u128::from(digit))
            });
            prop_assert_eq!(hex(&text, upper), one_by_one);
        }
    }

    #[test]
    fn every_byte_is_checked_at_every_position() {
        for (at, byte) in (0..8).flat_map(|at| (0..=u8::MAX).map(move |byte| (at, byte))) {
            let mut text = *b"0123cdef";
            text[at] = byte;
            let right = |upper| byte.is_ascii_hexdigit() && (upper || !byte.is_ascii_uppercase());
            assert_eq!(
                [false, true].map(|upper| hex(&text, upper).is_some()),
                [right(false), right(true)],
                "{text:?}"
            );
        }
    }
}
