//! How urgent a call is: RFC 9218 section 4.1, `u=0` (most urgent) to `u=7` (least), by default 3.
//!
//! The value may also be the number alone, for headers of the user's own. Anything else counts as absent.

use attache_wire::Fields;
use http::HeaderName;

/// Urgencies.
pub(crate) const CLASSES: usize = 8;
const DEFAULT: u8 = 3;

/// The urgency that a request names.
pub fn urgency(headers: &Fields, name: &HeaderName) -> u8 {
    headers.get(name).and_then(|value| value.to_str().ok()).and_then(parse).unwrap_or(DEFAULT)
}

fn parse(value: &str) -> Option<u8> {
    let digit = |text: &str| match text.as_bytes() {
        [digit @ b'0'..=b'7'] => Some(digit - b'0'),
        _ => None,
    };
    if let Some(alone) = digit(value.trim()) {
        return Some(alone);
    }
    // A dictionary of structured fields (RFC 8941 section 3.2): of two equal keys the last one counts, and parameters
    // of a member are ignored.
    let mut members = value.split(',').filter_map(|member| {
        let (key, value) = member.split(';').next()?.split_once('=')?;
        (key.trim() == "u").then(|| digit(value.trim()))
    });
    members.next_back()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_rfc_9218_are_understood_and_others_are_the_default() {
        let cases = [
            ("u=0", 0),
            ("u=5, i", 5),
            ("i, u=7", 7),
            ("u=1, u=2", 2),
            ("u=4;x=1", 4),
            (" 6 ", 6),
            ("0", 0),
            ("u=8", 3),
            ("u=-1", 3),
            ("i", 3),
            ("high", 3),
            ("", 3),
            ("u=", 3),
            ("10", 3),
        ];
        let name = HeaderName::from_static("priority");
        for (text, expected) in cases {
            let headers = Fields::from_iter([(name.clone(), http::HeaderValue::from_str(text).unwrap())]);
            assert_eq!(urgency(&headers, &name), expected, "{text}");
        }
        assert_eq!(urgency(&Fields::new(), &name), 3);
    }
}
