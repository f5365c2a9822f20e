//! Reads the header that a connection begins with. The reader is incremental and bounded, and it is strict about every byte that two
//! parsers could read differently.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use memchr::memchr;

use super::{V1, V1_MAX, V2};

/// The most bytes of addresses and TLVs in version 2. A longer header is refused; real ones are below 1 KiB.
const V2_MAX: usize = 4096;

/// A complete header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Source and destination. `None` if the proxy opened the connection for itself (`LOCAL`, `UNKNOWN`).
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// Its length in bytes.
    pub len: usize,
}

/// What the bytes received so far are. More bytes can only change [`ProxyHeaderResult::More`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyHeaderResult {
    /// They begin with a complete header.
    Header(ProxyHeader),
    /// They may become a header.
    More,
    /// They are not the beginning of a header.
    None,
    /// They are the beginning of a header that is malformed, for this reason.
    Bad(&'static str),
}

/// Reads the header that `bytes` begin with.
pub fn read(bytes: &[u8]) -> ProxyHeaderResult {
    if bytes.starts_with(V2) {
        v2(bytes)
    } else if bytes.starts_with(V1) {
        v1(bytes)
    } else if V1.starts_with(bytes) || V2.starts_with(bytes) {
        ProxyHeaderResult::More
    } else {
        ProxyHeaderResult::None
    }
}

fn v1(bytes: &[u8]) -> ProxyHeaderResult {
    let window = bytes.get(..bytes.len().min(V1_MAX)).unwrap_or_default();
    let Some(end) = memchr(b'\n', window) else {
        return if bytes.len() >= V1_MAX {
            ProxyHeaderResult::Bad("the line is longer than 107 bytes")
        } else {
            ProxyHeaderResult::More
        };
    };
    let line = window.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let Some(line) = line.and_then(|line| std::str::from_utf8(line).ok()) else {
        return ProxyHeaderResult::Bad("the line does not end in CRLF or is not ASCII");
    };
    let header = |addresses| ProxyHeaderResult::Header(ProxyHeader { addresses, len: end + 1 });
    let mut words = line.split(' ').skip(1);
    let addresses = match words.next() {
        // "the receiver must ignore anything presented before the CRLF"
        Some("UNKNOWN") => return header(None),
        Some("TCP4") => v1_addresses(words, |ip| ip.parse::<Ipv4Addr>().ok().map(IpAddr::V4)),
        Some("TCP6") => v1_addresses(words, |ip| ip.parse::<Ipv6Addr>().ok().map(IpAddr::V6)),
        _ => return ProxyHeaderResult::Bad("the family is not TCP4, TCP6 or UNKNOWN"),
    };
    match addresses {
        Some(addresses) => header(Some(addresses)),
        None => ProxyHeaderResult::Bad("the addresses or ports don't match the family"),
    }
}

fn v1_addresses<'a>(
    mut words: impl Iterator<Item = &'a str>,
    ip: impl Fn(&str) -> Option<IpAddr>,
) -> Option<(SocketAddr, SocketAddr)> {
    let port = |word: &str| {
        let plain = word.bytes().all(|b| b.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
        plain.then(|| word.parse::<u16>().ok()).flatten()
    };
    let (source, destination) = (ip(words.next()?)?, ip(words.next()?)?);
    let (from, to) = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then(|| (SocketAddr::new(source, from), SocketAddr::new(destination, to)))
}

fn v2(bytes: &[u8]) -> ProxyHeaderResult {
    let Some([command, family, a, b]) = bytes.get(V2.len()..).and_then(|rest| rest.first_chunk()) else {
        return ProxyHeaderResult::More;
    };
    let body_len = usize::from(u16::from_be_bytes([*a, *b]));
    if body_len > V2_MAX {
        return ProxyHeaderResult::Bad("the header is longer than 4 KiB");
    }
    let len = V2.len() + 4 + body_len;
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return ProxyHeaderResult::Bad("the version or command is unknown"),
    };
    let needed = match family {
        0x11 => 12,
        0x21 => 36,
        // UNSPEC, UDP and Unix sockets: a TCP client can't have such an address.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => 0,
        _ => return ProxyHeaderResult::Bad("the address family is unknown"),
    };
    if body_len < needed && !local {
        return ProxyHeaderResult::Bad("the header is too short for its addresses");
    }
    let Some(body) = bytes.get(V2.len() + 4..len) else { return ProxyHeaderResult::More };
    let addresses = if local { None } else { v2_addresses(*family, body) };
    ProxyHeaderResult::Header(ProxyHeader { addresses, len })
}

fn v2_addresses(family: u8, body: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let port = |at: usize| Some(u16::from_be_bytes(*body.get(at..)?.first_chunk()?));
    let v4 = |at: usize| Some(IpAddr::from(*body.get(at..)?.first_chunk::<4>()?));
    let v6 = |at: usize| Some(IpAddr::from(*body.get(at..)?.first_chunk::<16>()?));
    match family {
        0x11 => Some((SocketAddr::new(v4(0)?, port(8)?), SocketAddr::new(v4(4)?, port(10)?))),
        0x21 => Some((SocketAddr::new(v6(0)?, port(32)?), SocketAddr::new(v6(16)?, port(34)?))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proxy_protocol::{Version, write};

    /// A header of version 2 with TLVs after the addresses.
    fn with_tlvs(mut header: Vec<u8>, tlvs: &[u8]) -> Vec<u8> {
        header.extend(tlvs);
        let len = (header.len() - V2.len() - 4) as u16;
        header[V2.len() + 2..V2.len() + 4].copy_from_slice(&len.to_be_bytes());
        header
    }

    fn pair() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        prop_oneof![
            any::<([u8; 4], u16, [u8; 4], u16)>().prop_map(|(a, p, b, q)| ((a, p).into(), (b, q).into())),
            any::<([u8; 16], u16, [u8; 16], u16)>().prop_map(|(a, p, b, q)| ((a, p).into(), (b, q).into())),
        ]
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic_or_a_wrong_length(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..3) {
            let start: &[u8] = match kind { 0 => b"", 1 => V1, _ => V2 };
            let all = [start, &bytes].concat();
            if let ProxyHeaderResult::Header(header) = read(&all) {
                prop_assert!(header.len <= all.len());
            }
        }

        #[test]
        fn a_written_header_is_read_back_and_a_part_of_it_is_not(
            (source, destination) in pair(), tlvs in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let [v1, v2] = [Version::V1, Version::V2].map(|version| write(version, Some((source, destination))));
            for mut bytes in [v1, with_tlvs(v2, &tlvs)] {
                let len = bytes.len();
                for n in 0..len {
                    prop_assert_eq!(read(&bytes[..n]), ProxyHeaderResult::More, "cut at {}", n);
                }
                bytes.extend(b"application");
                prop_assert_eq!(
                    read(&bytes),
                    ProxyHeaderResult::Header(ProxyHeader { addresses: Some((source, destination)), len })
                );
            }
        }
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for line in [
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
            "PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY \r\n",
        ] {
            assert!(matches!(read(line.as_bytes()), ProxyHeaderResult::Bad(_)), "{line:?}");
        }
        assert!(matches!(read(&[b"PROXY ".as_slice(), &[b'a'; 101]].concat()), ProxyHeaderResult::Bad(_)));
    }

    #[test]
    fn local_and_unknown_headers_have_no_addresses() {
        for (version, len) in [(Version::V1, 15), (Version::V2, 16)] {
            assert_eq!(
                read(&write(version, None)),
                ProxyHeaderResult::Header(ProxyHeader { addresses: None, len })
            );
        }
        assert_eq!(
            read(b"PROXY UNKNOWN what ever else\r\nGET"),
            ProxyHeaderResult::Header(ProxyHeader { addresses: None, len: 30 })
        );
    }

    #[test]
    fn bytes_of_another_protocol_are_not_a_header() {
        assert_eq!(read(b"GET / HTTP/1.1\r\n"), ProxyHeaderResult::None);
        assert_eq!(read(b"PROXX"), ProxyHeaderResult::None);
        assert_eq!(read(b"PRO"), ProxyHeaderResult::More);
    }
}
