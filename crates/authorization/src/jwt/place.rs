//! Where tokens stand in a request, and how they are taken off it.

use attache_config::model::TokenPlace;
use attache_wire::{Fields, RequestHead, Value, header::COOKIE};
use http::{Uri, uri::PathAndQuery};

/// The one token of a request. It must be plain text: nothing of it is decoded, since a JWT needs no encoding anywhere.
pub(super) fn find<'r>(
    places: &[TokenPlace],
    request: &'r RequestHead,
) -> Result<Option<&'r str>, &'static str> {
    let (mut found, mut differ) = (None, false);
    for place in places {
        in_place(place, request, &mut |token| differ |= *found.get_or_insert(token) != token);
    }
    if differ { Err("there are two tokens") } else { Ok(found) }
}

fn in_place<'r>(place: &TokenPlace, request: &'r RequestHead, found: &mut dyn FnMut(&'r str)) {
    match place {
        TokenPlace::Header(name, prefix) => {
            let lines = request.headers.get_all(name);
            lines.filter_map(|line| behind(prefix, text(line))).for_each(found);
        }
        TokenPlace::Cookie(name) => request
            .headers
            .get_all(COOKIE)
            .flat_map(|line| text(line).split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(key, _)| *key == &**name)
            .map(|(_, value)| value.trim_matches('"'))
            .for_each(found),
        TokenPlace::Query(name) => request
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .filter(|(key, _)| *key == &**name)
            .map(|(_, value)| value)
            .for_each(found),
    }
}

/// A line as text. What isn't is no token, and is there all the same.
fn text(line: Value<'_>) -> &str {
    std::str::from_utf8(line.as_bytes()).unwrap_or("\u{7f}")
}

/// What follows a scheme, which has no case (RFC 9110 section 11.1).
fn behind<'v>(prefix: &str, value: &'v str) -> Option<&'v str> {
    let (head, rest) = value.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| rest.trim_matches(' '))
}

/// Takes the tokens off.
pub(super) fn remove(places: &[TokenPlace], request: &mut RequestHead) {
    for place in places {
        match place {
            TokenPlace::Header(name, prefix) => {
                let tokens = |line: Value<'_>| behind(prefix, text(line)).is_some();
                if request.headers.get_all(name).any(tokens) {
                    request.headers.remove(name);
                }
            }
            TokenPlace::Cookie(name) => remove_cookie(name, &mut request.headers),
            TokenPlace::Query(name) => remove_parameter(name, &mut request.uri),
        }
    }
}

fn remove_cookie(name: &str, headers: &mut Fields) {
    let is_it = |pair: &str| pair.trim().split_once('=').is_some_and(|(key, _)| key == name);
    let lines: Vec<&str> = headers.get_all(COOKIE).filter_map(|line| line.to_str().ok()).collect();
    if !lines.iter().flat_map(|line| line.split(';')).any(is_it) {
        return;
    }
    let left: Vec<&str> =
        lines.iter().flat_map(|line| line.split(';')).filter(|pair| !is_it(pair)).map(str::trim).collect();
    let left = left.join("; ");
    headers.remove(COOKIE);
    if !left.is_empty() {
        let _ = headers.try_insert(COOKIE, left.as_bytes());
    }
}

fn remove_parameter(name: &str, uri: &mut Uri) {
    let Some(query) = uri.query() else { return };
    let is_it = |pair: &&str| pair.split_once('=').is_some_and(|(key, _)| key == name);
    if !query.split('&').any(|pair| is_it(&pair)) {
        return;
    }
    let left: Vec<&str> = query.split('&').filter(|pair| !is_it(pair)).collect();
    let target =
        if left.is_empty() { uri.path().to_owned() } else { format!("{}?{}", uri.path(), left.join("&")) };
    // Parts of a valid target are a valid target.
    if let Ok(target) = target.parse::<PathAndQuery>() {
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(target);
        if let Ok(changed) = Uri::from_parts(parts) {
            *uri = changed;
        }
    }
}
