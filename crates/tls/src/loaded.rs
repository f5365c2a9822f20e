//! A certificate and its key, ready for handshakes.

use std::sync::Arc;

use rustls::sign::CertifiedKey;

use crate::Certificate;

/// A loaded pair.
#[derive(Clone, Debug)]
pub(crate) struct LoadedCertificate {
    pub(crate) key: Arc<CertifiedKey>,
    /// The leaf's data as text.
    pub(crate) leaf: Arc<Certificate>,
}
