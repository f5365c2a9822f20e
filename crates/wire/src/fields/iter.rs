//! Iterators over fields, and fields from iterators.

use super::{FieldLine, FieldName, FieldValue, Fields, NameRef, ValueRef};

/// The values of one field.
#[derive(Clone, Debug)]
pub struct GetAll<'a, N> {
    pub(super) fields: &'a Fields,
    pub(super) name: N,
    pub(super) next: usize,
}

impl<'a, N: FieldName> Iterator for GetAll<'a, N> {
    type Item = ValueRef<'a>;

    fn next(&mut self) -> Option<ValueRef<'a>> {
        let at = self.fields.position(&self.name, self.next)?;
        self.next = at + 1;
        self.fields.index.lines.get(at).map(|line| self.fields.value(line))
    }
}

/// All fields.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    pub(super) fields: &'a Fields,
    pub(super) lines: std::slice::Iter<'a, FieldLine>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (NameRef<'a>, ValueRef<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.lines.next()?;
        Some((self.fields.name(line), self.fields.value(line)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.lines.size_hint()
    }
}

impl<'a> IntoIterator for &'a Fields {
    type Item = (NameRef<'a>, ValueRef<'a>);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl<N: FieldName, V: FieldValue> FromIterator<(N, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        let mut all = Self::new();
        all.extend(fields);
        all
    }
}

impl<N: FieldName, V: FieldValue> Extend<(N, V)> for Fields {
    fn extend<I: IntoIterator<Item = (N, V)>>(&mut self, fields: I) {
        for (name, value) in fields {
            self.append(name, value);
        }
    }
}
