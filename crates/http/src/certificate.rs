//! `X-Forwarded-Client-Cert`: tells the application which identity the client has proven.
//!
//! Rule: the value of this header in a request is removed, because any client can write it. attache writes the client whose certificate it
//! has verified itself. The config can make attache trust the value from a client in front; then that client must have proven its identity.
//! Source: Envoy's HTTP header manipulation (`forward_client_cert_details`).

use attache_config::model::ForwardClientCert;
use attache_wire::{Fields, KnownName, ValueRef, header};
use http::HeaderValue;

use crate::{Client, forwarded::split_quoted};

/// The header's name.
pub const CLIENT_CERTIFICATE: KnownName = header::X_FORWARDED_CLIENT_CERT;

/// Removes or keeps the request's value, as `mode` says, and writes what attache knows of its client. It allocates nothing if the client
/// showed no certificate.
pub fn set_client_certificate(headers: &mut Fields, client: &Client, mode: ForwardClientCert) {
    use ForwardClientCert as F;
    match (mode, client.certificate()) {
        (F::SanitizeSet, Some(own)) => headers.insert(CLIENT_CERTIFICATE, own),
        (F::AppendForward, Some(own)) => append(headers, own),
        (F::ForwardOnly, Some(_)) | (F::AlwaysForwardOnly, _) => {}
        _ => _ = headers.remove(CLIENT_CERTIFICATE),
    }
}

/// Writes one line, as Envoy does, because some applications read only the first. It costs one allocation, and only where proxies are
/// chained.
fn append(headers: &mut Fields, own: &HeaderValue) {
    let mut line = Vec::new();
    // After a value with an open quote, a parser would read our element as a part of that value.
    let whole = |kept: &ValueRef<'_>| !kept.is_empty() && split_quoted(kept.as_bytes(), b',').is_some();
    for kept in headers.get_all(CLIENT_CERTIFICATE).filter(whole) {
        line.extend_from_slice(kept.as_bytes());
        line.push(b',');
    }
    line.extend_from_slice(own.as_bytes());
    // Two valid values with a comma between them are a valid value.
    if headers.try_insert(CLIENT_CERTIFICATE, &line).is_err() {
        headers.insert(CLIENT_CERTIFICATE, own);
    }
}

#[cfg(test)]
mod tests {
    use ForwardClientCert as F;

    use super::*;
    use crate::VerifiedIdentity;

    const SENT: &str = "URI=spiffe://d/admin";
    const OWN: &str = "URI=spiffe://d/web";

    fn client(proven: bool) -> Client {
        let certificate = Some(HeaderValue::from_static(OWN));
        let proven =
            proven.then(|| Box::new(VerifiedIdentity { certificate, ..VerifiedIdentity::default() }));
        Client { proven, ..Client::default() }
    }

    fn left(mode: F, proven: bool) -> Vec<String> {
        let mut headers = Fields::new();
        headers.append(CLIENT_CERTIFICATE, HeaderValue::from_static(SENT));
        set_client_certificate(&mut headers, &client(proven), mode);
        headers.get_all(CLIENT_CERTIFICATE).map(|value| value.to_str().unwrap().into()).collect()
    }

    #[test]
    fn what_a_client_sends_never_passes_by_default() {
        assert!(left(F::default(), false).is_empty());
        assert_eq!(left(F::default(), true), [OWN]);
    }

    #[test]
    fn an_open_quote_does_not_hide_the_client_itself() {
        let mut headers = Fields::new();
        headers.append(CLIENT_CERTIFICATE, HeaderValue::from_static("URI=spiffe://d/admin;Subject=\"x"));
        set_client_certificate(&mut headers, &client(true), F::AppendForward);
        assert_eq!(headers.get(CLIENT_CERTIFICATE).unwrap(), OWN);
    }

    #[test]
    fn only_a_client_with_a_proven_identity_is_trusted() {
        for mode in [F::SanitizeSet, F::AppendForward, F::ForwardOnly, F::Sanitize] {
            assert!(left(mode, false).is_empty(), "{mode:?}");
        }
        assert_eq!(left(F::AppendForward, true), [format!("{SENT},{OWN}")]);
        assert_eq!(left(F::ForwardOnly, true), [SENT]);
        assert!(left(F::Sanitize, true).is_empty());
        assert_eq!(left(F::AlwaysForwardOnly, false), [SENT]);
    }
}
