//! What consistent hashing hashes over, as a number.
//!
//! FNV-1a with a finisher (splitmix64's): the same on every worker, host and version, so that two proxies send one key
//! to one endpoint. It is not meant to withstand keys that are chosen to collide; those only unbalance the load.

use attache_config::model::{Algorithm, HashKey};
use attache_http::{Body, Client};
use http::{Request, header::COOKIE};

/// The hash for this request; `None` where the algorithm needs none or the request has no such value.
pub(crate) fn of(algorithm: &Algorithm, request: &Request<Body>, client: &Client) -> Option<u64> {
    let (Algorithm::RingHash(key) | Algorithm::Maglev(key)) = algorithm else { return None };
    match key {
        HashKey::Header(name) => request.headers().get(name).map(|value| hash(value.as_bytes())),
        HashKey::Cookie(name) => request
            .headers()
            .get_all(COOKIE)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(key, _)| *key == &**name)
            .map(|(_, value)| hash(value.as_bytes())),
        HashKey::Source => client.address.map(|address| match address.ip().to_canonical() {
            std::net::IpAddr::V4(ip) => hash(&ip.octets()),
            std::net::IpAddr::V6(ip) => hash(&ip.octets()),
        }),
        HashKey::Path => Some(hash(request.uri().path().as_bytes())),
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut h = bytes.iter().fold(0xCBF2_9CE4_8422_2325_u64, |h, byte| {
        (h ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    h = (h ^ (h >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    h ^ (h >> 31)
}
