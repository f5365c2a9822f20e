//! The client as the trusted proxies in front of attache saw it.
//!
//! Rule: begin with the connection's own address. As long as the address is a trusted proxy, take the entry that it
//! wrote: the next one of `X-Forwarded-For`, from the right. The first address that isn't trusted is the client; the
//! client itself could have written the entries left of it.

use std::net::{IpAddr, SocketAddr};

use attache_wire::{Fields, KnownName, ValueRef, header};

use crate::networks::Networks;

const X_FORWARDED_FOR: KnownName = header::X_FORWARDED_FOR;

/// The client; `None` if it can't be determined: an entry is not an address, or the connection has none.
pub(crate) fn client(connection: Option<IpAddr>, headers: &Fields, trusted: &Networks) -> Option<IpAddr> {
    let mut client = connection?;
    let lines = headers.get_all(X_FORWARDED_FOR);
    // There are rarely more than a few lines.
    let lines: Vec<&[u8]> = lines.map(ValueRef::as_bytes).collect();
    let entries = lines.iter().rev().flat_map(|line| line.rsplit(|&b| b == b','));
    for entry in entries {
        if !trusted.contains(client) {
            return Some(client);
        }
        client = address(entry)?;
    }
    Some(client)
}

/// An address, with or without a port.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(with_port).or_else(bare).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use attache_config::model::AddressMatch;
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn seen(connection: &str, lines: &[&str]) -> Option<String> {
        let mut headers = Fields::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        }
        let trusted =
            Networks::new(&[AddressMatch { network: "10.0.0.0".parse().unwrap(), prefix: 8, port: None }]);
        client(connection.parse().ok(), &headers, &trusted).map(|address| address.to_string())
    }

    #[test]
    fn the_nearest_entry_that_is_no_trusted_proxy_is_the_client() {
        assert_eq!(seen("10.0.0.1", &["1.1.1.1"]).as_deref(), Some("1.1.1.1"));
        assert_eq!(seen("10.0.0.1", &["9.9.9.9, 1.1.1.1, 10.0.0.2"]).as_deref(), Some("1.1.1.1"));
        assert_eq!(seen("10.0.0.1", &["9.9.9.9", "1.1.1.1", "10.0.0.2:99"]).as_deref(), Some("1.1.1.1"));
        assert_eq!(seen("10.0.0.1", &["10.0.0.3, 10.0.0.2"]).as_deref(), Some("10.0.0.3"));
        assert_eq!(seen("10.0.0.1", &[]).as_deref(), Some("10.0.0.1"));
        assert_eq!(seen("10.0.0.1", &["[2001:db8::1]:80"]).as_deref(), Some("2001:db8::1"));
    }

    #[test]
    fn without_a_trusted_proxy_the_connections_address_is_the_client_whatever_it_writes() {
        assert_eq!(seen("8.8.8.8", &["10.0.0.7"]).as_deref(), Some("8.8.8.8"));
        assert_eq!(seen("8.8.8.8", &["junk"]).as_deref(), Some("8.8.8.8"));
    }

    #[test]
    fn an_entry_that_is_no_address_leaves_the_client_unknown() {
        for line in [
            "unknown",
            "1.1.1.1, , 10.0.0.2",
            "",
            "1.1.1.1;10.0.0.2",
            "0x0a000001",
            "010.0.0.1",
            "fe80::1%eth0",
            "[fe80::1%25eth0]:80",
            "1.1.1.1:99999",
            "1.1.1",
            "::ffff:1.1.1.1/96",
            "\"1.1.1.1\"",
            "for=1.1.1.1",
        ] {
            assert_eq!(seen("10.0.0.1", &[line]), None, "{line}");
        }
        assert_eq!(seen("", &["1.1.1.1"]), None, "a Unix socket");
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        assert_eq!(seen("::ffff:10.0.0.1", &["::ffff:1.1.1.1"]).as_deref(), Some("1.1.1.1"));
    }

    proptest! {
        #[test]
        fn any_value_is_read_without_panic(value in prop::collection::vec(0x20_u8..0x7f, 0..60)) {
            let mut headers = Fields::new();
            headers.insert(X_FORWARDED_FOR, HeaderValue::from_bytes(&value).unwrap());
            let trusted = Networks::new(&[AddressMatch { network: "0.0.0.0".parse().unwrap(), prefix: 0, port: None }]);
            let _ = client("10.0.0.1".parse().ok(), &headers, &trusted);
        }
    }
}
