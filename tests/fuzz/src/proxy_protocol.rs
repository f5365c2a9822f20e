//! The header of the PROXY protocol: further bytes never change the result, and `ppp`, which is more lenient, reads the
//! same addresses and the same end.

use std::net::SocketAddr;

use attache_wire::proxy_protocol::{ProxyHeader, ProxyHeaderResult, read};
use ppp::{v1, v2};

/// The longest header that is accepted (`docs/config.md`).
const MAX_HEADER_BYTES: usize = 16 + 4096;

type AddressPair = Option<(SocketAddr, SocketAddr)>;

fn v1_addresses(header: &[u8]) -> AddressPair {
    let read = v1::Header::try_from(header).unwrap_or_else(|error| panic!("{error}"));
    match read.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(it) => Some((
            (it.source_address, it.source_port).into(),
            (it.destination_address, it.destination_port).into(),
        )),
        v1::Addresses::Tcp6(it) => Some((
            (it.source_address, it.source_port).into(),
            (it.destination_address, it.destination_port).into(),
        )),
    }
}

fn v2_addresses(header: &[u8]) -> AddressPair {
    let read = v2::Header::try_from(header).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(read.len(), header.len());
    if read.command == v2::Command::Local || read.protocol != v2::Protocol::Stream {
        return None;
    }
    match read.addresses {
        v2::Addresses::IPv4(it) => Some((
            (it.source_address, it.source_port).into(),
            (it.destination_address, it.destination_port).into(),
        )),
        v2::Addresses::IPv6(it) => Some((
            (it.source_address, it.source_port).into(),
            (it.destination_address, it.destination_port).into(),
        )),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    }
}

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let whole = read(data);
    for cut in 0..data.len() {
        let early = read(&data[..cut]);
        assert!(
            early == ProxyHeaderResult::More || early == whole,
            "{early:?} of {cut} bytes, {whole:?} of all"
        );
    }
    match whole {
        ProxyHeaderResult::Header(ProxyHeader { addresses, len }) => {
            assert!(len <= MAX_HEADER_BYTES.min(data.len()));
            let header = &data[..len];
            // If a proxy speaks for itself, or not for TCP, it may write any addresses; nobody reads them.
            let has_addresses = header.starts_with(b"PROXY TCP")
                || header.get(12) == Some(&0x21) && matches!(header.get(13), Some(0x11 | 0x21));
            if !has_addresses {
                assert_eq!(addresses, None);
                return;
            }
            let theirs =
                if header.starts_with(b"PROXY ") { v1_addresses(header) } else { v2_addresses(header) };
            assert_eq!(addresses, theirs);
        }
        // The wait for more bytes has a limit.
        ProxyHeaderResult::More => assert!(data.len() < MAX_HEADER_BYTES),
        ProxyHeaderResult::None | ProxyHeaderResult::Bad(_) => {}
    }
}
