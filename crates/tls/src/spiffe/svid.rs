//! An X.509-SVID and its trust domain's bundle, as the Workload API sends them.
//!
//! Source: SPIFFE Workload API section 5, X.509-SVID sections 2 to 5.

use std::sync::Arc;

use prost::Message;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::messages::X509SvidResponse;
use crate::{
    Certificate,
    loaded::LoadedCertificate,
    provider::{provider, sha256},
};

/// The content of one message of the API, after a check that its parts fit together.
#[derive(Debug)]
pub(crate) struct Svid {
    pub(crate) identity: LoadedCertificate,
    pub(crate) roots: Arc<RootCertStore>,
    /// Trust domain, lower case, without the scheme.
    pub(crate) domain: String,
    /// The digest of the whole message.
    pub(crate) digest: [u8; 32],
}

impl Svid {
    /// Reads an `X509SVIDResponse`. The first SVID is the default one (Workload API section 5.3); bundles of federated
    /// trust domains are left out.
    pub(crate) fn read(message: &[u8]) -> Result<Self, String> {
        let response = X509SvidResponse::decode(message)
            .map_err(|error| format!("the message is not an X509SVIDResponse: {error}"))?;
        let svid = response.svids.into_iter().next().ok_or("there is no SVID in the message")?;
        let id = &*svid.spiffe_id;
        let chain = certificates(&svid.x509_svid)?;
        let leaf = Certificate::parse(chain.first().ok_or("the SVID has no certificate")?)?;
        let named = spiffe_id(&leaf).ok_or("the SVID does not have exactly one URI, its SPIFFE ID")?;
        if named != id {
            return Err(format!("the SVID says {named:?}, its certificate is for {id:?}"));
        }
        let domain = domain(id).ok_or_else(|| format!("{id:?} is no SPIFFE ID"))?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(svid.x509_svid_key));
        let pair = CertifiedKey::from_der(chain, key, &provider())
            .map_err(|error| format!("the SVID's key or certificate: {error}"))?;
        let mut roots = RootCertStore::empty();
        for root in certificates(&svid.bundle)? {
            roots.add(root).map_err(|error| format!("the trust bundle: {error}"))?;
        }
        if roots.is_empty() {
            return Err("the trust bundle is empty".into());
        }
        Ok(Self {
            identity: LoadedCertificate { key: Arc::new(pair), leaf: Arc::new(leaf) },
            roots: Arc::new(roots),
            domain,
            digest: sha256(message),
        })
    }
}

/// The SPIFFE ID of a certificate: its only URI (X.509-SVID section 2).
fn spiffe_id(leaf: &Certificate) -> Option<&str> {
    match leaf.uris.as_slice() {
        [id] => Some(id),
        _ => None,
    }
}

/// The trust domain of a SPIFFE ID in lower case (SPIFFE-ID section 2.1).
fn domain(id: &str) -> Option<String> {
    let (scheme, rest) = id.split_once("://")?;
    let domain = rest.split('/').next().filter(|domain| !domain.is_empty())?;
    scheme.eq_ignore_ascii_case("spiffe").then(|| domain.to_ascii_lowercase())
}

/// Whether a verified certificate is an SVID of this trust domain. An authority may sign for several domains, so a
/// valid chain alone does not prove it (X.509-SVID section 5).
pub(crate) fn is_of(leaf: &Certificate, trust_domain: &str) -> bool {
    spiffe_id(leaf).and_then(domain).is_some_and(|domain| domain == trust_domain)
}

/// Concatenated DER (Workload API section 5.2.1).
fn certificates(mut bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (rest, _) =
            X509Certificate::from_der(bytes).map_err(|error| format!("a certificate: {error}"))?;
        let length = bytes.len() - rest.len();
        all.push(CertificateDer::from(bytes.get(..length).unwrap_or_default().to_vec()));
        bytes = rest;
    }
    Ok(all)
}
