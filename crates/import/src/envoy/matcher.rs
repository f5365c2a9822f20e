//! Converts matchers of routes, headers and query parameters to attache's notation.

use crate::access::{self, ImportedAccess};
use crate::path::{self, PlannedPath};
use crate::plan::RuleConditions;
use crate::tree::Node;

/// A condition that attache can't express, and the reason.
pub(crate) struct Untranslatable(pub(crate) String);

type MatcherResult<T> = Result<T, Untranslatable>;

fn untranslatable<T>(why: impl Into<String>) -> MatcherResult<T> {
    Err(Untranslatable(why.into()))
}

/// The conditions of a route's `match`.
pub(crate) fn route(node: &Node) -> MatcherResult<RuleConditions> {
    let mut when = RuleConditions { path: path(node)?, ..RuleConditions::default() };
    for (key, value) in node.entries() {
        match crate::tree::snake(key).as_str() {
            "prefix"
            | "path"
            | "safe_regex"
            | "regex"
            | "path_separated_prefix"
            | "path_match_policy"
            | "case_sensitive"
            | "runtime_fraction"
            | "headers"
            | "query_parameters" => {}
            "grpc" => {
                when.headers.push(("content-type".to_owned(), GRPC.to_owned()));
            }
            _ if value.is_empty() => {}
            other => return untranslatable(format!("attache lacks its condition `{other}`")),
        }
    }
    for item in node.list("headers") {
        header(item, &mut when)?;
    }
    for item in node.list("query_parameters") {
        let Some(name) = item.str("name") else { continue };
        if let Some((key, _)) = item.entries().iter().find(|(key, _)| {
            let known = ["name", "string_match", "value", "regex", "present_match"];
            !known.contains(&crate::tree::snake(key).as_str())
        }) {
            return untranslatable(format!("attache lacks its condition `{key}` on the parameter `{name}`"));
        }
        let pattern = match item.get("string_match") {
            Some(matcher) => string(matcher)?,
            None => match (item.str("value"), item.is("regex")) {
                (Some(value), true) => expression(value)?,
                (Some(value), false) => exact(value),
                (None, _) if item.is_false("present_match") => "!*".to_owned(),
                (None, _) => "*".to_owned(),
            },
        };
        add(&mut when.query, name, pattern)?;
    }
    Ok(when)
}

fn path(node: &Node) -> MatcherResult<PlannedPath> {
    if let Some(key) = node.down(&["safe_regex"]).stranger(REGEX) {
        return untranslatable(format!("this import doesn't know `{key}` of its expression"));
    }
    let plain = if let Some(prefix) = node.str("prefix") {
        PlannedPath::prefix(prefix)
    } else if let Some(exact) = node.str("path") {
        PlannedPath::Exact(exact.to_owned())
    } else if let Some(prefix) = node.str("path_separated_prefix") {
        PlannedPath::Segments(prefix.to_owned())
    } else if let Some(regex) = node.down(&["safe_regex"]).str("regex").or_else(|| node.str("regex")) {
        match path::expression(regex) {
            Some(regex) => PlannedPath::Regex(regex),
            None => {
                return untranslatable(format!(
                    "its regular expression `{regex}` has parts that linear-time expressions lack"
                ));
            }
        }
    } else if let Some(policy) = node.get("path_match_policy") {
        template(super::words::config(policy).str("path_template").unwrap_or_default())?
    } else if node.get("headers").is_some() || node.get("grpc").is_some() {
        PlannedPath::All
    } else if node.get("connect_matcher").is_some() {
        return untranslatable(
            "CONNECT is carried by an upstream with `address: authority` or `tcp://` only",
        );
    } else if node.get("prefix").is_some() {
        PlannedPath::All
    } else {
        return untranslatable("this import doesn't know its condition on the path");
    };
    if node.is_false("case_sensitive") {
        return Ok(PlannedPath::Regex(format!("(?i:{})", plain.expression())));
    }
    Ok(plain)
}

/// A URI template: `{name}` is a segment, `{name=*}` too, `{name=**}` the rest, `*` and `**` without a name.
fn template(text: &str) -> MatcherResult<PlannedPath> {
    let mut out = String::new();
    for segment in text.split('/').skip(1) {
        out.push('/');
        let (name, pattern) = match segment.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
            Some(inner) => match inner.split_once('=') {
                Some((name, pattern)) => (name, pattern),
                None => (inner, "*"),
            },
            None if segment == "*" || segment == "**" => ("", segment),
            None if segment.contains(['{', '*']) => {
                return untranslatable(format!("its template `{text}` has parts within a segment"));
            }
            None => {
                out.push_str(&regex::escape(segment));
                continue;
            }
        };
        let pattern = match pattern {
            "*" => "[^/]+",
            "**" => ".*",
            _ => return untranslatable(format!("its template `{text}` has a pattern of several segments")),
        };
        out.push_str(&if name.is_empty() { pattern.to_owned() } else { format!("(?<{name}>{pattern})") });
    }
    Ok(PlannedPath::Regex(out))
}

/// Keys of a condition on a header. The Istio importer sets `without`.
pub(super) const HEADER: &[&str] = &[
    "name",
    "string_match",
    "exact_match",
    "prefix_match",
    "suffix_match",
    "contains_match",
    "safe_regex_match",
    "regex_match",
    "range_match",
    "present_match",
    "invert_match",
    "treat_missing_header_as_empty",
    "without",
];

/// A condition on a header.
pub(crate) fn header(item: &Node, when: &mut RuleConditions) -> MatcherResult<()> {
    let Some(name) = item.str("name") else { return Ok(()) };
    let name = name.to_ascii_lowercase();
    // Envoy sets or removes these headers itself; in attache a client could send them.
    if matches!(name.as_str(), "x-envoy-internal" | "x-envoy-external-address") {
        return untranslatable(format!(
            "its condition `{name}` is on the client's address, for which `authorization` has `client`"
        ));
    }
    if let Some((key, _)) =
        item.entries().iter().find(|(key, _)| !HEADER.contains(&crate::tree::snake(key).as_str()))
    {
        return untranslatable(format!("attache lacks its condition `{key}` on `{name}`"));
    }
    let invert = item.is("invert_match");
    let pattern = wanted(item)?;
    if item.is("treat_missing_header_as_empty") {
        return untranslatable(format!("in the original a missing header `{name}` counts as an empty one"));
    }
    match name.as_str() {
        ":method" | "method" if name.starts_with(':') => return method(&pattern, invert, when),
        ":path" => {
            let path = match (pattern.as_str(), invert) {
                ("*", false) => return Ok(()),
                (text, false) if text.ends_with('*') && text.starts_with('/') && !text.contains('?') => {
                    PlannedPath::prefix(text.trim_end_matches('*'))
                }
                _ => return untranslatable("its condition on `:path` reads the query too"),
            };
            return match when.path.both(&path) {
                Some(Some(both)) => {
                    when.path = both;
                    Ok(())
                }
                _ => untranslatable("attache can't combine its two conditions on the path"),
            };
        }
        // Every request has one.
        ":authority" | "host" if !invert && matches!(pattern.as_str(), "*" | "~.*") => return Ok(()),
        ":authority" | "host" | ":scheme" => {
            return untranslatable(format!("its condition on `{name}` is the host of the match here"));
        }
        _ => {}
    }
    let pattern = match (invert, pattern.strip_prefix('!')) {
        (false, _) => pattern,
        (true, Some(rest)) => rest.to_owned(),
        (true, None) if pattern == "*" => "!*".to_owned(),
        // This form also holds if the header is missing.
        (true, None) if item.is("without") => format!("!{pattern}"),
        // An inverted condition needs the header to be present, with another value.
        (true, None) => match other(&pattern) {
            Some(regex) => format!("~{regex}"),
            None => {
                return untranslatable(format!(
                    "its inverted condition on `{name}` is neither of a value nor of a prefix"
                ));
            }
        },
    };
    add(&mut when.headers, &name, pattern)
}

/// Headers that Envoy keeps as one field: several become one value, joined by commas. It compares each field of all others by itself.
const JOINED: &[&str] = &[
    "accept",
    "accept-encoding",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-type",
    "origin",
    "referer",
    "te",
    "user-agent",
    "via",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-request-id",
];

/// Rules that deny requests with the same header twice which match a route of attache, but do not match the route in
/// Envoy.
///
/// A route of attache matches if one field has the value. In Envoy an inverted condition holds if no field has the
/// value, and Envoy joins the fields of some headers into one.
pub(crate) fn doubled(node: &Node) -> Vec<(String, ImportedAccess)> {
    let rules = node.list("headers").iter().filter_map(|item| {
        let name = item.str("name")?.to_ascii_lowercase();
        let inverted = item.is("invert_match") && !item.is("without");
        if name.starts_with(':') || !inverted && !JOINED.contains(&name.as_str()) {
            return None;
        }
        let pattern = wanted(item).ok().filter(|pattern| pattern != "*" && !pattern.starts_with('!'))?;
        let rule = vec![ImportedAccess::named("headers", &name, vec![pattern])];
        let rules = if inverted { rule } else { access::not(&rule)? };
        Some(rules.into_iter().map(move |rule| (format!("several-{name}"), rule)))
    });
    let grpc = node.get("grpc").and_then(|_| {
        let one = vec![ImportedAccess::named("headers", "content-type", vec![GRPC.to_owned()])];
        Some(access::not(&one)?.into_iter().map(|rule| ("several-content-type".to_owned(), rule)))
    });
    rules.flatten().chain(grpc.into_iter().flatten()).collect()
}

/// The `content-type` of a call of gRPC.
const GRPC: &str = "~application/grpc(?:\\+.*)?";

/// The value that a condition on a header is about, whether it is inverted or not.
fn wanted(item: &Node) -> MatcherResult<String> {
    for (key, known) in [("safe_regex_match", REGEX), ("range_match", &["start", "end"])] {
        if let Some(key) = item.down(&[key]).stranger(known) {
            return untranslatable(format!("this import doesn't know `{key}` of a matcher"));
        }
    }
    Ok(if let Some(matcher) = item.get("string_match") {
        string(matcher)?
    } else if let Some(value) = item.str("exact_match") {
        exact(value)
    } else if let Some(value) = item.str("prefix_match") {
        affix(value, true)
    } else if let Some(value) = item.str("suffix_match") {
        affix(value, false)
    } else if let Some(value) = item.str("contains_match") {
        format!("~.*{}.*", regex::escape(value))
    } else if let Some(regex) =
        item.down(&["safe_regex_match"]).str("regex").or_else(|| item.str("regex_match"))
    {
        expression(regex)?
    } else if let Some(range) = item.get("range_match") {
        numbers(range)?
    } else if item.is_false("present_match") {
        "!*".to_owned()
    } else {
        "*".to_owned()
    })
}

/// An expression that matches every text except those of this exact value or prefix.
pub(super) fn other(pattern: &str) -> Option<String> {
    let (text, prefix) = match pattern.strip_prefix('=') {
        Some(literal) => (literal, false),
        None if pattern.starts_with(['~', '*']) => return None,
        None => pattern.strip_suffix('*').map_or((pattern, false), |start| (start, true)),
    };
    let mut parts = Vec::new();
    let mut before = String::new();
    for c in text.chars() {
        parts.push(format!("{before}(?:[^{}].*)?", regex::escape(&c.to_string())));
        before.push_str(&regex::escape(&c.to_string()));
    }
    if !prefix {
        parts.push(format!("{before}.+"));
    }
    Some(parts.join("|"))
}

fn method(pattern: &str, invert: bool, when: &mut RuleConditions) -> MatcherResult<()> {
    let methods: Vec<String> = match pattern.strip_prefix('~') {
        None => vec![pattern.to_owned()],
        Some(regex) => regex
            .trim_matches(['^', '$', '(', ')'])
            .trim_start_matches("?:")
            .split('|')
            .map(ToOwned::to_owned)
            .collect(),
    };
    let right = methods
        .iter()
        .all(|method| !method.is_empty() && method.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-'));
    if invert || !right || !when.methods.is_empty() {
        return untranslatable("its condition on `:method` is not a list of methods");
    }
    when.methods = methods;
    Ok(())
}

/// Adds a condition. A name can have only one condition.
fn add(list: &mut Vec<(String, String)>, name: &str, pattern: String) -> MatcherResult<()> {
    match list.iter_mut().find(|(known, _)| known == name) {
        None => list.push((name.to_owned(), pattern)),
        Some((_, other)) if *other == pattern || pattern == "*" => {}
        Some((_, other)) if other == "*" => *other = pattern,
        Some(_) => return untranslatable(format!("it has two conditions on `{name}`")),
    }
    Ok(())
}

const REGEX: &[&str] = &["regex", "google_re2"];

/// Keys of a string matcher.
pub(super) const STRING: &[&str] =
    &["exact", "prefix", "suffix", "contains", "safe_regex", "regex", "ignore_case"];

/// A string matcher as a value pattern.
pub(crate) fn string(matcher: &Node) -> MatcherResult<String> {
    if let Some(key) = matcher.stranger(STRING).or_else(|| matcher.down(&["safe_regex"]).stranger(REGEX)) {
        return untranslatable(format!("this import doesn't know `{key}` of a matcher"));
    }
    let folded = matcher.is("ignore_case");
    for key in ["exact", "prefix", "suffix", "contains"] {
        let Some(value) = matcher.get(key).and_then(Node::text) else { continue };
        if folded {
            let inner = regex::escape(value);
            return Ok(match key {
                "exact" => format!("~(?i:{inner})"),
                "prefix" => format!("~(?i:{inner}).*"),
                "suffix" => format!("~.*(?i:{inner})"),
                _ => format!("~.*(?i:{inner}).*"),
            });
        }
        return Ok(match key {
            "exact" => exact(value),
            "prefix" => affix(value, true),
            "suffix" => affix(value, false),
            _ => format!("~.*{}.*", regex::escape(value)),
        });
    }
    match matcher.down(&["safe_regex"]).str("regex").or_else(|| matcher.str("regex")) {
        Some(regex) => expression(regex),
        None => untranslatable("a matcher that isn't known"),
    }
}

/// Exactly this value.
pub(crate) fn exact(value: &str) -> String {
    if value.starts_with(['!', '~', '=']) || value.contains('*') || value.is_empty() {
        format!("={value}")
    } else {
        value.to_owned()
    }
}

fn affix(value: &str, prefix: bool) -> String {
    if value.starts_with(['!', '~', '=']) || value.contains('*') || value.is_empty() {
        let inner = regex::escape(value);
        return if prefix { format!("~{inner}.*") } else { format!("~.*{inner}") };
    }
    if prefix { format!("{value}*") } else { format!("*{value}") }
}

fn expression(regex: &str) -> MatcherResult<String> {
    match path::expression(regex) {
        Some(regex) => Ok(format!("~{regex}")),
        None => untranslatable(format!(
            "the regular expression `{regex}` has parts that linear-time expressions lack"
        )),
    }
}

/// A range of integers as a list of values, if the range is small enough.
fn numbers(range: &Node) -> MatcherResult<String> {
    let (Some(start), Some(end)) = (range.number("start"), range.number("end")) else {
        return untranslatable("a range without ends");
    };
    let (start, end) = (start as i64, end as i64);
    if end - start > 100 || end <= start {
        return untranslatable("a range of more than 100 numbers");
    }
    // A number may have a sign and leading zeros.
    let all: Vec<_> = (start..end)
        .map(|n| match n {
            0 => "[+-]?0+".to_owned(),
            n if n < 0 => format!("-0*{}", n.unsigned_abs()),
            n => format!("[+]?0*{n}"),
        })
        .collect();
    Ok(format!("~(?:{})", all.join("|")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_text_and_no_more() {
        for (pattern, inside, outside) in [
            ("gold", vec!["gold"], vec!["", "g", "gol", "golds", "silver", "Gold", "xgold"]),
            ("go*", vec!["go", "gold"], vec!["", "g", "silver", "xgo"]),
            ("=*", vec!["*"], vec!["", "**", "a"]),
        ] {
            let regex = regex::Regex::new(&format!("^(?:{})$", other(pattern).unwrap_or_default())).ok();
            let takes = |text: &str| regex.as_ref().is_some_and(|regex| regex.is_match(text));
            assert!(inside.iter().all(|text| !takes(text)), "{pattern}");
            assert!(outside.iter().all(|text| takes(text)), "{pattern}");
        }
    }
}
