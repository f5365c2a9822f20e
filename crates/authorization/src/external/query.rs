//! Parameters of a query that an authorizer sets and removes.
//!
//! Names are compared after decoding (`%61` is `a`, `+` a space), so that no other spelling of a parameter stays. Other
//! parameters stay unchanged.

use std::fmt::Write as _;

use attache_wire::RequestHead;
use http::{Uri, uri::PathAndQuery};

use attache_http::form_decoded;

/// Removes `remove`, then adds `set` at the end, in place of all parameters of the same names.
///
/// # Errors The result is not a valid query.
pub(super) fn edit(
    request: &mut RequestHead,
    set: &[(String, String)],
    remove: &[String],
) -> Result<(), String> {
    if set.is_empty() && remove.is_empty() {
        return Ok(());
    }
    // Some upstreams read `;` like `&`.
    let goes = |pair: &str| {
        pair.split(';').any(|part| {
            let name = form_decoded(part.split_once('=').map_or(part, |(name, _)| name).as_bytes());
            remove.iter().any(|gone| *gone.as_bytes() == *name)
                || set.iter().any(|(new, _)| *form_decoded(new.as_bytes()) == *name)
        })
    };
    let query = request.uri.query().unwrap_or_default();
    let kept = query.split('&').filter(|pair| !pair.is_empty() && !goes(pair)).map(str::to_owned);
    let set = set.iter().map(|(name, value)| format!("{}={}", encode(name, b""), encode(value, b"=")));
    let query = kept.chain(set).collect::<Vec<_>>().join("&");
    let path = request.uri.path();
    let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let target = target.parse::<PathAndQuery>().map_err(|error| error.to_string())?;
    let mut parts = request.uri.clone().into_parts();
    parts.path_and_query = Some(target);
    request.uri = Uri::from_parts(parts).map_err(|error| error.to_string())?;
    // A raw query is written only for the query that it was read as (`RawQuery::target`).
    Ok(())
}

/// Encodes a name or value from the authorizer. A `%` with two digits counts as encoded already (Envoy sends it
/// unchanged). Characters that could end it, or begin another parameter, are encoded.
fn encode(text: &str, kept: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    let bytes = text.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        let is_hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
        let encoded = byte == b'%' && is_hex(at + 1) && is_hex(at + 2);
        if encoded
            || byte.is_ascii_alphanumeric()
            || b"-._~:/@,!$'()*+?".contains(&byte)
            || kept.contains(&byte)
        {
            out.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(query: &str, set: &[(&str, &str)], remove: &[&str]) -> String {
        let mut head =
            RequestHead { uri: format!("http://a/p{query}").parse().unwrap(), ..RequestHead::default() };
        let set: Vec<_> = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let remove: Vec<_> = remove.iter().map(|&name| name.to_owned()).collect();
        edit(&mut head, &set, &remove).unwrap();
        head.uri.path_and_query().unwrap().as_str().to_owned()
    }

    #[test]
    fn no_other_spelling_of_a_parameter_stays() {
        for query in
            ["?role=x", "?ro%6Ce=x", "?r%6fle=x&role=y", "?role", "?a;role=x", "?&&role=x", "?%72%6F%6C%65"]
        {
            assert_eq!(edited(query, &[], &["role"]), "/p", "{query}");
            assert_eq!(edited(query, &[("role", "user")], &[]), "/p?role=user", "{query}");
        }
        assert_eq!(edited("?a=1&roles=x&b=%zz", &[], &["role"]), "/p?a=1&roles=x&b=%zz");
        assert_eq!(edited("?my+role=1", &[], &["my role"]), "/p");
        assert_eq!(edited("", &[("a b", "x&role=admin#\r\n")], &[]), "/p?a%20b=x%26role=admin%23%0D%0A");
        assert_eq!(
            edited("?t=1&role=x", &[("t", "a%26b%2"), ("ro%6Ce", "u;v")], &[]),
            "/p?t=a%26b%252&ro%6Ce=u%3Bv"
        );
        assert_eq!(edited("?keep=%20&&a", &[], &[]), "/p?keep=%20&&a");
    }

    #[test]
    fn of_a_query_as_the_client_sent_it_nothing_stays_that_was_changed() {
        let (path, raw) = attache_wire::path_and_query(b"/p?role=admin&a=\"x\"").unwrap();
        let mut head = RequestHead { uri: Uri::from(path), raw_query: raw, ..RequestHead::default() };
        let written = |head: &RequestHead| {
            head.raw_query.as_ref().and_then(|raw| raw.target(head.uri.path_and_query().unwrap()))
        };
        assert_eq!(written(&head).as_deref(), Some(&b"/p?role=admin&a=\"x\""[..]));
        edit(&mut head, &[], &["role".to_owned()]).unwrap();
        assert_eq!((written(&head), head.uri.query()), (None, Some("a=%22x%22")));
    }

    #[test]
    fn nothing_in_a_value_ends_it() {
        assert_eq!(edited("", &[("a", "x&ad=1#ab%zz%az%za")], &[]), "/p?a=x%26ad=1%23ab%25zz%25az%25za");
    }
}
