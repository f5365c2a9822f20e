//! Describes errors of a peer's certificate with advice, in place of the library's texts.

use std::{cell::RefCell, fmt, time::Duration};

use rustls::{
    CertificateError, ExtendedKeyPurpose,
    pki_types::{CertificateDer, UnixTime},
};
use x509_parser::certificate::X509Certificate;
use x509_parser::{
    der_parser::oid::Oid,
    objects::{oid_registry, oid2description},
    prelude::FromDer,
    public_key::PublicKey,
    time::ASN1Time,
    x509::X509Version,
};

/// A chain that doesn't end at a trusted authority.
#[derive(Debug)]
pub(crate) struct UntrustedChain {
    /// The peer that showed the certificate.
    peer: HandshakePeer,
    /// There is a trusted authority with the issuer's name, but the certificate was not signed with its key.
    another_key: bool,
    /// X.509 version 1, which lacks the extensions that say how a certificate may be used.
    old_version: bool,
    subject: String,
    issuer: String,
    self_signed: bool,
    /// It is marked as an authority, which no verifier accepts as a server's certificate.
    authority: bool,
    /// Bits of its RSA key, if they are fewer than [`MIN_RSA_BITS`].
    weak: Option<usize>,
}

/// Bits that an RSA key must have.
const MIN_RSA_BITS: usize = 2048;

/// The other side of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandshakePeer {
    Server,
    Client,
}

impl UntrustedChain {
    /// The details of the peer's own certificate.
    fn of(leaf: &CertificateDer<'_>, peer: HandshakePeer, error: &CertificateError) -> Option<Self> {
        let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
        let name = |name: &x509_parser::x509::X509Name<'_>| name.to_string();
        let another_key = matches!(
            error,
            CertificateError::BadSignature
                | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
        );
        let old_version = leaf.version() != X509Version::V3;
        let authority = leaf.is_ca();
        let self_signed = leaf.subject() == leaf.issuer();
        // The library's own texts for other errors are better.
        if matches!(error, CertificateError::Other(_)) && !(old_version || authority || self_signed) {
            return None;
        }
        Some(Self {
            peer,
            another_key,
            old_version,
            subject: name(leaf.subject()),
            issuer: name(leaf.issuer()),
            self_signed,
            authority,
            weak: None,
        })
    }
}

fn rsa_bits(leaf: &X509Certificate<'_>) -> Option<usize> {
    match leaf.public_key().parsed().ok()? {
        PublicKey::RSA(key) => Some(key.key_size()),
        _ => None,
    }
}

impl fmt::Display for UntrustedChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, issuer, .. } = self;
        let (who, whose, trust) = match self.peer {
            HandshakePeer::Server => ("server", "the certificate", "`ca:` to the upstream's `tls`"),
            HandshakePeer::Client => {
                ("client", "the client's certificate", "`client_ca:` to the listener's `tls`")
            }
        };
        if self.old_version {
            return write!(
                f,
                "{whose} ({subject:?}) is of an old version of X.509, which is not accepted: issue one with extensions (version 3), such as a \
                 subjectAltName"
            );
        }
        if let Some(bits) = self.weak {
            return write!(
                f,
                "the key of {whose} ({subject:?}) has {bits} bits, and RSA keys of fewer than {MIN_RSA_BITS} are not accepted: issue one with a \
                 longer key"
            );
        }
        if self.another_key {
            let (holds, name) = if self.self_signed {
                ("is self-signed", subject)
            } else {
                ("was issued in the name of", issuer)
            };
            return write!(
                f,
                "{whose} {holds} {name:?}, and a certificate of that name is trusted, but it has another key: it was replaced, so add the new one \
                 as {trust}"
            );
        }
        match (self.self_signed, self.authority) {
            (true, false) => write!(
                f,
                "{whose} is self-signed ({subject:?}): where it is the right one, add it as {trust}"
            ),
            (true, true) => write!(
                f,
                "{whose} is self-signed ({subject:?}) and marked as an authority (CA:TRUE), which is not accepted of a {who}: make one \
                 with `openssl req -x509 -addext basicConstraints=critical,CA:FALSE …`, and add it as {trust}"
            ),
            (false, true) => write!(
                f,
                "the {who} shows an authority's certificate ({subject:?}) in place of its own: put its own first into its chain"
            ),
            (false, false) => write!(
                f,
                "{whose} was issued by {issuer:?}, which is not trusted: add that authority's certificate as {trust}, or have the {who} send \
                 the intermediate certificates"
            ),
        }
    }
}

thread_local! {
    /// The library's error can't hold it. A thread-local works, because a verifier runs within one poll of its
    /// handshake.
    static UNTRUSTED: RefCell<Option<UntrustedChain>> = const { RefCell::new(None) };
}

/// Keeps details of a certificate that is refused because of its issuer or its kind.
pub(crate) fn note_untrusted(leaf: &CertificateDer<'_>, peer: HandshakePeer, error: &rustls::Error) {
    if let rustls::Error::InvalidCertificate(error) = error
        && is_about_trust(error)
    {
        UNTRUSTED.replace(UntrustedChain::of(leaf, peer, error));
    }
}

/// Keeps that a certificate's key is too short: the library refuses its signature in the handshake without this detail.
pub(crate) fn note_weak_key(leaf: &CertificateDer<'_>, peer: HandshakePeer, error: &rustls::Error) {
    if let rustls::Error::InvalidCertificate(error @ CertificateError::BadSignature) = error
        && let Ok((_, parsed)) = X509Certificate::from_der(leaf)
        && let Some(bits) = rsa_bits(&parsed).filter(|bits| *bits < MIN_RSA_BITS)
    {
        let untrusted = UntrustedChain::of(leaf, peer, error);
        UNTRUSTED.replace(untrusted.map(|untrusted| UntrustedChain { weak: Some(bits), ..untrusted }));
    }
}

/// Errors for which [`UntrustedChain`] has a better text.
pub(crate) fn is_about_trust(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::UnknownIssuer
            // The trusted authority with the issuer's name has another key.
            | CertificateError::BadSignature
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
            | CertificateError::Other(_)
    )
}

/// Takes the kept details.
pub(crate) fn take_untrusted() -> Option<UntrustedChain> {
    UNTRUSTED.take()
}

/// A text for errors whose text in the library needs an explanation; `None` if the library's text is good enough.
pub(crate) fn of_certificate(error: &CertificateError) -> Option<String> {
    use CertificateError as C;
    match error {
        C::ExpiredContext { time, not_after } => {
            Some(format!("the certificate expired {} ago ({})", apart(*time, *not_after), day(*not_after)))
        }
        C::NotValidYetContext { time, not_before } => Some(format!(
            "the certificate is valid only in {} ({}): is the clock right?",
            apart(*time, *not_before),
            day(*not_before)
        )),
        C::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            Some(match presented.as_slice() {
                [] => format!(
                    "the certificate is for no name at all, expected `{expected}`: issue one with that name as a subjectAltName (its CN \
                     does not count)"
                ),
                names => {
                    let names: Vec<String> =
                        names.iter().take(8).map(|name| format!("`{}`", plain(name))).collect();
                    format!(
                        "the certificate is for {}, expected `{expected}`: call it by a name that it has, or set `tls.name`",
                        names.join(", ")
                    )
                }
            })
        }
        C::InvalidPurposeContext { required, .. } => Some(match required {
            ExtendedKeyPurpose::ServerAuth => {
                "the certificate may not be used by a server: issue one whose extended key usage is serverAuth, or that has none".to_owned()
            }
            ExtendedKeyPurpose::ClientAuth => {
                "the client's certificate may not be used by a client: issue one whose extended key usage is clientAuth, or that has none"
                    .to_owned()
            }
            ExtendedKeyPurpose::Other(_) => return None,
        }),
        C::UnsupportedSignatureAlgorithmContext { signature_algorithm_id, .. } => Some(format!(
            "a certificate of the chain is signed with {}, which is not accepted: issue it anew, signed with SHA-256",
            algorithm(signature_algorithm_id)
        )),
        _ => None,
    }
}

/// The name of a signature's algorithm, given as an identifier in DER.
fn algorithm(identifier: &[u8]) -> String {
    let Ok((_, oid)) = Oid::from_der(identifier) else { return "an unknown algorithm".to_owned() };
    let name = oid2description(&oid, oid_registry());
    name.map_or_else(|_| oid.to_id_string(), |name| format!("{name} ({})", oid.to_id_string()))
}

/// `DnsName("a.example")` is how the library writes a name.
fn plain(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

/// `3 days`, `5 hours`, `40 s`.
fn apart(a: UnixTime, b: UnixTime) -> String {
    let seconds = Duration::from_secs(a.as_secs().abs_diff(b.as_secs())).as_secs();
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let (size, unit) = units.into_iter().find(|(size, _)| seconds >= *size).unwrap_or((1, "second"));
    let count = seconds / size;
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// `2026-11-25`.
fn day(time: UnixTime) -> String {
    let shown = i64::try_from(time.as_secs()).ok().and_then(|seconds| ASN1Time::from_timestamp(seconds).ok());
    shown.map_or_else(String::new, |time| {
        let time = time.to_datetime();
        format!("{:04}-{:02}-{:02}", time.year(), u8::from(time.month()), time.day())
    })
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;

    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn times_and_names_are_written_as_words() {
        let noon = 1_795_867_200; // 2026-11-28 12:00:00
        let days = 86_400;
        let words = |error: CertificateError| of_certificate(&error).unwrap();
        assert_eq!(
            words(CertificateError::ExpiredContext { time: at(noon), not_after: at(noon - 3 * days) }),
            "the certificate expired 3 days ago (2026-11-25)"
        );
        assert_eq!(
            words(CertificateError::NotValidYetContext { time: at(noon), not_before: at(noon + 3600) }),
            "the certificate is valid only in 1 hour (2026-11-28): is the clock right?"
        );
        let expected = || ServerName::try_from("b").unwrap().to_owned();
        assert_eq!(
            words(CertificateError::NotValidForNameContext {
                expected: expected(),
                presented: vec!["DnsName(\"a\")".into(), "IpAddress(127.0.0.1)".into()]
            }),
            "the certificate is for `a`, `127.0.0.1`, expected `b`: call it by a name that it has, or set `tls.name`"
        );
        let none = CertificateError::NotValidForNameContext { expected: expected(), presented: vec![] };
        assert!(words(none).contains("its CN does not count"));
        let wrong = |required| {
            let presented = vec![ExtendedKeyPurpose::ClientAuth];
            words(CertificateError::InvalidPurposeContext { required, presented })
        };
        assert!(wrong(ExtendedKeyPurpose::ServerAuth).contains("usage is serverAuth"));
        assert!(wrong(ExtendedKeyPurpose::ClientAuth).contains("usage is clientAuth"));
        let signed_with = |identifier: &[u8]| {
            words(CertificateError::UnsupportedSignatureAlgorithmContext {
                signature_algorithm_id: identifier.to_vec(),
                supported_algorithms: vec![],
            })
        };
        // SHA-1 with RSA (RFC 3279 section 2.2.1), and with ECDSA, whose name the registry lacks.
        let rsa = signed_with(&[6, 9, 42, 134, 72, 134, 247, 13, 1, 1, 5]);
        assert!(rsa.contains("(1.2.840.113549.1.1.5), which is not accepted"), "{rsa}");
        let ecdsa = signed_with(&[6, 7, 42, 134, 72, 206, 61, 4, 1]);
        assert!(ecdsa.contains("signed with 1.2.840.10045.4.1, which is not accepted"), "{ecdsa}");
        assert_eq!(of_certificate(&CertificateError::Revoked), None);
    }
}
