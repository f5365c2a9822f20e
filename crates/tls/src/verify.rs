//! How an upstream's certificate is judged: the chain and the name, then the pins.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::{certificate::spki_sha256, provider::provider};

/// The peer's key is not one of the pinned ones; carries the key's own pin.
#[derive(Debug)]
pub(crate) struct PinMismatch([u8; 32]);

impl fmt::Display for PinMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the peer's key is not pinned; its SHA-256 is ")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::error::Error for PinMismatch {}

/// Chain, name and pins; without a chain verifier only the pins (and the proof that the peer has the key).
#[derive(Debug)]
pub(crate) struct Verifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    pins: Vec<[u8; 32]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// `None` believes every certificate.
    pub(crate) fn new(roots: Option<Arc<RootCertStore>>, pins: &[[u8; 32]]) -> Result<Self, crate::Error> {
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let chain = roots
            .map(|roots| WebPkiServerVerifier::builder_with_provider(roots, provider).build())
            .transpose()
            .map_err(|error| crate::Error::trust(error.to_string()))?;
        Ok(Self { chain, pins: pins.to_vec(), algorithms })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(chain) = &self.chain {
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
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
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
