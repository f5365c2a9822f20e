//! Folders of certificates for one test.

use std::path::PathBuf;

use tempfile::TempDir;

pub(super) use super::authority::{CertificateAuthority, CertificatePair, Validity};

/// A folder of certificates.
pub(super) struct PkiFiles(TempDir);

impl PkiFiles {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The path as an argument of a command line.
    pub(super) fn arg(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes `NAME.pem` and `NAME.key`.
    pub(super) fn put(&self, name: &str, pair: &CertificatePair) {
        self.write(&format!("{name}.pem"), &pair.certificate);
        self.write(&format!("{name}.key"), &pair.key);
    }
}
