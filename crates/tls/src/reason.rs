//! Finds the reason for a failure of the TLS library.
//!
//! An alert has a different meaning for the two sides: `unknown_ca` from a server is about *attache's client
//! certificate*, from a client it is about *attache's server certificate*. So each direction has its own table; errors
//! in the peer's certificate are the same in both.
//!
//! With TLS 1.3 a client's handshake is complete before the server has checked the client's certificate (RFC 8446
//! section 4.4.2.4), so a refusal arrives as an alert with the first read. [`reason_of`] finds the alert in the error
//! of that read, also inside of other errors.

use std::{error::Error as StdError, io};

use attache_telemetry::Reason;
use rustls::{AlertDescription as Alert, CertificateError, Error as Tls, PeerIncompatible};

use crate::{
    Error,
    verify::{PeerMismatch, PinMismatch},
};

/// Finds the TLS failure in an error of a connection that attache made: an `io::Error` of the stream itself, or
/// anything that has one among its sources (`hyper::Error`, `h2::Error`). `None` means that TLS was not the cause;
/// that includes an end without `close_notify`, which is a connection cut short.
///
/// If a peer refuses and closes, a *write* may fail first (`BrokenPipe`) while its alert still waits to be read: so
/// pass the error of the reading side.
pub fn reason_of(error: &(dyn StdError + 'static)) -> Option<Reason> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<Error>() {
            return Some(error.reason);
        }
        if let Some(tls) = error.downcast_ref::<Tls>() {
            // An error after the handshake (a broken record) means that the connection was cut.
            return Some(connecting_tls(tls, false).0).filter(|reason| *reason != Reason::TlsHandshakeFailed);
        }
        // The source() of an io::Error is the source of its payload, so the payload itself must be taken by get_ref().
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            next = Some(inner);
            continue;
        }
        next = error.source();
        if next.is_none() {
            return alert_in(&error.to_string()).map(|alert| server_alert(alert, false).0);
        }
    }
    None
}

/// hyper's HTTP/2, which attache's own small calls use, keeps only the text of an I/O error, so only the alert's name
/// is left there.
fn alert_in(text: &str) -> Option<Alert> {
    let name = text.split("received fatal alert: ").nth(1)?;
    let name = name.split(|c: char| !c.is_ascii_alphanumeric()).next()?;
    CERTIFICATE_ALERTS.iter().copied().find(|alert| format!("{alert:?}") == name)
}

/// Alerts of a server about a client certificate (RFC 8446 section 6.2).
const CERTIFICATE_ALERTS: &[Alert] = &[
    Alert::CertificateRequired,
    Alert::BadCertificate,
    Alert::UnsupportedCertificate,
    Alert::CertificateRevoked,
    Alert::CertificateExpired,
    Alert::CertificateUnknown,
    Alert::UnknownCA,
    Alert::AccessDenied,
    Alert::NoCertificate,
];

/// For a handshake that attache began; `asked` when the server asked for a client certificate.
pub(crate) fn connecting(error: &io::Error, asked: bool) -> (Reason, Option<&'static str>) {
    match tls_of(error) {
        Some(tls) => connecting_tls(tls, asked),
        None => (Reason::TlsHandshakeFailed, not_tls(error)),
    }
}

/// For a handshake that a client began.
pub(crate) fn accepting(error: &io::Error) -> (Reason, Option<&'static str>) {
    match tls_of(error) {
        Some(Tls::InvalidCertificate(error)) => certificate(error),
        Some(Tls::NoCertificatesPresented) => {
            (Reason::TlsNoClientCertificate, Some("the client must show a certificate"))
        }
        Some(Tls::PeerIncompatible(why)) => incompatible(why),
        Some(Tls::NoApplicationProtocol) => {
            (Reason::TlsAlpn, Some("the client offers no protocol that this listener speaks"))
        }
        Some(Tls::AlertReceived(Alert::ProtocolVersion)) => (Reason::TlsVersion, None),
        Some(Tls::AlertReceived(Alert::NoApplicationProtocol)) => (Reason::TlsAlpn, None),
        Some(Tls::AlertReceived(alert)) if CERTIFICATE_ALERTS.contains(alert) => {
            (Reason::TlsHandshakeFailed, Some("the client does not accept this listener's certificate"))
        }
        Some(Tls::InvalidMessage(_)) => {
            (Reason::TlsHandshakeFailed, Some("the client's bytes are not TLS: does it speak plaintext?"))
        }
        Some(_) => (Reason::TlsHandshakeFailed, None),
        None => (Reason::TlsHandshakeFailed, Some("the client left during the handshake")),
    }
}

fn connecting_tls(error: &Tls, asked: bool) -> (Reason, Option<&'static str>) {
    match error {
        Tls::InvalidCertificate(error) => certificate(error),
        Tls::NoCertificatesPresented => (Reason::TlsUntrusted, Some("the peer showed no certificate")),
        Tls::InvalidCertRevocationList(_) => (Reason::TlsUntrusted, None),
        Tls::PeerIncompatible(why) => incompatible(why),
        Tls::NoApplicationProtocol => (Reason::TlsAlpn, None),
        Tls::AlertReceived(alert) => server_alert(*alert, asked),
        Tls::InvalidMessage(_) => (
            Reason::TlsHandshakeFailed,
            Some(
                "the peer's bytes are not TLS: for a plaintext port write `http://` or `tcp://` in the address",
            ),
        ),
        _ => (Reason::TlsHandshakeFailed, None),
    }
}

fn server_alert(alert: Alert, asked: bool) -> (Reason, Option<&'static str>) {
    const OURS: &str = "the peer does not accept our client certificate";
    match alert {
        Alert::CertificateRequired | Alert::NoCertificate => {
            (Reason::TlsNoClientCertificate, Some("the peer demands a client certificate"))
        }
        alert if CERTIFICATE_ALERTS.contains(&alert) => (Reason::TlsNoClientCertificate, Some(OURS)),
        // TLS 1.2 has no certificate_required: a server that asked and got none sends handshake_failure (RFC 5246
        // section 7.4.6), and one that can't read the chain sends decrypt_error.
        Alert::HandshakeFailure | Alert::DecryptError if asked => (
            Reason::TlsNoClientCertificate,
            Some("the peer asked for a client certificate before it ended this"),
        ),
        Alert::ProtocolVersion => (Reason::TlsVersion, None),
        Alert::NoApplicationProtocol => (Reason::TlsAlpn, None),
        Alert::HandshakeFailure | Alert::InsufficientSecurity => (
            Reason::TlsHandshakeFailed,
            Some(
                "the peer accepts none of the offered cipher suites, curves or signatures: its log says which it wants",
            ),
        ),
        Alert::UnrecognisedName => {
            (Reason::TlsNameMismatch, Some("the peer has no certificate for this server name"))
        }
        _ => (Reason::TlsHandshakeFailed, None),
    }
}

fn incompatible(why: &PeerIncompatible) -> (Reason, Option<&'static str>) {
    use PeerIncompatible as P;
    match why {
        P::ServerDoesNotSupportTls12Or13
        | P::ServerTlsVersionIsDisabledByOurConfig
        | P::SupportedVersionsExtensionRequired
        | P::Tls12NotOffered
        | P::Tls12NotOfferedOrEnabled => (Reason::TlsVersion, None),
        // The library checks this extension before the version; only TLS 1.2 has it (RFC 5246 section 7.4.1.4.1).
        P::SignatureAlgorithmsExtensionRequired => {
            (Reason::TlsVersion, Some("the client names no signature algorithms: TLS 1.1 or older"))
        }
        _ => (Reason::TlsHandshakeFailed, None),
    }
}

fn certificate(error: &CertificateError) -> (Reason, Option<&'static str>) {
    use CertificateError as C;
    match error {
        C::Expired | C::ExpiredContext { .. } => (Reason::TlsExpired, None),
        C::NotValidYet | C::NotValidYetContext { .. } => (Reason::TlsNotYetValid, None),
        C::Revoked => (Reason::TlsRevoked, None),
        C::NotValidForName | C::NotValidForNameContext { .. } => (Reason::TlsNameMismatch, None),
        C::UnknownRevocationStatus => (
            Reason::TlsUntrusted,
            Some("no revocation list covers the certificate's issuer: add its list to `crls`"),
        ),
        C::Other(other) if other.0.is::<PinMismatch>() => (Reason::TlsPinMismatch, None),
        C::Other(other) if other.0.is::<PeerMismatch>() => (Reason::TlsNameMismatch, None),
        _ => (Reason::TlsUntrusted, None),
    }
}

fn tls_of(error: &io::Error) -> Option<&Tls> {
    error.get_ref()?.downcast_ref()
}

fn not_tls(error: &io::Error) -> Option<&'static str> {
    use io::ErrorKind as K;
    matches!(error.kind(), K::UnexpectedEof | K::ConnectionReset | K::BrokenPipe | K::ConnectionAborted)
        .then_some("the peer closed during the handshake: is the port really TLS?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io_error(tls: Tls) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, tls)
    }

    #[derive(Debug)]
    struct WrappedError(Box<dyn StdError + Send + Sync>);
    impl std::fmt::Display for WrappedError {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("connection error")
        }
    }
    impl StdError for WrappedError {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&*self.0)
        }
    }

    #[test]
    fn an_alert_after_the_handshake_is_found_under_any_number_of_wrappers() {
        let alert = || io_error(Tls::AlertReceived(Alert::CertificateRequired));
        assert_eq!(reason_of(&alert()), Some(Reason::TlsNoClientCertificate));
        assert_eq!(reason_of(&WrappedError(Box::new(alert()))), Some(Reason::TlsNoClientCertificate));
        let twice = io::Error::other(WrappedError(Box::new(io::Error::other(alert()))));
        assert_eq!(reason_of(&twice), Some(Reason::TlsNoClientCertificate));
    }

    #[test]
    fn an_alert_of_which_only_the_text_was_kept_is_found() {
        let text = Tls::AlertReceived(Alert::UnknownCA).to_string();
        assert_eq!(
            reason_of(&WrappedError(io::Error::other(text).into())),
            Some(Reason::TlsNoClientCertificate)
        );
        assert_eq!(reason_of(&io::Error::other("received fatal alert: RecordOverflow")), None);
    }

    #[test]
    fn a_connection_cut_short_is_not_a_tls_reason() {
        assert_eq!(reason_of(&io::Error::from(io::ErrorKind::UnexpectedEof)), None);
        assert_eq!(reason_of(&io::Error::from(io::ErrorKind::ConnectionReset)), None);
    }

    #[test]
    fn a_broken_record_is_a_connection_cut_short() {
        assert_eq!(reason_of(&io_error(Tls::DecryptError)), None);
    }

    #[test]
    fn handshake_failure_means_a_missing_certificate_only_where_one_was_asked_for() {
        let error = io_error(Tls::AlertReceived(Alert::HandshakeFailure));
        assert_eq!(connecting(&error, true).0, Reason::TlsNoClientCertificate);
        assert_eq!(connecting(&error, false).0, Reason::TlsHandshakeFailed);
    }

    #[test]
    fn the_same_alert_is_about_attaches_own_certificate_in_both_directions() {
        let error = io_error(Tls::AlertReceived(Alert::UnknownCA));
        assert_eq!(connecting(&error, false).0, Reason::TlsNoClientCertificate);
        assert_eq!(accepting(&error).0, Reason::TlsHandshakeFailed);
    }
}
