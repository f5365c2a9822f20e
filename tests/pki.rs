//! Certification authorities and certificates for one test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

use crate::{Process, local};

/// When a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// From 2020 to 4000.
    Now,
    /// In January 2020.
    Past,
    /// From 3900.
    Future,
}

/// A folder of certificates: `NAME.crt`, `NAME.key`, and `NAME.crl` for an authority.
#[derive(Debug)]
pub struct Pki(TempDir);

/// An authority whose certificate is `NAME.crt` in its folder.
#[derive(Debug)]
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
}

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
    pub fn ca(&self, name: &str) -> Ca {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        fs::write(self.path(&format!("{name}.crt")), pem).expect("a file");
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("a file");
        Ca { issuer: Issuer::new(params, key) }
    }

    /// Writes `NAME.crt` and `NAME.key` for these names (DNS names, addresses and URIs, told apart by their form).
    pub fn issue(&self, ca: &Ca, name: &str, names: &[&str]) {
        self.issue_at(ca, name, names, When::Now, 1);
    }

    /// The same, with its validity and serial number.
    pub fn issue_at(&self, ca: &Ca, name: &str, names: &[&str], when: When, serial: u64) {
        let (certificate, key) = ca.pair(names, when, serial);
        fs::write(self.path(&format!("{name}.crt")), certificate).expect("a file");
        fs::write(self.path(&format!("{name}.key")), key).expect("a file");
    }
}

impl Ca {
    /// A new certificate and its key, as PEM.
    pub fn pair(&self, names: &[&str], when: When, serial: u64) -> (String, String) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("nobody"));
        params.serial_number = Some(SerialNumber::from(serial));
        params.subject_alt_names = names.iter().map(|name| san(name)).collect();
        (params.not_before, params.not_after) = match when {
            When::Now => (date_time_ymd(2020, 1, 1), date_time_ymd(4000, 1, 1)),
            When::Past => (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 2, 1)),
            When::Future => (date_time_ymd(3900, 1, 1), date_time_ymd(4000, 1, 1)),
        };
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }

    /// A list on which one serial number stands, as PEM.
    pub fn revoke(&self, serial: u64) -> String {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: date_time_ymd(2021, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("a list").pem().expect("PEM")
    }
}

fn san(name: &str) -> SanType {
    if let Ok(address) = name.parse() {
        SanType::IpAddress(address)
    } else if name.contains("://") {
        SanType::URI(name.try_into().expect("a URI"))
    } else {
        SanType::DnsName(name.try_into().expect("a name"))
    }
}

/// `openssl s_server` that answers every request with a page about the connection. `name` is its certificate in `pki`;
/// `PKI/` in `more` is the folder.
pub fn openssl_server(pki: &Pki, name: &str, port: u16, more: &str) -> Process {
    let mut command = Command::new("openssl");
    command
        .args(["s_server", "-www", "-quiet", "-accept", &format!("127.0.0.1:{port}")])
        .args(["-cert", &pki.at(&format!("{name}.crt")), "-key", &pki.at(&format!("{name}.key"))])
        .args(more.split_whitespace().map(|argument| argument.replace("PKI", &pki.at(""))));
    let mut process = Process::start(&mut command, tempfile::tempdir().expect("a folder"));
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
