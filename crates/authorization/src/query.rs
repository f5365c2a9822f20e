//! Names of parameters, as a reader of forms decodes them.

use std::borrow::Cow;

/// With `%61` as `a`, and `+` as a space. What isn't two hex digits behind a `%` stays.
pub(crate) fn decode(name: &[u8]) -> Cow<'_, [u8]> {
    if !name.contains(&b'%') && !name.contains(&b'+') {
        return name.into();
    }
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, behind)) = rest.split_first() {
        let hex = behind.split_at_checked(2).filter(|_| byte == b'%').and_then(|(digits, behind)| {
            let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
            Some((u8::try_from(digit(0)? * 16 + digit(1)?).ok()?, behind))
        });
        let plain = if byte == b'+' { b' ' } else { byte };
        let (byte, behind) = hex.unwrap_or((plain, behind));
        out.push(byte);
        rest = behind;
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn two_hex_digits_are_a_byte_and_anything_else_stays() {
        for (name, decoded) in [
            ("role", "role"),
            ("r%6fl%65", "role"),
            ("my+role", "my role"),
            ("%", "%"),
            ("%6", "%6"),
            ("%zz%+1% 1", "%zz% 1% 1"),
            ("%%36f", "%6f"),
        ] {
            assert_eq!(&*decode(name.as_bytes()), decoded.as_bytes(), "{name}");
        }
    }
}
