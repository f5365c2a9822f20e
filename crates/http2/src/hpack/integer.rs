//! Reads and writes integers (RFC 7541 section 5.1).

use bytes::{BufMut as _, BytesMut};

/// Reads an integer that begins in the low `prefix` bits of the next byte. `None` if it is incomplete, or larger than any valid value.
#[inline]
pub(super) fn read(rest: &mut &[u8], prefix: u8) -> Option<usize> {
    let (first, mut after) = rest.split_first()?;
    let most = (1_u8 << prefix) - 1;
    let mut value = usize::from(first & most);
    if value == usize::from(most) {
        let mut shift = 0;
        loop {
            let (byte, later) = after.split_first()?;
            after = later;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > 21 {
                return None;
            }
        }
    }
    *rest = after;
    Some(value)
}

/// Writes an integer into the low `prefix` bits of a byte with `flags`, and into as many further bytes as it needs.
#[inline]
pub(super) fn write(out: &mut BytesMut, flags: u8, prefix: u8, value: usize) {
    let most = (1_usize << prefix) - 1;
    if value < most {
        out.put_u8(flags | value as u8);
        return;
    }
    out.put_u8(flags | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}
