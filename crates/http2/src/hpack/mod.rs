//! Header compression (RFC 7541).
//!
//! A name is looked up only once: the tables keep its [`Tag`] beside it. So a field that is sent as an index costs only a copy of its
//! bytes.
//!
//! The blocks that attache writes refer to the dynamic table for fields that were sent before, and don't use Huffman coding. A repeated
//! field is one byte; for other fields Huffman coding is not worth the work on either side.

mod decode;
mod encode;
mod fixed;
mod huffman;
mod integer;
mod table;

pub(crate) use decode::{HpackDecoder, InvalidBlock};
pub(crate) use encode::HpackEncoder;

use attache_wire::KnownName;

/// The size limit of the dynamic table in both directions, in bytes (SETTINGS_HEADER_TABLE_SIZE, RFC 9113 section 6.5.2: the initial
/// value).
pub(crate) const TABLE: usize = 4096;

/// What an entry counts in addition to its bytes (section 4.1).
pub(crate) const OVERHEAD: usize = 32;

/// A pseudo-field (RFC 9113 section 8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pseudo {
    Authority,
    Method,
    Path,
    Scheme,
    Status,
    Protocol,
    /// A name that begins with a colon and is none of the above.
    Unknown,
}

/// Which name a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    Pseudo(Pseudo),
    Known(KnownName),
    Other,
}

impl Tag {
    pub(crate) fn of(name: &[u8]) -> Self {
        if name.first() == Some(&b':') {
            return Self::Pseudo(match name {
                b":authority" => Pseudo::Authority,
                b":method" => Pseudo::Method,
                b":path" => Pseudo::Path,
                b":scheme" => Pseudo::Scheme,
                b":status" => Pseudo::Status,
                b":protocol" => Pseudo::Protocol,
                _ => Pseudo::Unknown,
            });
        }
        // A name in upper case counts as unknown: HTTP/2 has no such names.
        match KnownName::of(name).filter(|known| known.as_str().as_bytes() == name) {
            Some(known) => Self::Known(known),
            None => Self::Other,
        }
    }
}

/// A field of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) tag: Tag,
    pub(crate) name: &'a [u8],
    pub(crate) value: &'a [u8],
    /// It must be sent on as a field that is never indexed (section 6.2.3).
    pub(crate) sensitive: bool,
}

#[cfg(test)]
mod tests;
