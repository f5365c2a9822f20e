//! Reads header blocks.

use super::{Field, TABLE, Tag, fixed, huffman, integer, table::DynamicTable};

/// The block breaks a rule. The connection can't continue (section 2.2, RFC 9113 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidBlock;

/// The table of one direction.
#[derive(Debug)]
pub(crate) struct HpackDecoder {
    table: DynamicTable,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Default for HpackDecoder {
    fn default() -> Self {
        Self { table: DynamicTable::new(TABLE), name: Vec::new(), value: Vec::new() }
    }
}

/// Where the name of a literal field comes from.
enum NameSource {
    Fixed(Field<'static>),
    /// From an entry of the dynamic table.
    Entry(usize),
    /// From the block itself; it was decoded if necessary.
    New(Tag),
}

impl HpackDecoder {
    #[cfg(test)]
    pub(super) fn with_table(most: usize) -> Self {
        Self { table: DynamicTable::new(most), ..Self::default() }
    }

    #[cfg(test)]
    pub(super) const fn size(&self) -> usize {
        self.table.size()
    }

    /// Reads a complete block, and calls `each` with its fields in order.
    ///
    /// # Errors
    /// The block is invalid. What follows it can't be read either.
    pub(crate) fn decode(
        &mut self,
        mut rest: &[u8],
        mut each: impl FnMut(Field<'_>),
    ) -> Result<(), InvalidBlock> {
        let mut begun = false;
        while let Some(first) = rest.first() {
            match first {
                0x80.. => {
                    let index = integer::read(&mut rest, 7).ok_or(InvalidBlock)?;
                    each(self.entry(index).ok_or(InvalidBlock)?);
                }
                0x20..0x40 => {
                    // Section 4.2: a change of the size is allowed only before all fields.
                    let size = integer::read(&mut rest, 5).filter(|size| *size <= TABLE && !begun);
                    self.table.resize(size.ok_or(InvalidBlock)?);
                    continue;
                }
                0x40..0x80 => self.literal(&mut rest, 6, true, false, &mut each).ok_or(InvalidBlock)?,
                0x10..0x20 => self.literal(&mut rest, 4, false, true, &mut each).ok_or(InvalidBlock)?,
                _ => self.literal(&mut rest, 4, false, false, &mut each).ok_or(InvalidBlock)?,
            }
            begun = true;
        }
        // One very long field must not keep that much memory for the rest of the connection.
        self.name.shrink_to(1 << 10);
        self.value.shrink_to(4 << 10);
        Ok(())
    }

    #[inline]
    fn entry(&self, index: usize) -> Option<Field<'_>> {
        match index.checked_sub(fixed::COUNT + 1) {
            None => fixed::entry(index),
            Some(back) => self.table.get(back),
        }
    }

    fn literal(
        &mut self,
        rest: &mut &[u8],
        prefix: u8,
        indexed: bool,
        sensitive: bool,
        each: &mut impl FnMut(Field<'_>),
    ) -> Option<()> {
        let index = integer::read(rest, prefix)?;
        let mut new = &[][..];
        let named = match index.checked_sub(fixed::COUNT + 1) {
            _ if index == 0 => {
                new = string(rest, &mut self.name)?;
                NameSource::New(Tag::of(new))
            }
            None => NameSource::Fixed(fixed::entry(index)?),
            Some(back) => NameSource::Entry(back),
        };
        let value = string(rest, &mut self.value)?;
        match named {
            NameSource::Entry(back) => {
                let field = self.table.get(back)?;
                each(Field { value, sensitive, ..field });
                if indexed {
                    self.table.add_named_by(back, value)?;
                }
            }
            NameSource::Fixed(field) => {
                each(Field { value, sensitive, ..field });
                if indexed {
                    self.table.add(field.tag, field.name, value);
                }
            }
            NameSource::New(tag) => {
                each(Field { tag, name: new, value, sensitive });
                if indexed {
                    self.table.add(tag, new, value);
                }
            }
        }
        Some(())
    }
}

/// A string (section 5.2), either from the block itself or decoded into `space`.
#[inline]
fn string<'s, 'b: 's>(rest: &mut &'b [u8], space: &'s mut Vec<u8>) -> Option<&'s [u8]> {
    let coded = rest.first()? & 0x80 != 0;
    let length = integer::read(rest, 7)?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    if !coded {
        return Some(bytes);
    }
    huffman::decode(bytes, space)?;
    Some(space)
}
