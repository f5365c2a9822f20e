//! Writes one line of a head as bytes.

use bytes::{BufMut as _, BytesMut};

/// Writes a number's digits. The standard formatter would need a function call for each digit or two.
pub fn decimal(n: u64, write: impl FnOnce(&[u8])) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = n;
    loop {
        at -= 1;
        if let Some(digit) = digits.get_mut(at) {
            *digit = b'0' + (rest % 10) as u8;
        }
        rest /= 10;
        if rest == 0 || at == 0 {
            break;
        }
    }
    write(digits.get(at..).unwrap_or_default());
}

/// Writes one field line.
#[inline]
pub(crate) fn field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}
