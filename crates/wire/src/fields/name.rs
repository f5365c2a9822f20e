//! Names of fields.

use std::{borrow::Cow, fmt};

use http::HeaderName;

use crate::{
    chars::{self, TOKEN},
    field::MAX_NAME,
    header::{KnownName, UNKNOWN},
};

/// The name of a field, as code gives it. Names are compared without case.
pub trait FieldName {
    /// Its number, if it is in the list of known names.
    fn known(&self) -> Option<KnownName>;

    /// Its bytes, in any case of letters.
    fn text(&self) -> &[u8];

    /// Whether its bytes form a token (RFC 9110 section 5.1). Only then may a field with this name be written.
    #[inline]
    fn is_token(&self) -> bool {
        true
    }
}

impl FieldName for KnownName {
    #[inline]
    fn known(&self) -> Option<KnownName> {
        Some(*self)
    }

    fn text(&self) -> &[u8] {
        self.as_str().as_bytes()
    }
}

impl FieldName for HeaderName {
    fn known(&self) -> Option<KnownName> {
        KnownName::of(self.as_str().as_bytes())
    }

    fn text(&self) -> &[u8] {
        self.as_str().as_bytes()
    }
}

/// Any text. A search for a text that is no token finds nothing, and a field with such a name is not added.
impl FieldName for &str {
    fn known(&self) -> Option<KnownName> {
        KnownName::of(self.as_bytes())
    }

    fn text(&self) -> &[u8] {
        self.as_bytes()
    }

    fn is_token(&self) -> bool {
        !self.is_empty() && self.len() <= MAX_NAME && chars::all(self.as_bytes(), &TOKEN)
    }
}

impl<N: FieldName> FieldName for &N {
    #[inline]
    fn known(&self) -> Option<KnownName> {
        N::known(self)
    }

    fn text(&self) -> &[u8] {
        N::text(self)
    }

    fn is_token(&self) -> bool {
        N::is_token(self)
    }
}

/// The name of an existing field, as its sender spelt it.
#[derive(Clone, Copy)]
pub struct NameRef<'a> {
    known: u8,
    bytes: &'a [u8],
}

impl<'a> NameRef<'a> {
    pub(super) const fn new(known: u8, bytes: &'a [u8]) -> Self {
        Self { known, bytes }
    }

    /// The bytes of the name, as the sender spelt them.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The name in lower case.
    pub fn lower(self) -> Cow<'a, str> {
        if let Some(known) = KnownName::of_number(self.known) {
            return Cow::Borrowed(known.as_str());
        }
        // A name contains only ASCII.
        let text = std::str::from_utf8(self.bytes).unwrap_or_default();
        if self.bytes.iter().any(u8::is_ascii_uppercase) {
            Cow::Owned(text.to_ascii_lowercase())
        } else {
            Cow::Borrowed(text)
        }
    }

    /// The name as the `http` crate's type.
    pub fn to_header_name(self) -> Option<HeaderName> {
        match KnownName::of_number(self.known) {
            Some(known) => Some(known.to_header_name()),
            None => HeaderName::from_bytes(self.bytes).ok(),
        }
    }

    /// Whether it is one of these names.
    pub fn is_in(self, names: &[KnownName]) -> bool {
        self.known != UNKNOWN && names.iter().any(|name| name.number() == self.known)
    }
}

impl FieldName for NameRef<'_> {
    fn known(&self) -> Option<KnownName> {
        KnownName::of_number(self.known)
    }

    fn text(&self) -> &[u8] {
        self.bytes
    }
}

impl PartialEq<KnownName> for NameRef<'_> {
    fn eq(&self, other: &KnownName) -> bool {
        self.known == other.number()
    }
}

impl PartialEq<HeaderName> for NameRef<'_> {
    fn eq(&self, other: &HeaderName) -> bool {
        self.bytes.eq_ignore_ascii_case(other.as_str().as_bytes())
    }
}

impl PartialEq<&str> for NameRef<'_> {
    fn eq(&self, other: &&str) -> bool {
        self.bytes.eq_ignore_ascii_case(other.as_bytes())
    }
}

impl fmt::Debug for NameRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.lower(), f)
    }
}

impl fmt::Display for NameRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lower())
    }
}
