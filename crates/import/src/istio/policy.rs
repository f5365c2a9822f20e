//! The rules of an AuthorizationPolicy: one source, one operation and all conditions must match, with one value of each field.
//!
//! A value is exact, or has `*` at its begin or its end; `*` alone matches every value.

use crate::access::{self, AnyOf, ImportedAccess};
use crate::tree::Node;

type PolicyResult<T> = Result<T, String>;

/// Access rules of which one must hold, or the reason why attache can't express the rule.
pub(crate) fn rule(rule: &Node, namespace: &str, tokens: bool) -> PolicyResult<AnyOf> {
    let mut out = access::everything();
    for (list, inner) in [("from", "source"), ("to", "operation")] {
        let items = rule.list(list);
        if items.is_empty() {
            continue;
        }
        let mut any = AnyOf::new();
        for item in items {
            if let Some((key, _)) = item.entries().iter().find(|(key, _)| key != inner) {
                return Err(format!("`{key}` isn't known"));
            }
            let one = fields(item.down(&[inner]), namespace, tokens)?;
            any = access::either(any, one).ok_or_else(many)?;
        }
        out = access::both(&out, &any).ok_or_else(many)?;
    }
    for condition in rule.list("when") {
        let key = condition.str("key").unwrap_or_default();
        if let Some((other, _)) = condition
            .entries()
            .iter()
            .find(|(key, _)| !["key", "values", "not_values"].contains(&crate::tree::snake(key).as_str()))
        {
            return Err(format!("`{other}` of a condition isn't known"));
        }
        for (list, not) in [("values", false), ("not_values", true)] {
            let values = texts(condition.list(list));
            if values.is_empty() {
                continue;
            }
            let one = attribute(key, &values, namespace, tokens)?;
            let one = if not { access::not(&one).ok_or_else(many)? } else { one };
            out = access::both(&out, &one).ok_or_else(many)?;
        }
    }
    for (key, _) in rule.entries() {
        if !["from", "to", "when"].contains(&key.as_str()) {
            return Err(format!("`{key}` isn't known"));
        }
    }
    Ok(out)
}

fn many() -> String {
    "its conditions together need too many rules".to_owned()
}

fn texts(items: &[Node]) -> Vec<String> {
    items.iter().filter_map(Node::text).map(ToOwned::to_owned).collect()
}

/// The fields of a source or an operation, all of which must hold.
fn fields(node: &Node, namespace: &str, tokens: bool) -> PolicyResult<AnyOf> {
    let mut out = access::everything();
    for (key, value) in node.entries() {
        let key = crate::tree::snake(key);
        let values = texts(value.items());
        if value.is_empty() {
            continue;
        }
        let (field, not) = key.strip_prefix("not_").map_or((key.as_str(), false), |field| (field, true));
        let name = match field {
            "principals" => "source.principal",
            "namespaces" => "source.namespace",
            "service_accounts" => "source.serviceAccount",
            "request_principals" => "request.auth.principal",
            "ip_blocks" => "source.ip",
            "remote_ip_blocks" => "remote.ip",
            "trust_domains" => "source.trustDomain",
            "ports" => "destination.port",
            "hosts" | "methods" | "paths" => field,
            other => return Err(format!("`{other}` isn't known")),
        };
        let one = attribute(name, &values, namespace, tokens)?;
        let one = if not { access::not(&one).ok_or_else(many)? } else { one };
        out = access::both(&out, &one).ok_or_else(many)?;
    }
    Ok(out)
}

/// A rule that needs one of these values of an attribute.
fn attribute(key: &str, values: &[String], namespace: &str, tokens: bool) -> PolicyResult<AnyOf> {
    let list =
        |key: &'static str, values: PolicyResult<Vec<String>>| Ok(vec![ImportedAccess::list(key, values?)]);
    let each = |make: &dyn Fn(&str) -> PolicyResult<String>| {
        values.iter().map(|value| make(value)).collect::<PolicyResult<Vec<String>>>()
    };
    let patterns = || values.iter().map(|value| pattern(value)).collect::<Vec<_>>();
    match key {
        "source.principal" => list("identity", each(&principal)),
        "source.namespace" => list("identity", each(&|value| space(value))),
        "source.serviceAccount" => list("identity", each(&|value| account(value, namespace))),
        "source.trustDomain" => list("identity", each(&trust_domain)),
        "source.ip" => list("client", each(&|value| network(value))),
        "destination.port" => list("port", each(&port)),
        "request.headers[:authority]" | "request.headers[Host]" | "request.headers[host]" => {
            attribute("hosts", values, namespace, tokens)
        }
        "connection.sni" => list("sni", each(&|value| host(value))),
        "hosts" | "methods" | "paths" if values.iter().any(|value| value == "*") => Ok(access::everything()),
        "hosts" => list("host", each(&|value| whole_host(value))),
        "methods" => list("methods", each(&method)),
        "paths" => list("path", each(&|value| path(value))),
        "request.auth.principal" => token_principals(values, tokens),
        "request.auth.audiences" => claims("aud", patterns(), tokens),
        "request.auth.presenter" => claims("azp", patterns(), tokens),
        "remote.ip" => {
            Err("it uses an address from a header: write `forwarded_client` with `trusted_proxies`"
                .to_owned())
        }
        other => {
            let inner = |start: &str| other.strip_prefix(start).and_then(|rest| rest.strip_suffix(']'));
            if let Some(name) = inner("request.headers[") {
                return Ok(vec![ImportedAccess::named("headers", name.to_ascii_lowercase(), patterns())]);
            }
            if let Some(names) = inner("request.auth.claims[") {
                return claims(&names.replace("][", "."), patterns(), tokens);
            }
            Err(format!("it uses `{other}`, which attache lacks"))
        }
    }
}

/// A claim of a token that has one of these values. `tokens`: tokens are verified.
fn claims(name: &str, values: Vec<String>, tokens: bool) -> PolicyResult<AnyOf> {
    if tokens {
        Ok(vec![ImportedAccess::named("claims", name, values)])
    } else {
        Err("it requires a token, and no RequestAuthentication verifies one".to_owned())
    }
}

/// `ISSUER/SUBJECT` of tokens.
fn token_principals(values: &[String], tokens: bool) -> PolicyResult<AnyOf> {
    let mut out = AnyOf::new();
    for value in values {
        let one = match value.as_str() {
            "*" => claims("iss", vec!["*".to_owned()], tokens)?,
            value => {
                let (issuer, subject) =
                    value.rsplit_once('/').ok_or_else(|| format!("`{value}` is not `ISSUER/SUBJECT`"))?;
                let mut one = claims("iss", vec![crate::text::exact(issuer)], tokens)?;
                if issuer.contains('*') || subject.contains('*') && subject != "*" {
                    return Err(format!("`{value}` has a `*` within"));
                }
                if subject != "*" {
                    one = access::both(&one, &claims("sub", vec![crate::text::exact(subject)], tokens)?)
                        .ok_or_else(many)?;
                }
                one
            }
        };
        out = access::either(out, one).ok_or_else(many)?;
    }
    Ok(out)
}

fn trust_domain(value: &str) -> PolicyResult<String> {
    if value.contains('*') {
        Err(format!("the trust domain `{value}` has a `*`"))
    } else {
        Ok(format!("spiffe://{value}/**"))
    }
}

fn port(value: &str) -> PolicyResult<String> {
    value.parse::<u16>().map(|port| port.to_string()).map_err(|_| format!("`{value}` is not a port"))
}

fn method(value: &str) -> PolicyResult<String> {
    let right = value.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-');
    if right { Ok(value.to_owned()) } else { Err(format!("the method `{value}` has a `*`")) }
}

/// A text with `*` at one end, as a pattern of values.
fn pattern(value: &str) -> String {
    let inner = value.trim_matches('*');
    if value == "*" || !value.contains('*') && !inner.is_empty() {
        return if value == "*" { value.to_owned() } else { crate::text::exact(value) };
    }
    let escaped = regex::escape(inner);
    let (before, after) =
        (if value.starts_with('*') { ".*" } else { "" }, if value.ends_with('*') { ".*" } else { "" });
    format!("~{before}{escaped}{after}")
}

/// `cluster.local/ns/shop/sa/web` is `spiffe://cluster.local/ns/shop/sa/web`.
fn principal(value: &str) -> PolicyResult<String> {
    if value == "*" {
        return Ok(value.to_owned());
    }
    let value = value.strip_prefix("spiffe://").unwrap_or(value);
    match value.strip_suffix('*') {
        Some(prefix) if prefix.ends_with('/') && !prefix.contains('*') => Ok(format!("spiffe://{prefix}**")),
        None if !value.contains('*') && value.contains('/') => Ok(format!("spiffe://{value}")),
        _ => Err(format!(
            "the principal `{value}` has a `*` at a place where attache allows none (`DOMAIN/ns/NAMESPACE/*` is allowed)"
        )),
    }
}

fn space(value: &str) -> PolicyResult<String> {
    if value.contains('*') {
        return Err(format!("the namespace `{value}` has a `*`"));
    }
    Ok(format!("spiffe://cluster.local/ns/{value}/**"))
}

fn account(value: &str, namespace: &str) -> PolicyResult<String> {
    if value.contains('*') {
        return Err(format!("the service account `{value}` has a `*`"));
    }
    let (namespace, name) = value.split_once('/').unwrap_or((namespace, value));
    Ok(format!("spiffe://cluster.local/ns/{namespace}/sa/{name}"))
}

fn network(value: &str) -> PolicyResult<String> {
    let (address, length) =
        value.split_once('/').map_or((value, None), |(address, length)| (address, Some(length)));
    let parsed: std::net::IpAddr = address.parse().map_err(|_| format!("`{value}` is not a network"))?;
    let most = if parsed.is_ipv6() { 128 } else { 32 };
    match length {
        None => Ok(address.to_owned()),
        Some(length) if length.parse::<u8>().is_ok_and(|length| length <= most) => Ok(value.to_owned()),
        Some(_) => Err(format!("`{value}` is not a network")),
    }
}

/// Istio compares the whole `Host` and ignores case: `a` doesn't match `a:8080`, and `a:*` matches every port but none.
fn whole_host(value: &str) -> PolicyResult<String> {
    let inner = value.trim_matches('*');
    if inner.contains('*') || inner.is_empty() {
        return Err(format!("the host `{value}` has a `*` within"));
    }
    let (before, after) =
        (if value.starts_with('*') { ".*" } else { "" }, if value.ends_with('*') { ".*" } else { "" });
    Ok(format!("~(?i:{before}{}{after})", regex::escape(inner)))
}

fn host(value: &str) -> PolicyResult<String> {
    let name = value.to_ascii_lowercase();
    let labels = name.strip_prefix("*.").unwrap_or(&name);
    if labels.is_empty() || labels.contains('*') {
        return Err(format!("the host `{value}` has a `*` that is not a whole label"));
    }
    Ok(name)
}

/// `/a`, `/a*`, `*/a`, and templates: `{*}` is a segment, `{**}` any of them.
fn path(value: &str) -> PolicyResult<String> {
    if value.contains("{*") {
        let mut out = String::new();
        let mut rest = value;
        while let Some(start) = rest.find("{*") {
            out.push_str(&regex::escape(&rest[..start]));
            let (what, after) = if let Some(after) = rest[start..].strip_prefix("{**}") {
                (".*", after)
            } else if let Some(after) = rest[start..].strip_prefix("{*}") {
                ("[^/]+", after)
            } else {
                return Err(format!("this import doesn't know the template of the path `{value}`"));
            };
            out.push_str(what);
            rest = after;
        }
        out.push_str(&regex::escape(rest));
        return Ok(format!("~{out}"));
    }
    let (begin, end) = (value.starts_with('*'), value.ends_with('*'));
    let inner = value.trim_matches('*');
    if inner.contains('*') || begin && end {
        return Err(format!("the path `{value}` has a `*` within"));
    }
    Ok(match (begin, end) {
        (false, false) => {
            crate::path::PlannedPath::Exact(inner.to_owned()).pattern(false).unwrap_or_default()
        }
        (true, _) => format!("~.*{}", regex::escape(inner)),
        (false, true) => crate::path::PlannedPath::prefix(inner).pattern(false).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(yaml: &str) -> PolicyResult<AnyOf> {
        let roots = crate::tree::parse(yaml, "policy.yaml").map_err(|error| error.to_string())?;
        rule(&roots[0], "shop", true)
    }

    #[test]
    fn sources_and_operations_are_alternatives_and_both_must_hold() {
        let all = said(
            "{from: [{source: {namespaces: [a]}}, {source: {principals: [cluster.local/ns/b/sa/c]}}], to: [{operation: {methods: [GET]}}, {operation: {paths: [/x*]}}]}",
        );
        assert_eq!(all.map(|all| all.len()), Ok(4));
    }

    #[test]
    fn an_empty_rule_takes_everything() {
        assert_eq!(said("{}"), Ok(access::everything()));
    }

    #[test]
    fn what_cannot_be_told_is_an_error() {
        for yaml in [
            "{from: [{source: {principals: ['*/sa/x']}}]}",
            "{from: [{source: {remoteIpBlocks: [10.0.0.0/8]}}]}",
            "{to: [{operation: {ports: ['http']}}]}",
            "{when: [{key: 'experimental.envoy.filters.x[y]', values: [a]}]}",
            "{then: []}",
        ] {
            assert!(said(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn paths_mean_what_they_mean_there() {
        for (from, to) in [
            ("/a", "/a"),
            ("/a*", "~/a.*"),
            ("*/a", "~.*/a"),
            ("/a/{*}/b", "~/a/[^/]+/b"),
            ("/a/{**}", "~/a/.*"),
        ] {
            assert_eq!(path(from).as_deref(), Ok(to), "{from}");
        }
        assert!(path("/a*b").is_err());
    }
}
