//! Writes header blocks.
//!
//! **What is indexed.** A field enters the table when it is sent for the second time. So a value that differs from message to message (a
//! path, a trace context, a length) never replaces one that stays the same, and no list of names has to say which is which.
//!
//! **What is not indexed.** Credentials (RFC 7541 section 7.1.3): `authorization`, `proxy-authorization`, short cookies, and fields that
//! were received as never indexed.

use attache_wire::{
    KnownName,
    header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE},
};
use bytes::BytesMut;

use super::{Field, OVERHEAD, Pseudo, TABLE, Tag, fixed, integer, table::DynamicTable};

/// How many hashes of fields are remembered. Such a field was sent once and may be sent again. Each hash has one place.
const SEEN: usize = 64;

/// The number of places for hashes of the table's entries; the table has at most 128. If two hashes have the same place, the older entry is
/// sent literally, and nothing worse happens.
const HASH_SLOTS: usize = 256;

/// Cookies shorter than this, in bytes, can be guessed.
const SHORT_COOKIE: usize = 20;

/// The table of one direction.
#[derive(Debug)]
pub(crate) struct HpackEncoder {
    table: DynamicTable,
    /// How many entries have been added.
    added: u32,
    /// For each place of a hash, which entry it is: the number of its addition, counted from 1.
    places: Box<[u32; HASH_SLOTS]>,
    seen: [u32; SEEN],
    /// The smallest size since the last block, if the size has changed (section 4.2).
    smallest: Option<usize>,
}

impl Default for HpackEncoder {
    fn default() -> Self {
        Self {
            table: DynamicTable::new(TABLE),
            added: 0,
            places: Box::new([0; HASH_SLOTS]),
            seen: [0; SEEN],
            smallest: None,
        }
    }
}

impl HpackEncoder {
    /// Takes the peer's SETTINGS_HEADER_TABLE_SIZE. A table larger than the initial size is not used.
    pub(crate) fn limit(&mut self, size: u32) {
        let size = (size as usize).min(TABLE);
        if size == self.table.most() {
            return;
        }
        self.smallest = Some(self.smallest.map_or(size, |smallest| smallest.min(size)));
        self.table.resize(size);
    }

    /// Begins a block.
    pub(crate) fn begin(&mut self, out: &mut BytesMut) {
        if let Some(smallest) = self.smallest.take() {
            if smallest < self.table.most() {
                integer::write(out, 0x20, 5, smallest);
            }
            integer::write(out, 0x20, 5, self.table.most());
        }
    }

    /// Writes a pseudo-field. Most messages have one of the values of the static table.
    pub(crate) fn pseudo(&mut self, out: &mut BytesMut, pseudo: Pseudo, value: &[u8]) {
        let index = match (pseudo, value) {
            (Pseudo::Method, b"GET") => 2,
            (Pseudo::Method, b"POST") => 3,
            (Pseudo::Path, b"/") => 4,
            (Pseudo::Scheme, b"http") => 6,
            (Pseudo::Scheme, b"https") => 7,
            (Pseudo::Status, b"200") => 8,
            (Pseudo::Status, b"204") => 9,
            (Pseudo::Status, b"206") => 10,
            (Pseudo::Status, b"304") => 11,
            (Pseudo::Status, b"400") => 12,
            (Pseudo::Status, b"404") => 13,
            (Pseudo::Status, b"500") => 14,
            _ => {
                let name: &[u8] = match pseudo {
                    Pseudo::Protocol => b":protocol",
                    Pseudo::Authority => b":authority",
                    Pseudo::Method => b":method",
                    Pseudo::Path => b":path",
                    Pseudo::Scheme => b":scheme",
                    Pseudo::Status => b":status",
                    Pseudo::Unknown => return,
                };
                self.field(out, Field { tag: Tag::Pseudo(pseudo), name, value, sensitive: false });
                return;
            }
        };
        integer::write(out, 0x80, 7, index);
    }

    /// Writes a field. If its name isn't in lower case, it is written in lower case.
    pub(crate) fn field(&mut self, out: &mut BytesMut, field: Field<'_>) {
        let Field { tag, name, value, sensitive } = field;
        if sensitive || is_secret(tag, value) {
            literal(out, 0x10, 4, fixed::index_of(tag, name), name, value);
            return;
        }
        let hash = hash(tag, name, value);
        if let Some(index) = self.find(hash, field) {
            integer::write(out, 0x80, 7, index);
            return;
        }
        let index = fixed::index_of(tag, name);
        let seen = self.seen.get_mut(hash as usize % SEEN).map(|seen| std::mem::replace(seen, hash));
        // A larger entry would evict too many others.
        if seen != Some(hash) || name.len() + value.len() + OVERHEAD > self.table.most() / 4 {
            literal(out, 0, 4, index, name, value);
            return;
        }
        literal(out, 0x40, 6, index, name, value);
        if name.iter().any(u8::is_ascii_uppercase) {
            self.table.add(tag, &name.to_ascii_lowercase(), value);
        } else {
            self.table.add(tag, name, value);
        }
        self.added = self.added.wrapping_add(1);
        if let Some(place) = self.places.get_mut(hash as usize >> 8 & (HASH_SLOTS - 1)) {
            *place = self.added;
        }
    }

    fn find(&self, hash: u32, field: Field<'_>) -> Option<usize> {
        let place = *self.places.get(hash as usize >> 8 & (HASH_SLOTS - 1))?;
        // For an entry that was evicted, or for no entry, this is larger than the table.
        let back = self.added.wrapping_sub(place) as usize;
        let entry = self.table.get(back)?;
        let same = entry.tag == field.tag
            && entry.value == field.value
            && (field.tag != Tag::Other || entry.name.eq_ignore_ascii_case(field.name));
        same.then_some(fixed::COUNT + 1 + back)
    }
}

fn is_secret(tag: Tag, value: &[u8]) -> bool {
    match tag {
        Tag::Known(AUTHORIZATION | PROXY_AUTHORIZATION) => true,
        Tag::Known(COOKIE | SET_COOKIE) => value.len() < SHORT_COOKIE,
        _ => false,
    }
}

/// Writes a literal field (section 6.2), with the index of its name or with the name itself.
fn literal(out: &mut BytesMut, flags: u8, prefix: u8, index: usize, name: &[u8], value: &[u8]) {
    integer::write(out, flags, prefix, index);
    if index == 0 {
        integer::write(out, 0, 7, name.len());
        let start = out.len();
        out.extend_from_slice(name);
        if let Some(name) = out.get_mut(start..) {
            name.make_ascii_lowercase();
        }
    }
    integer::write(out, 0, 7, value.len());
    out.extend_from_slice(value);
}

/// Hashes eight bytes at a time. The entries themselves are compared too, so if two fields have the same hash, one of them is sent as a
/// literal and nothing else happens.
fn hash(tag: Tag, name: &[u8], value: &[u8]) -> u32 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(FACTOR).rotate_left(29);
    let mix_all = |mut hash: u64, bytes: &[u8]| {
        let (eights, rest) = bytes.as_chunks::<8>();
        for eight in eights {
            hash = mix(hash, u64::from_le_bytes(*eight));
        }
        let last = rest.iter().fold(rest.len() as u64, |word, byte| word << 8 | u64::from(*byte));
        mix(hash, last)
    };
    let begin = match tag {
        Tag::Known(known) => mix(1, u64::from(KnownName::number(known))),
        Tag::Pseudo(pseudo) => mix(2, pseudo as u64),
        // Independent of case, because names are compared without case.
        Tag::Other => mix(3, name.len() as u64 | u64::from(name.last().copied().unwrap_or(0) | 0x20) << 16),
    };
    (mix_all(begin, value) >> 32) as u32
}
