//! `X-Request-Id`: the same id in the logs of every hop. (Traces are in `attache-telemetry`.)
//!
//! Rule: a request id is written to the logs and headers of every hop, so only harmless ids are kept: 1 to 128 characters out of letters,
//! digits and `-_.:/+=@~`.

use attache_wire::{Fields, KnownName, ValueRef, chars, header};

/// `x-request-id`.
pub const REQUEST_ID: KnownName = header::X_REQUEST_ID;

/// Keeps the client's `X-Request-Id` if it is trusted and harmless, and removes it otherwise. Then, if `make` is set and there is no id, it
/// makes one.
pub fn request_id(headers: &mut Fields, make: bool, trust: bool) {
    if headers.contains_key(REQUEST_ID) {
        let mut lines = headers.get_all(REQUEST_ID);
        let kept = trust && lines.next().is_some_and(is_harmless) && lines.next().is_none();
        if kept {
            return;
        }
        headers.remove(REQUEST_ID);
    }
    if make {
        // This must not enter HPACK's table: the value never occurs again, and it would replace useful entries (RFC 7541 section 6.2.3).
        let _ = headers.try_insert_sensitive(REQUEST_ID, &uuid(fastrand::u128(..)));
    }
}

static HARMLESS: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-_.:/+=@~";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

fn is_harmless(id: ValueRef<'_>) -> bool {
    let id = id.as_bytes();
    (1..=128).contains(&id.len()) && chars::all(id, &HARMLESS)
}

/// A random UUID (RFC 9562 section 5.4) from the worker's fast generator. It is unique but not secret.
pub fn new_request_id() -> String {
    String::from_utf8_lossy(&uuid(fastrand::u128(..))).into_owned()
}

/// The text of a version 4 UUID with these bits. The standard formatter took a twentieth of a request's instructions.
fn uuid(bits: u128) -> [u8; 36] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    /// The positions of the two digits of each byte.
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let bits = bits & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62;
    let mut text = [b'-'; 36];
    for (byte, place) in bits.to_be_bytes().into_iter().zip(PLACES) {
        text[place] = DIGITS[usize::from(byte >> 4)];
        text[place + 1] = DIGITS[usize::from(byte & 0xf)];
    }
    text
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn id_after(sent: &[&str], make: bool, trust: bool) -> Option<String> {
        let mut headers = Fields::new();
        for value in sent {
            headers.append(REQUEST_ID, HeaderValue::from_str(value).unwrap());
        }
        request_id(&mut headers, make, trust);
        assert!(headers.get_all(REQUEST_ID).count() <= 1);
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
        let bits = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;
        assert_eq!(uuid(bits), *b"01234567-89ab-4def-8123-456789abcdef");
    }
}
