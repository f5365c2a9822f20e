//! Writes JSON in which every character from a peer is either visible or escaped.
//!
//! RFC 8259 requires escapes only for the control characters of ASCII. But readers that know Unicode also end a line at U+0085 and U+2028,
//! terminals obey the control characters from U+0080 to U+009F, and direction marks change what a person reads.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

/// Writes a value.
pub(super) fn write(out: &mut Vec<u8>, value: &impl Serialize) -> io::Result<()> {
    Ok(value.serialize(&mut Serializer::with_formatter(out, JsonEscaper(CompactFormatter)))?)
}

struct JsonEscaper(CompactFormatter);

impl Formatter for JsonEscaper {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        // Most of what is logged is ASCII. serde_json escapes its control characters itself, except DEL.
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_hidden(*c)) {
            self.0.write_string_fragment(writer, &rest[..at])?;
            // All of them are below U+10000, so four digits are enough.
            write!(writer, "\\u{:04x}", u32::from(c))?;
            rest = &rest[at + c.len_utf8()..];
        }
        self.0.write_string_fragment(writer, rest)
    }
}

fn is_hidden(c: char) -> bool {
    c >= '\u{7f}'
        && (c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_are_escaped_and_read_back() {
        let text = "a\u{85}b\u{2028}c\u{9b}31m\u{7f}d\u{202e}é\u{1f600}\n\"\\";
        let mut out = Vec::new();
        write(&mut out, &text).unwrap();
        let shown = String::from_utf8(out).unwrap();
        assert_eq!(shown, r#""a\u0085b\u2028c\u009b31m\u007fd\u202eé😀\n\"\\""#);
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
    }
}
