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
