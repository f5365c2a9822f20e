//! Field lines: where they stand, and what may not stand in them.

use std::ops::Range;

use memchr::memchr;

use crate::{
    Fault, Kind,
    chars::TOKEN,
    fields::{Index, Line, PLAIN},
    header::{Known, UNKNOWN, last_word},
};

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

/// The `http` crate's bound on a name.
pub(crate) const MAX_NAME: usize = (1 << 16) - 1;
pub(crate) const TOO_LARGE: Fault = Fault::of(Kind::FieldsTooLarge, "The headers are larger than allowed.");
pub(crate) const TOO_MANY: Fault = Fault::of(Kind::FieldsTooLarge, "There are more headers than allowed.");
pub(crate) const BARE_LF: Fault = Fault::invalid("A line ends in LF without CR.");
const CONTROL: Fault = Fault::invalid("A header value has a control character (or a bare CR).");

/// Reads field lines from `start` up to and with the empty line that ends them; where they end, or `None` while that isn't there.
///
/// The usual line is read in one pass, eight bytes at a time. One that has anything unusual is read again, by the rules one after the
/// other, which say what is wrong with it.
pub(crate) fn fields(
    bytes: &[u8],
    start: usize,
    max_size: usize,
    max_count: usize,
    mut field: impl FnMut(Known, &[u8]) -> Result<(), Fault>,
) -> Result<Option<(usize, Index)>, Fault> {
    // Most heads have fewer lines.
    let mut index = Index { lines: Vec::with_capacity(16), known: 0, underscored: false };
    let mut at = start;
    loop {
        if bytes.get(at..at + 2) == Some(b"\r\n") {
            return Ok(Some((at + 2, index)));
        }
        let read = match usual(bytes, at) {
            Some(line) => line,
            None => match unusual(bytes, at, start, max_size, max_count, index.lines.len())? {
                Some(line) => line,
                None => break,
            },
        };
        if index.lines.len() >= max_count {
            return Err(TOO_MANY);
        }
        if read.next - start > max_size {
            return Err(TOO_LARGE);
        }
        if let Some(known) = read.known {
            field(known, bytes.get(read.value..read.end).unwrap_or_default())?;
            index.known |= known.bit();
        } else {
            index.underscored |= read.underscored;
        }
        index.lines.push(Line {
            start: at as u32,
            value: read.value as u32,
            end: read.end as u32,
            name_len: (read.colon - at) as u16,
            known: read.known.map_or(UNKNOWN, Known::number),
            flags: if read.plain { PLAIN } else { 0 },
        });
        at = read.next;
    }
    // `\r\n` of the end is not counted.
    if bytes.len() - start > max_size + 2 { Err(TOO_LARGE) } else { Ok(None) }
}

/// Where the parts of one line stand.
struct Read {
    colon: usize,
    /// Where the value begins and ends.
    value: usize,
    end: usize,
    /// Where the next line begins.
    next: usize,
    known: Option<Known>,
    underscored: bool,
    /// There is nothing but `: ` between name and value, and nothing behind it.
    plain: bool,
}

const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = 0x8080_8080_8080_8080;

/// Eight bytes, the first one lowest.
#[inline]
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map(|eight| u64::from_le_bytes(*eight))
}

/// Where the first of the bytes stands whose top bit is set.
#[inline]
const fn first(found: u64) -> usize {
    (found.trailing_zeros() / 8) as usize
}

/// The top bits of the bytes that are zero. Those behind the first one may be wrong.
#[inline]
const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & TOPS
}

/// The top bits of the bytes below 0x20 and of 0x7F. Those behind the first one may be wrong.
#[inline]
const fn controls(word: u64) -> u64 {
    let below = word.wrapping_sub(ONES * 0x20) & !word & TOPS;
    below | zeros(word ^ (ONES * 0x7f))
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// A line without anything that must be looked at twice; `None` where there is such a thing, or the line has no end yet.
#[inline]
fn usual(bytes: &[u8], start: usize) -> Option<Read> {
    let begin = word(bytes, start)?;
    let mut colon = start;
    let mut eight = begin;
    loop {
        let found = zeros(eight ^ (ONES * 0x3a));
        if found != 0 {
            colon += first(found);
            break;
        }
        colon += 8;
        if colon - start > 256 {
            return None;
        }
        eight = word(bytes, colon)?;
    }
    let name = bytes.get(start..colon)?;
    let known = match name.len() {
        0 => return None,
        short @ ..8 => Known::of_words(name, begin & ((1 << (8 * short)) - 1), 0),
        _ => Known::of_words(name, begin, last_word(name)),
    };
    let mut underscored = false;
    if known.is_none() {
        if !name.iter().all(|byte| TOKEN[usize::from(*byte)]) {
            return None;
        }
        underscored = name.contains(&b'_');
    }
    let mut value = colon + 1;
    let mut plain = *bytes.get(value)? == b' ';
    if plain {
        value += 1;
    }
    while is_blank(*bytes.get(value)?) {
        plain = false;
        value += 1;
    }
    let cr = end_of(bytes, value)?;
    let mut end = cr;
    while end > value && is_blank(*bytes.get(end - 1)?) {
        plain = false;
        end -= 1;
    }
    Some(Read { colon, value, end, next: cr + 2, known, underscored, plain })
}

/// Where the CR LF stands that ends a value without control characters.
#[inline]
fn end_of(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        match word(bytes, at) {
            Some(word) => {
                let found = controls(word);
                if found == 0 {
                    at += 8;
                    continue;
                }
                at += first(found);
            }
            // The last bytes of what is there.
            None => {
                if matches!(bytes.get(at)?, 0x20..=0x7e | 0x80..) {
                    at += 1;
                    continue;
                }
            }
        }
        match bytes.get(at..at + 2)? {
            b"\r\n" => return Some(at),
            [b'\t', _] => at += 1,
            _ => return None,
        }
    }
}

/// Any line, and what is wrong with it. `None` while its end is not there.
#[cold]
fn unusual(
    bytes: &[u8],
    at: usize,
    start: usize,
    max_size: usize,
    max_count: usize,
    count: usize,
) -> Result<Option<Read>, Fault> {
    let Some(end) = memchr(b'\n', bytes.get(at..).unwrap_or_default()) else { return Ok(None) };
    let line = bytes.get(at..at + end).unwrap_or_default();
    let Some(line) = line.strip_suffix(b"\r") else { return Err(BARE_LF) };
    let next = at + end + 1;
    if count >= max_count {
        return Err(TOO_MANY);
    }
    if next - start > max_size {
        return Err(TOO_LARGE);
    }
    let (colon, value) = split(line)?;
    if colon > MAX_NAME {
        return Err(TOO_LARGE);
    }
    let name = line.get(..colon).unwrap_or_default();
    Ok(Some(Read {
        colon: at + colon,
        value: at + value.start,
        end: at + value.end,
        next,
        known: Known::of(name),
        underscored: name.contains(&b'_'),
        plain: false,
    }))
}

/// Where the colon and the value stand.
fn split(line: &[u8]) -> Result<(usize, Range<usize>), Fault> {
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

/// Whether there is a control character but HTAB. Eight bytes at once say whether there may be one.
#[inline]
pub(crate) fn has_control(value: &[u8]) -> bool {
    let control = |b: &u8| (*b < 0x20 && *b != b'\t') || *b == 0x7f;
    let (words, rest) = value.as_chunks::<8>();
    let clean = !words.iter().any(|eight| controls(u64::from_ne_bytes(*eight)) != 0);
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

        /// The fast way reads what the careful one reads, and nothing else.
        #[test]
        fn a_usual_line_is_read_as_by_the_rules_one_after_the_other(
            name in "[A-Za-z_^~!-]{0,20}",
            known in prop::sample::select(&["Host", "content-LENGTH", "x-request-id", ""][..]),
            middle in prop::sample::select(&[":", ": ", ":\t ", " :", ""][..]),
            value in proptest::collection::vec(prop_oneof![0x20..0x7f_u8, any::<u8>(), prop::sample::select(b"\t\r\n :".to_vec())], 0..40),
            end in prop::sample::select(&["\r\n", "\n", "\r", "", " \t\r\n"][..]),
            behind in "[a-z: \r\n]{0,20}",
        ) {
            let bytes = [known.as_bytes(), name.as_bytes(), middle.as_bytes(), &value, end.as_bytes(), behind.as_bytes()].concat();
            if let Some(fast) = usual(&bytes, 0) {
                let slow = unusual(&bytes, 0, 0, 1000, 10, 0).unwrap().unwrap();
                prop_assert_eq!((fast.colon, fast.value, fast.end, fast.next), (slow.colon, slow.value, slow.end, slow.next));
                prop_assert_eq!((fast.known, fast.known.is_none() && fast.underscored), (slow.known, slow.underscored));
                let plain = bytes[fast.colon..fast.value] == *b": " && bytes[fast.end..fast.next] == *b"\r\n";
                prop_assert_eq!(fast.plain, plain);
            }
        }
    }
}
