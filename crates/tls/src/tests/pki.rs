//! Certification authorities for one test.

use std::{path::PathBuf, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

/// A folder of certificates.
pub(super) struct Files(TempDir);

impl Files {
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
    pub(super) fn put(&self, name: &str, pair: &Pair) {
        self.write(&format!("{name}.pem"), &pair.certificate);
        self.write(&format!("{name}.key"), &pair.key);
    }
}

pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

pub(super) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
}

/// When a certificate is valid.
#[derive(Clone, Copy)]
pub(super) enum When {
    Now,
    Past,
    Future,
    /// Valid for this many seconds from now.
    Seconds(u64),
}

impl Ca {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(super) fn issue(&self, names: &[&str]) -> Pair {
        self.issue_at(names, When::Now, 1)
    }

    /// `names`: DNS names, addresses and URIs, told apart by their form.
    pub(super) fn issue_at(&self, names: &[&str], when: When, serial: u64) -> Pair {
        self.issue_with(names, when, serial, &KeyPair::generate().unwrap())
    }

    pub(super) fn issue_with(&self, names: &[&str], when: When, serial: u64, key: &KeyPair) -> Pair {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("nobody"));
        params.serial_number = Some(SerialNumber::from(serial));
        params.subject_alt_names = names.iter().map(|name| san(name)).collect();
        (params.not_before, params.not_after) = match when {
            When::Now => (date_time_ymd(2020, 1, 1), date_time_ymd(4000, 1, 1)),
            When::Past => (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 2, 1)),
            When::Future => (date_time_ymd(3900, 1, 1), date_time_ymd(4000, 1, 1)),
            When::Seconds(seconds) => {
                let now = std::time::SystemTime::now();
                let end = now + Duration::from_secs(seconds);
                (date_time_ymd(2020, 1, 1), end.into())
            }
        };
        let certificate = params.signed_by(key, &self.issuer).unwrap().pem();
        Pair { certificate, key: key.serialize_pem() }
    }

    pub(super) fn revoke(&self, serial: u64) -> String {
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
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn san(name: &str) -> SanType {
    if let Ok(address) = name.parse() {
        SanType::IpAddress(address)
    } else if name.contains("://") {
        SanType::URI(name.try_into().unwrap())
    } else {
        SanType::DnsName(name.try_into().unwrap())
    }
}
