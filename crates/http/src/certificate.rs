//! `X-Forwarded-Client-Cert`: who the client proved to be, for the application.
//!
//! Rule: whatever a request brings in this header is removed, since anyone can write it; the client whose certificate
//! attache itself verified is written in its place. Source: Envoy's HTTP header manipulation (`SANITIZE_SET`).

use http::{HeaderMap, HeaderName};

use crate::Client;

/// The header's name.
pub const CLIENT_CERTIFICATE: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Removes what the request brought and writes what attache knows of its client. Allocates nothing where the client
/// showed no certificate.
pub fn set_client_certificate(headers: &mut HeaderMap, client: &Client) {
    match &client.certificate {
        // A clone of the connection's value: a counter, no copy.
        Some(certificate) => {
            headers.insert(CLIENT_CERTIFICATE, certificate.clone());
        }
        None => {
            headers.remove(CLIENT_CERTIFICATE);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn forged() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in ["URI=spiffe://d/admin", "URI=spiffe://d/root"] {
            headers.append(CLIENT_CERTIFICATE, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_a_client_sends_never_passes() {
        let mut headers = forged();
        set_client_certificate(&mut headers, &Client::default());
        assert!(headers.is_empty(), "{headers:?}");
    }

    #[test]
    fn only_the_verified_client_is_named() {
        let mut headers = forged();
        let own = HeaderValue::from_static("URI=spiffe://d/web");
        let client = Client { certificate: Some(own.clone()), ..Client::default() };
        set_client_certificate(&mut headers, &client);
        assert_eq!(headers.get_all(CLIENT_CERTIFICATE).iter().collect::<Vec<_>>(), [&own]);
    }
}
