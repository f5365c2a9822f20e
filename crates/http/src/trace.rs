//! `X-Request-Id`, which ties the logs of every hop together. (Traces are `attache-telemetry`'s.)
//!
//! Rule: a request id goes into logs and headers of every hop, so only harmless ones are kept: 1 to 128 of letters,
//! digits and `-_.:/+=@~`.

use http::{HeaderMap, HeaderName, HeaderValue};

/// `x-request-id`.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Keeps the client's `X-Request-Id` if it is trusted and harmless, drops it otherwise; then makes one where there is
/// none, if `make` says so.
pub fn request_id(headers: &mut HeaderMap, make: bool, trust: bool) {
    if headers.contains_key(REQUEST_ID) {
        let mut lines = headers.get_all(REQUEST_ID).iter();
        let kept = trust && lines.next().is_some_and(is_harmless) && lines.next().is_none();
        if kept {
            return;
        }
        headers.remove(REQUEST_ID);
    }
    if make && let Ok(id) = HeaderValue::from_str(&new_request_id()) {
        headers.insert(REQUEST_ID, id);
    }
}

fn is_harmless(id: &HeaderValue) -> bool {
    let id = id.as_bytes();
    (1..=128).contains(&id.len())
        && id.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(&byte))
}

/// A random UUID (RFC 9562 section 5.4) from the worker's fast generator: unique, not secret.
pub fn new_request_id() -> String {
    let bits = fastrand::u128(..);
    let bits = bits & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62;
    // The id becomes a header value: the allocation is its storage.
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        bits >> 96,
        bits >> 80 & 0xffff,
        bits >> 64 & 0xffff,
        bits >> 48 & 0xffff,
        bits & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_after(sent: &[&str], make: bool, trust: bool) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in sent {
            headers.append(REQUEST_ID, HeaderValue::from_str(value).unwrap());
        }
        request_id(&mut headers, make, trust);
        assert!(headers.get_all(REQUEST_ID).iter().count() <= 1);
        headers.get(REQUEST_ID).map(|id| id.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_trusted_harmless_id_is_kept() {
        assert_eq!(id_after(&["a-b_c/1"], true, true).as_deref(), Some("a-b_c/1"));
        assert_eq!(id_after(&["a"], false, true).as_deref(), Some("a"));
    }

    #[test]
    fn any_other_id_is_replaced_or_dropped() {
        let long = "a".repeat(129);
        for (sent, trust) in
            [(&["a"][..], false), (&["a", "b"], true), (&["a b"], true), (&["a\"}"], true), (&[&long], true)]
        {
            let made = id_after(sent, true, trust).unwrap();
            assert_eq!(made.len(), 36, "{made}");
            assert_eq!(id_after(sent, false, trust), None);
        }
    }

    #[test]
    fn a_made_id_is_a_version_4_uuid() {
        for _ in 0..100 {
            let id = new_request_id();
            assert_eq!(id.len(), 36);
            assert_eq!(id.as_bytes()[14], b'4');
            assert!(b"89ab".contains(&id.as_bytes()[19]), "{id}");
        }
        assert_ne!(new_request_id(), new_request_id());
    }
}
