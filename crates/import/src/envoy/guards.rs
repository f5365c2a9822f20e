//! Filters that decide who may pass: RBAC, JWT, external authorisation, and everything whose code runs on the way.

use crate::gate::{Gate, Verdict, both};
use crate::path::Path;
use crate::plan::{Listener, When};
use crate::remark::Remarks;
use crate::tree::{At, Node};

use super::{matcher, words};

/// Guards of HTTP that can't be carried over, and what to do about each.
const CLOSED: &[(&str, &str)] = &[
    (
        "lua",
        "a Lua script ran before this route, and may have decided who passes. Write what it did as `match`, `headers` or `rewrite`; then replace the refusal.",
    ),
    (
        "wasm",
        "a Wasm module ran before this route. Do its work in the application or behind it; then replace the refusal.",
    ),
    (
        "golang",
        "a Go plugin ran before this route. Do its work in the application; then replace the refusal.",
    ),
    (
        "dynamic_modules",
        "a module of code ran before this route. Do its work in the application; then replace the refusal.",
    ),
    (
        "ext_authz",
        "external authorisation (`ext_authz`) decided who passes here. Name that service in `authorizers` and in `external` of `authorization`; then replace the refusal.",
    ),
    (
        "ext_proc",
        "an external processor (`ext_proc`) could change or refuse requests here. Do its work in the application; then replace the refusal.",
    ),
    (
        "external_processor",
        "an external processor (`ext_proc`) could change or refuse requests here. Do its work in the application; then replace the refusal.",
    ),
    (
        "oauth2",
        "OAuth2 logged users in here. Put an authenticating proxy in front; then replace the refusal.",
    ),
    (
        "basic_auth",
        "basic authentication stood here. Let the application ask for it; then replace the refusal.",
    ),
    (
        "api_key_auth",
        "API keys were checked here. Let the application check them, or match the key's header from an environment variable; then replace the refusal.",
    ),
    ("csrf", "a CSRF check of `Origin` stood here. Let the application check it; then replace the refusal."),
    (
        "csrf_policy",
        "a CSRF check of `Origin` stood here. Let the application check it; then replace the refusal.",
    ),
    (
        "ip_tagging",
        "tags by client address were set here, which later conditions may read. Then replace the refusal.",
    ),
    (
        "geoip",
        "headers by the client's place were set here, which later conditions may read. Then replace the refusal.",
    ),
    (
        "credential_injector",
        "a credential was put into requests here: `credential` of the upstream gives them a secret from a file; then replace the refusal.",
    ),
    (
        "gcp_authn",
        "tokens of Google Cloud were put into requests here. `credential: { bearer: { file: … } }` sends one from a file; then replace the refusal.",
    ),
    (
        "aws_request_signing",
        "requests were signed for AWS here, which attache can't: use a signing proxy; then replace the refusal.",
    ),
    ("aws_lambda", "requests were made calls of AWS Lambda here, which attache can't."),
    (
        "rate_limit_quota",
        "quotas of a service were kept here: `global_rate_limit` asks one that speaks `envoy.service.ratelimit.v3`; then replace the refusal.",
    ),
    ("header_to_metadata", ""),
    (
        "composite",
        "a filter was chosen by the request here; write each case as a route; then replace the refusal.",
    ),
    ("squash", "a debugger held requests here."),
];

/// The gate of an HTTP filter. `None`: it guards nothing.
pub(crate) fn http(kind: &str, filter: &Node, clients_proven: bool, remarks: &mut Remarks) -> Option<Gate> {
    let config = words::config(filter);
    match kind {
        "rbac" => Some(rbac(config, &filter.at, clients_proven, remarks)).flatten(),
        "jwt_authn" => Some(jwt(config, &filter.at)),
        kind => {
            let (_, why) = CLOSED.iter().find(|(name, _)| *name == kind)?;
            (!why.is_empty()).then(|| Gate::closed(&filter.at, *why))
        }
    }
}

/// Role based access control: policies by path, method, header and proven identity are routes; others close.
pub(crate) fn rbac(config: &Node, at: &At, clients_proven: bool, remarks: &mut Remarks) -> Option<Gate> {
    if config.get("shadow_rules").is_some() || config.get("shadow_matcher").is_some() {
        remarks.soft(at, "shadow rules of RBAC only count; they are left out.");
    }
    if config.get("matcher").is_some() {
        return Some(Gate::closed(
            at,
            "RBAC by a matcher tree decided who passes. Write its cases as routes with `identity`; then replace the refusal.",
        ));
    }
    let rules = config.get("rules")?;
    let action = rules.str("action").unwrap_or("ALLOW");
    if action == "LOG" {
        remarks.soft(at, "RBAC rules that only log are left out.");
        return None;
    }
    let (inside, otherwise) =
        if action == "DENY" { (Verdict::Deny, Verdict::Pass) } else { (Verdict::Pass, Verdict::Deny) };
    let mut cases = Vec::new();
    for (name, policy) in rules.down(&["policies"]).entries() {
        if policy.get("condition").is_some() || policy.get("checked_condition").is_some() {
            return Some(Gate::closed(
                at,
                format!(
                    "the RBAC policy `{name}` has a CEL condition. Write it as `match`; then replace the refusal."
                ),
            ));
        }
        match any(policy.list("permissions"), clients_proven).and_then(|permissions| {
            let principals = any(policy.list("principals"), clients_proven)?;
            product(&permissions, &principals)
        }) {
            Some(all) => cases.extend(all.into_iter().map(|when| (when, inside.clone()))),
            None => {
                return Some(Gate::closed(
                    at,
                    format!(
                        "the RBAC policy `{name}` asks for something that routes here can't: they have path, method, headers, and the identity that a \
                         client's certificate proved. Rewrite the policy by these; then replace the refusal."
                    ),
                ));
            }
        }
    }
    Some(Gate { at: at.clone(), cases, otherwise, denied: "RBAC: access denied" })
}

fn any(items: &[Node], proven: bool) -> Option<Vec<When>> {
    let mut all = Vec::new();
    for item in items {
        all.extend(condition(item, proven)?);
    }
    Some(all)
}

fn product(a: &[When], b: &[When]) -> Option<Vec<When>> {
    let mut all = Vec::new();
    for a in a {
        for b in b {
            if let Some(when) = both(a, b)? {
                all.push(when);
            }
        }
    }
    (all.len() <= 64).then_some(all)
}

/// A permission or principal as alternatives.
fn condition(item: &Node, proven: bool) -> Option<Vec<When>> {
    let everything = || Some(vec![When { path: Path::Any, ..When::default() }]);
    let (key, value) = item.entries().first()?;
    match crate::tree::snake(key).as_str() {
        "any" => everything(),
        "and_rules" | "and_ids" => {
            let list = value.entries().first().map_or(value, |(_, list)| list);
            let mut all = everything()?;
            for item in list.items() {
                all = product(&all, &condition(item, proven)?)?;
            }
            Some(all)
        }
        "or_rules" | "or_ids" => any(value.entries().first().map_or(value, |(_, list)| list).items(), proven),
        "header" => {
            let mut when = When { path: Path::Any, ..When::default() };
            matcher::header(value, &mut when).ok()?;
            Some(vec![when])
        }
        "url_path" => {
            let matcher = value.get("path").unwrap_or(value);
            if matcher.is("ignore_case") {
                return None;
            }
            let path = if let Some(exact) = matcher.str("exact") {
                Path::Exact(exact.to_owned())
            } else if let Some(prefix) = matcher.str("prefix") {
                Path::prefix(prefix)
            } else {
                Path::Regex(crate::path::expression(matcher.down(&["safe_regex"]).str("regex")?)?)
            };
            Some(vec![When { path, ..When::default() }])
        }
        "authenticated" if proven => {
            let name = value.get("principal_name")?;
            let identity = if let Some(exact) = name.str("exact") {
                exact.to_owned()
            } else {
                let prefix = name.str("prefix")?;
                (prefix.contains("://") && prefix.ends_with('/')).then(|| format!("{prefix}**"))?
            };
            Some(vec![When { path: Path::Any, identity: vec![identity], ..When::default() }])
        }
        _ => None,
    }
}

/// JWT: what needs no token passes, everything else is refused, since attache verifies none.
fn jwt(config: &Node, at: &At) -> Gate {
    const WHY: &str = "a JWT was required here, and attache verifies none. Let the application verify it; then replace the refusal.";
    let mut cases = Vec::new();
    for rule in config.list("rules") {
        let Ok(when) = matcher::route(rule.down(&["match"])) else { return Gate::closed(at, WHY) };
        let open = rule.get("requires").is_none_or(|requires| {
            let any = requires.down(&["requires_any", "requirements"]);
            requires.get("allow_missing_or_failed").is_some()
                || any.items().iter().any(|one| one.get("allow_missing_or_failed").is_some())
        }) && rule.get("requirement_name").is_none();
        cases.push((when, if open { Verdict::Pass } else { Verdict::Refuse(WHY.to_owned()) }));
    }
    if config.get("filter_state_rules").is_some() {
        return Gate::closed(at, WHY);
    }
    Gate { at: at.clone(), cases, otherwise: Verdict::Pass, denied: "" }
}

/// A network filter before the last one. Why nothing behind it may be open, where that is so.
pub(crate) fn network(filter: &Node, listener: &mut Listener, remarks: &mut Remarks) -> Option<(At, String)> {
    let kind = words::extension(filter);
    let config = words::config(filter);
    let at = &filter.at;
    match kind.as_str() {
        "mongo_proxy" | "mysql_proxy" | "my_s_q_l_proxy" | "postgres_proxy" | "zookeeper_proxy"
        | "zoo_keeper_proxy" | "kafka_broker" | "kafka_mesh" => {
            remarks.soft(
                at,
                format!("`{kind}` only counted what it saw of its protocol; the bytes pass as before."),
            );
            None
        }
        "connection_limit" => {
            match config.number("max_connections") {
                Some(most) => listener.keys.set("max_connections", most as u64),
                None => remarks.soft(at, "the connection limit has no number."),
            }
            None
        }
        "sni_cluster" | "sni_dynamic_forward_proxy" | "set_filter_state" | "match_delegate" => Some((
            at.clone(),
            format!(
                "the network filter `{kind}` chose where connections go; write an upstream for each name, and routes with `sni`"
            ),
        )),
        "local_ratelimit" => {
            remarks.point(
                at,
                "connections are not limited by rate; `max_connections` limits how many are open.",
            );
            None
        }
        "rbac" => network_rbac(config, at, listener),
        _ => Some((
            at.clone(),
            format!("the network filter `{kind}` decided about these connections, and is absent"),
        )),
    }
}

/// Principals by certificate become `allow` or `deny` of the listener.
fn network_rbac(config: &Node, at: &At, listener: &mut Listener) -> Option<(At, String)> {
    let rules = config.get("rules")?;
    let why = || {
        Some((
            at.clone(),
            "RBAC of connections by other things than the certificate's names is absent".to_owned(),
        ))
    };
    let action = rules.str("action").unwrap_or("ALLOW");
    let proven = listener.keys.get("tls").is_some();
    let mut names = Vec::new();
    for (_, policy) in rules.down(&["policies"]).entries() {
        let Some(all) = any(policy.list("permissions"), proven) else { return why() };
        if all.iter().any(|when| *when != (When { path: Path::Any, ..When::default() })) {
            return why();
        }
        let Some(all) = any(policy.list("principals"), proven) else { return why() };
        for when in all {
            if when.identity.is_empty() {
                return if action == "ALLOW" { None } else { why() };
            }
            names.extend(when.identity);
        }
    }
    let key = match action {
        "ALLOW" => "allow",
        "DENY" => "deny",
        _ => return None,
    };
    if names.is_empty()
        || listener.keys.get("tls").is_none()
        || listener.keys.child("tls").get(key).is_some()
        || !listener.chains.is_empty()
    {
        return why();
    }
    listener.keys.child("tls").set(key, names);
    None
}
