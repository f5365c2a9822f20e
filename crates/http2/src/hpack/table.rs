//! The dynamic table (RFC 7541 section 2.3.2).
//!
//! The bytes of the entries are stored one after the other in one buffer. Bytes of evicted entries stay there until the buffer is twice as
//! large as the table may be; then the remaining bytes move to its front. So an entry costs no allocation, and is found without a search.

use std::collections::VecDeque;

use super::{Field, OVERHEAD, Tag};

#[derive(Clone, Copy, Debug)]
struct DynamicEntry {
    /// The position of its name; the value follows the name.
    at: u32,
    name: u16,
    value: u16,
    tag: Tag,
}

impl DynamicEntry {
    const fn size(self) -> usize {
        self.name as usize + self.value as usize + OVERHEAD
    }
}

#[derive(Debug)]
pub(super) struct DynamicTable {
    bytes: Vec<u8>,
    /// The entries. The newest is the last.
    entries: VecDeque<DynamicEntry>,
    size: usize,
    most: usize,
}

impl DynamicTable {
    pub(super) const fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), entries: VecDeque::new(), size: 0, most }
    }

    #[cfg(test)]
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    pub(super) const fn most(&self) -> usize {
        self.most
    }

    /// Changes the table's size (section 4.3), to at most 64 KiB.
    pub(super) fn resize(&mut self, most: usize) {
        self.most = most.min(usize::from(u16::MAX));
        self.evict(0);
    }

    /// Returns the entry that was added `back` entries before the last one.
    #[inline]
    pub(super) fn get(&self, back: usize) -> Option<Field<'_>> {
        let at = self.entries.len().checked_sub(back + 1)?;
        let entry = self.entries.get(at)?;
        let name = entry.at as usize;
        let value = name + usize::from(entry.name);
        Some(Field {
            tag: entry.tag,
            name: self.bytes.get(name..value)?,
            value: self.bytes.get(value..value + usize::from(entry.value))?,
            sensitive: false,
        })
    }

    /// Adds an entry with the name of another entry. Adding it may evict that other entry (section 4.4).
    pub(super) fn add_named_by(&mut self, back: usize, value: &[u8]) -> Option<()> {
        self.compact();
        let at = self.entries.len().checked_sub(back + 1)?;
        let DynamicEntry { at, name, tag, .. } = *self.entries.get(at)?;
        self.evict(usize::from(name) + value.len() + OVERHEAD);
        if usize::from(name) + value.len() + OVERHEAD <= self.most {
            let start = self.bytes.len();
            self.bytes.extend_from_within(at as usize..at as usize + usize::from(name));
            self.push(start, name.into(), value, tag);
        }
        Some(())
    }

    /// Adds an entry. An entry that is larger than the table empties the table (section 4.4).
    pub(super) fn add(&mut self, tag: Tag, name: &[u8], value: &[u8]) {
        self.compact();
        let size = name.len() + value.len() + OVERHEAD;
        self.evict(size);
        if size <= self.most {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(name);
            self.push(start, name.len(), value, tag);
        }
    }

    fn push(&mut self, at: usize, name: usize, value: &[u8], tag: Tag) {
        self.bytes.extend_from_slice(value);
        let entry = DynamicEntry { at: at as u32, name: name as u16, value: value.len() as u16, tag };
        self.size += entry.size();
        self.entries.push_back(entry);
    }

    fn evict(&mut self, wanted: usize) {
        while self.size + wanted > self.most
            && let Some(oldest) = self.entries.pop_front()
        {
            self.size -= oldest.size();
        }
    }

    /// Removes the bytes of evicted entries when they are as many as the table may hold.
    fn compact(&mut self) {
        let gone = self.entries.front().map_or(self.bytes.len(), |oldest| oldest.at as usize);
        if gone >= self.most {
            self.bytes.drain(..gone);
            for entry in &mut self.entries {
                entry.at -= gone as u32;
            }
        }
    }
}
