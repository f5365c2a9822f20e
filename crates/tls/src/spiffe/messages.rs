//! The messages of the SPIFFE Workload API, as far as they are used (workload.proto).

use prost::Message;

/// `X509SVIDRequest`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct X509SvidRequest {}

/// `X509SVIDResponse`, without revocation lists and the bundles of federated trust domains.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct X509SvidResponse {
    /// The first is the default one (Workload API section 5.3).
    #[prost(message, repeated, tag = "1")]
    pub(super) svids: Vec<X509Svid>,
}

/// `X509SVID`.
#[expect(clippy::struct_field_names, reason = "they are those of the protocol")]
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct X509Svid {
    #[prost(string, tag = "1")]
    pub(super) spiffe_id: String,
    /// Concatenated DER, the leaf first.
    #[prost(bytes = "vec", tag = "2")]
    pub(super) x509_svid: Vec<u8>,
    /// PKCS#8 DER.
    #[prost(bytes = "vec", tag = "3")]
    pub(super) x509_svid_key: Vec<u8>,
    /// The certificates of the trust domain, concatenated DER.
    #[prost(bytes = "vec", tag = "4")]
    pub(super) bundle: Vec<u8>,
}
