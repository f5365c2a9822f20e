//! Query strings.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Decodes `a=1&b=2` into pairs. The error names the part that can't be decoded.
pub(crate) fn pairs(query: Option<&str>) -> Result<Vec<(String, String)>, String> {
    let parts = query.unwrap_or_default().split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            match (percent_decoded(key), percent_decoded(value)) {
                (Some(key), Some(value)) => Ok((key, value)),
                _ => Err(format!("`{part}` has a broken %-escape")),
            }
        })
        .collect()
}

/// Decodes `%2C` to `,` (RFC 3986 section 2.1). `None` if an escape is invalid or the result isn't UTF-8.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    // The decoder leaves invalid escapes unchanged; here they are refused.
    let whole = |escape: &str| {
        escape.as_bytes().first_chunk::<2>().is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit))
    };
    if !text.split('%').skip(1).all(whole) {
        return None;
    }
    percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_and_broken_ones_refused() {
        assert_eq!(percent_decoded("info%2Ca%3ddebug").as_deref(), Some("info,a=debug"));
        assert_eq!(percent_decoded("info,a=debug").as_deref(), Some("info,a=debug"));
        for broken in ["%", "%2", "%zz", "%ff", "%+1"] {
            assert_eq!(percent_decoded(broken), None, "{broken}");
            assert!(pairs(Some(&format!("a={broken}"))).is_err());
        }
    }

    #[test]
    fn pairs_are_split() {
        let read = pairs(Some("path=%2Fa%3Fb&&x&slower=1s")).unwrap();
        let read: Vec<_> = read.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(read, [("path", "/a?b"), ("x", ""), ("slower", "1s")]);
        assert!(pairs(None).unwrap().is_empty());
    }
}
