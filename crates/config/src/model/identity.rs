//! Names of a verified certificate, and patterns for them: which clients are allowed, which endpoints are trusted,
//! which route matches.
//!
//! DNS: letters' case is ignored, a leading `*.` is exactly one label. URI: scheme and authority ignore case, the path
//! does not (RFC 3986 section 6.2.2.1; SPIFFE-ID section 2); `*` is one whole path segment, a final `/**` is one or
//! more. Wildcards never stand for an empty, `.` or `..` segment. Subject: the subject must have every attribute of the
//! pattern, with the same type and the same whole value as RFC 4514 writes them, in any order; a `*` at the begin or
//! end of a value stands for any text.

use std::{fmt, sync::Arc};

use super::Name;

/// A name of a certificate to match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SanPattern {
    /// `dns:NAME`, or a name alone; `*.` matches one label.
    Dns(Name),
    /// `spiffe://DOMAIN/PATH` or another URI; `*` matches one path segment, a final `/**` the rest.
    Uri(Name),
    /// `subject:CN=web,O=Shop`: attributes of the subject, all of which must be there.
    Subject(Name),
}

/// The names of one verified certificate.
#[derive(Clone, Copy, Debug, Default)]
pub struct CertificateNames<'a> {
    /// `URI` subject alternative names.
    pub uris: &'a [Arc<str>],
    /// `DNS` subject alternative names.
    pub dns: &'a [Arc<str>],
    /// Distinguished name of the subject as RFC 4514 writes it; empty where there is none.
    pub subject: &'a str,
}

impl SanPattern {
    /// True if one of the names matches.
    pub fn matches(&self, names: CertificateNames<'_>) -> bool {
        match self {
            Self::Dns(pattern) => names.dns.iter().any(|name| dns(pattern, name)),
            Self::Uri(pattern) => names.uris.iter().any(|name| uri(pattern, name)),
            Self::Subject(pattern) => subject(pattern, names.subject),
        }
    }
}

/// As it is written in the file.
impl fmt::Display for SanPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(text) | Self::Uri(text) => f.write_str(text),
            Self::Subject(text) => write!(f, "subject:{text}"),
        }
    }
}

fn dns(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(rest) => {
            name.split_once('.').is_some_and(|(label, of)| !label.is_empty() && of.eq_ignore_ascii_case(rest))
        }
        None => pattern.eq_ignore_ascii_case(name),
    }
}

fn uri(pattern: &str, name: &str) -> bool {
    let ((wanted, pattern), (origin, path)) = (split(pattern), split(name));
    if !wanted.eq_ignore_ascii_case(origin) {
        return false;
    }
    let mut segments = path.split('/');
    let mut rest = pattern;
    loop {
        let (wanted, more) = match rest.split_once('/') {
            Some((wanted, more)) => (wanted, Some(more)),
            None => (rest, None),
        };
        let Some(segment) = segments.next() else { return false };
        match (wanted, more) {
            ("**", None) => return wild(segment) && segments.all(wild),
            ("*", _) if wild(segment) => {}
            ("*", _) => return false,
            _ if wanted == segment => {}
            _ => return false,
        }
        match more {
            Some(more) => rest = more,
            None => return segments.next().is_none(),
        }
    }
}

fn wild(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..")
}

/// `scheme://authority` and the path from its slash on.
fn split(uri: &str) -> (&str, &str) {
    let authority = uri.find("://").map_or(0, |at| at + 3);
    let path = uri.get(authority..).and_then(|rest| rest.find('/')).map_or(uri.len(), |at| authority + at);
    uri.split_at_checked(path).unwrap_or((uri, ""))
}

fn subject(pattern: &str, subject: &str) -> bool {
    let mut wanted = attributes(pattern).peekable();
    // An empty pattern matches no client.
    wanted.peek().is_some()
        && wanted.all(|(kind, value)| {
            attributes(subject).any(|(its, text)| its.eq_ignore_ascii_case(kind) && text_matches(value, text))
        })
}

fn text_matches(pattern: &str, text: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        _ if pattern == "*" => !text.is_empty(),
        (Some(end), None) => text.ends_with(end),
        (None, Some(begin)) => text.starts_with(begin),
        (Some(end), Some(_)) => text.contains(end.strip_suffix('*').unwrap_or(end)),
        (None, None) => pattern == text,
    }
}

/// Types and values of a distinguished name. Commas and plus signs inside of a value are escaped (RFC 4514 section
/// 2.4), so that no value can add an attribute.
pub(crate) fn attributes(name: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = name;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut escaped = false;
        let end = rest.find(|c| {
            let ends = !escaped && matches!(c, ',' | '+');
            escaped = !escaped && c == '\\';
            ends
        });
        let (one, more) = match end {
            Some(at) => (rest.get(..at)?, rest.get(at + 1..)?),
            None => (rest, ""),
        };
        rest = more;
        Some(one.split_once('=').map_or((one.trim(), ""), |(kind, value)| (kind.trim(), value)))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_dns_wildcard_is_one_label() {
        assert!(dns("*.shop.internal", "web.shop.internal"));
        assert!(dns("Web.Shop.internal", "web.shop.INTERNAL"));
        assert!(!dns("*.shop.internal", "shop.internal"));
        assert!(!dns("*.shop.internal", "a.b.shop.internal"));
        assert!(!dns("*.shop.internal", ".shop.internal"));
        assert!(!dns("shop.internal", "web.shop.internal"));
    }

    #[test]
    fn a_uri_wildcard_is_one_segment_and_a_final_double_star_is_the_rest() {
        let id = "spiffe://cluster.local/ns/shop/sa/web";
        assert!(uri(id, id));
        assert!(uri("spiffe://cluster.local/ns/*/sa/web", id));
        assert!(uri("spiffe://cluster.local/ns/shop/**", id));
        assert!(uri("spiffe://cluster.local/**", id));
        assert!(uri("SPIFFE://Cluster.LOCAL/ns/shop/sa/web", id));
        assert!(!uri("spiffe://cluster.local/NS/shop/sa/web", id), "paths have case");
        assert!(!uri("spiffe://cluster.local/ns/*", id));
        assert!(!uri("spiffe://cluster.local/ns/*/web", id));
        assert!(!uri("spiffe://cluster.local/ns/shop/sa/web/**", id), "the rest is not empty");
        assert!(!uri("spiffe://cluster.local", id));
        assert!(!uri("spiffe://*/ns/shop/sa/web", id), "the trust domain has no wildcard");
        assert!(!uri("spiffe://cluster.local/ns/sh*/sa/web", id), "a star is a whole segment");
    }

    #[test]
    fn wildcards_do_not_stand_for_dots_or_nothing() {
        assert!(!uri("spiffe://d/ns/*/sa", "spiffe://d/ns/../sa"));
        assert!(!uri("spiffe://d/ns/*/sa", "spiffe://d/ns//sa"));
        assert!(!uri("spiffe://d/ns/**", "spiffe://d/ns/"));
        assert!(!uri("spiffe://d/ns/**", "spiffe://d/ns/a/../../b"));
    }

    #[test]
    fn another_authority_that_only_begins_alike_does_not_match() {
        assert!(!uri("spiffe://cluster.local/**", "spiffe://cluster.local.evil/ns"));
        assert!(!uri("spiffe://cluster.local/**", "spiffe://evil/cluster.local/ns"));
        assert!(!uri("spiffe://cluster.local/**", "https://cluster.local/ns"));
    }

    #[test]
    fn every_attribute_of_a_subject_pattern_must_be_there() {
        let name = r"CN=web-7,OU=Front+L=Berlin,O=Shop\, Inc.";
        for right in ["CN=web-7", "cn=web-*", "O=Shop\\, Inc.,CN=*-7", "L=Berlin", "OU=*ron*", "CN=*"] {
            assert!(subject(right, name), "{right}");
        }
        for wrong in ["", "CN=web", "CN=WEB-7", "O=Shop", "CN=web-7,C=DE", "L=*x*", "C=*", "web-7"] {
            assert!(!subject(wrong, name), "{wrong}");
        }
    }

    #[test]
    fn a_value_can_not_add_an_attribute() {
        assert!(!subject("O=Admin", r"CN=x\,O=Admin"));
        assert!(!subject("O=Admin", r"CN=x\+O=Admin"));
        assert!(subject("O=Admin", r"CN=x\\,O=Admin"), "the backslash itself was escaped");
    }

    proptest! {
        #[test]
        fn a_pattern_without_wildcards_matches_itself_alone(
            a in "[a-z]{1,8}://[a-z.]{1,9}(/[a-zA-Z0-9_-]{1,6}){0,4}",
            b in "[a-z]{1,8}://[a-z.]{1,9}(/[a-zA-Z0-9_-]{1,6}){0,4}",
        ) {
            prop_assert!(uri(&a, &a));
            prop_assert_eq!(uri(&a, &b), a == b);
        }

        #[test]
        fn nothing_panics(pattern in ".{0,40}", name in ".{0,40}") {
            let _ = (uri(&pattern, &name), dns(&pattern, &name), subject(&pattern, &name));
        }
    }
}
