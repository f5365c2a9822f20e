//! Who may talk: patterns over the subject alternative names of a verified client certificate.
//!
//! DNS: letters' case is ignored, a leading `*.` is exactly one label. URI: scheme and authority ignore case, the path
//! does not (RFC 3986 section 6.2.2.1; SPIFFE-ID section 2); `*` is one whole path segment, a final `/**` is one or more.
//! Wildcards never stand for an empty, `.` or `..` segment. `deny` is looked at first; then an empty `allow` admits
//! every verified client, and one that is not empty only those whose name it has.

use attache_config::model::SanPattern;

use crate::Certificate;

/// Says why the client may not talk, or nothing.
pub(crate) fn refusal(
    client: Option<&Certificate>,
    allow: &[SanPattern],
    deny: &[SanPattern],
) -> Option<String> {
    let Some(client) = client else {
        return (!allow.is_empty())
            .then(|| "the client showed no certificate, and only the names in `tls.allow` may talk".into());
    };
    if let Some(pattern) = deny.iter().find(|pattern| matches(pattern, client)) {
        return Some(format!("client {:?} is refused by `tls.deny`: {}", client.name(), text(pattern)));
    }
    if allow.is_empty() || any(allow, client) {
        return None;
    }
    Some(format!("client {:?} is not in `tls.allow`", client.name()))
}

/// One of the patterns is a name of the certificate.
pub(crate) fn any(patterns: &[SanPattern], certificate: &Certificate) -> bool {
    patterns.iter().any(|pattern| matches(pattern, certificate))
}

fn text(pattern: &SanPattern) -> &str {
    match pattern {
        SanPattern::Dns(name) | SanPattern::Uri(name) => name,
    }
}

fn matches(pattern: &SanPattern, client: &Certificate) -> bool {
    match pattern {
        SanPattern::Dns(pattern) => client.dns.iter().any(|name| dns(pattern, name)),
        SanPattern::Uri(pattern) => client.uris.iter().any(|name| uri(pattern, name)),
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
            let _ = (uri(&pattern, &name), dns(&pattern, &name));
        }
    }
}
