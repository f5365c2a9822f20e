//! The data of a certificate: names, issuer, validity.

use std::{
    fmt::Write,
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use attache_config::model::CertificateNames;
use rustls::pki_types::CertificateDer;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
    x509::X509Name,
};

use crate::provider::sha256;

/// One certificate as text, for metrics, logs and the admin page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The file it came from; `None` for a peer's.
    pub file: Option<PathBuf>,
    /// The subject's distinguished name (RFC 2253, most specific part first). Often empty in workloads.
    pub subject: String,
    /// The issuer's distinguished name.
    pub issuer: String,
    /// `URI` subject alternative names, in the certificate's order. A SPIFFE ID is one of these.
    pub uris: Vec<Arc<str>>,
    /// `DNS` subject alternative names.
    pub dns: Vec<Arc<str>>,
    /// `IP` subject alternative names.
    pub ips: Vec<std::net::IpAddr>,
    /// Valid from.
    pub not_before: SystemTime,
    /// Valid until.
    pub not_after: SystemTime,
    /// SHA-256 of the whole certificate.
    pub sha256: [u8; 32],
}

impl Certificate {
    /// Reads a DER certificate; the error says what is wrong with it.
    pub(crate) fn parse(der: &CertificateDer<'_>) -> Result<Self, String> {
        let (rest, cert) =
            X509Certificate::from_der(der).map_err(|error| format!("not an X.509 certificate: {error}"))?;
        if !rest.is_empty() {
            return Err("bytes follow the certificate".into());
        }
        let mut this = Self {
            file: None,
            subject: distinguished_name(cert.subject()),
            issuer: distinguished_name(cert.issuer()),
            uris: Vec::new(),
            dns: Vec::new(),
            ips: Vec::new(),
            not_before: time(cert.validity().not_before.timestamp()),
            not_after: time(cert.validity().not_after.timestamp()),
            sha256: sha256(der),
        };
        let names = cert.subject_alternative_name().map_err(|error| format!("subjectAltName: {error}"))?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => this.uris.push(Arc::from(*uri)),
                GeneralName::DNSName(dns) => this.dns.push(Arc::from(*dns)),
                GeneralName::IPAddress(bytes) => this.ips.extend(address(bytes)),
                _ => {}
            }
        }
        Ok(this)
    }

    /// How long it is still valid; zero when it has expired.
    pub fn remaining(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }

    /// How long it is valid in all.
    pub(crate) fn lifetime(&self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }

    /// The names that patterns are matched against.
    pub fn names(&self) -> CertificateNames<'_> {
        CertificateNames { uris: &self.uris, dns: &self.dns, subject: &self.subject }
    }

    /// The subject alternative names, URIs first.
    pub(crate) fn identities(&self) -> Arc<[Arc<str>]> {
        self.uris.iter().chain(&self.dns).cloned().collect()
    }

    /// A short name for logs.
    pub fn name(&self) -> &str {
        self.uris.first().or(self.dns.first()).map_or(&self.subject, |name| name)
    }
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo: the value of a pin (RFC 7469 section 2.4).
pub(crate) fn spki_sha256(der: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    Some(sha256(cert.public_key().raw))
}

fn time(seconds: i64) -> SystemTime {
    let after = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(after)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(after)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

fn address(bytes: &[u8]) -> Option<std::net::IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| Ipv6Addr::from(v6).into())
}

/// RFC 2253: the last part first, joined by commas, special characters escaped.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for rdn in name.iter_rdn() {
        let mut part = String::new();
        for attribute in rdn.iter() {
            if !part.is_empty() {
                part.push('+');
            }
            let oid = attribute.attr_type();
            let key = short_name(&oid.to_id_string()).map_or_else(|| oid.to_id_string(), str::to_owned);
            part.push_str(&key);
            part.push('=');
            if let Ok(value) = attribute.as_str() {
                escape(&mut part, value);
            } else {
                part.push('#');
                for byte in attribute.as_slice() {
                    let _ = write!(part, "{byte:02x}");
                }
            }
        }
        parts.push(part);
    }
    parts.reverse();
    parts.join(",")
}

/// The names of RFC 4514 section 3, and more that OpenSSL knows.
fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.25" => "DC",
        "0.9.2342.19200300.100.1.1" => "UID",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

/// RFC 2253 section 2.4.
fn escape(out: &mut String, value: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => out.extend(['\\', c]),
            '#' if at == 0 => out.extend(['\\', c]),
            ' ' if at == 0 || at == last => out.extend(['\\', c]),
            c if c.is_control() => {
                let mut buffer = [0; 4];
                for byte in c.encode_utf8(&mut buffer).bytes() {
                    let _ = write!(out, "\\{byte:02X}");
                }
            }
            c => out.push(c),
        }
    }
}
