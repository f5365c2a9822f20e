//! A text of an exchange. It is a part of the head that it was read from, which is shared and not copied, or a separate text.

use std::{fmt, ops::Deref};

use bytes::Bytes;

/// A text that is cheap to keep, because most texts are never read.
#[derive(Clone)]
pub struct SharedText(TextRepr);

#[derive(Clone)]
enum TextRepr {
    Static(&'static str),
    Shared(Bytes),
}

impl SharedText {
    /// A static text of the program.
    pub const fn from_static(text: &'static str) -> Self {
        Self(TextRepr::Static(text))
    }

    /// Bytes that should be UTF-8. Other bytes are shown as an empty text.
    pub const fn shared(bytes: Bytes) -> Self {
        Self(TextRepr::Shared(bytes))
    }

    /// A copy of bytes that should be UTF-8. Other bytes are shown as an empty text.
    pub fn of(bytes: &[u8]) -> Self {
        Self::shared(Bytes::copy_from_slice(bytes))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            TextRepr::Static(text) => text.as_bytes(),
            TextRepr::Shared(bytes) => bytes,
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            TextRepr::Static(text) => text,
            TextRepr::Shared(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
        }
    }
}

impl Default for SharedText {
    fn default() -> Self {
        Self::from_static("")
    }
}

impl From<String> for SharedText {
    fn from(text: String) -> Self {
        Self::shared(text.into())
    }
}

impl From<&str> for SharedText {
    fn from(text: &str) -> Self {
        Self::of(text.as_bytes())
    }
}

impl Deref for SharedText {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for SharedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for SharedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_shown_unchanged_and_invalid_bytes_as_empty() {
        assert_eq!(&*SharedText::from("a"), "a");
        assert_eq!(&*SharedText::from(String::from("é")), "é");
        assert_eq!(&*SharedText::shared(Bytes::from_static(b"\xff")), "");
        assert_eq!(format!("{:>3}{:?}", SharedText::from_static("x"), SharedText::default()), "  x\"\"");
    }
}
