//! A text of an exchange. It is a part of the head that it was read from, which is shared and not copied, or a separate text.

use std::{fmt, ops::Deref};

use bytes::Bytes;

/// A text that is cheap to keep, because most texts are never read.
#[derive(Clone)]
pub struct Text(Kind);

#[derive(Clone)]
enum Kind {
    Static(&'static str),
    Shared(Bytes),
}

impl Text {
    /// A static text of the program.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Kind::Static(text))
    }

    /// Bytes that should be UTF-8. Other bytes are shown as an empty text.
    pub const fn shared(bytes: Bytes) -> Self {
        Self(Kind::Shared(bytes))
    }

    /// A copy of bytes that should be UTF-8. Other bytes are shown as an empty text.
    pub fn of(bytes: &[u8]) -> Self {
        Self::shared(Bytes::copy_from_slice(bytes))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Kind::Static(text) => text.as_bytes(),
            Kind::Shared(bytes) => bytes,
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Kind::Static(text) => text,
            Kind::Shared(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
        }
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::from_static("")
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::shared(text.into())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::of(text.as_bytes())
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_shown_unchanged_and_invalid_bytes_as_empty() {
        assert_eq!(&*Text::from("a"), "a");
        assert_eq!(&*Text::from(String::from("é")), "é");
        assert_eq!(&*Text::shared(Bytes::from_static(b"\xff")), "");
        assert_eq!(format!("{:>3}{:?}", Text::from_static("x"), Text::default()), "  x\"\"");
    }
}
