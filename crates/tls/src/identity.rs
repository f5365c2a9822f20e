//! attache's own certificate and key.
//!
//! A pair is loaded whole or not at all: the chain and the key must be valid, and the key must belong to the
//! certificate.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use attache_config::model::Identity;
use rustls::{
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};

use crate::{
    Certificate, Error,
    files::{FilesSnapshot, at, broken},
    loaded::LoadedCertificate,
    provider::provider,
};

/// The files that an identity needs.
pub(crate) fn files(identity: &Identity) -> impl Iterator<Item = PathBuf> {
    [Some(&identity.certificate), Some(&identity.key), identity.ocsp.as_ref()].into_iter().flatten().cloned()
}

pub(crate) fn load(identity: &Identity, files: &FilesSnapshot) -> Result<LoadedCertificate, Error> {
    read(identity, files).map_err(Error::identity)
}

/// Whether a certificate chain can be used.
pub(crate) fn check_chain(file: &Path, files: &FilesSnapshot) -> Result<(), String> {
    let bytes = files.get(file)?;
    let chain = chain(bytes).map_err(|error| at(file, error))?;
    let Some(first) = chain.first() else { return Err(at(file, no_certificate(bytes))) };
    Certificate::parse(first).map(drop).map_err(|error| at(file, error))
}

/// Whether a key can be used.
pub(crate) fn check_key(file: &Path, files: &FilesSnapshot) -> Result<(), String> {
    key(files.get(file)?).map(drop).map_err(|error| at(file, error))
}

/// Describes a text without a certificate.
pub(crate) fn no_certificate(bytes: &[u8]) -> String {
    let is = if find(bytes, b"PRIVATE KEY-----") { "it is a private key" } else { "no certificate in it" };
    format!("{is}: expected PEM with BEGIN CERTIFICATE")
}

pub(crate) fn read(identity: &Identity, files: &FilesSnapshot) -> Result<LoadedCertificate, String> {
    let (cert_file, key_file) = (&identity.certificate, &identity.key);
    let chain = chain(files.get(cert_file)?).map_err(|error| at(cert_file, error))?;
    let Some(first) = chain.first() else {
        return Err(at(cert_file, no_certificate(files.get(cert_file)?) + ", leaf first"));
    };
    let mut leaf = Certificate::parse(first).map_err(|error| at(cert_file, error))?;
    leaf.file = Some(cert_file.clone());

    let key = key(files.get(key_file)?).map_err(|error| at(key_file, error))?;
    let mut pair = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => format!(
            "{} is not the key of the first certificate in {}: replace both together, leaf first",
            key_file.display(),
            cert_file.display()
        ),
        _ => format!(
            "{} is of a kind that can't be used: make an RSA key of 2048 bits or more, an ECDSA key on P-256, P-384 or P-521, or Ed25519",
            key_file.display()
        ),
    })?;
    if let Some(ocsp_file) = &identity.ocsp {
        let response = files.get(ocsp_file)?;
        // OCSPResponse is a SEQUENCE (RFC 6960 section 4.2.1).
        if response.first() != Some(&0x30) {
            return Err(at(ocsp_file, "not a DER OCSP response"));
        }
        pair.ocsp = Some(response.to_vec());
    }
    Ok(LoadedCertificate { key: Arc::new(pair), leaf: Arc::new(leaf) })
}

fn chain(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(bytes).collect::<Result<_, _>>().map_err(|error| broken(&error))
}

fn key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    // There are two forms of encrypted keys: PKCS#8, and one with its own header (RFC 1421 section 4.6.1.1).
    if find(bytes, b"ENCRYPTED PRIVATE KEY") || find(bytes, b"Proc-Type: 4,ENCRYPTED") {
        return Err("the key is encrypted: decrypt it with `openssl pkey`".into());
    }
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
        pem::Error::NoItemsFound if find(bytes, b"BEGIN CERTIFICATE") => {
            "it is a certificate: expected a private key as PEM with PKCS#8, PKCS#1 or SEC1".into()
        }
        pem::Error::NoItemsFound => "no private key in it: expected PEM with PKCS#8, PKCS#1 or SEC1".into(),
        error => broken(&error),
    })
}

fn find(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
