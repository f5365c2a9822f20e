//! `X-Forwarded-Client-Cert`: the verified client's identity for the application, in Envoy's format.
//!
//! One element per hop, joined by commas; in it `Key=value` joined by semicolons, in the order `By`, `Hash`, `Subject`,
//! `URI`, `DNS`. A value with a special character stands in double quotes. Source: Envoy's documentation of HTTP header
//! manipulation, `x-forwarded-client-cert`.
//!
//! `attache-http` decides what happens to the header of an incoming request.

use std::fmt::Write;

use attache_config::model::ClientCertDetail;

use crate::Certificate;

/// One element: this client, on this hop, with these details in addition to `By` and `Hash`. The result is visible
/// ASCII.
pub fn element(client: &Certificate, by: Option<&str>, details: &[ClientCertDetail]) -> String {
    let mut out = String::new();
    if let Some(by) = by {
        pair(&mut out, "By", by, false);
    }
    let hash = client.sha256.iter().fold(String::with_capacity(64), |mut hash, byte| {
        let _ = write!(hash, "{byte:02x}");
        hash
    });
    pair(&mut out, "Hash", &hash, false);
    for detail in ClientCertDetail::ALL.iter().filter(|detail| details.contains(detail)) {
        match detail {
            // Envoy always quotes this one, and users' patterns expect it.
            ClientCertDetail::Subject => pair(&mut out, "Subject", &client.subject, true),
            ClientCertDetail::Uri => client.uris.iter().for_each(|uri| pair(&mut out, "URI", uri, false)),
            ClientCertDetail::Dns => client.dns.iter().for_each(|dns| pair(&mut out, "DNS", dns, false)),
        }
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
            element(&client, Some("spiffe://cluster.local/ns/shop/sa/api"), &ClientCertDetail::ALL),
            @r#"By=spiffe://cluster.local/ns/shop/sa/api;Hash=abababababababababababababababababababababababababababababababab;Subject="CN=web,O=Shop";URI=spiffe://cluster.local/ns/shop/sa/web;DNS=web.shop;DNS=www.shop"#
        );
    }

    #[test]
    fn a_name_can_not_end_its_own_value() {
        let client = client("CN=a\"b", &["x:a;By=spiffe://admin", "x:b,Hash=0"], &[]);
        let text = element(&client, None, &ClientCertDetail::ALL);
        assert!(text.contains(r#"Subject="CN=a\"b""#), "{text}");
        assert!(text.contains(r#"URI="x:a;By=spiffe://admin";URI="x:b,Hash=0""#), "{text}");
    }

    #[test]
    fn details_that_are_not_wanted_are_left_out() {
        let client = client("CN=web", &["spiffe://d/web"], &["web.shop"]);
        let hash = "ab".repeat(32);
        assert_eq!(element(&client, None, &[]), format!("Hash={hash}"));
        let dns = element(&client, None, &[ClientCertDetail::Dns]);
        assert_eq!(dns, format!("Hash={hash};DNS=web.shop"));
    }

    proptest! {
        #[test]
        fn a_value_is_always_visible_ascii(subject in ".{0,30}", uri in ".{0,30}") {
            let client = client(&subject, &[&uri], &[]);
            let value = element(&client, Some(&uri), &ClientCertDetail::ALL);
            prop_assert!(value.bytes().all(is_visible));
        }
    }
}
