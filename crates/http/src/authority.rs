//! Reads `host[:port]`, strictly.
//!
//! Rule: routing compares a name, TLS verifies it and DNS looks it up; every parser on the way must read the same name. So the grammar of
//! RFC 3986 section 3.2.2 is reduced to what names a server: letters, digits, `-`, `.`, `_`, `~`, or an IPv6 literal in brackets. Userinfo,
//! percent-escapes, sub-delims, zone identifiers and non-ASCII bytes are refused.

use std::{borrow::Cow, fmt, net::Ipv6Addr};

use attache_config::model::{HostSpellings, Spelling};
use attache_wire::chars;
use http::Uri;

use crate::Refusal;

/// The parts of a `Host` header, an `:authority` or a CONNECT target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort<'a> {
    /// The host as it was written; an IPv6 literal without its brackets.
    pub host: &'a str,
    /// The port, if one was written.
    pub port: Option<u16>,
}

/// Reads `host`, `host:port`, `[v6]` or `[v6]:port`; `None` if it is anything else. An empty port (`host:`) counts as no port, as in RFC
/// 3986 section 3.2.3; port 0 is refused.
pub fn parse_authority(text: &str) -> Option<HostPort<'_>> {
    let (host, rest) = if let Some(literal) = text.strip_prefix('[') {
        let (host, rest) = literal.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        (host, rest)
    } else {
        // One pass over the bytes, because every request has an authority: the name ends at the first byte that names don't contain.
        let end = chars::first_other(text.as_bytes(), &NAME).unwrap_or(text.len());
        let (host, rest) = text.split_at_checked(end)?;
        // The longest name in DNS has 253 bytes; a final dot is one more. One reader removes one final dot, another one all dots at
        // both ends: they would find two names.
        if host.is_empty() || host.len() > 254 || host.starts_with('.') || host.ends_with("..") {
            return None;
        }
        (host, rest)
    };
    let port = match rest.as_bytes() {
        [] | [b':'] => None,
        [b':', digits @ ..] => Some(port(digits)?),
        _ => return None,
    };
    Some(HostPort { host, port })
}

/// Reads 1 to 5 digits as a port; port 0 is refused.
fn port(digits: &[u8]) -> Option<u16> {
    if digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    u16::try_from(number).ok().filter(|port| *port != 0)
}

/// The characters of a server's name: letters, digits, `-`, `.`, `_` and `~`.
static NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        byte += 1;
    }
    table
};

/// The port that a scheme implies if none is written.
pub fn default_port(scheme: &str) -> u16 {
    if scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss") { 443 } else { 80 }
}

/// A host in the one form that hosts are compared in: lower case, no final dot, IPv6 in its shortest text (RFC 5952). It allocates only if
/// the host is written in another form.
#[derive(Clone)]
pub struct CanonicalHost<'a> {
    text: Cow<'a, str>,
    v6: bool,
}

/// The longest name in DNS, in bytes.
const MAX_NAME_BYTES: usize = 255;

impl<'a> CanonicalHost<'a> {
    /// The canonical form of a host with or without brackets; `None` if it is longer than any name.
    pub fn new(host: &'a str) -> Option<Self> {
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let bare = host.strip_suffix('.').unwrap_or(host);
        if bare.len() > MAX_NAME_BYTES {
            return None;
        }
        if chars::all(bare.as_bytes(), &CANONICAL) {
            return Some(Self { text: Cow::Borrowed(bare), v6: false });
        }
        if let Ok(address) = host.parse::<Ipv6Addr>() {
            return Some(Self { text: address.to_string().into(), v6: true });
        }
        Some(Self { text: bare.to_ascii_lowercase().into(), v6: false })
    }

    /// A text that is canonical already and is not an IPv6 address.
    pub const fn of_canonical(text: &'a str) -> Self {
        Self { text: Cow::Borrowed(text), v6: false }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is an IPv6 address; no wildcard matches one.
    pub const fn is_v6(&self) -> bool {
        self.v6
    }
}

/// The characters of canonical names.
static CANONICAL: [bool; 256] = {
    let mut table = NAME;
    let mut byte = b'A';
    while byte <= b'Z' {
        table[byte as usize] = false;
        byte += 1;
    }
    table
};

impl fmt::Debug for CanonicalHost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// Refuses a host whose spelling `spellings` does not allow.
///
/// # Errors
/// The authority of `uri` has capital letters, ends with a dot or a colon, or has the default port of its scheme.
pub(crate) fn check_spelling(uri: &Uri, spellings: HostSpellings) -> Result<(), Refusal> {
    if spellings == HostSpellings::default() {
        return Ok(());
    }
    let Some(text) = uri.authority().map(http::uri::Authority::as_str) else { return Ok(()) };
    let Some(parsed) = parse_authority(text) else { return Ok(()) };
    if spellings.capitals == Spelling::Reject && text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(Refusal::bad_request(
            "The host has capital letters, which this listener does not allow (`host`).",
        ));
    }
    if spellings.trailing == Spelling::Reject && (parsed.host.ends_with('.') || text.ends_with(':')) {
        return Err(Refusal::bad_request(
            "The host ends with a dot or a colon, which this listener does not allow (`host`).",
        ));
    }
    let default = parsed.port == Some(default_port(uri.scheme_str().unwrap_or("http")));
    // The target of a CONNECT always has a port.
    if spellings.default_port == Spelling::Reject && default && uri.scheme().is_some() {
        return Err(Refusal::bad_request(
            "The host has the default port, which this listener does not allow (`host`).",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_servers_are_read_and_everything_else_is_refused() {
        let read = |text| parse_authority(text).map(|a| (a.host, a.port));
        assert_eq!(read("orders"), Some(("orders", None)));
        assert_eq!(read("Orders.internal.:8443"), Some(("Orders.internal.", Some(8443))));
        assert_eq!(read("my_service:"), Some(("my_service", None)));
        assert_eq!(read("[2001:db8::1]:80"), Some(("2001:db8::1", Some(80))));
        assert_eq!(read("[::1]"), Some(("::1", None)));
        for bad in [
            "",
            ":80",
            "a:b",
            "a:0",
            "a:65536",
            "a:+80",
            "a:080808",
            "a:000080",
            "a:80:80",
            "user@a",
            "a/b",
            "a b",
            "a,b",
            "a%41",
            "[::1",
            "[::1]x",
            "[fe80::1%25eth0]",
            "[1.2.3.4]",
            "::1",
            "a\u{e9}",
            ".",
            "..",
            ".a",
            "a..",
            "a..:80",
            "a?b",
            "a\\b",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_name_has_at_most_one_dot_at_its_end_and_none_at_its_begin() {
        for (text, host) in
            [("a.", "a."), ("a.b.:80", "a.b."), ("a..b", "a..b"), ("..a", ""), (".", ""), ("a.b..", "")]
        {
            assert_eq!(parse_authority(text).map_or("", |found| found.host), host, "{text}");
        }
    }

    #[test]
    fn hosts_are_compared_in_one_form() {
        let form = |host: &str| CanonicalHost::new(host).map(|h| h.as_str().to_owned());
        assert_eq!(form("Orders.Internal."), Some("orders.internal".into()));
        assert_eq!(form("[2001:DB8:0:0::1]"), Some("2001:db8::1".into()));
        assert_eq!(form("0:0:0:0:0:0:0:1"), Some("::1".into()));
        assert_eq!(form(&"a".repeat(255)), Some("a".repeat(255)));
        assert_eq!(form(&"a".repeat(256)), None);
    }

    #[test]
    fn a_spelling_that_is_not_allowed_is_refused() {
        let spelled =
            |trailing, default_port| HostSpellings { trailing, default_port, ..HostSpellings::default() };
        let (keep, reject) = (Spelling::Keep, Spelling::Reject);
        let refused = |uri: &str, spellings| check_spelling(&uri.parse().unwrap(), spellings).is_err();
        for (uri, dot, port) in [
            ("http://a.test/", false, false),
            ("http://A.test/", false, false),
            ("http://a.test./", true, false),
            ("http://a.test:80/", false, true),
            ("http://a.test:/", true, false),
            ("http://a.test:443/", false, false),
            ("https://a.test:443/", false, true),
            ("https://a.test:80/", false, false),
            ("http://a.test.:80/", true, true),
            ("http://[::1]/", false, false),
        ] {
            assert!(!refused(uri, HostSpellings::default()), "{uri}");
            assert_eq!(refused(uri, spelled(reject, keep)), dot, "{uri}");
            assert_eq!(refused(uri, spelled(keep, reject)), port, "{uri}");
        }
        let small = HostSpellings { capitals: reject, ..HostSpellings::default() };
        assert!(refused("http://A.test/", small) && !refused("http://a.test/", small));
        assert!(!refused("a.test:80", spelled(reject, reject)), "the target of a CONNECT");
    }
}
