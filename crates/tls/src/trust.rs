//! Trusted roots, and revocation lists.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use attache_config::model::Trust;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject},
};

use x509_parser::{
    prelude::{CertificateRevocationList, FromDer},
    time::ASN1Time,
};

use crate::{
    Error,
    files::{FilesSnapshot, at, broken},
    identity::no_certificate,
};

pub(crate) fn files(trust: &Trust) -> &[PathBuf] {
    match trust {
        Trust::Files(files) => files,
        Trust::System | Trust::Inline(_) | Trust::Spiffe => &[],
    }
}

/// The trust domain that peers must belong to, if there is one.
pub(crate) fn domain(trust: &Trust, files: &FilesSnapshot) -> Option<String> {
    match trust {
        Trust::Spiffe => files.svid().ok().map(|svid| svid.domain.clone()),
        _ => None,
    }
}

/// The roots; never empty.
pub(crate) fn roots(trust: &Trust, files: &FilesSnapshot) -> Result<Arc<RootCertStore>, Error> {
    match trust {
        Trust::System => system(),
        Trust::Spiffe => files.svid().map(|svid| svid.roots.clone()).map_err(Error::trust),
        Trust::Files(paths) => {
            let mut store = RootCertStore::empty();
            for path in paths {
                files
                    .get(path)
                    .and_then(|bytes| add(&mut store, bytes).map_err(|error| at(path, error)))
                    .map_err(Error::trust)?;
            }
            if store.is_empty() {
                return Err(Error::trust("`ca` names no file: no certificate would be trusted"));
            }
            Ok(Arc::new(store))
        }
        Trust::Inline(text) => {
            let mut store = RootCertStore::empty();
            add(&mut store, text.as_bytes())
                .map_err(|error| Error::trust(format!("inline `ca`: {error}")))?;
            Ok(Arc::new(store))
        }
    }
}

fn add(store: &mut RootCertStore, bytes: &[u8]) -> Result<(), String> {
    let mut count = 0;
    for (at, certificate) in CertificateDer::pem_slice_iter(bytes).enumerate() {
        let certificate = certificate.map_err(|error| broken(&error))?;
        store.add(certificate).map_err(|error| format!("certificate {} is not usable: {error}", at + 1))?;
        count += 1;
    }
    match count {
        0 => Err(no_certificate(bytes)),
        _ => Ok(()),
    }
}

/// The system's roots are some 150 certificates. They are read once, and all upstreams share them as long as one of
/// them needs them.
fn system() -> Result<Arc<RootCertStore>, Error> {
    static SHARED: Mutex<Weak<RootCertStore>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(roots) = shared.upgrade() {
        return Ok(roots);
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Bundles contain old roots that no verifier accepts any more. They are left out, as in every client.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(Error::trust(format!(
            "the system has no trusted roots{why}: install `ca-certificates`, set SSL_CERT_FILE, or set `tls.ca`"
        )));
    }
    let roots = Arc::new(roots);
    *shared = Arc::downgrade(&roots);
    Ok(roots)
}

/// Revocation lists, PEM or DER.
pub(crate) fn crls(
    paths: &[PathBuf],
    files: &FilesSnapshot,
) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
    let mut lists = Vec::new();
    for path in paths {
        let bytes = files.get(path).map_err(Error::trust)?;
        let before = lists.len();
        for list in CertificateRevocationListDer::pem_slice_iter(bytes) {
            lists.push(list.map_err(|error| Error::trust(at(path, broken(&error))))?);
        }
        if lists.len() == before {
            // A DER CertificateList is a SEQUENCE (RFC 5280 section 5.1).
            if bytes.first() != Some(&0x30) {
                return Err(Error::trust(at(
                    path,
                    "no revocation list in it: expected PEM (BEGIN X509 CRL) or DER",
                )));
            }
            lists.push(CertificateRevocationListDer::from(bytes.to_vec()));
        }
        // The verifier would refuse a bad list too, but without the name of its file.
        for list in lists.get(before..).unwrap_or_default() {
            CertificateRevocationList::from_der(list).map_err(|error| {
                Error::trust(at(path, format!("not a revocation list (RFC 5280 section 5.1): {error}")))
            })?;
        }
    }
    for list in &lists {
        warn_if_old(list);
    }
    Ok(lists)
}

/// An old list is still used, because there is no better one: to refuse all peers would be an outage only because of a
/// date.
fn warn_if_old(list: &CertificateRevocationListDer<'_>) {
    let Ok((_, list)) = CertificateRevocationList::from_der(list) else { return };
    if list.next_update().is_some_and(|time| time < ASN1Time::now()) {
        tracing::warn!(
            issuer = %list.issuer(),
            "the revocation list is past its nextUpdate: newer revocations are not known, fetch a new one"
        );
    }
}
