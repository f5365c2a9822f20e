//! The PROXY protocol header for connections to endpoints: the client's address, sent before the client's first byte.
//!
//! Source: the PROXY protocol specification, sections 2.1 (version 1, text) and 2.2 (version 2, binary, here without
//! TLVs). Where there is no client address, or the two are of different families, version 1 says `UNKNOWN` and version
//! 2 says `LOCAL`.

use std::net::{IpAddr, SocketAddr};

use attache_config::model::ProxyProtocolOut;
use attache_http::Client;
use smallvec::SmallVec;

/// Long enough for every header without TLVs; version 1's longest line has 107 bytes.
pub(crate) type Header = SmallVec<[u8; 108]>;

const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The header for a client, empty where none is configured.
pub(crate) fn encode(version: ProxyProtocolOut, client: &Client) -> Header {
    let pair = pair(client);
    match version {
        ProxyProtocolOut::Off => Header::new(),
        ProxyProtocolOut::V1 => v1(pair),
        ProxyProtocolOut::V2 => v2(pair),
    }
}

/// Both addresses, of one family: an IPv4 address that came in by a dual-stack socket (`::ffff:a.b.c.d`) is one.
fn pair(client: &Client) -> Option<(SocketAddr, SocketAddr)> {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let from = plain(client.address?);
    let to = plain(client.original_destination.or(client.local)?);
    (from.is_ipv4() == to.is_ipv4()).then_some((from, to))
}

fn v1(pair: Option<(SocketAddr, SocketAddr)>) -> Header {
    let line = match pair {
        None => "PROXY UNKNOWN\r\n".to_owned(),
        Some((from, to)) => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port())
        }
    };
    Header::from_slice(line.as_bytes())
}

fn v2(pair: Option<(SocketAddr, SocketAddr)>) -> Header {
    let mut header = Header::from_slice(&V2_SIGNATURE);
    let Some((from, to)) = pair else {
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

    fn client(from: &str, to: &str) -> Client {
        Client { address: from.parse().ok(), local: to.parse().ok(), ..Client::default() }
    }

    fn text(client: &Client) -> String {
        String::from_utf8_lossy(&encode(ProxyProtocolOut::V1, client)).into_owned()
    }

    #[test]
    fn version_1_writes_both_addresses_and_ports() {
        assert_eq!(
            text(&client("192.0.2.1:56324", "198.51.100.7:443")),
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"
        );
        assert_eq!(
            text(&client("[2001:db8::1]:1", "[2001:db8::2]:65535")),
            "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n"
        );
    }

    #[test]
    fn a_client_without_an_address_or_with_mixed_families_is_unknown() {
        assert_eq!(text(&Client::default()), "PROXY UNKNOWN\r\n");
        assert_eq!(text(&client("192.0.2.1:1", "[2001:db8::2]:2")), "PROXY UNKNOWN\r\n");
        let local = encode(ProxyProtocolOut::V2, &Client::default());
        assert_eq!(&local[..], b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00");
    }

    #[test]
    fn a_mapped_address_is_written_as_the_ipv4_that_it_is() {
        assert_eq!(
            text(&client("[::ffff:192.0.2.1]:9", "198.51.100.7:443")),
            "PROXY TCP4 192.0.2.1 198.51.100.7 9 443\r\n"
        );
    }

    #[test]
    fn version_2_writes_family_length_and_network_order() {
        let header = encode(ProxyProtocolOut::V2, &client("192.0.2.1:258", "198.51.100.7:443"));
        assert_eq!(&header[..12], &V2_SIGNATURE);
        assert_eq!(&header[12..16], &[0x21, 0x11, 0, 12]);
        assert_eq!(&header[16..], &[192, 0, 2, 1, 198, 51, 100, 7, 1, 2, 1, 187]);
        let header = encode(ProxyProtocolOut::V2, &client("[2001:db8::1]:1", "[2001:db8::2]:2"));
        assert_eq!(&header[12..16], &[0x21, 0x21, 0, 36]);
        assert_eq!(header.len(), 16 + 36);
    }
}
