//! Conditions on the host.
//!
//! A host has many spellings (RFC 9110 section 4.2.3): case, a dot at the end and the default port make no difference.
//! A pattern of routes matches all of them. A regular expression is for the text as the client sent it. If it doesn't
//! match that text, but another spelling of the same host, the condition is unsure, because attache can't know which
//! one the upstream reads.

use std::fmt::Write as _;

use attache_config::model::AccessHost;
use attache_http::{CanonicalHost, default_port, pattern::host_matches};

use crate::truth::Truth;

/// `text` is what the client sent, `name` and `port` what it means.
pub(crate) fn holds(pattern: &AccessHost, text: &str, name: &CanonicalHost<'_>, port: u16) -> Truth {
    match pattern {
        AccessHost::Name(pattern) => host_matches(pattern, Some(name), port).into(),
        AccessHost::Text(regex) if regex.is_match(text) => Truth::Yes,
        AccessHost::Text(regex) => {
            // Allocated only for the few clients whose host doesn't match as a text.
            let mut plain =
                if name.is_v6() { format!("[{}]", name.as_str()) } else { name.as_str().to_owned() };
            let is_default = ["http", "https"].iter().any(|scheme| default_port(scheme) == port);
            if is_default && regex.is_match(&plain) {
                return Truth::Unsure;
            }
            // Writing to a String can't fail.
            let _ = write!(plain, ":{port}");
            if regex.is_match(&plain) { Truth::Unsure } else { Truth::No }
        }
    }
}

#[cfg(test)]
mod tests {
    use attache_config::model::AccessConditions;
    use attache_http::parse_authority;
    use regex::Regex;

    use super::*;
    use crate::{conditions::CompiledConditions, facts::Facts, networks::Networks};

    fn asked(regex: &str, text: &str) -> Truth {
        let parsed = parse_authority(text).unwrap();
        let name = CanonicalHost::new(parsed.host).unwrap();
        let pattern = AccessHost::Text(Regex::new(&format!("^(?:{regex})$")).unwrap().into());
        holds(&pattern, text, &name, parsed.port.unwrap_or(80))
    }

    #[test]
    fn another_spelling_of_a_host_is_in_doubt() {
        for (regex, text, expected) in [
            (r"example\.com", "example.com", Truth::Yes),
            (r"example\.com", "EXAMPLE.com", Truth::Unsure),
            (r"example\.com", "example.com.", Truth::Unsure),
            (r"example\.com", "example.com:80", Truth::Unsure),
            (r"example\.com", "EXAMPLE.COM.:80", Truth::Unsure),
            (r"example\.com", "example.com:8080", Truth::No),
            (r"example\.com", "example.org", Truth::No),
            (r"example\.com", "xexample.com", Truth::No),
            (r"(?i:example\.com)", "EXAMPLE.com", Truth::Yes),
            (r"(?i:example\.com)", "EXAMPLE.com.", Truth::Unsure),
            (r"example\.com:8080", "example.com:8080", Truth::Yes),
            (r"example\.com:8080", "EXAMPLE.com.:8080", Truth::Unsure),
            (r"example\.com:80", "example.com", Truth::Unsure),
            (r"Example\.com", "Example.com", Truth::Yes),
            (r"Example\.com", "example.com", Truth::No),
            (r".*\.example\.com", "a.example.com", Truth::Yes),
            (r".*\.example\.com", "A.EXAMPLE.com", Truth::Unsure),
            (r"\[::1\]", "[::1]", Truth::Yes),
            (r"\[::1\]", "[0:0::1]", Truth::Unsure),
            (r"::1", "[0:0::1]", Truth::No),
            (r"\[::1\]:8080", "[0:0::1]:8080", Truth::Unsure),
        ] {
            assert_eq!(asked(regex, text), expected, "{regex} {text}");
        }
    }

    #[test]
    fn a_rule_compares_an_expression_with_what_the_client_sent() {
        let regex = Regex::new(r"^(?:example\.com)$").unwrap();
        let config = AccessConditions { hosts: vec![AccessHost::Text(regex.into())], ..Default::default() };
        let client = attache_http::Client::default();
        for (uri, expected) in [
            ("http://example.com/", Truth::Yes),
            ("http://EXAMPLE.com/", Truth::Unsure),
            ("http://example.com:80/", Truth::Unsure),
            ("http://example.org/", Truth::No),
        ] {
            let request = attache_wire::RequestHead { uri: uri.parse().unwrap(), ..Default::default() };
            let facts = Facts::of_request(&request, &client);
            assert_eq!(CompiledConditions::new(&config).all(&facts, &Networks::new(&[])), expected, "{uri}");
        }
    }
}
