//! Conversions from and to the `http` crate's map. HTTP/2 uses that map, and `http_body` carries trailers in it.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use super::{ADDED, AddedLines, FieldName as _, Fields, SENSITIVE};

impl From<&HeaderMap> for Fields {
    fn from(map: &HeaderMap) -> Self {
        let mut fields = Self::new();
        let size = |(name, value): (&http::HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
        fields.added.reserve(map.iter().map(size).sum::<usize>() + 192);
        fields.index.lines.reserve(map.len() + 4);
        for (name, value) in map {
            fields.append(name, value);
        }
        fields
    }
}

impl From<HeaderMap> for Fields {
    fn from(map: HeaderMap) -> Self {
        Self::from(&map)
    }
}

impl From<Fields> for HeaderMap {
    fn from(fields: Fields) -> Self {
        let Fields { head, added, index } = fields;
        let added = Bytes::from(match added {
            AddedLines::Heap(added) => added,
            AddedLines::Inline(added) => added.to_vec(),
        });
        let mut map = Self::with_capacity(index.lines.len());
        for line in &index.lines {
            let bytes = if line.flags & ADDED == 0 { &head } else { &added };
            let Some(name) = line.name_in(bytes).to_header_name() else { continue };
            let range = line.value as usize..line.end as usize;
            if range.end > bytes.len() {
                continue;
            }
            // This shares the bytes and doesn't copy them.
            let Ok(mut value) = HeaderValue::from_maybe_shared(bytes.slice(range)) else { continue };
            value.set_sensitive(line.flags & SENSITIVE != 0);
            // The map can hold far more fields than a message has.
            if map.try_append(name, value).is_err() {
                break;
            }
        }
        map
    }
}

impl Fields {
    /// The same fields as the `http` crate's map.
    pub fn to_map(&self) -> HeaderMap {
        self.clone().into()
    }

    /// Writes a map's fields as lines; trailers come as such a map.
    pub(crate) fn write_map(out: &mut bytes::BytesMut, map: &HeaderMap) {
        for (name, value) in map {
            crate::line::field(out, name.text(), value.as_bytes());
        }
    }
}
