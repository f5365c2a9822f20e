//! Text of peers within our lines: it stays readable, and can neither end a line nor steer a terminal.

use std::fmt;

/// Writes text in runs of what is `plain` and escapes the rest as Rust does: letters of every script stay themselves;
/// controls, blanks that aren't plain, and the marks that turn the direction of reading become visible.
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
