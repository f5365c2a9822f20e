//! A certification authority for tests. The tests of `attache-tls` include this file.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

/// When a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub enum Validity {
    /// From 2020 to 4000.
    Now,
    /// In January 2020.
    Past,
    /// From 3900.
    Future,
    /// Until this many seconds from now.
    Seconds(u64),
}

/// A certificate and its key, as PEM.
#[derive(Debug)]
pub struct CertificatePair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// An authority.
#[derive(Debug)]
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, as PEM.
    pub pem: String,
    /// Its own key, as PEM.
    pub key: String,
}

impl CertificateAuthority {
    /// A new authority with this common name.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let key_pem = key.serialize_pem();
        Self { issuer: Issuer::new(params, key), pem, key: key_pem }
    }

    /// A new certificate for these names: DNS names, addresses and URIs, told apart by their form.
    pub fn issue(&self, names: &[&str]) -> CertificatePair {
        self.issue_at(names, Validity::Now, 1)
    }

    /// The same, with its validity and serial number.
    pub fn issue_at(&self, names: &[&str], validity: Validity, serial: u64) -> CertificatePair {
        self.issue_with(names, validity, serial, &KeyPair::generate().expect("a key"))
    }

    /// The same, for a key that exists.
    pub fn issue_with(
        &self,
        names: &[&str],
        validity: Validity,
        serial: u64,
        key: &KeyPair,
    ) -> CertificatePair {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("nobody"));
        params.serial_number = Some(SerialNumber::from(serial));
        params.subject_alt_names = names.iter().map(|name| alternative_name(name)).collect();
        let from_2020 = date_time_ymd(2020, 1, 1);
        (params.not_before, params.not_after) = match validity {
            Validity::Now => (from_2020, date_time_ymd(4000, 1, 1)),
            Validity::Past => (from_2020, date_time_ymd(2020, 2, 1)),
            Validity::Future => (date_time_ymd(3900, 1, 1), date_time_ymd(4000, 1, 1)),
            Validity::Seconds(seconds) => {
                (from_2020, (SystemTime::now() + Duration::from_secs(seconds)).into())
            }
        };
        let certificate = params.signed_by(key, &self.issuer).expect("a certificate").pem();
        CertificatePair { certificate, key: key.serialize_pem() }
    }

    /// A revocation list with one serial number, as PEM.
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

fn alternative_name(name: &str) -> SanType {
    if let Ok(address) = name.parse() {
        SanType::IpAddress(address)
    } else if name.contains("://") {
        SanType::URI(name.try_into().expect("a URI"))
    } else {
        SanType::DnsName(name.try_into().expect("a name"))
    }
}
