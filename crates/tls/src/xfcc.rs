//! `X-Forwarded-Client-Cert`: the verified client's identity for the application, in Envoy's format.
//!
//! One element per hop, joined by commas; in it `Key=value` joined by semicolons, in the order `By`, `Hash`, `Subject`,
//! `URI`, `DNS`. A value with a character that has a meaning stands in double quotes. Source: Envoy's documentation of
//! HTTP header manipulation, `x-forwarded-client-cert`.
//!
//! Rule on the way in: whatever a client sends in this header is dropped, since anyone can write it. Only where the
//! config says that the client in front is itself a proxy to be believed *and* that client's certificate was verified
//! is it kept, unread, before our own element.

use std::fmt::Write;

use crate::Certificate;

/// The header's name.
pub const NAME: &str = "x-forwarded-client-cert";

/// The header that the application gets, or none; whatever the request carried must be removed first.
///
/// `incoming` are the request's own values, used only if `trust_incoming`. `client` is the verified certificate and
/// `by` the URI in the certificate that the client was shown. What comes back is visible ASCII.
pub fn forward<'a>(
    client: Option<&Certificate>,
    by: Option<&str>,
    trust_incoming: bool,
    incoming: impl Iterator<Item = &'a [u8]>,
) -> Option<String> {
    let own = element(client?, by);
    let mut value = String::new();
    if trust_incoming {
        for kept in incoming {
            let text = std::str::from_utf8(kept).ok().filter(|text| text.bytes().all(is_visible));
            if let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) {
                value.push_str(text);
                value.push(',');
            }
        }
    }
    value.push_str(&own);
    Some(value)
}

/// One element: this client, on this hop.
pub fn element(client: &Certificate, by: Option<&str>) -> String {
    let mut out = String::new();
    if let Some(by) = by {
        pair(&mut out, "By", by, false);
    }
    let hash = client.sha256.iter().fold(String::with_capacity(64), |mut hash, byte| {
        let _ = write!(hash, "{byte:02x}");
        hash
    });
    pair(&mut out, "Hash", &hash, false);
    // Envoy quotes this one always, and people's patterns expect it.
    pair(&mut out, "Subject", &client.subject, true);
    for uri in &client.uris {
        pair(&mut out, "URI", uri, false);
    }
    for dns in &client.dns {
        pair(&mut out, "DNS", dns, false);
    }
    out
}

fn pair(out: &mut String, key: &str, value: &str, quoted: bool) {
    if !out.is_empty() {
        out.push(';');
    }
    out.push_str(key);
    out.push('=');
    let quoted = quoted || value.bytes().any(|byte| matches!(byte, b',' | b';' | b'=' | b'"' | b'\\' | b' '));
    if quoted {
        out.push('"');
    }
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            byte if is_visible(byte) => out.push(char::from(byte)),
            // As RFC 2253 section 2.4 writes a byte; no control character reaches a header.
            byte => {
                let _ = write!(out, "\\{byte:02X}");
            }
        }
    }
    if quoted {
        out.push('"');
    }
}

fn is_visible(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::SystemTime};

    use proptest::prelude::*;

    use super::*;

    fn client(subject: &str, uris: &[&str], dns: &[&str]) -> Certificate {
        Certificate {
            file: None,
            subject: subject.into(),
            issuer: String::new(),
            uris: uris.iter().map(|name| Arc::from(*name)).collect(),
            dns: dns.iter().map(|name| Arc::from(*name)).collect(),
            ips: Vec::new(),
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH,
            sha256: [0xab; 32],
        }
    }

    #[test]
    fn an_element_reads_as_envoys() {
        let client =
            client("CN=web,O=Shop", &["spiffe://cluster.local/ns/shop/sa/web"], &["web.shop", "www.shop"]);
        insta::assert_snapshot!(
            element(&client, Some("spiffe://cluster.local/ns/shop/sa/api")),
            @r#"By=spiffe://cluster.local/ns/shop/sa/api;Hash=abababababababababababababababababababababababababababababababab;Subject="CN=web,O=Shop";URI=spiffe://cluster.local/ns/shop/sa/web;DNS=web.shop;DNS=www.shop"#
        );
    }

    #[test]
    fn a_name_can_not_end_its_own_value() {
        let client = client("CN=a\"b", &["x:a;By=spiffe://admin", "x:b,Hash=0"], &[]);
        let text = element(&client, None);
        assert!(text.contains(r#"Subject="CN=a\"b""#), "{text}");
        assert!(text.contains(r#"URI="x:a;By=spiffe://admin";URI="x:b,Hash=0""#), "{text}");
    }

    #[test]
    fn what_a_client_sends_is_dropped_unless_it_is_a_trusted_proxy() {
        let verified = client("", &["spiffe://d/proxy"], &[]);
        let sent = || [b"URI=spiffe://d/admin".as_slice()].into_iter();
        let forged = forward(Some(&verified), None, false, sent());
        assert!(!forged.is_some_and(|value| value.contains("admin")));
        assert_eq!(forward(None, None, true, sent()), None, "no verified client, no header");
        let kept = forward(Some(&verified), None, true, sent()).unwrap_or_default();
        assert!(kept.starts_with("URI=spiffe://d/admin,Hash="), "{kept}");
    }

    proptest! {
        #[test]
        fn a_value_is_always_visible_ascii(subject in ".{0,30}", uri in ".{0,30}", kept in proptest::collection::vec(any::<u8>(), 0..30)) {
            let client = client(&subject, &[&uri], &[]);
            let value = forward(Some(&client), Some(&uri), true, [kept.as_slice()].into_iter());
            prop_assert!(value.is_some_and(|value| value.bytes().all(is_visible)));
        }
    }
}
