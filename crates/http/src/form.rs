//! Decodes the names and values of a query as a reader of HTML forms does.

use std::borrow::Cow;

/// Decodes `%61` as `a`, and `+` as a space. A `%` that isn't followed by two hex digits stays. Borrowed if there is nothing to decode.
pub fn form_decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if text.contains(&b'+') {
        let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        return Cow::Owned(percent_encoding::percent_decode(&spaced).collect());
    }
    percent_encoding::percent_decode(text).into()
}

#[cfg(test)]
mod tests {
    use super::form_decoded;

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
            assert_eq!(&*form_decoded(name.as_bytes()), decoded.as_bytes(), "{name}");
        }
    }
}
