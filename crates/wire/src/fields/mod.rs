//! The fields of one message. Routing, edits, hop rules, retries, logs and both protocols all use this one type.
//!
//! Every field is a line, `name: value`, in one of two byte buffers: the head as it was read from the connection, which never changes, and
//! the lines that were added later. The fields are an index of such lines, sixteen bytes per line. Removing a field removes its line from
//! the index; changing a field makes the index point to a new line. To write the message for the next hop, the lines are copied; lines that
//! follow each other in the head are copied together. So names keep their case, values are never copied one by one, and a copy for a second
//! attempt shares the head. Fields of an HTTP/2 message are written as such lines once, when they are read.

mod convert;
mod iter;
mod lines;
mod name;
mod value;

use std::fmt;

use bytes::Bytes;
use tinyvec::{ArrayVec, TinyVec};

use crate::{
    chars::{self, TOKEN},
    header::{KnownName, KnownSet, UNKNOWN},
};

pub use iter::{GetAll, Iter};
pub(crate) use lines::LineWriter;
pub use name::{FieldName, NameRef};
pub use value::{FieldValue, InvalidValue, ValueRef};

/// The position of a field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FieldLine {
    /// Where its name begins.
    pub(crate) start: u32,
    /// Where its value begins.
    pub(crate) value: u32,
    /// Where its value ends.
    pub(crate) end: u32,
    pub(crate) name_len: u16,
    /// The number of its name in the list of known names, or [`UNKNOWN`].
    pub(crate) known: u8,
    pub(crate) flags: u8,
}

/// The line is in the added buffer; without this flag it is in the head.
const ADDED: u8 = 1;
/// The line is exactly `name: value` and CR LF.
pub(crate) const PLAIN: u8 = 2;
/// HPACK must keep the value out of its table.
const SENSITIVE: u8 = 4;

/// The lines that were added. Most messages get a `Via` and nothing else. That costs no allocation: the type is only one word larger than a
/// `Vec`.
pub(crate) type AddedLines = TinyVec<[u8; INLINE]>;
const INLINE: usize = 24;
/// Bytes of a short value, with its separators.
const SHORT: usize = 20;

/// An index of lines, as the reader builds it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LineIndex {
    pub(crate) lines: Vec<FieldLine>,
    /// Which names of the list occur: one bit per name.
    pub(crate) known: u128,
    /// Some name may contain something other than letters, digits and `-`.
    pub(crate) underscored: bool,
}

/// The fields of a message, in their order. Names are compared without case.
#[derive(Clone, Default)]
pub struct Fields {
    head: Bytes,
    added: AddedLines,
    index: LineIndex,
}

impl Fields {
    /// No fields.
    pub const fn new() -> Self {
        Self {
            head: Bytes::new(),
            added: AddedLines::Inline(ArrayVec::from_array_empty([0; INLINE])),
            index: LineIndex { lines: Vec::new(), known: 0, underscored: false },
        }
    }

    /// The fields of a head that was read.
    pub(crate) const fn of_head(head: Bytes, index: LineIndex) -> Self {
        Self { head, added: AddedLines::Inline(ArrayVec::from_array_empty([0; INLINE])), index }
    }

    /// The number of lines.
    pub const fn len(&self) -> usize {
        self.index.lines.len()
    }

    /// Whether there are no fields.
    pub const fn is_empty(&self) -> bool {
        self.index.lines.is_empty()
    }

    /// Whether some name may contain `_`, or anything else that isn't a letter, a digit or `-`.
    pub const fn may_be_underscored(&self) -> bool {
        self.index.underscored
    }

    /// Whether there is a field with this name.
    #[inline]
    pub fn contains_key(&self, name: impl FieldName) -> bool {
        match name.known() {
            // The set is exact: when the last line of a name is removed, its bit is cleared.
            Some(known) => self.index.known & known.bit() != 0,
            None => self.position(&name, 0).is_some(),
        }
    }

    /// Whether there is a field with one of these names.
    pub const fn contains_any(&self, names: KnownSet) -> bool {
        self.index.known & names.bits() != 0
    }

    /// The first value of a field.
    #[inline]
    pub fn get(&self, name: impl FieldName) -> Option<ValueRef<'_>> {
        let at = self.position(&name, 0)?;
        self.index.lines.get(at).map(|line| self.value(line))
    }

    /// All values of a field, in their order.
    pub const fn get_all<N: FieldName>(&self, name: N) -> GetAll<'_, N> {
        GetAll { fields: self, name, next: 0 }
    }

    /// All fields, in their order.
    pub fn iter(&self) -> Iter<'_> {
        Iter { fields: self, lines: self.index.lines.iter() }
    }

    /// The names, one for each line.
    pub fn keys(&self) -> impl Iterator<Item = NameRef<'_>> {
        self.index.lines.iter().map(|line| self.name(line))
    }

    /// The values, one for each line.
    pub fn values(&self) -> impl Iterator<Item = ValueRef<'_>> {
        self.index.lines.iter().map(|line| self.value(line))
    }

    /// Returns a part of the head that these fields were read from, without a copy. `None` if the bytes are not part of that head.
    pub fn shared(&self, part: &[u8]) -> Option<Bytes> {
        let (head, part) = (self.head.as_ptr_range(), part.as_ptr_range());
        if part.start < head.start || part.end > head.end {
            return None;
        }
        let start = part.start.addr() - head.start.addr();
        Some(self.head.slice(start..start + (part.end.addr() - part.start.addr())))
    }

    /// Makes this the field's only value. The line keeps the position and the spelling of the field's first line.
    pub fn insert(&mut self, name: impl FieldName, value: impl FieldValue) {
        self.insert_with(&name, value.is_sensitive(), |out| value.write(out));
    }

    /// Like [`insert`](Self::insert), for bytes that may not be a valid value.
    ///
    /// # Errors
    /// The value contains a byte that is not allowed in values. Nothing is changed.
    pub fn try_insert(&mut self, name: impl FieldName, value: &[u8]) -> Result<(), InvalidValue> {
        value::check(value)?;
        self.insert_with(&name, false, |out| out.extend_from_slice(value));
        Ok(())
    }

    /// Like [`try_insert`](Self::try_insert), for a value that HPACK must keep out of its table.
    ///
    /// # Errors
    /// As [`try_insert`](Self::try_insert).
    pub fn try_insert_sensitive(&mut self, name: impl FieldName, value: &[u8]) -> Result<(), InvalidValue> {
        value::check(value)?;
        self.insert_with(&name, true, |out| out.extend_from_slice(value));
        Ok(())
    }

    /// Adds a line after all others.
    pub fn append(&mut self, name: impl FieldName, value: impl FieldValue) {
        if name.is_token() {
            let line = self.add(name.known(), name.text(), value.is_sensitive(), |out| value.write(out));
            self.push(line);
        }
    }

    /// An empty index for fields that arrive one by one (HTTP/2), with room for this many lines and this many bytes of names and values.
    pub fn with_capacity(lines: usize, bytes: usize) -> Self {
        let mut fields = Self::new();
        fields.added.reserve(bytes + 4 * lines);
        fields.index.lines.reserve(lines);
        fields
    }

    /// Adds a line of a message that was read. `known` is the name's number if the name is in the list. Returns false, and adds nothing, if
    /// the name is not in lower case or the value contains a forbidden byte (RFC 9113 section 8.2.1).
    #[inline]
    pub fn append_read(
        &mut self,
        known: Option<KnownName>,
        name: &[u8],
        value: &[u8],
        sensitive: bool,
    ) -> bool {
        let is_name = known.is_some()
            || (!name.is_empty()
                && u16::try_from(name.len()).is_ok()
                && chars::all(name, &TOKEN)
                && !name.iter().any(u8::is_ascii_uppercase));
        if !is_name || value::check(value).is_err() {
            return false;
        }
        let AddedLines::Heap(out) = &mut self.added else {
            let line = self.add(known, name, sensitive, |out| out.extend_from_slice(value));
            self.push(line);
            return true;
        };
        // Like `add`, but with one check of the capacity.
        out.reserve(name.len() + value.len() + 4);
        let start = out.len();
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
        let line = FieldLine::added(start, known, name, value.len(), sensitive);
        self.note_underscore(&line, name);
        self.push(line);
        true
    }

    /// Removes all lines of a field. Returns whether there was one.
    pub fn remove(&mut self, name: impl FieldName) -> bool {
        let Some(first) = self.position(&name, 0) else { return false };
        self.remove_from(&name, first);
        if let Some(known) = name.known() {
            self.index.known &= !known.bit();
        }
        true
    }

    /// Keeps the fields for which `keep` returns true.
    pub fn retain(&mut self, mut keep: impl FnMut(NameRef<'_>, ValueRef<'_>) -> bool) {
        let Self { head, added, index } = self;
        let mut left = 0;
        index.lines.retain(|line| {
            let bytes = if line.flags & ADDED == 0 { &head[..] } else { &added[..] };
            let kept = keep(line.name_in(bytes), line.value_in(bytes));
            if kept && let Some(known) = KnownName::of_number(line.known) {
                left |= known.bit();
            }
            kept
        });
        index.known = left;
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Adds all lines of `others`. They replace the fields here that have the same names.
    pub fn replace_by(&mut self, others: &Self) {
        for name in others.keys() {
            self.remove(name);
        }
        for (name, value) in others {
            self.append(name, value);
        }
    }

    /// Renames a field: its first value becomes the only value of the new name.
    pub fn rename(&mut self, from: KnownName, to: KnownName) {
        if let Some(value) = self.get(from).map(ValueRef::to_header_value) {
            self.remove(from);
            self.insert(to, value);
        }
    }

    fn insert_with(&mut self, name: &impl FieldName, sensitive: bool, write: impl FnOnce(&mut AddedLines)) {
        if !name.is_token() {
            return;
        }
        let known = name.known();
        let Some(at) = self.position(name, 0) else {
            let line = self.add(known, name.text(), sensitive, write);
            self.push(line);
            return;
        };
        let Some(old) = self.index.lines.get(at).copied() else { return };
        let spelt = self.name(&old).as_bytes().to_vec();
        let line = self.add(known, &spelt, sensitive, write);
        if let Some(place) = self.index.lines.get_mut(at) {
            *place = line;
        }
        self.remove_from(name, at + 1);
    }

    /// Writes a line to the end of the added ones.
    fn add(
        &mut self,
        known: Option<KnownName>,
        name: &[u8],
        sensitive: bool,
        write: impl FnOnce(&mut AddedLines),
    ) -> FieldLine {
        let out = &mut self.added;
        if out.is_inline() && out.len() + name.len() + SHORT > INLINE {
            // A message that gets more than one short line usually gets a few, so this reserves room for them at once.
            out.reserve(192);
        }
        let start = out.len();
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        let value = out.len();
        write(out);
        let len = out.len() - value;
        out.extend_from_slice(b"\r\n");
        let line = FieldLine::added(start, known, name, len, sensitive);
        self.note_underscore(&line, name);
        line
    }

    fn note_underscore(&mut self, line: &FieldLine, name: &[u8]) {
        if line.known == UNKNOWN && !chars::all(name, &chars::USUAL_NAME) {
            self.index.underscored = true;
        }
    }

    fn push(&mut self, line: FieldLine) {
        if let Some(known) = KnownName::of_number(line.known) {
            self.index.known |= known.bit();
        }
        self.index.lines.push(line);
    }

    /// The first line of a field, searched from line `from`.
    #[inline]
    fn position(&self, name: &impl FieldName, from: usize) -> Option<usize> {
        let lines = self.index.lines.get(from..)?;
        let found = if let Some(known) = name.known() {
            if self.index.known & known.bit() == 0 {
                return None;
            }
            lines.iter().position(|line| line.known == known.number())
        } else {
            let text = name.text();
            lines.iter().position(|line| self.is(line, text))
        };
        found.map(|at| from + at)
    }

    /// Whether a line has this name. The name is not one of the list.
    fn is(&self, line: &FieldLine, name: &[u8]) -> bool {
        line.known == UNKNOWN
            && usize::from(line.name_len) == name.len()
            && self.name(line).as_bytes().eq_ignore_ascii_case(name)
    }

    fn remove_from(&mut self, name: &impl FieldName, from: usize) {
        let mut at = from;
        while let Some(found) = self.position(name, at) {
            self.index.lines.remove(found);
            at = found;
        }
    }

    fn bytes(&self, line: &FieldLine) -> &[u8] {
        if line.flags & ADDED == 0 { &self.head } else { &self.added }
    }

    fn name(&self, line: &FieldLine) -> NameRef<'_> {
        line.name_in(self.bytes(line))
    }

    #[inline]
    fn value(&self, line: &FieldLine) -> ValueRef<'_> {
        line.value_in(self.bytes(line))
    }

    pub(crate) fn lines(&self) -> LineWriter<'_> {
        LineWriter::new(self)
    }
}

impl FieldLine {
    /// The index entry of an added line (`name: value` with CR LF) that begins at `start`.
    fn added(start: usize, known: Option<KnownName>, name: &[u8], value_len: usize, sensitive: bool) -> Self {
        let value = start + name.len() + 2;
        Self {
            start: start as u32,
            value: value as u32,
            end: (value + value_len) as u32,
            name_len: name.len() as u16,
            known: known.map_or(UNKNOWN, KnownName::number),
            flags: ADDED | PLAIN | if sensitive { SENSITIVE } else { 0 },
        }
    }

    fn name_in<'a>(&self, bytes: &'a [u8]) -> NameRef<'a> {
        let start = self.start as usize;
        let name = bytes.get(start..start + usize::from(self.name_len)).unwrap_or_default();
        NameRef::new(self.known, name)
    }

    #[inline]
    fn value_in<'a>(&self, bytes: &'a [u8]) -> ValueRef<'a> {
        let value = bytes.get(self.value as usize..self.end as usize).unwrap_or_default();
        ValueRef::new(value, self.flags & SENSITIVE != 0)
    }
}

/// Equal if both have the same names with the same values, in the same order for each name.
impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.keys().all(|name| self.get_all(name).eq(other.get_all(name)))
    }
}

impl Eq for Fields {}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

#[cfg(test)]
mod tests;
