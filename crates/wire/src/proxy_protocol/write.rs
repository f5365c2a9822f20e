use std::net::{IpAddr, SocketAddr};

use super::{V1_MAX, V2};

/// Which version of the header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text (section 2.1).
    V1,
    /// Binary (section 2.2), without TLVs.
    V2,
}

/// The header for a connection from the first address to the second. Without addresses, or if the two are of different families, it is
/// `UNKNOWN` in version 1 and `LOCAL` in version 2.
///
/// An IPv4 address of a dual-stack socket (`::ffff:a.b.c.d`) counts as IPv4 only if the calling code has converted it
/// ([`IpAddr::to_canonical`]).
pub fn write(version: Version, addresses: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let addresses = addresses.filter(|(from, to)| from.is_ipv4() == to.is_ipv4());
    match version {
        Version::V1 => v1(addresses),
        Version::V2 => v2(addresses),
    }
}

fn v1(addresses: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    match addresses {
        None => b"PROXY UNKNOWN\r\n".to_vec(),
        Some((from, to)) => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port()).into_bytes()
        }
    }
}

fn v2(addresses: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut header = Vec::with_capacity(V1_MAX);
    header.extend_from_slice(V2);
    let Some((from, to)) = addresses else {
        header.extend_from_slice(&[0x20, 0x00, 0, 0]); // version 2, LOCAL; unspecified; no addresses
        return header;
    };
    let (family, length) = if from.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
    header.extend_from_slice(&[0x21, family, 0, length]); // version 2, PROXY; family with STREAM
    for ip in [from.ip(), to.ip()] {
        match ip {
            IpAddr::V4(ip) => header.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => header.extend_from_slice(&ip.octets()),
        }
    }
    header.extend_from_slice(&from.port().to_be_bytes());
    header.extend_from_slice(&to.port().to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(from: &str, to: &str) -> (SocketAddr, SocketAddr) {
        (from.parse().unwrap(), to.parse().unwrap())
    }

    fn text(addresses: Option<(SocketAddr, SocketAddr)>) -> String {
        String::from_utf8(write(Version::V1, addresses)).unwrap()
    }

    #[test]
    fn version_1_writes_both_addresses_and_ports() {
        assert_eq!(
            text(Some(pair("192.0.2.1:56324", "198.51.100.7:443"))),
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"
        );
        assert_eq!(
            text(Some(pair("[2001:db8::1]:1", "[2001:db8::2]:65535"))),
            "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n"
        );
    }

    #[test]
    fn no_addresses_and_mixed_families_are_unknown() {
        assert_eq!(text(None), "PROXY UNKNOWN\r\n");
        assert_eq!(text(Some(pair("192.0.2.1:1", "[2001:db8::2]:2"))), "PROXY UNKNOWN\r\n");
        assert_eq!(write(Version::V2, None), b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00");
    }

    #[test]
    fn version_2_writes_family_length_and_network_order() {
        let header = write(Version::V2, Some(pair("192.0.2.1:258", "198.51.100.7:443")));
        assert_eq!(&header[..12], V2);
        assert_eq!(&header[12..16], &[0x21, 0x11, 0, 12]);
        assert_eq!(&header[16..], &[192, 0, 2, 1, 198, 51, 100, 7, 1, 2, 1, 187]);
        let header = write(Version::V2, Some(pair("[2001:db8::1]:1", "[2001:db8::2]:2")));
        assert_eq!(&header[12..16], &[0x21, 0x21, 0, 36]);
        assert_eq!(header.len(), 16 + 36);
    }
}
