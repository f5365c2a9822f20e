//! A field's value as a slice of its head, without being looked at again.
#![expect(
    unsafe_code,
    reason = "the bytes were checked when the head was read; checking them again costs as much as reading them"
)]

use http::HeaderValue;

use crate::{Field, Lines};

/// The value of one of the fields of `lines`.
pub(crate) fn value(lines: &Lines<'_>, field: &Field) -> HeaderValue {
    let range = field.value_range();
    if range.end > lines.bytes().len() {
        return HeaderValue::from_static("");
    }
    let bytes = lines.bytes().slice(range);
    debug_assert!(HeaderValue::from_bytes(&bytes).is_ok(), "a value that was not checked");
    // SAFETY: `HeaderValue` asks for bytes from 0x20 on without 0x7F, and HTAB. Only the readers of this crate make `Lines`, right after
    // `field::fields` has read these very bytes, and it refuses every other byte in a value. `field` is of the same index, which is
    // what the two callers in `message` pass.
    unsafe { HeaderValue::from_maybe_shared_unchecked(bytes) }
}
