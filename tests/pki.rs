//! Certification authorities and certificates for one test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

pub use crate::authority::*;
use crate::{TestProcess, local};

/// A folder of certificates: `NAME.crt`, `NAME.key`, and `NAME.crl` for an authority.
#[derive(Debug)]
pub struct Pki(TempDir);

impl Pki {
    /// An empty folder.
    #[expect(clippy::new_without_default, reason = "a folder is not a default")]
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    /// A file's path.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir().join(file)
    }

    /// A file's path as text.
    pub fn at(&self, file: &str) -> String {
        self.path(file).display().to_string()
    }

    /// Writes `NAME.crt` and `NAME.key` of a new authority.
    pub fn ca(&self, name: &str) -> CertificateAuthority {
        let authority = CertificateAuthority::new(name);
        fs::write(self.path(&format!("{name}.crt")), &authority.pem).expect("a file");
        fs::write(self.path(&format!("{name}.key")), &authority.key).expect("a file");
        authority
    }

    /// Writes `NAME.crt` and `NAME.key` for these names (DNS names, addresses and URIs, told apart by their form).
    pub fn issue(&self, ca: &CertificateAuthority, name: &str, names: &[&str]) {
        self.issue_at(ca, name, names, Validity::Now, 1);
    }

    /// The same, with its validity and serial number.
    pub fn issue_at(
        &self,
        ca: &CertificateAuthority,
        name: &str,
        names: &[&str],
        validity: Validity,
        serial: u64,
    ) {
        let CertificatePair { certificate, key } = ca.issue_at(names, validity, serial);
        fs::write(self.path(&format!("{name}.crt")), certificate).expect("a file");
        fs::write(self.path(&format!("{name}.key")), key).expect("a file");
    }
}

/// `openssl s_server` that answers every request with a page about the connection. `name` is its certificate in `pki`;
/// `PKI/` in `more` is the folder.
pub fn openssl_server(pki: &Pki, name: &str, port: u16, more: &str) -> TestProcess {
    let mut command = Command::new("openssl");
    command
        .args(["s_server", "-www", "-quiet", "-accept", &format!("127.0.0.1:{port}")])
        .args(["-cert", &pki.at(&format!("{name}.crt")), "-key", &pki.at(&format!("{name}.key"))])
        .args(more.split_whitespace().map(|argument| argument.replace("PKI", &pki.at(""))));
    let mut process = TestProcess::start(&mut command, tempfile::tempdir().expect("a folder"));
    process.wait_for(local(port));
    process
}

/// The serial number of the certificate that is shown on `port` for `name`, in hexadecimal.
pub fn shown_serial(port: u16, name: &str) -> String {
    shown_serial_as(port, name, &[])
}

/// The same, with more arguments of `openssl s_client`; empty where there was no handshake.
pub fn shown_serial_as(port: u16, name: &str, more: &[String]) -> String {
    let connect = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-servername", name])
        .args(more)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("openssl");
    let shown = tempfile::NamedTempFile::new().expect("a file");
    fs::write(shown.path(), connect.stdout).expect("a file");
    let read = Command::new("openssl").args(["x509", "-noout", "-serial", "-in"]).arg(shown.path()).output();
    let read = read.expect("openssl");
    String::from_utf8_lossy(&read.stdout).trim().trim_start_matches("serial=").to_owned()
}
