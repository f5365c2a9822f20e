//! Writes a message's lines for the next hop.

use super::{ADDED, FieldLine, Fields, PLAIN};

/// Writes lines. It copies consecutive lines of the head as one piece.
pub(crate) struct LineWriter<'a> {
    fields: &'a Fields,
    /// The flags of the lines that are to be copied next, or [`NO_RUN`].
    kind: u8,
    /// Where those lines begin and end.
    start: u32,
    end: u32,
}

/// A value that the flags of a line never have.
const NO_RUN: u8 = u8::MAX;

impl<'a> LineWriter<'a> {
    pub(super) const fn new(fields: &'a Fields) -> Self {
        Self { fields, kind: NO_RUN, start: 0, end: 0 }
    }

    /// The lines, each with its number.
    pub(crate) fn all(&self) -> std::slice::Iter<'a, FieldLine> {
        self.fields.index.lines.iter()
    }

    pub(crate) fn name(&self, line: &FieldLine) -> &'a [u8] {
        self.fields.name(line).as_bytes()
    }

    pub(crate) fn value(&self, line: &FieldLine) -> &'a [u8] {
        self.fields.value(line).as_bytes()
    }

    /// About how many bytes all lines have.
    pub(crate) fn size(&self) -> usize {
        self.fields.head.len() + self.fields.added.len() + self.fields.len()
    }

    /// Writes a line.
    #[inline]
    pub(crate) fn copy(&mut self, out: &mut bytes::BytesMut, line: &FieldLine) {
        if line.flags & (ADDED | PLAIN) == self.kind && line.start == self.end {
            self.end = line.end + 2;
        } else {
            self.begin(out, line);
        }
    }

    fn begin(&mut self, out: &mut bytes::BytesMut, line: &FieldLine) {
        self.flush(out);
        if line.flags & PLAIN == 0 {
            crate::line::field(out, self.name(line), self.value(line));
        } else {
            (self.kind, self.start, self.end) = (line.flags & (ADDED | PLAIN), line.start, line.end + 2);
        }
    }

    /// Writes the pending lines.
    #[inline]
    pub(crate) fn flush(&mut self, out: &mut bytes::BytesMut) {
        if self.kind != NO_RUN {
            let bytes = if self.kind & ADDED == 0 { &self.fields.head[..] } else { &self.fields.added[..] };
            out.extend_from_slice(bytes.get(self.start as usize..self.end as usize).unwrap_or_default());
            self.kind = NO_RUN;
        }
    }
}
