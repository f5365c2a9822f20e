//! Field lines, and the index of them.

use bytes::{Bytes, BytesMut};
use memchr::memchr;

use crate::{Fault, Kind, chars::TOKEN};

/// Bounds on one head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the first line.
    pub line: usize,
    /// Bytes of all field lines.
    pub size: usize,
    /// Field lines.
    pub count: usize,
}

/// Where a field's name and value stand in a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    name: u32,
    name_len: u32,
    value: u32,
    value_len: u32,
}

impl Field {
    /// The name's bytes.
    pub fn name<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        let at = self.name as usize;
        head.get(at..at + self.name_len as usize).unwrap_or_default()
    }

    /// The value's bytes, without the whitespace around them.
    pub fn value<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        head.get(self.value_range()).unwrap_or_default()
    }

    /// Where the name begins, and how long it is.
    pub const fn name_at(&self) -> (u32, u32) {
        (self.name, self.name_len)
    }

    /// Where the value stands.
    pub const fn value_range(&self) -> std::ops::Range<usize> {
        let at = self.value as usize;
        at..at + self.value_len as usize
    }
}

/// A head, or trailers, that were read: the bytes, and the index that belongs to them.
///
/// Only the readers of this crate make one, so every value of it has been checked.
#[derive(Clone, Debug)]
pub struct Lines<'a> {
    bytes: Bytes,
    index: &'a [Field],
}

impl<'a> Lines<'a> {
    /// Cuts what was just read off the buffer.
    pub(crate) fn take(buf: &mut BytesMut, len: usize, index: &'a [Field]) -> Self {
        Self { bytes: buf.split_to(len).freeze(), index }
    }

    /// The bytes.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Where the fields stand in them.
    pub const fn index(&self) -> &'a [Field] {
        self.index
    }
}

/// The `http` crate's bound on a name.
const MAX_NAME: usize = (1 << 16) - 1;
pub(crate) const TOO_LARGE: Fault = Fault::of(Kind::FieldsTooLarge, "The headers are larger than allowed.");
pub(crate) const TOO_MANY: Fault = Fault::of(Kind::FieldsTooLarge, "There are more headers than allowed.");
pub(crate) const BARE_LF: Fault = Fault::invalid("A line ends in LF without CR.");
const CONTROL: Fault = Fault::invalid("A header value has a control character (or a bare CR).");

/// Reads field lines from `start` up to and with the empty line that ends them; where they end, or `None` while that isn't there.
pub(crate) fn fields(
    bytes: &[u8],
    start: usize,
    max_size: usize,
    max_count: usize,
    index: &mut Vec<Field>,
    mut field: impl FnMut(&[u8], &[u8]) -> Result<(), Fault>,
) -> Result<Option<usize>, Fault> {
    index.clear();
    let mut at = start;
    while let Some(end) = memchr(b'\n', bytes.get(at..).unwrap_or_default()) {
        let line = bytes.get(at..at + end).unwrap_or_default();
        let Some(line) = line.strip_suffix(b"\r") else { return Err(BARE_LF) };
        let begin = at;
        at += end + 1;
        if line.is_empty() {
            return Ok(Some(at));
        }
        if index.len() >= max_count {
            return Err(TOO_MANY);
        }
        if at - start > max_size {
            return Err(TOO_LARGE);
        }
        let (colon, value) = split(line)?;
        if colon > MAX_NAME {
            return Err(TOO_LARGE);
        }
        let name = line.get(..colon).unwrap_or_default();
        let text = line.get(value.clone()).unwrap_or_default();
        field(name, text)?;
        index.push(Field {
            name: begin as u32,
            name_len: colon as u32,
            value: (begin + value.start) as u32,
            value_len: text.len() as u32,
        });
    }
    // `\r\n` of the end is not counted.
    if bytes.len() - start > max_size + 2 { Err(TOO_LARGE) } else { Ok(None) }
}

/// Where the colon and the value stand.
fn split(line: &[u8]) -> Result<(usize, std::ops::Range<usize>), Fault> {
    let Some(colon) = line.iter().position(|b| !TOKEN[usize::from(*b)]) else {
        return Err(Fault::invalid("A header line has no colon."));
    };
    if colon == 0 || line.get(colon) != Some(&b':') {
        return Err(bad_name(colon, line.get(colon)));
    }
    let value = line.get(colon + 1..).unwrap_or_default();
    if has_control(value) {
        return Err(CONTROL);
    }
    // Only SP and HTAB are whitespace here (RFC 9110 section 5.6.3).
    let trimmed = |b: &u8| matches!(b, b' ' | b'\t');
    let start = value.iter().position(|b| !trimmed(b)).unwrap_or(value.len());
    let end = value.iter().rposition(|b| !trimmed(b)).map_or(start, |last| last + 1);
    Ok((colon, colon + 1 + start..colon + 1 + end))
}

/// Whether there is a control character but HTAB. Eight bytes at once say whether there may be one: below 0x20, or 0x7F.
#[inline]
fn has_control(value: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let suspect = |word: u64| {
        let below = word.wrapping_sub(ONES * 0x20) & !word;
        let deleted = word ^ (ONES * 0x7f);
        (below | (deleted.wrapping_sub(ONES) & !deleted)) & TOPS != 0
    };
    let control = |b: &u8| (*b < 0x20 && *b != b'\t') || *b == 0x7f;
    let (words, rest) = value.as_chunks::<8>();
    let clean = !words.iter().any(|eight| suspect(u64::from_ne_bytes(*eight)));
    if clean { rest.iter().any(control) } else { value.iter().any(control) }
}

#[cold]
fn bad_name(at: usize, byte: Option<&u8>) -> Fault {
    Fault::invalid(match (at, byte) {
        (0, Some(b' ' | b'\t')) => "A header is folded over two lines.",
        (0, _) => "A header has no name.",
        (_, Some(b' ' | b'\t')) => "There is whitespace between a header's name and its colon.",
        _ => "A header's name has a character it may not have.",
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_control_character_is_found_wherever_it_stands(value in proptest::collection::vec(any::<u8>(), 0..40), clean in any::<bool>()) {
            let value: Vec<u8> = if clean { value.into_iter().map(|b| b | 0x80).collect() } else { value };
            let slowly = value.iter().any(|b| (*b < 0x20 && *b != b'\t') || *b == 0x7f);
            prop_assert_eq!(has_control(&value), slowly);
        }
    }
}
