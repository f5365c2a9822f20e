//! The cryptography: aws-lc through rustls, TLS 1.2 and 1.3 only, X25519MLKEM768 preferred.

use std::sync::{Arc, LazyLock};

use attache_config::model::TlsVersion;
use aws_lc_rs::digest;
use rustls::{SupportedProtocolVersion, crypto::CryptoProvider, version};

/// The provider of every handshake. Passed explicitly, so that no process-wide default can change it.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    PROVIDER.clone()
}

pub(crate) fn versions(lowest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    match lowest {
        TlsVersion::V12 => &BOTH,
        TlsVersion::V13 => &BOTH[..1],
    }
}

pub(crate) fn sha256(data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
    out
}
