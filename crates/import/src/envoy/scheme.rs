//! Headers that Envoy itself writes or removes before it chooses a route.
//!
//! Envoy gives a request without `x-forwarded-proto` the scheme of its connection. With `use_remote_address` and
//! without trusted hops, Envoy replaces the client's value by that scheme. In attache a condition reads the value that
//! the client sent. So the import itself decides a condition on this header if Envoy would have written the header.
//! Conditions on other such headers refuse their routes.

use crate::access::{self, AccessEffect, ImportedAccess};
use crate::gate::{Gate, GateVerdict};
use crate::plan::PlannedRule;
use crate::tree::Node;
use crate::value::ConfigValue;

use super::{matcher, rbac::ClientTraits, words::PROTO};

/// The scheme of the connections of a listener.
const fn own(clients: &ClientTraits) -> &'static str {
    if clients.secure { "https" } else { "http" }
}

/// The rules of attache that mean the same as a rule of Envoy with a condition on `x-forwarded-proto`.
pub(super) fn forwarded_proto(mut rule: PlannedRule, clients: &ClientTraits) -> Vec<PlannedRule> {
    let Some(index) = rule.when.headers.iter().position(|(name, _)| name == PROTO) else { return vec![rule] };
    let pattern = rule.when.headers[index].1.clone();
    let holds = takes(&pattern, own(clients));
    let decided = |mut rule: PlannedRule, holds: bool| {
        rule.when.headers.remove(index);
        if holds { vec![rule] } else { Vec::new() }
    };
    match pattern.as_str() {
        _ if clients.direct => decided(rule, holds),
        // Every request has the header.
        "*" => decided(rule, true),
        "!*" => decided(rule, false),
        // A request without the header has another value, in Envoy and here. In Envoy several fields become one value,
        // which is another one, too; here one field with another value is enough.
        text if text.starts_with('!') && holds => match matcher::other(&text[1..]) {
            Some(regex) => {
                let mut absent = rule.clone();
                "!*".clone_into(&mut absent.when.headers[index].1);
                absent.name = None;
                absent.remarks.0.clear();
                rule.when.headers[index].1 = format!("~{regex}");
                vec![rule, absent]
            }
            None => vec![rule],
        },
        text if text.starts_with('!') => {
            match matcher::other(&text[1..]) {
                Some(regex) => rule.when.headers[index].1 = format!("~{regex}"),
                None => {
                    let at = rule.at.clone();
                    rule.refuse(&at, format!("this route is refused: its inverted condition on `{PROTO}` has neither a value nor a prefix. Write it by hand; then replace the refusal."));
                }
            }
            vec![rule]
        }
        _ if holds => {
            let mut absent = rule.clone();
            "!*".clone_into(&mut absent.when.headers[index].1);
            absent.name = None;
            absent.remarks.0.clear();
            vec![rule, absent]
        }
        _ => vec![rule],
    }
}

/// A rule with a condition on `x-forwarded-proto` matches if one field matches; Envoy joins several fields into one
/// value. So requests whose fields differ are refused.
pub(super) fn said_once(rule: PlannedRule) -> Vec<PlannedRule> {
    let found = rule.when.headers.iter().find(|(name, _)| name == PROTO);
    let Some((_, pattern)) = found.filter(|_| rule.keys.get("to").is_some()) else { return vec![rule] };
    let denied = match pattern.strip_prefix('!') {
        Some("*") => return vec![rule],
        Some(inverted) => Some(vec![ImportedAccess::named("headers", PROTO, vec![inverted.to_owned()])]),
        None if pattern == "*" => return vec![rule],
        None => access::not(&vec![ImportedAccess::named("headers", PROTO, vec![pattern.clone()])]),
    };
    let denied: Vec<_> =
        denied.into_iter().flatten().map(|rule| (format!("several-{PROTO}"), rule)).collect();
    match access::deny(&denied) {
        AccessEffect::Keys(keys) => {
            let at = rule.at.clone();
            Gate { at, cases: Vec::new(), otherwise: GateVerdict::With(keys), denied: "" }.before(rule)
        }
        _ => vec![rule],
    }
}

/// A condition of `require_tls`: the header has another value.
pub(super) fn not_https() -> (String, String) {
    (PROTO.to_owned(), "!https".to_owned())
}

/// Whether Envoy writes or removes a header before it routes, so that no client can choose its value.
pub(super) fn is_set(name: &str, manager: &Node, routes: &Node) -> bool {
    let name = name.to_ascii_lowercase();
    let remote = manager.is("use_remote_address");
    match name.as_str() {
        "x-request-id" => !manager.is_false("generate_request_id"),
        "x-forwarded-for" => remote && !manager.is("skip_xff_append"),
        "x-forwarded-port" => manager.is("append_x_forwarded_port"),
        "x-forwarded-client-cert" => true,
        "user-agent" => manager.is("add_user_agent"),
        "via" => manager.get("via").is_some(),
        other if other.starts_with("x-envoy-") => true,
        other => routes
            .list("internal_only_headers")
            .iter()
            .filter_map(Node::text)
            .any(|inner| inner.eq_ignore_ascii_case(other)),
    }
}

/// The first header that `authorization` reads and for which `set` returns true.
pub(super) fn read<'v>(value: &'v ConfigValue, set: &dyn Fn(&str) -> bool) -> Option<&'v str> {
    match value {
        ConfigValue::Map(map) => map.0.iter().find_map(|(key, value)| match (key.as_str(), value) {
            ("headers", ConfigValue::Map(headers)) => {
                headers.0.iter().map(|(name, _)| name.as_str()).find(|name| set(name) || *name == PROTO)
            }
            (_, value) => read(value, set),
        }),
        ConfigValue::List(items) => items.iter().find_map(|item| read(item, set)),
        ConfigValue::Text(_) | ConfigValue::Raw(_) => None,
    }
}

/// Whether a value pattern matches a text. True if its expression can't be parsed.
fn takes(pattern: &str, text: &str) -> bool {
    if let Some(rest) = pattern.strip_prefix('!') {
        return !takes(rest, text);
    }
    if let Some(literal) = pattern.strip_prefix('=') {
        return literal == text;
    }
    if let Some(regex) = pattern.strip_prefix('~') {
        return regex::Regex::new(&format!("^(?:{regex})$")).map_or(true, |regex| regex.is_match(text));
    }
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(suffix), _) => text.ends_with(suffix),
        (_, Some(prefix)) => text.starts_with(prefix),
        _ => pattern == text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::RuleConditions;

    /// The patterns of the rules that a rule becomes; `-` stands for a rule without a condition.
    fn rules(pattern: &str, direct: bool, secure: bool) -> Vec<String> {
        let clients = ClientTraits { direct, secure, ..ClientTraits::default() };
        let headers = vec![(PROTO.to_owned(), pattern.to_owned())];
        let rule = PlannedRule {
            when: RuleConditions { headers, ..RuleConditions::default() },
            ..PlannedRule::default()
        };
        let text = |rule: &PlannedRule| {
            rule.when.headers.first().map_or("-", |(_, pattern)| pattern.as_str()).to_owned()
        };
        forwarded_proto(rule, &clients).iter().map(text).collect()
    }

    #[test]
    fn a_missing_scheme_is_that_of_the_connection() {
        for (pattern, plaintext, tls) in [
            ("http", vec!["http", "!*"], vec!["http"]),
            ("https", vec!["https"], vec!["https", "!*"]),
            ("~https?", vec!["~https?", "!*"], vec!["~https?", "!*"]),
            (
                "!http",
                vec!["~(?:[^h].*)?|h(?:[^t].*)?|ht(?:[^t].*)?|htt(?:[^p].*)?|http.+"],
                vec!["~(?:[^h].*)?|h(?:[^t].*)?|ht(?:[^t].*)?|htt(?:[^p].*)?|http.+", "!*"],
            ),
            ("*", vec!["-"], vec!["-"]),
            ("!*", vec![], vec![]),
        ] {
            assert_eq!(rules(pattern, false, false), plaintext, "{pattern}");
            assert_eq!(rules(pattern, false, true), tls, "{pattern}");
        }
    }

    #[test]
    fn a_scheme_that_is_always_written_is_decided() {
        assert_eq!(rules("http", true, false), ["-"]);
        assert_eq!(rules("https", true, false), [""; 0]);
        assert_eq!(rules("!https", true, true), [""; 0]);
        assert_eq!(rules("~https", true, true), ["-"]);
    }
}
