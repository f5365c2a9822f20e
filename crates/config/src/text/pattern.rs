//! Patterns of hosts, paths, values and identities.

use std::net::IpAddr;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use regex::{Regex, RegexBuilder};

use super::{
    NotationError,
    address::{host_name, split_port},
    wrong,
};
use crate::model::{HostName, HostPattern, PathPattern, SanPattern, Segment, ValuePattern, attributes};

pub(super) fn host(text: &str) -> Result<HostPattern, NotationError> {
    if text.contains('/') {
        return wrong(
            "{} isn't a host",
            "only the name and, after a colon, a port; the path is matched by `path`",
        );
    }
    let (host, port) = split_port(text)?;
    if port == Some(0) {
        return wrong("{} has port 0", "a port from 1 to 65535");
    }
    let name = match host {
        "*" => HostName::Any,
        host => match (host.strip_prefix("*."), host.strip_suffix(".*")) {
            (Some(suffix), None) => HostName::Suffix(format!(".{}", host_name(suffix)?).into()),
            (None, Some(prefix)) => HostName::Prefix(format!("{}.", host_name(prefix)?).into()),
            _ if host.contains('*') => {
                return wrong(
                    "{} has a `*` inside",
                    "`*` stands for whole labels: `*.internal` or `orders.*`",
                );
            }
            // An IPv6 address stands in brackets in a Host header (RFC 3986 section 3.2.2).
            _ => match host.parse::<IpAddr>() {
                Ok(IpAddr::V6(address)) => HostName::Exact(format!("[{address}]").into()),
                _ => HostName::Exact(host_name(host)?),
            },
        },
    };
    Ok(HostPattern { name, port })
}

/// A path to match.
pub(super) fn path(text: &str) -> Result<PathPattern, NotationError> {
    if let Some(regex) = text.strip_prefix('~') {
        return anchored(regex).map(|regex| PathPattern::Regex(regex.into()));
    }
    if text == "*" {
        return Ok(PathPattern::Prefix("".into()));
    }
    if !text.starts_with('/') {
        return wrong(
            "{} isn't a path",
            format!("a path begins with `/`, a regular expression with `~`: `/{text}`?"),
        );
    }
    path_characters(text)?;
    if text.contains('{') || text.contains('}') {
        return template(text).map(PathPattern::Template);
    }
    match text.strip_suffix("/*") {
        Some(prefix) if !prefix.contains('*') => Ok(PathPattern::Prefix(prefix.into())),
        None if !text.contains('*') => Ok(PathPattern::Exact(text.into())),
        _ => {
            let help = match text.strip_suffix('*') {
                Some(prefix) if !prefix.contains('*') => {
                    format!("a prefix ends on a segment: `{prefix}/*`; or `~{prefix}.*`")
                }
                _ => "`*` stands only at the end; a segment in the middle is `{name}`".to_owned(),
            };
            wrong("{} has a `*` that isn't its last segment", help)
        }
    }
}

/// Captures that a path defines.
pub(crate) fn captures(path: &PathPattern) -> Vec<&str> {
    match path {
        PathPattern::Exact(_) | PathPattern::Prefix(_) => Vec::new(),
        PathPattern::Template(segments) => segments
            .iter()
            .filter_map(|segment| match segment {
                Segment::Literal(_) => None,
                Segment::Capture(name) | Segment::Rest(name) => Some(&**name),
            })
            .collect(),
        PathPattern::Regex(regex) => regex.capture_names().flatten().collect(),
    }
}

fn path_characters(text: &str) -> Result<(), NotationError> {
    if let Some((path, query)) = text.split_once('?') {
        let name = query.split('=').next().unwrap_or_default();
        return wrong("{} has a query", format!("`path: {path}` and `query: {{ {name}: … }}`"));
    }
    if let Some(c) = text
        .chars()
        .find(|c| !c.is_ascii_graphic() || matches!(c, '#' | '"' | '<' | '>' | '\\' | '^' | '`' | '|'))
    {
        let escaped = utf8_percent_encode(c.encode_utf8(&mut [0; 4]), NON_ALPHANUMERIC).to_string();
        return wrong(
            format!("{{}} has a `{c}`, which a request's path never has"),
            format!("write `{escaped}`"),
        );
    }
    Ok(())
}

fn template(text: &str) -> Result<Vec<Segment>, NotationError> {
    let mut segments = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    let mut parts = text.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        let Some(inside) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else {
            if part.contains(['{', '}']) {
                return wrong(
                    "{} has a capture that isn't a whole segment",
                    format!("`/{{name}}/`, or a regular expression with `(?<name>…)`; found `{part}`"),
                );
            }
            if part.contains('*') {
                return wrong("{} mixes `*` and captures", "the rest of a path is captured by `{rest...}`");
            }
            segments.push(Segment::Literal(part.into()));
            continue;
        };
        let (name, rest) = inside.strip_suffix("...").map_or((inside, false), |name| (name, true));
        let right = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !right {
            return wrong(
                format!("`{{{inside}}}` isn't a capture"),
                "letters, digits and `_`, such as `{user_id}` or `{rest...}`",
            );
        }
        if names.contains(&name) {
            return wrong(format!("`{{{name}}}` is given twice"), "give each capture a different name");
        }
        names.push(name);
        if rest && parts.peek().is_some() {
            return wrong(
                format!("`{{{name}...}}` isn't the last segment"),
                "the rest of a path is at its end",
            );
        }
        segments.push(if rest { Segment::Rest(name.into()) } else { Segment::Capture(name.into()) });
    }
    Ok(segments)
}

/// A regular expression over a whole text. The size is bounded, since a pattern such as `(\w{1000}){1000}` would take
/// all memory.
pub(super) fn anchored(text: &str) -> Result<Regex, NotationError> {
    // The expression alone first: `a)(b` would be right between our parentheses.
    let build = |text: &str| RegexBuilder::new(text).size_limit(1 << 20).build();
    match build(text).and_then(|_| build(&format!("^(?:{text})$"))).or_else(|error| {
        // A comment in verbose mode swallows the closing parenthesis: a line break ends it.
        build(text).map_err(|_| error).and_then(|_| build(&format!("^(?:{text}\n)$")))
    }) {
        Ok(regex) => Ok(regex),
        Err(regex::Error::CompiledTooBig(_)) => wrong(
            "{} is too large when compiled",
            "smaller repetition counts, or `\\d` instead of Unicode classes",
        ),
        Err(error) => {
            let message = error.to_string();
            let last =
                message.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
            wrong("{} isn't a regular expression", last)
        }
    }
}

/// The pattern, and whether it is inverted.
pub(super) fn value(text: &str) -> Result<(ValuePattern, bool), NotationError> {
    let (not, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
    let value = if let Some(literal) = text.strip_prefix('=') {
        ValuePattern::Exact(literal.into())
    } else if let Some(regex) = text.strip_prefix('~') {
        ValuePattern::Regex(anchored(regex)?.into())
    } else if text == "*" {
        ValuePattern::Present
    } else {
        match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(suffix), None) if !suffix.contains('*') => ValuePattern::Suffix(suffix.into()),
            (None, Some(prefix)) if !prefix.contains('*') => ValuePattern::Prefix(prefix.into()),
            (None, None) if !text.contains('*') => ValuePattern::Exact(text.into()),
            _ => {
                return wrong(
                    "{} has a `*` that is neither first nor last",
                    format!("a regular expression `~…`, or `={text}` for the text itself"),
                );
            }
        }
    };
    Ok((value, not))
}

pub(super) fn san(text: &str) -> Result<SanPattern, NotationError> {
    if let Some(subject) = text.strip_prefix("subject:") {
        return subject_pattern(subject);
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let word =
            !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(&b));
        let (domain, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !word || domain.is_empty() || domain.contains('*') {
            return wrong(
                "{} isn't an identity",
                "such as `spiffe://cluster.local/ns/shop/sa/web`, its domain without `*`",
            );
        }
        let segments: Vec<&str> = path.split('/').collect();
        let last = segments.len().saturating_sub(1);
        let odd = segments.iter().enumerate().any(|(index, segment)| {
            segment.contains('*') && *segment != "*" && !(*segment == "**" && index == last)
        });
        if odd {
            return wrong(
                "{} has a `*` inside of a segment",
                "`*` is one whole segment, a final `/**` the rest",
            );
        }
        return Ok(SanPattern::Uri(text.into()));
    }
    let name = text.strip_prefix("dns:").unwrap_or(text);
    let dns = match name.strip_prefix("*.") {
        Some(rest) => format!("*.{}", host_name(rest)?).into(),
        None => host_name(name)?,
    };
    Ok(SanPattern::Dns(dns))
}

/// `CN=web,O=Shop`, as a distinguished name is written.
fn subject_pattern(subject: &str) -> Result<SanPattern, NotationError> {
    let whole = |(kind, value): (&str, &str)| {
        let inner = value.strip_prefix('*').unwrap_or(value);
        let inner = inner.strip_suffix('*').unwrap_or(inner);
        !kind.is_empty()
            && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
            && !value.is_empty()
            && !inner.contains('*')
    };
    if subject.is_empty() || !attributes(subject).all(whole) {
        return wrong(
            "{} isn't a subject",
            "attributes such as `subject:CN=web,O=Shop`, with `*` only at the begin or end of a value",
        );
    }
    Ok(SanPattern::Subject(subject.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> PathPattern {
        super::path(text).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"))
    }

    #[test]
    fn a_path_is_exact_a_prefix_a_template_or_a_regex() {
        assert_eq!(path("/v1"), PathPattern::Exact("/v1".into()));
        assert_eq!(path("/v1/*"), PathPattern::Prefix("/v1".into()));
        assert_eq!(path("/*"), PathPattern::Prefix("".into()));
        assert_eq!(
            path("/users/{id}/{rest...}"),
            PathPattern::Template(vec![
                Segment::Literal("users".into()),
                Segment::Capture("id".into()),
                Segment::Rest("rest".into())
            ])
        );
        let PathPattern::Regex(regex) = path("~/v[0-9]|/w") else { panic!() };
        assert!(regex.is_match("/v1") && regex.is_match("/w") && !regex.is_match("/v1/x"));
    }

    #[test]
    fn a_path_that_could_never_match_is_refused() {
        for text in [
            "v1",
            "/v1*",
            "/*/x",
            "/a?b=1",
            "/a b",
            "/ä",
            "/{}",
            "/{a}/{a}",
            "/x{a}",
            "/{r...}/x",
            "/{a}/*",
            "~(",
            "~a)(b",
        ] {
            assert!(super::path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_regex_is_bounded_in_size_and_comments_do_not_break_its_anchor() {
        assert!(super::path(r"~(\w{1000}){1000}").unwrap_err().what.contains("too large"));
        let PathPattern::Regex(regex) = path("~(?x)/a # comment") else { panic!() };
        assert!(regex.is_match("/a") && !regex.is_match("/ab"));
    }

    #[test]
    fn a_host_is_lower_case_with_whole_labels_as_wildcards() {
        let host = |text: &str| super::host(text).unwrap();
        assert_eq!(host("Orders.Internal.").name, HostName::Exact("orders.internal".into()));
        assert_eq!(host("*.x").name, HostName::Suffix(".x".into()));
        assert_eq!(host("x.*").name, HostName::Prefix("x.".into()));
        assert_eq!(host("*:80"), HostPattern { name: HostName::Any, port: Some(80) });
        assert_eq!(host("[::1]:80"), HostPattern { name: HostName::Exact("[::1]".into()), port: Some(80) });
        for text in ["a*b", "*.*", "http://a", "", "a:99999", "ä.de", "a..b", "a:0"] {
            assert!(super::host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_value_is_exact_unless_its_first_or_last_character_says_otherwise() {
        let value = |text: &str| super::value(text).unwrap();
        assert_eq!(value("v1").0, ValuePattern::Exact("v1".into()));
        assert_eq!(value("*").0, ValuePattern::Present);
        assert_eq!(value("a*").0, ValuePattern::Prefix("a".into()));
        assert_eq!(value("*a").0, ValuePattern::Suffix("a".into()));
        assert_eq!(value("=*"), (ValuePattern::Exact("*".into()), false));
        assert_eq!(value("!=!"), (ValuePattern::Exact("!".into()), true));
        assert_eq!(value("!*"), (ValuePattern::Present, true));
        assert!(super::value("a*b").is_err());
    }

    #[test]
    fn an_identity_has_wildcards_only_for_whole_segments() {
        for text in ["spiffe://*/a", "spiffe://d/a*", "spiffe://d/**/a", "://", "a b"] {
            assert!(san(text).is_err(), "{text}");
        }
        for text in ["subject:", "subject:CN", "subject:=x", "subject:CN=a*b", "subject:CN=,O=x"] {
            assert!(san(text).is_err(), "{text}");
        }
        assert_eq!(san("subject:CN=web-*,O=Shop").unwrap(), SanPattern::Subject("CN=web-*,O=Shop".into()));
        assert_eq!(san("dns:A.b").unwrap(), SanPattern::Dns("a.b".into()));
    }
}
