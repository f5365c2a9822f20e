//! Finds the request target for a probe's `path`, and the target of a redirect. The rules are those of the kubelet, so those of Go's
//! `net/url`.
//!
//! The kubelet passes a probe's path to `url.Parse`, adds its own scheme and host, and sends the result of `RequestURI`
//! (`pkg/probe/http/request.go`). A path that can't be parsed is escaped as a whole. Bytes that a request line must not contain are escaped
//! here in a query too; Go sends them unescaped.

use percent_encoding::{
    AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, percent_encode, utf8_percent_encode,
};

/// The request target of a probe's path.
pub(super) fn of_path(path: &str) -> String {
    let parsed = split(path);
    let Some((reference, query)) = parsed else {
        return rooted(utf8_percent_encode(path, OF_PATH).to_string());
    };
    let path = reference.map_or_else(|| path_part(path), str::to_owned);
    let mut target = rooted(escaped_path(&path));
    if let Some(query) = query {
        target.push('?');
        target.push_str(&escaped_query(query));
    }
    target
}

/// The path (without scheme and authority) and the query of a reference; `None` if Go can't parse it.
fn split(text: &str) -> Option<(Option<&str>, Option<&str>)> {
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return None;
    }
    let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = match text.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (text, None),
    };
    let (rest, _) = without_origin(rest)?;
    if !has_right_escapes(rest) || !has_right_escapes(fragment) {
        return None;
    }
    Some((Some(rest), query))
}

fn path_part(text: &str) -> String {
    text.split(['?', '#']).next().unwrap_or_default().to_owned()
}

/// The path after `scheme://authority`, together with both; `None` if there is neither a scheme nor a path that Go accepts.
fn without_origin(text: &str) -> Option<(&str, Option<(&str, &str)>)> {
    let (scheme, rest) = match text.find([':', '/', '?', '#']).map(|at| (at, text.as_bytes().get(at))) {
        Some((0, Some(b':'))) => return None,
        Some((at, Some(b':'))) => {
            let (scheme, rest) = (text.get(..at)?, text.get(at + 1..)?);
            let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
            // If the first segment contains a colon, it is not a path.
            if !valid {
                return None;
            }
            (scheme, rest)
        }
        _ => ("", text),
    };
    if let Some(authority) = rest.strip_prefix("//")
        && !(scheme.is_empty() && rest.starts_with("///"))
    {
        let (authority, path) = authority.split_at(authority.find('/').unwrap_or(authority.len()));
        return Some((path, Some((scheme, authority))));
    }
    if scheme.is_empty() { Some((rest, None)) } else { Some((rest, Some((scheme, "")))) }
}

fn has_right_escapes(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().filter(|(_, b)| **b == b'%').all(|(at, _)| {
        bytes.get(at + 1).is_some_and(u8::is_ascii_hexdigit)
            && bytes.get(at + 2).is_some_and(u8::is_ascii_hexdigit)
    })
}

fn rooted(path: String) -> String {
    if path.starts_with('/') { path } else { format!("/{path}") }
}

/// Everything except letters and digits is escaped (RFC 3986 section 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// The characters that Go escapes in a path (`encodePath`).
const OF_PATH: &AsciiSet = &ESCAPED
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');
/// The characters that a request line must not contain.
const OF_QUERY: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The path unchanged, if all its characters are allowed in a path; otherwise it is unescaped and escaped again (`URL.EscapedPath`).
fn escaped_path(path: &str) -> String {
    let may_stand = |b: u8| b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:@/[]%".contains(&b);
    if path.bytes().all(may_stand) {
        return path.to_owned();
    }
    let raw: Vec<u8> = percent_decode_str(path).collect();
    percent_encode(&raw, OF_PATH).to_string()
}

/// Escapes what a request line must not contain; everything else stays unchanged.
fn escaped_query(query: &str) -> String {
    utf8_percent_encode(query, OF_QUERY).to_string()
}

/// The destination of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProbeTarget {
    pub(super) https: bool,
    /// The host; an IPv6 address is without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Whether the port was written: a redirect may leave it out.
    pub(super) written: bool,
    pub(super) target: String,
}

impl ProbeTarget {
    /// The authority, in the form for `Host`.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.written { format!("{host}:{}", self.port) } else { host }
    }

    pub(super) fn url(&self) -> String {
        format!("http{}://{}{}", if self.https { "s" } else { "" }, self.authority(), self.target)
    }

    /// The target of a `Location` (RFC 3986 section 5.2), and whether the `Location` itself names the host.
    ///
    /// # Errors
    /// The `Location` can't be parsed, or isn't HTTP.
    pub(super) fn follow(&self, location: &str) -> Result<(Self, bool), String> {
        let wrong = || format!("the redirect's Location `{}` can't be followed", location.escape_debug());
        let (reference, query) = split(location).ok_or_else(wrong)?;
        let reference = reference.unwrap_or_default();
        let text = location.split(['?', '#']).next().unwrap_or_default();
        let origin = without_origin(text).ok_or_else(wrong)?.1;
        let mut place = self.clone();
        if let Some((scheme, authority)) = origin {
            place.https = match scheme.to_ascii_lowercase().as_str() {
                "" => self.https,
                "http" => false,
                "https" => true,
                _ => return Err(wrong()),
            };
            let authority = authority.rsplit('@').next().unwrap_or_default();
            let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                Some((host, rest)) => (host, rest.strip_prefix(':')),
                None => {
                    authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)))
                }
            };
            if host.is_empty() {
                return Err(wrong());
            }
            host.clone_into(&mut place.host);
            let port = port.filter(|port| !port.is_empty());
            place.written = port.is_some();
            place.port = match port {
                Some(port) => port.parse().map_err(|_| wrong())?,
                None if place.https => 443,
                None => 80,
            };
            place.target = escaped_path(&without_dots(&rooted(reference.to_owned())));
        } else if reference.is_empty() {
            let own = self.target.split('?').next().unwrap_or_default();
            place.target = if query.is_none() { self.target.clone() } else { own.to_owned() };
        } else if reference.starts_with('/') {
            place.target = escaped_path(&without_dots(reference));
        } else {
            let own = self.target.split('?').next().unwrap_or_default();
            let folder = own.rsplit_once('/').map_or("", |(folder, _)| folder);
            place.target = escaped_path(&without_dots(&format!("{folder}/{reference}")));
        }
        if let Some(query) = query {
            place.target = format!("{}?{}", place.target, escaped_query(query));
        }
        // A scheme alone doesn't make it another host; Go checks whether the reference is absolute.
        Ok((place, origin.is_some_and(|(scheme, _)| !scheme.is_empty())))
    }
}

/// Removes dot segments (RFC 3986 section 5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let last = segments.len().saturating_sub(1);
    for (index, segment) in segments.into_iter().enumerate() {
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if index == last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_is_sent_as_the_kubelet_sends_it() {
        for (path, target) in [
            ("", "/"),
            ("/", "/"),
            ("live", "/live"),
            ("/a b", "/a%20b"),
            ("/a%20b", "/a%20b"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a b%2Fc", "/a%20b/c"),
            ("/a#b", "/a"),
            ("/gr\u{fc}\u{df}", "/gr%C3%BC%C3%9F"),
            ("/<>\"{}|^`\\", "/%3C%3E%22%7B%7D%7C%5E%60%5C"),
            ("/a?q=<>|{}^\" ", "/a?q=%3C%3E%7C%7B%7D%5E%22%20"),
            ("/a?q=a%zz", "/a?q=a%zz"),
            ("/%zz?a", "/%25zz%3Fa"),
            ("/a\u{1}b", "/a%01b"),
            ("http://x/y", "/y"),
            ("//x/y?z", "/y?z"),
            ("http://x", "/"),
            ("?x=1", "/?x=1"),
            ("/a?", "/a?"),
            ("/[::]!'()*", "/[::]!'()*"),
            ("/a:b", "/a:b"),
        ] {
            assert_eq!(of_path(path), target, "{path:?}");
        }
    }

    fn from(target: &str) -> ProbeTarget {
        ProbeTarget {
            https: false,
            host: "10.0.0.7".into(),
            port: 8080,
            written: true,
            target: target.into(),
        }
    }

    #[test]
    fn a_redirect_is_resolved_as_in_the_rfc() {
        for (target, location, url) in [
            ("/healthz", "/healthz/", "http://10.0.0.7:8080/healthz/"),
            ("/a/b?c", "d", "http://10.0.0.7:8080/a/d"),
            ("/a/b?c", "../d?e", "http://10.0.0.7:8080/d?e"),
            ("/a/b?c", "?e", "http://10.0.0.7:8080/a/b?e"),
            ("/a/b?c", "", "http://10.0.0.7:8080/a/b?c"),
            ("/a", "https://10.0.0.7/b", "https://10.0.0.7/b"),
            ("/a", "//10.0.0.7:9/b", "http://10.0.0.7:9/b"),
            ("/a", "http://x.example", "http://x.example/"),
            ("/a", "http://[fd00::1]:9/b c#d", "http://[fd00::1]:9/b%20c"),
            ("/a", "/./b/../c/.", "http://10.0.0.7:8080/c/"),
        ] {
            assert_eq!(from(target).follow(location).unwrap().0.url(), url, "{location}");
        }
        for wrong in ["ftp://x/", "http:///x", "http://x:y/", "\u{1}", "/%zz", ":"] {
            assert!(from("/").follow(wrong).is_err(), "{wrong:?}");
        }
        assert!(from("/").follow("http://x/").unwrap().1 && !from("/").follow("/x").unwrap().1);
    }

    proptest! {
        #[test]
        fn every_path_and_every_location_makes_a_target_that_can_be_sent(text in "\\PC*|[ -~\u{1}-\u{20}]*|(/|\\.|\\.\\.|%[0-9a-z]{0,2}|\\?|#|:|//|a|é|http){0,12}") {
            let target = of_path(&text);
            prop_assert!(target.starts_with('/') && target.parse::<http::Uri>().is_ok(), "{text:?}: {target:?}");
            if let Ok((place, _)) = from("/a").follow(&text) {
                prop_assert!(place.target.parse::<http::Uri>().is_ok(), "{text:?}: {place:?}");
            }
        }
    }
}
