//! Which bytes may stand where.

const fn table(extra: &[u8], visible: bool) -> [bool; 256] {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        let c = b as u8;
        table[b] = c.is_ascii_alphanumeric() || (visible && c.is_ascii_graphic());
        b += 1;
    }
    let mut i = 0;
    while i < extra.len() {
        table[extra[i] as usize] = !visible;
        i += 1;
    }
    table
}

/// RFC 9110 section 5.6.2.
pub const TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~", false);
/// A target before its `?`: RFC 3986's characters and those that clients send unescaped all the same. Not `#`, which some parsers cut
/// off; not `\`, which some read as `/`; not `"`, `<`, `>` and the backtick, which are nowhere legal.
pub(crate) const PATH: [bool; 256] = table(b"#\\\"<>`", true);
/// A target behind its `?`: every visible character but `#`. Query languages are full of the others, and clients send them as they are.
pub(crate) const QUERY: [bool; 256] = table(b"#", true);
/// RFC 3986 section 3.2: a registered name, an address or an IP literal, and a port.
pub(crate) const HOST: [bool; 256] = table(b"-._~%!$&'()*+;=:[]", false);

/// Whether a name that was read is `known`, whatever its case. Both are tokens, and `known` has letters, digits and `-` alone: there the
/// bit of the case decides nothing else, so eight bytes are compared at once.
#[inline]
pub(crate) fn is_name(name: &[u8], known: &[u8]) -> bool {
    const CASE: u64 = 0x2020_2020_2020_2020;
    if name.len() != known.len() {
        return false;
    }
    let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |eight| u64::from_ne_bytes(*eight)) | CASE;
    if name.len() < 8 {
        return name.eq_ignore_ascii_case(known);
    }
    let last = name.len() - 8;
    let mut at = 0;
    while at < last {
        if word(name.get(at..).unwrap_or_default()) != word(known.get(at..).unwrap_or_default()) {
            return false;
        }
        at += 8;
    }
    word(name.get(last..).unwrap_or_default()) == word(known.get(last..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_are_the_same_in_any_case(name in "[!#$%&'*+.^_`|~A-Za-z0-9-]{0,30}", known in "[a-z0-9-]{0,30}", flips in any::<u32>()) {
            prop_assert_eq!(is_name(name.as_bytes(), known.as_bytes()), name.eq_ignore_ascii_case(&known));
            let mut spelt = known.clone().into_bytes();
            for (at, byte) in spelt.iter_mut().enumerate().filter(|(at, _)| flips >> at & 1 == 1) {
                let _ = at;
                byte.make_ascii_uppercase();
            }
            prop_assert!(is_name(&spelt, known.as_bytes()));
        }
    }
}
