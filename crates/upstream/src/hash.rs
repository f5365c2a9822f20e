//! The hash of consistent hashing: the same in every process, release and architecture.
//!
//! FNV-1a with 64 bits (Fowler, Noll, Vo), then the finalizer of MurmurHash3 (`fmix64`), since the high bits of FNV
//! alone are too regular for a ring. It is not keyed: a client that chooses its own key can choose its endpoint.

use std::net::IpAddr;

use attache_config::model::HashKey;
use attache_wire::{Fields, header::COOKIE};

/// The hash of `bytes`, as the module describes it.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let fnv = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// The hash of an endpoint's label that a session's cookie contains, encrypted ([`SessionSeal`](crate::SessionSeal)).
pub fn session_of(label: &str) -> u64 {
    hash_bytes(label.as_bytes())
}

/// MurmurHash3's `fmix64`.
pub(crate) fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// A hash as a number in 0..1.
pub(crate) fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// The hash of the value that `key` names in a request; `None` if the request has no such value.
///
/// The first line of a header is hashed, the first cookie of a name, the path without the query, and the client's IP
/// address without the port (an IPv4 address mapped into IPv6 is the IPv4 address).
pub fn request_hash(key: &HashKey, headers: &Fields, path: &str, client: Option<IpAddr>) -> Option<u64> {
    match key {
        HashKey::Header(name) => headers.get(name).map(|value| hash_bytes(value.as_bytes())),
        HashKey::Cookie(name) => cookie(headers, name).map(hash_bytes),
        HashKey::Source => client.map(|address| match address.to_canonical() {
            IpAddr::V4(v4) => hash_bytes(&v4.octets()),
            IpAddr::V6(v6) => hash_bytes(&v6.octets()),
        }),
        HashKey::Path => path.split('?').next().map(|path| hash_bytes(path.as_bytes())),
    }
}

/// The value of the first cookie of this name (RFC 6265 section 4.2.1), with its quotes.
pub fn cookie<'a>(headers: &'a Fields, name: &str) -> Option<&'a [u8]> {
    let pairs = headers.get_all(COOKIE).flat_map(|value| value.as_bytes().split(|&b| b == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_documented_one() {
        // FNV-1a of "" is the offset basis, of "a" 0xaf63dc4c8601ec8c (draft-eastlake-fnv).
        assert_eq!(hash_bytes(b""), mix(0xcbf2_9ce4_8422_2325));
        assert_eq!(hash_bytes(b"a"), mix(0xaf63_dc4c_8601_ec8c));
        assert_ne!(hash_bytes(b"a"), hash_bytes(b"b"));
    }

    #[test]
    fn a_request_is_hashed_by_what_the_key_names() {
        let mut headers = Fields::new();
        headers.append("x-user", http::HeaderValue::from_static("ann"));
        headers.append(COOKIE, http::HeaderValue::from_static("other=1; session=abc; sessions=2"));
        let hash =
            |key: HashKey| request_hash(&key, &headers, "/a?b", Some("::ffff:10.0.0.1".parse().unwrap()));
        assert_eq!(hash(HashKey::Header(http::HeaderName::from_static("x-user"))), Some(hash_bytes(b"ann")));
        assert_eq!(hash(HashKey::Header(http::HeaderName::from_static("x-none"))), None);
        assert_eq!(hash(HashKey::Cookie("session".into())), Some(hash_bytes(b"abc")));
        assert_eq!(hash(HashKey::Cookie("sess".into())), None);
        assert_eq!(hash(HashKey::Path), Some(hash_bytes(b"/a")));
        assert_eq!(hash(HashKey::Source), Some(hash_bytes(&[10, 0, 0, 1])));
    }
}
