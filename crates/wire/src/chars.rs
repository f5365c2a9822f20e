//! Tables that say which bytes each part of a message may contain.

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

/// Whether all bytes are in a table. It checks eight bytes at once without a branch, because almost every text passes.
#[inline]
pub fn all(bytes: &[u8], table: &[bool; 256]) -> bool {
    let (eights, rest) = bytes.as_chunks::<8>();
    let in_table = |all: bool, byte: &u8| all & table[usize::from(*byte)];
    eights.iter().all(|eight| eight.iter().fold(true, in_table)) && rest.iter().fold(true, in_table)
}

/// The position of the first byte that is not in a table.
#[inline]
pub fn first_other(bytes: &[u8], table: &[bool; 256]) -> Option<usize> {
    let (eights, _) = bytes.as_chunks::<8>();
    let good = 8 * eights.iter().take_while(|eight| all(*eight, table)).count();
    let rest = bytes.get(good..)?;
    rest.iter().position(|byte| !table[usize::from(*byte)]).map(|at| good + at)
}

/// Letters, digits and `-`: the names of most fields.
pub(crate) static USUAL_NAME: [bool; 256] = table(b"-", false);
/// The bytes of a token (RFC 9110 section 5.6.2).
pub static TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~", false);
/// The bytes of a target before its `?`: RFC 3986's characters and those that clients send unescaped although they must not. It excludes
/// `#`, which some parsers cut off; `\`, which some read as `/`; and `"`, `<`, `>` and the backtick, which are legal nowhere.
pub(crate) static PATH: [bool; 256] = table(b"#\\\"<>`", true);
/// The bytes of a target after its `?`: every visible character except `#`. Queries contain most of the others, and clients send them
/// unescaped.
pub(crate) static QUERY: [bool; 256] = table(b"#", true);
/// The bytes of a host (RFC 3986 section 3.2): a registered name, an address or an IP literal, and a port.
pub(crate) static HOST: [bool; 256] = table(b"-._~%!$&'()*+;=:[]", false);
