//! A message of the SPIFFE Workload API: what is believed is what prost reads in it too, and the SVID of an authority's certificate is for
//! the name that the message says.

use prost::Message;

/// `X509SVIDResponse`, as far as it is used.
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<Svid>,
}

/// `X509SVID`.
#[derive(Clone, PartialEq, Message)]
struct Svid {
    #[prost(bytes = "vec", tag = "1")]
    spiffe_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    certificates: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
}

/// Panics where it does not hold.
pub fn check(data: &[u8]) {
    let Ok(domain) = attache_tls::fuzzing::svid(data) else { return };
    // A known field of another wire type is an unknown one for the format, and an error for prost.
    let Ok(theirs) = Response::decode(data) else { return };
    let first = theirs.svids.first().unwrap();
    let id = String::from_utf8(first.spiffe_id.clone()).unwrap();
    let (scheme, rest) = id.split_once("://").unwrap();
    assert!(scheme.eq_ignore_ascii_case("spiffe"));
    assert_eq!(rest.split('/').next().unwrap().to_ascii_lowercase(), domain);
    let text = String::from_utf8_lossy(&first.certificates).into_owned();
    assert!(text.contains(&*id), "no certificate names {id}");
    assert!(!first.bundle.is_empty() && !first.key.is_empty());
}
