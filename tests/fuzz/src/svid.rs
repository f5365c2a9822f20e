//! A message of the SPIFFE Workload API: attache accepts only values that prost also reads, and the certificate is for
//! the SPIFFE ID that the message names.

use prost::Message;

/// `X509SVIDResponse`, as far as it is used.
#[derive(Clone, PartialEq, Message)]
struct FuzzedResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<FuzzedSvid>,
}

/// `X509SVID`.
#[derive(Clone, PartialEq, Message)]
struct FuzzedSvid {
    #[prost(bytes = "vec", tag = "1")]
    spiffe_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    certificates: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
}

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let Ok(domain) = attache_tls::fuzzing::svid(data) else { return };
    // For the format a known field with another wire type is an unknown field; for prost it is an error.
    let Ok(theirs) = FuzzedResponse::decode(data) else { return };
    let first = theirs.svids.first().unwrap();
    let id = String::from_utf8(first.spiffe_id.clone()).unwrap();
    let (scheme, rest) = id.split_once("://").unwrap();
    assert!(scheme.eq_ignore_ascii_case("spiffe"));
    assert_eq!(rest.split('/').next().unwrap().to_ascii_lowercase(), domain);
    let text = String::from_utf8_lossy(&first.certificates).into_owned();
    assert!(text.contains(&*id), "no certificate names {id}");
    assert!(!first.bundle.is_empty() && !first.key.is_empty());
}
