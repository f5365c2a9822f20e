//! Headers as a person who follows exchanges may see them: without credentials.
//!
//! Rule: a value is hidden because of its header's name or because of its form; in doubt it is hidden. Query strings are hidden in every
//! URL, as the access log leaves them out.

use attache_config::names_a_credential;
use attache_wire::Fields;
use serde_json::Value;

/// The most headers of one message that are kept.
const MAX_HEADERS: usize = 64;
/// The most bytes of one value that are kept.
const MAX_VALUE_BYTES: usize = 256;
/// The text that replaces a hidden value.
const HIDDEN: &str = "(hidden)";

/// The headers of one exchange, with secrets removed.
#[derive(Clone, Debug, Default)]
pub struct SeenHeaders {
    /// The request's headers, as the client sent them.
    pub request: Vec<(String, String)>,
    /// The response's headers, as the upstream sent them.
    pub response: Vec<(String, String)>,
}

impl SeenHeaders {
    /// The part of these headers that may be shown.
    pub fn redact(headers: &Fields) -> Vec<(String, String)> {
        headers
            .iter()
            .take(MAX_HEADERS)
            .map(|(name, value)| (name.lower().into_owned(), shown(&name.lower(), value.as_bytes())))
            .collect()
    }

    /// A list of pairs, because a header may occur twice.
    pub(super) fn json(headers: &[(String, String)]) -> Value {
        headers.iter().map(|(name, value)| Value::from(vec![name.as_str(), value.as_str()])).collect()
    }
}

fn shown(name: &str, value: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(value) else { return "(not text)".to_owned() };
    if names_a_credential(name) || looks_like_a_credential(text) {
        return HIDDEN.to_owned();
    }
    let text = match text.split_once('?') {
        Some((before, _)) if before.contains('/') => format!("{before}?{HIDDEN}"),
        _ => text.to_owned(),
    };
    match text.char_indices().nth(MAX_VALUE_BYTES) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

fn looks_like_a_credential(value: &str) -> bool {
    let value = value.trim_start();
    let scheme = value.split(' ').next().unwrap_or_default();
    // RFC 7235: a scheme, and then the credentials. `eyJ` is the beginning of a JSON object in base64 (a JWT).
    ["bearer", "basic", "digest", "negotiate", "aws4-hmac-sha256"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known))
        || value.contains("eyJ")
        || value.contains("-----BEGIN")
        || value.split_once("://").is_some_and(|(_, rest)| {
            rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn see(name: &str, value: &str) -> String {
        shown(name, value.as_bytes())
    }

    #[test]
    fn credentials_are_hidden() {
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "set-cookie",
            "x-api-key",
            "x-auth-token",
            "x-amz-security-token",
            "x-csrf-token",
            "x-vault-token",
            "api-key",
            "x-goog-iap-jwt-assertion",
            "x-session-id",
            "x-hub-signature-256",
        ] {
            assert_eq!(see(name, "s3cr3t"), HIDDEN, "{name}");
        }
        for value in [
            "Bearer s3cr3t",
            "basic dTpw",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
            "https://user:pass@example.com/",
            "-----BEGIN PRIVATE KEY-----",
        ] {
            assert_eq!(see("x-custom", value), HIDDEN, "{value}");
        }
        assert_eq!(see("referer", "http://a.example/b?token=s3cr3t"), "http://a.example/b?(hidden)");
        assert_eq!(see("location", "/login?code=s3cr3t#x"), "/login?(hidden)");
    }

    #[test]
    fn harmless_values_are_shown() {
        for (name, value) in [
            ("accept", "*/*"),
            ("user-agent", "curl/8.14"),
            ("content-type", "application/json"),
            ("x-request-id", "7f3a"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ] {
            assert_eq!(see(name, value), value);
        }
        assert_eq!(see("x-long", &"é".repeat(300)).chars().count(), MAX_VALUE_BYTES + 1);
    }
}
