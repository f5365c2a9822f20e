//! attache reads the same values from a ClientHello as rustls: the server name that chooses the route is the one that
//! the TLS server will see.

use attache_listener::{Protocol, fuzzing::Detection};
use rustls::{pki_types::DnsName, server::Acceptor};

/// Server name and protocols, as rustls reads them; `None` if rustls needs more bytes or doesn't accept the
/// ClientHello.
fn theirs(mut data: &[u8]) -> Option<(Option<String>, Vec<Vec<u8>>)> {
    let mut acceptor = Acceptor::default();
    loop {
        let read = acceptor.read_tls(&mut data).ok()?;
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let alpn = hello.alpn().map(|names| names.map(<[u8]>::to_vec).collect());
                let name = hello.server_name().map(str::to_ascii_lowercase);
                return Some((name, alpn.unwrap_or_default()));
            }
            Ok(None) if read > 0 => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let Some((name, alpn)) = theirs(data) else { return };
    match Detection::Tls.of(data, 8000) {
        Some((Protocol::Tls, Some(hello))) => {
            assert_eq!(hello.alpn, alpn);
            match hello.sni {
                // For rustls a text that is not a DNS name is not a server name.
                Some(ours) if name.is_none() => assert!(
                    DnsName::try_from(&*ours).is_err() || ours.parse::<std::net::IpAddr>().is_ok(),
                    "{ours}"
                ),
                ours => assert_eq!(ours.as_deref(), name.as_deref()),
            }
        }
        // The bytes are refused, or passed on if opaque bytes are allowed.
        Some(_) => {}
        None => panic!("rustls has the whole ClientHello, and more is waited for"),
    }
}
