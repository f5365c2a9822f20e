//! Field lines: their positions, and the bytes that they must not contain.

use std::ops::Range;

use memchr::memchr;

use crate::{
    FaultKind, MessageFault,
    chars::{self, TOKEN},
    fields::{FieldLine, LineIndex, PLAIN},
    header::{self, KnownName, UNKNOWN},
    scan,
};

/// Limits for one head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// The most bytes of the first line.
    pub line: usize,
    /// The most bytes of all field lines together.
    pub size: usize,
    /// The most field lines.
    pub count: usize,
}

/// The longest name that the `http` crate accepts, in bytes.
pub(crate) const MAX_NAME: usize = (1 << 16) - 1;
pub(crate) const TOO_LARGE: MessageFault =
    MessageFault::of(FaultKind::FieldsTooLarge, "The headers are larger than allowed.");
pub(crate) const TOO_MANY: MessageFault =
    MessageFault::of(FaultKind::FieldsTooLarge, "There are more headers than allowed.");
pub(crate) const BARE_LF: MessageFault = MessageFault::invalid("A line ends in LF without CR.");
const CONTROL: MessageFault = MessageFault::invalid("A header value has a control character (or a bare CR).");

/// Reads field lines from `start` up to and including the empty line that ends them. Returns where they end, or `None` while that empty
/// line has not arrived.
///
/// A usual line is read in one pass, sixteen bytes at a time. A line with anything unusual is read again by one rule after the other, so
/// that the error can name the broken rule.
pub(crate) fn fields(
    bytes: &[u8],
    start: usize,
    max_size: usize,
    max_count: usize,
    mut field: impl FnMut(KnownName, &[u8]) -> Result<(), MessageFault>,
) -> Result<Option<(usize, LineIndex)>, MessageFault> {
    // Most heads have fewer than 16 lines, so the index grows once at most.
    let mut index = LineIndex { lines: Vec::with_capacity(16), known: 0, underscored: false };
    let mut at = start;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        if rest.starts_with(b"\r\n") {
            return Ok(Some((at + 2, index)));
        }
        let read = match usual(rest) {
            Some(read) => read,
            None => match unusual(rest, max_size.saturating_sub(at - start), max_count, index.lines.len())? {
                Some(read) => read,
                None => break,
            },
        };
        if index.lines.len() >= max_count {
            return Err(TOO_MANY);
        }
        if at + read.len - start > max_size {
            return Err(TOO_LARGE);
        }
        let value = (at + read.behind_name) as u32;
        index.lines.push(FieldLine {
            start: at as u32,
            value,
            end: value + read.value.len() as u32,
            name_len: read.name_len as u16,
            known: read.known.map_or(UNKNOWN, KnownName::number),
            flags: if read.plain { PLAIN } else { 0 },
        });
        index.underscored |= read.underscored;
        if let Some(known) = read.known {
            field(known, read.value)?;
            index.known |= known.bit();
        }
        at += read.len;
    }
    // The `\r\n` that ends the head doesn't count.
    if bytes.len() - start > max_size + 2 { Err(TOO_LARGE) } else { Ok(None) }
}

/// One line.
struct ParsedLine<'a> {
    known: Option<KnownName>,
    name_len: usize,
    /// Where the value begins.
    behind_name: usize,
    value: &'a [u8],
    /// Where the next line begins.
    len: usize,
    /// The name contains `_` or another unusual character.
    underscored: bool,
    /// Exactly `: ` separates the name and the value, and nothing follows the value.
    plain: bool,
}

/// A line with a longer name is read by the slow reader.
const MAX_USUAL_NAME: usize = 256;

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Reads the line that these bytes begin with, if it is a usual one. `None` if it contains anything unusual, or if its end has not arrived.
#[expect(clippy::inline_always, reason = "once for each line of each head, and its result is large")]
#[inline(always)]
fn usual(bytes: &[u8]) -> Option<ParsedLine<'_>> {
    let name_len = scan::first(bytes.get(..MAX_USUAL_NAME).unwrap_or(bytes), 0, scan::colons)?;
    let (name, behind) = bytes.split_at_checked(name_len)?;
    let known = KnownName::of(name);
    let underscored = known.is_none() && !chars::all(name, &chars::USUAL_NAME);
    if known.is_none() && (name.is_empty() || !chars::all(name, &TOKEN)) {
        return None;
    }
    let [b':', b' ', behind @ ..] = behind else { return None };
    let (value, behind) = behind.split_at_checked(end_of(behind)?)?;
    let blank = |byte: Option<&u8>| byte.is_some_and(|byte| is_blank(*byte));
    if !behind.starts_with(b"\r\n") || blank(value.first()) || blank(value.last()) {
        return None;
    }
    let behind_name = name_len + 2;
    let len = behind_name + value.len() + 2;
    Some(ParsedLine { known, name_len, behind_name, value, len, underscored, plain: true })
}

/// The position of the first control character other than HTAB.
#[inline]
fn end_of(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at = scan::first(bytes, at, scan::controls)?;
        if bytes.get(at) != Some(&b'\t') {
            return Some(at);
        }
        at += 1;
    }
}

/// Reads any line that these bytes begin with, or says which rule it breaks. `None` while its end has not arrived.
#[cold]
fn unusual(
    bytes: &[u8],
    max_size: usize,
    max_count: usize,
    count: usize,
) -> Result<Option<ParsedLine<'_>>, MessageFault> {
    let Some(end) = memchr(b'\n', bytes) else { return Ok(None) };
    // As `fields` says of a line whose end is not there yet: in pieces it is refused for the same reason.
    if end > max_size + 2 {
        return Err(TOO_LARGE);
    }
    let line = bytes.get(..end).unwrap_or_default();
    let Some(line) = line.strip_suffix(b"\r") else { return Err(BARE_LF) };
    if count >= max_count {
        return Err(TOO_MANY);
    }
    if end + 1 > max_size {
        return Err(TOO_LARGE);
    }
    let (colon, value) = split(line)?;
    if colon > MAX_NAME {
        return Err(TOO_LARGE);
    }
    let name = line.get(..colon).unwrap_or_default();
    let known = KnownName::of(name);
    // RFC 9110 section 5.6.3 says that a recipient removes the tab. nginx and llhttp refuse such a field, and other parsers ignore it: a
    // proxy in front of attache may have seen another end of the message, or another host.
    let decides = matches!(known, Some(header::TRANSFER_ENCODING | header::CONTENT_LENGTH | header::HOST));
    let before = line.get(colon..value.start).unwrap_or_default();
    let behind = line.get(value.end..).unwrap_or_default();
    if decides && (before.contains(&b'\t') || behind.contains(&b'\t')) {
        return Err(MessageFault::invalid(
            "A field that says where the message ends or goes has a tab around its value.",
        ));
    }
    Ok(Some(ParsedLine {
        known,
        name_len: colon,
        behind_name: value.start,
        value: line.get(value).unwrap_or_default(),
        len: end + 1,
        underscored: known.is_none() && !chars::all(name, &chars::USUAL_NAME),
        plain: false,
    }))
}

/// The positions of the colon and of the value.
fn split(line: &[u8]) -> Result<(usize, Range<usize>), MessageFault> {
    let Some(colon) = line.iter().position(|b| !TOKEN[usize::from(*b)]) else {
        return Err(MessageFault::invalid("A header line has no colon."));
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

/// Whether there is a control character other than HTAB.
#[inline]
pub(crate) fn has_control(value: &[u8]) -> bool {
    end_of(value).is_some()
}

#[cold]
fn bad_name(at: usize, byte: Option<&u8>) -> MessageFault {
    MessageFault::invalid(match (at, byte) {
        (0, Some(b' ' | b'\t')) => "A header is folded over two lines.",
        (0, _) => "A header has no name.",
        (_, Some(b' ' | b'\t')) => "There is whitespace between a header's name and its colon.",
        _ => "A header's name has a character that is not allowed in names.",
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

        /// The fast reader accepts only what the slow reader accepts, and reads it the same way.
        #[test]
        fn the_fast_reader_reads_a_line_as_the_slow_reader_does(
            name in "[A-Za-z_^~!-]{0,20}",
            known in prop::sample::select(&["Host", "content-LENGTH", "x-request-id", ""][..]),
            middle in prop::sample::select(&[":", ": ", ":\t ", " :", ""][..]),
            value in proptest::collection::vec(prop_oneof![0x20..0x7f_u8, any::<u8>(), prop::sample::select(b"\t\r\n :".to_vec())], 0..40),
            end in prop::sample::select(&["\r\n", "\n", "\r", "", " \t\r\n"][..]),
            behind in "[a-z: \r\n]{0,20}",
        ) {
            let bytes = [known.as_bytes(), name.as_bytes(), middle.as_bytes(), &value, end.as_bytes(), behind.as_bytes()].concat();
            if let Some(fast) = usual(&bytes) {
                let slow = unusual(&bytes, 1000, 10, 0).unwrap().unwrap();
                let place = |read: &ParsedLine<'_>| (read.known, read.name_len, read.behind_name, read.len, read.underscored);
                prop_assert_eq!(place(&fast), place(&slow));
                prop_assert_eq!(fast.value, slow.value);
                let line = [&bytes[..fast.name_len], b": ", fast.value, b"\r\n"].concat();
                prop_assert_eq!(&bytes[..fast.len], &line);
            }
        }
    }
}
