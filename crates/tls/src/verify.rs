//! How an upstream's certificate is verified: the chain, the name (or the names that replace it), then the pins.

use std::{fmt, sync::Arc};

use attache_config::model::SanPattern;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime},
};

use crate::{
    Certificate,
    certificate::spki_sha256,
    provider::provider,
    san,
    spiffe::is_of,
    words::{self, HandshakePeer},
};

/// The peer's key is not one of the pinned ones. Contains the key's own pin.
#[derive(Debug)]
pub(crate) struct PinMismatch([u8; 32]);

impl fmt::Display for PinMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the peer's key is not pinned; if it is the right one, add it to `tls.pins`: ")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::error::Error for PinMismatch {}

/// The peer has none of the names that replace the upstream's name.
#[derive(Debug)]
pub(crate) struct PeerMismatch(String);

impl fmt::Display for PeerMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PeerMismatch {}

/// What replaces the upstream's name.
#[derive(Debug, Default)]
pub(crate) struct PeerNames {
    /// Names of which the peer must have one; if empty, it must have the upstream's name.
    pub(crate) patterns: Vec<SanPattern>,
    /// The trust domain that the peer must belong to.
    pub(crate) domain: Option<String>,
}

/// Chain, name and pins; without a chain verifier only the pins (and the proof that the peer has the key).
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    peers: PeerNames,
    pins: Vec<[u8; 32]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    /// Without roots every certificate is accepted.
    pub(crate) fn new(
        roots: Option<Arc<RootCertStore>>,
        crls: Vec<CertificateRevocationListDer<'static>>,
        peers: PeerNames,
        pins: &[[u8; 32]],
    ) -> Result<Self, crate::Error> {
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let chain = roots
            .map(|roots| WebPkiServerVerifier::builder_with_provider(roots, provider).with_crls(crls).build())
            .transpose()
            .map_err(|error| crate::Error::trust(format!("trust or revocation lists: {error}")))?;
        Ok(Self { chain, peers, pins: pins.to_vec(), algorithms })
    }
}

impl PeerNames {
    /// Runs after the chain was verified, so it reads only data that an authority has signed.
    fn verify(&self, end_entity: &CertificateDer<'_>) -> Result<(), Error> {
        if self.patterns.is_empty() && self.domain.is_none() {
            return Ok(());
        }
        let leaf = Certificate::parse(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let refused = |why| Err(CertificateError::Other(OtherError(Arc::new(PeerMismatch(why)))).into());
        if let Some(domain) = self.domain.as_ref().filter(|domain| !is_of(&leaf, domain)) {
            return refused(format!("the peer {:?} has no SPIFFE ID of spiffe://{domain}", leaf.name()));
        }
        if !self.patterns.is_empty() && !san::any(&self.patterns, &leaf) {
            return refused(format!("the peer {:?} is not one of `tls.peers`", leaf.name()));
        }
        Ok(())
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(chain) = &self.chain {
            match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
                // The library checks the name last, after the chain; `peers` replace the name. The test
                // `peers_do_not_replace_a_valid_chain` proves this order.
                Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )) if !self.peers.patterns.is_empty() => {}
                Ok(_) => {}
                Err(error) => {
                    words::note_untrusted(end_entity, HandshakePeer::Server, &error);
                    return Err(error);
                }
            }
            self.peers.verify(end_entity)?;
        }
        if !self.pins.is_empty() {
            let pin = spki_sha256(end_entity).ok_or(CertificateError::BadEncoding)?;
            if !self.pins.contains(&pin) {
                return Err(CertificateError::Other(OtherError(Arc::new(PinMismatch(pin)))).into());
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
            .inspect_err(|error| words::note_weak_key(cert, HandshakePeer::Server, error))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
            .inspect_err(|error| words::note_weak_key(cert, HandshakePeer::Server, error))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
