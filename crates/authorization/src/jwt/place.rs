//! Where tokens are in a request, and how they are removed from it.
//!
//! **Rule.** attache must find every token that an upstream could find in one of these places: if no token is required,
//! an overlooked token would pass without verification. So attache reads bytes and not text, compares names like a
//! lenient reader (decoded, case-insensitive, with `.`, `[` and a space as `_`, without spaces around them, up to a
//! NUL), and accepts separators that only some readers know (`;` in a query, `,` in a cookie). A scheme is found
//! anywhere in a line, with any separator before the token. The token itself is used without decoding: a JWT never
//! needs encoding.

use attache_config::model::TokenPlace;
use attache_wire::{Fields, RequestHead, header::COOKIE};
use http::{Uri, uri::PathAndQuery};

use attache_http::form_decoded;

/// Replaces a value whose meaning is unclear: it is verified as a token, and so refused.
const DOUBTFUL: &[u8] = b",";

/// The only token of a request.
pub(super) fn find<'r>(
    places: &[TokenPlace],
    request: &'r RequestHead,
) -> Result<Option<&'r str>, &'static str> {
    let (mut found, mut differ) = (None, false);
    for place in places {
        in_place(place, request, &mut |token| differ |= *found.get_or_insert(token) != token);
    }
    match found {
        _ if differ => Err("there are two tokens"),
        Some(token) => std::str::from_utf8(token).map(Some).map_err(|_| "the token is no text"),
        None => Ok(None),
    }
}

fn in_place<'r>(place: &TokenPlace, request: &'r RequestHead, found: &mut dyn FnMut(&'r [u8])) {
    match place {
        TokenPlace::Header(name, prefix) => {
            let lines = request.headers.get_all(name);
            lines.filter_map(|line| of_line(prefix, line.as_bytes())).for_each(found);
        }
        TokenPlace::Cookie(name) => {
            let lines = request.headers.get_all(COOKIE);
            let pairs = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b';'));
            pairs.for_each(|pair| in_pair(name, pair, b',', found));
        }
        TokenPlace::Query(name) => {
            let query = request.uri.query().unwrap_or_default().as_bytes();
            query.split(|&byte| byte == b'&').for_each(|pair| in_pair(name, pair, b';', found));
        }
    }
}

/// The token in a header's line, after its scheme if it has one.
fn of_line<'v>(prefix: &str, line: &'v [u8]) -> Option<&'v [u8]> {
    let scheme = prefix.trim_ascii_end();
    let line = line.trim_ascii();
    if scheme.is_empty() {
        return Some(line);
    }
    if let Some((head, rest)) = line.split_at_checked(scheme.len())
        && head.eq_ignore_ascii_case(scheme.as_bytes())
        && ends_word(rest)
    {
        // White space that only some readers know, and `:` or `=`, stay in the token, which is then refused.
        return Some(rest.trim_ascii());
    }
    // A line may have credentials of two schemes (RFC 9110 section 11.6.2 has no such list), or characters before the
    // scheme that some readers skip.
    let mut places = line.windows(scheme.len()).enumerate().skip(1);
    let is_there = places.any(|(at, word)| {
        let behind = line.get(at + scheme.len()..).unwrap_or_default();
        word.eq_ignore_ascii_case(scheme.as_bytes()) && !behind.is_empty() && ends_word(behind)
    });
    is_there.then_some(DOUBTFUL)
}

/// True if a word ends before these bytes: the first one isn't a character of a token (RFC 9110 section 5.6.2).
fn ends_word(behind: &[u8]) -> bool {
    behind.first().is_none_or(|byte| !byte.is_ascii_alphanumeric() && !b"!#$%&'*+-.^_`|~".contains(byte))
}

/// The value of a pair with this name, and of further pairs that a lenient reader would find in it.
fn in_pair<'v>(name: &str, pair: &'v [u8], separator: u8, found: &mut dyn FnMut(&'v [u8])) {
    let mut rest = Some(pair);
    while let Some(pair) = rest {
        if let Some((key, value)) = pair.iter().position(|&byte| byte == b'=').map(|at| pair.split_at(at))
            && is_named(name, key)
        {
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            found(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value));
        }
        rest = pair.iter().position(|&byte| byte == separator).and_then(|at| pair.get(at + 1..));
    }
}

/// Compares a name like the most lenient reader.
fn is_named(name: &str, key: &[u8]) -> bool {
    let key = form_decoded(key);
    let key = key.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
    let same = |wanted: u8, found: u8| {
        wanted.eq_ignore_ascii_case(&found) || (wanted == b'_' && matches!(found, b'.' | b' ' | b'['))
    };
    key.len() == name.len() && name.bytes().zip(key).all(|(wanted, &found)| same(wanted, found))
}

/// Removes the tokens.
pub(super) fn remove(places: &[TokenPlace], request: &mut RequestHead) {
    for place in places {
        match place {
            TokenPlace::Header(name, prefix) => {
                let mut lines = request.headers.get_all(name);
                if lines.any(|line| of_line(prefix, line.as_bytes()).is_some()) {
                    request.headers.remove(name);
                }
            }
            TokenPlace::Cookie(name) => remove_cookie(name, &mut request.headers),
            TokenPlace::Query(name) => remove_parameter(name, &mut request.uri),
        }
    }
}

fn has_token(name: &str, pair: &[u8], separator: u8) -> bool {
    let mut any = false;
    in_pair(name, pair, separator, &mut |_| any = true);
    any
}

fn remove_cookie(name: &str, headers: &mut Fields) {
    let pairs = headers.get_all(COOKIE).flat_map(|line| line.as_bytes().split(|&byte| byte == b';'));
    let (ours, others): (Vec<&[u8]>, Vec<&[u8]>) =
        pairs.map(<[u8]>::trim_ascii).partition(|pair| has_token(name, pair, b','));
    if ours.is_empty() {
        return;
    }
    let left = others.join(&b"; "[..]);
    headers.remove(COOKIE);
    if !left.is_empty() {
        let _ = headers.try_insert(COOKIE, &left);
    }
}

fn remove_parameter(name: &str, uri: &mut Uri) {
    let Some(query) = uri.query() else { return };
    let (ours, left): (Vec<&str>, Vec<&str>) =
        query.split('&').partition(|pair| has_token(name, pair.as_bytes(), b';'));
    if ours.is_empty() {
        return;
    }
    let target =
        if left.is_empty() { uri.path().to_owned() } else { format!("{}?{}", uri.path(), left.join("&")) };
    // A part of a valid target is a valid target.
    if let Ok(target) = target.parse::<PathAndQuery>() {
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(target);
        if let Ok(changed) = Uri::from_parts(parts) {
            *uri = changed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_with_the_token_alone_is_removed_and_others_stay() {
        for (cookie, left) in [("t=x", None), ("t=x;", None), ("a=1; t=x; b=2", Some("a=1; b=2"))] {
            let mut request = RequestHead::default();
            request.headers.try_insert(COOKIE, cookie.as_bytes()).unwrap();
            remove(&[TokenPlace::Cookie("t".into())], &mut request);
            let found = request.headers.get(COOKIE).map(|value| value.as_bytes().to_vec());
            assert_eq!(found.as_deref().map(<[u8]>::trim_ascii), left.map(str::as_bytes), "{cookie}");
        }
    }
}
