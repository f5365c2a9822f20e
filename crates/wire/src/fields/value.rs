//! Values of fields.

use super::AddedLines;
use std::fmt;

use http::HeaderValue;

/// The value of a field, as code gives it. It contains only bytes that RFC 9110 section 5.5 allows.
pub trait FieldValue {
    /// Writes its bytes.
    fn write(&self, out: &mut AddedLines);

    /// Whether HPACK must keep it out of its table (RFC 7541 section 7.1.3).
    fn is_sensitive(&self) -> bool {
        false
    }
}

impl FieldValue for HeaderValue {
    fn write(&self, out: &mut AddedLines) {
        out.extend_from_slice(self.as_bytes());
    }

    fn is_sensitive(&self) -> bool {
        self.is_sensitive()
    }
}

impl<V: FieldValue> FieldValue for &V {
    fn write(&self, out: &mut AddedLines) {
        V::write(self, out);
    }

    fn is_sensitive(&self) -> bool {
        V::is_sensitive(self)
    }
}

impl FieldValue for u64 {
    fn write(&self, out: &mut AddedLines) {
        crate::line::decimal(*self, |digits| out.extend_from_slice(digits));
    }
}

impl FieldValue for u16 {
    fn write(&self, out: &mut AddedLines) {
        u64::from(*self).write(out);
    }
}

impl FieldValue for u32 {
    fn write(&self, out: &mut AddedLines) {
        u64::from(*self).write(out);
    }
}

impl FieldValue for usize {
    fn write(&self, out: &mut AddedLines) {
        (*self as u64).write(out);
    }
}

/// The value of an existing field.
#[derive(Clone, Copy)]
pub struct ValueRef<'a> {
    bytes: &'a [u8],
    sensitive: bool,
}

impl<'a> ValueRef<'a> {
    pub(super) const fn new(bytes: &'a [u8], sensitive: bool) -> Self {
        Self { bytes, sensitive }
    }

    /// Its bytes.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Its length in bytes.
    pub const fn len(self) -> usize {
        self.bytes.len()
    }

    /// Whether it is empty.
    pub const fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// The value as text.
    ///
    /// # Errors
    /// The value contains bytes other than visible ASCII, SP and HTAB.
    pub fn to_str(self) -> Result<&'a str, InvalidValue> {
        if !self.bytes.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
            return Err(InvalidValue);
        }
        std::str::from_utf8(self.bytes).map_err(|_| InvalidValue)
    }

    /// The value as one decimal number of at most 18 digits; `None` if it is anything else.
    pub fn to_number(self) -> Option<u64> {
        crate::value::number(self.bytes)
    }

    /// The value as the `http` crate's type.
    pub fn to_header_value(self) -> HeaderValue {
        let mut value = HeaderValue::from_bytes(self.bytes).unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(self.sensitive);
        value
    }

    /// Whether HPACK must keep it out of its table.
    pub const fn is_sensitive(self) -> bool {
        self.sensitive
    }
}

impl FieldValue for ValueRef<'_> {
    fn write(&self, out: &mut AddedLines) {
        out.extend_from_slice(self.bytes);
    }

    fn is_sensitive(&self) -> bool {
        self.sensitive
    }
}

/// The value contains bytes that are not allowed in values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidValue;

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a header's value contains a byte that is not allowed there")
    }
}

impl std::error::Error for InvalidValue {}

pub(super) fn check(value: &[u8]) -> Result<(), InvalidValue> {
    if crate::field::has_control(value) { Err(InvalidValue) } else { Ok(()) }
}

impl PartialEq for ValueRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for ValueRef<'_> {}

impl PartialEq<str> for ValueRef<'_> {
    fn eq(&self, other: &str) -> bool {
        self.bytes == other.as_bytes()
    }
}

impl PartialEq<&str> for ValueRef<'_> {
    fn eq(&self, other: &&str) -> bool {
        self.bytes == other.as_bytes()
    }
}

impl PartialEq<String> for ValueRef<'_> {
    fn eq(&self, other: &String) -> bool {
        self.bytes == other.as_bytes()
    }
}

impl PartialEq<HeaderValue> for ValueRef<'_> {
    fn eq(&self, other: &HeaderValue) -> bool {
        self.bytes == other.as_bytes()
    }
}

impl PartialEq<ValueRef<'_>> for HeaderValue {
    fn eq(&self, other: &ValueRef<'_>) -> bool {
        self.as_bytes() == other.bytes
    }
}

impl PartialEq<ValueRef<'_>> for &str {
    fn eq(&self, other: &ValueRef<'_>) -> bool {
        self.as_bytes() == other.bytes
    }
}

impl fmt::Debug for ValueRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sensitive {
            return f.write_str("Sensitive");
        }
        write!(f, "\"{}\"", self.bytes.escape_ascii())
    }
}
