//! Header compression (RFC 7541).
//!
//! Names are looked up once: what a name is ([`Tag`]) is kept in the tables beside it, so that a field that comes by its index costs a copy
//! of its bytes and nothing else.
//!
//! Our own blocks refer to the dynamic table for fields that have been sent before, and have no Huffman coding: what repeats is
//! one byte, what does not is not worth the work on either side.

mod decode;
mod encode;
mod fixed;
mod huffman;
mod integer;
mod table;

pub(crate) use decode::{Decoder, Invalid};
pub(crate) use encode::Encoder;

use attache_wire::Known;

/// The dynamic table's bound, both ways (SETTINGS_HEADER_TABLE_SIZE, RFC 9113 section 6.5.2: the initial value).
pub(crate) const TABLE: usize = 4096;

/// What an entry costs beside its bytes (section 4.1).
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
    /// A name that begins with a colon and is none of these.
    Unknown,
}

/// What a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    Pseudo(Pseudo),
    Known(Known),
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
        // In upper case it is none: HTTP/2 has no such names.
        match Known::of(name).filter(|known| known.as_str().as_bytes() == name) {
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
    /// It is to be sent on as one that is never indexed (section 6.2.3).
    pub(crate) sensitive: bool,
}

#[cfg(test)]
mod tests;
