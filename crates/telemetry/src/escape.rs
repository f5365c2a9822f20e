//! Escapes text from peers in our lines: it stays readable, and can neither end a line nor control a terminal.

use std::fmt;

/// Writes text. Characters for which `plain` is true are written in runs; others are escaped as Rust does it. Letters of every script stay
/// readable. Control characters, whitespace that isn't plain, and direction marks become visible.
pub(crate) fn escape(text: &str, plain: impl Fn(char) -> bool, out: &mut impl fmt::Write) -> fmt::Result {
    let mut rest = text;
    while let Some((at, c)) = rest.char_indices().find(|(_, c)| !plain(*c)) {
        out.write_str(&rest[..at])?;
        if c.is_whitespace() {
            write!(out, "{}", c.escape_unicode())?;
        } else {
            write!(out, "{}", c.escape_debug())?;
        }
        rest = &rest[at + c.len_utf8()..];
    }
    out.write_str(rest)
}
