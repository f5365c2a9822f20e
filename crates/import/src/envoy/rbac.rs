//! Imports Envoy's RBAC.
//!
//! Conditions on path, method, header and verified identity become routes with exactly the same meaning.
//! Policies with other conditions (client addresses, ports, server names, hosts, claims of a token, negations) become
//! `authorization`, which also refuses paths and headers with two meanings.

use crate::access::{self, AccessEffect, AnyOf, ImportedAccess};
use crate::gate::{Gate, GateVerdict, both};
use crate::path::PlannedPath;
use crate::plan::{PlannedListener, RuleConditions};
use crate::remark::Remarks;
use crate::tree::{FileLine, Node};
use crate::value::YamlMap;

use super::matcher;

/// Facts about the clients of a connection manager.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientTraits {
    /// They prove their identity by certificates.
    pub(crate) proven: bool,
    /// The address of the connection is the client's; headers don't change it.
    pub(crate) direct: bool,
    /// TLS is terminated.
    pub(crate) secure: bool,
    /// Connections begin with a PROXY protocol header, which has the client's address.
    pub(crate) proxied: bool,
    /// The key of the metadata with the payload of a verified token (`payload_in_metadata`). `None` if no earlier
    /// filter verifies a token, or if the providers have different keys.
    pub(crate) payload: Option<String>,
}

const STRICT: &str = "these policies are `authorization`, which also refuses paths and headers with two meanings (docs/authorization.md).";

/// The gate of an RBAC filter. `None` if the filter lets every request pass.
pub(crate) fn http(
    config: &Node,
    at: &FileLine,
    clients: &ClientTraits,
    remarks: &mut Remarks,
) -> Option<Gate> {
    if config.get("shadow_rules").is_some() || config.get("shadow_matcher").is_some() {
        remarks.soft(at, "shadow rules of RBAC only count; they are left out.");
    }
    if config.get("matcher").is_some() {
        return Some(Gate::closed(
            at,
            "this RBAC uses a matcher tree, which this import doesn't read. Write its cases in `authorization`; then replace the refusal.",
        ));
    }
    if let Some(key) = stranger(config) {
        return Some(Gate::closed(
            at,
            format!(
                "this import doesn't know `{key}` of RBAC. Find out what it does; then replace the refusal."
            ),
        ));
    }
    let rules = config.get("rules")?;
    let action = rules.str("action").unwrap_or("ALLOW");
    if action == "LOG" || action == "2" {
        rules.skip();
        remarks.soft(at, "RBAC rules that only log are left out.");
        return None;
    }
    let denies = action == "DENY" || action == "1";
    if let Some(gate) = as_routes(rules, denies, at, clients.proven) {
        return Some(gate);
    }
    let policies = match policies(rules, clients) {
        Ok(policies) => policies,
        Err(name) => {
            return Some(Gate::closed(
                at,
                format!(
                    "`authorization` can't express the RBAC policy `{name}`. Write it with the keys of docs/authorization.md."
                ),
            ));
        }
    };
    let said = if denies { access::deny(&policies) } else { access::allow(&policies) };
    Some(match said {
        AccessEffect::Open => return None,
        AccessEffect::Shut => {
            Gate { at: at.clone(), cases: Vec::new(), otherwise: GateVerdict::Deny, denied: DENIED }
        }
        AccessEffect::Keys(keys) => {
            remarks.note(at, STRICT);
            Gate { at: at.clone(), cases: Vec::new(), otherwise: GateVerdict::With(keys), denied: DENIED }
        }
    })
}

/// The first key of RBAC, its rules or a policy that isn't known.
fn stranger(config: &Node) -> Option<&str> {
    const CONFIG: &[&str] = &[
        "rules",
        "rules_stat_prefix",
        "shadow_rules",
        "shadow_rules_stat_prefix",
        "shadow_matcher",
        "matcher",
        "track_per_rule_stats",
        "stat_prefix",
        "enforcement_type",
        "delay_deny",
    ];
    const POLICY: &[&str] = &["permissions", "principals", "condition", "checked_condition", "cel_config"];
    let rules = config.down(&["rules"]);
    config
        .stranger(CONFIG)
        .or_else(|| rules.stranger(&["action", "policies", "audit_logging_options"]))
        .or_else(|| {
            rules.down(&["policies"]).entries().iter().find_map(|(_, policy)| policy.stranger(POLICY))
        })
}

const DENIED: &str = "RBAC: access denied";

/// The gate as routes. `None` if routes can't express every policy.
fn as_routes(rules: &Node, denies: bool, at: &FileLine, proven: bool) -> Option<Gate> {
    let (inside, otherwise) =
        if denies { (GateVerdict::Deny, GateVerdict::Pass) } else { (GateVerdict::Pass, GateVerdict::Deny) };
    let mut cases = Vec::new();
    for (_, policy) in rules.down(&["policies"]).entries() {
        if conditional(policy) {
            return None;
        }
        let permissions = any(policy.list("permissions"), proven)?;
        let principals = any(policy.list("principals"), proven)?;
        let all = product(&permissions, &principals)?;
        cases.extend(all.into_iter().map(|when| {
            let verdict = if denies { inside.clone() } else { said_once(&when) };
            (when, verdict)
        }));
    }
    Some(Gate { at: at.clone(), cases, otherwise, denied: DENIED })
}

/// A request with the headers of `when` passes, unless one of these headers has a second, different value.
///
/// Envoy joins several fields of one name by commas and compares the result; newer versions compare each field. One matching
/// field is enough for a route of attache: so a client could add the wanted value to one that a proxy in front has set.
fn said_once(when: &RuleConditions) -> GateVerdict {
    let wanted = when
        .headers
        .iter()
        .filter(|(name, pattern)| !pattern.starts_with('!') && pattern != "*" && name != super::words::PROTO);
    let rules: Vec<(String, ImportedAccess)> = wanted
        .flat_map(|(name, pattern)| {
            let one = vec![ImportedAccess::named("headers", name, vec![pattern.clone()])];
            let others = access::not(&one).unwrap_or_default();
            others.into_iter().map(move |rule| (format!("several-{name}"), rule))
        })
        .collect();
    match access::deny(&rules) {
        AccessEffect::Keys(keys) => GateVerdict::With(keys),
        _ => GateVerdict::Pass,
    }
}

fn conditional(policy: &Node) -> bool {
    policy.get("condition").is_some()
        || policy.get("checked_condition").is_some()
        || policy.get("cel_config").is_some()
}

fn any(items: &[Node], proven: bool) -> Option<Vec<RuleConditions>> {
    let mut all = Vec::new();
    for item in items {
        all.extend(condition(item, proven)?);
    }
    Some(all)
}

fn product(a: &[RuleConditions], b: &[RuleConditions]) -> Option<Vec<RuleConditions>> {
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

/// A permission or principal as conditions of routes, of which one must hold. `None` if routes can't express it.
fn condition(item: &Node, proven: bool) -> Option<Vec<RuleConditions>> {
    let everything = || Some(vec![RuleConditions { path: PlannedPath::Any, ..RuleConditions::default() }]);
    let [(key, value)] = item.entries() else { return None };
    match crate::tree::snake(key).as_str() {
        "any" => {
            value.skip();
            everything()
        }
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
            let mut when = RuleConditions { path: PlannedPath::Any, ..RuleConditions::default() };
            matcher::header(value, &mut when).ok()?;
            Some(vec![when])
        }
        "url_path" => Some(vec![RuleConditions { path: url_path(value)?, ..RuleConditions::default() }]),
        "authenticated" if proven => {
            let identity = identity(value)?;
            let path = PlannedPath::Any;
            Some(vec![RuleConditions { path, identity: vec![identity], ..RuleConditions::default() }])
        }
        _ => None,
    }
}

fn url_path(value: &Node) -> Option<PlannedPath> {
    let matcher = value.get("path").unwrap_or(value);
    if matcher.is("ignore_case") || matcher.stranger(matcher::STRING).is_some() {
        return None;
    }
    Some(if let Some(exact) = matcher.str("exact") {
        PlannedPath::Exact(exact.to_owned())
    } else if let Some(prefix) = matcher.str("prefix") {
        PlannedPath::prefix(prefix)
    } else if let Some(suffix) = matcher.str("suffix") {
        PlannedPath::Regex(format!(".*{}", regex::escape(suffix)))
    } else if let Some(part) = matcher.str("contains") {
        PlannedPath::Regex(format!(".*{}.*", regex::escape(part)))
    } else {
        PlannedPath::Regex(crate::path::expression(matcher.down(&["safe_regex"]).str("regex")?)?)
    })
}

fn identity(value: &Node) -> Option<String> {
    let name = value.get("principal_name")?;
    if let Some(exact) = name.str("exact") {
        return (!exact.contains(['*', ' '])).then(|| exact.to_owned());
    }
    let prefix = name.str("prefix")?;
    (prefix.contains("://") && prefix.ends_with('/') && !prefix.contains('*')).then(|| format!("{prefix}**"))
}

/// The policies as access rules with their names. The error is the name of a policy that rules can't express.
fn policies(rules: &Node, clients: &ClientTraits) -> Result<Vec<(String, ImportedAccess)>, String> {
    let mut out = Vec::new();
    for (name, policy) in rules.down(&["policies"]).entries() {
        let said = || -> Option<AnyOf> {
            if conditional(policy) {
                return None;
            }
            let permissions = one_of(policy.list("permissions"), clients)?;
            let principals = one_of(policy.list("principals"), clients)?;
            access::both(&permissions, &principals)
        };
        let rules = said().ok_or_else(|| name.clone())?;
        out.extend(rules.into_iter().map(|rule| (name.clone(), rule)));
    }
    Ok(out)
}

fn one_of(items: &[Node], clients: &ClientTraits) -> Option<AnyOf> {
    let mut out = AnyOf::new();
    for item in items {
        out = access::either(out, rule(item, clients)?)?;
    }
    Some(out)
}

/// A permission or principal as access rules, of which one must hold. `None` if rules can't express it.
fn rule(item: &Node, clients: &ClientTraits) -> Option<AnyOf> {
    let [(key, value)] = item.entries() else { return None };
    let inner = || value.entries().first().map_or(value, |(_, list)| list);
    let list = |key, value: String| Some(vec![ImportedAccess::list(key, vec![value])]);
    match crate::tree::snake(key).as_str() {
        "any" => {
            value.skip();
            Some(access::everything())
        }
        "and_rules" | "and_ids" => {
            let mut all = access::everything();
            for item in inner().items() {
                all = access::both(&all, &rule(item, clients)?)?;
            }
            Some(all)
        }
        "or_rules" | "or_ids" => one_of(inner().items(), clients),
        "not_rule" | "not_id" => access::not(&rule(value, clients)?),
        "header" => header(value),
        "url_path" => list("path", url_path(value)?.pattern(false)?),
        "direct_remote_ip" if !clients.proxied => list("client", network(value)?),
        "source_ip" => list("client", network(value)?),
        "remote_ip" if clients.direct => list("client", network(value)?),
        "destination_port" => list("port", value.text()?.to_owned()),
        "destination_port_range" => {
            let (start, end) = (value.number("start")? as u32, value.number("end")? as u32);
            let ports: Vec<String> = (start..end).map(|port| port.to_string()).collect();
            (!ports.is_empty() && ports.len() <= 64 && end <= 65_536)
                .then(|| vec![ImportedAccess::list("port", ports)])
        }
        "requested_server_name" => {
            let name = if let Some(exact) = value.str("exact") {
                exact.to_ascii_lowercase()
            } else {
                let suffix = value.str("suffix").filter(|suffix| suffix.starts_with('.'))?;
                format!("*{}", suffix.to_ascii_lowercase())
            };
            (!name.is_empty() && !name[1..].contains('*'))
                .then(|| vec![ImportedAccess::list("sni", vec![name])])
        }
        "authenticated" if clients.proven => match value.get("principal_name") {
            None => list("identity", "*".to_owned()),
            Some(_) => list("identity", identity(value)?),
        },
        "metadata" | "sourced_metadata" => {
            let value = value.get("metadata_matcher").unwrap_or(value);
            claim(value, clients.payload.as_deref()?)
        }
        _ => None,
    }
}

/// A condition on a header, a pseudo-header, or the host.
fn header(value: &Node) -> Option<AnyOf> {
    let name = value.str("name")?.to_ascii_lowercase();
    if value.is("treat_missing_header_as_empty") {
        return None;
    }
    if name == ":authority" || name == "host" {
        let host = host(value)?;
        return if value.is("invert_match") { access::not(&host) } else { Some(host) };
    }
    let mut when = RuleConditions { path: PlannedPath::Any, ..RuleConditions::default() };
    matcher::header(value, &mut when).ok()?;
    let mut out = access::everything();
    if !when.methods.is_empty() {
        out = access::both(&out, &vec![ImportedAccess::list("methods", when.methods)])?;
    }
    if when.path != PlannedPath::Any {
        out = access::both(&out, &vec![ImportedAccess::list("path", vec![when.path.pattern(false)?])])?;
    }
    for (name, pattern) in when.headers {
        out = access::both(&out, &vec![ImportedAccess::named("headers", name, vec![pattern])])?;
    }
    Some(out)
}

/// A condition on the host. Envoy compares the whole text as the client sent it, with its case and its port.
fn host(value: &Node) -> Option<AnyOf> {
    if value.stranger(matcher::HEADER).is_some() {
        return None;
    }
    let key = value.entries().iter().map(|(key, _)| crate::tree::snake(key));
    if key
        .clone()
        .any(|key| key == "range_match" || key == "present_match" && value.is_false("present_match"))
    {
        return None;
    }
    let wanted = key.filter(|key| !matches!(key.as_str(), "name" | "invert_match" | "present_match")).count();
    if wanted == 0 {
        return Some(access::everything());
    }
    let matcher = value.get("string_match").unwrap_or(value);
    if value.get("string_match").is_some_and(|matcher| matcher.stranger(matcher::STRING).is_some()) {
        return None;
    }
    let text = |key: &str| matcher.str(key).or_else(|| value.str(&format!("{key}_match")));
    let escaped = |key: &str| text(key).filter(|text| !text.is_empty()).map(regex::escape);
    let regex = if let Some(text) = escaped("exact") {
        text
    } else if let Some(text) = escaped("prefix") {
        format!("{text}.*")
    } else if let Some(text) = escaped("suffix") {
        format!(".*{text}")
    } else if let Some(text) = escaped("contains") {
        format!(".*{text}.*")
    } else {
        let regex = matcher.down(&["safe_regex"]).str("regex");
        crate::path::expression(regex.or_else(|| value.down(&["safe_regex_match"]).str("regex"))?)?
    };
    let regex = if matcher.is("ignore_case") { format!("(?i:{regex})") } else { regex };
    Some(vec![ImportedAccess::list("host", vec![format!("~{regex}")])])
}

/// A condition on a claim of a verified token, which the filter `jwt_authn` puts into the metadata.
///
/// In attache a dot in the name of a claim separates its parts. A string matcher matches only a claim that is a string,
/// and a list matcher only one that is a list.
fn claim(value: &Node, payload: &str) -> Option<AnyOf> {
    let known = ["filter", "path", "value", "invert"];
    if !value.str("filter")?.ends_with("jwt_authn") || value.stranger(&known).is_some() {
        return None;
    }
    let mut keys = value.list("path").iter().filter_map(|part| part.str("key"));
    if keys.next()? != payload {
        return None;
    }
    let keys: Vec<&str> = keys.collect();
    if keys.is_empty() || keys.iter().any(|key| key.contains('.')) {
        return None;
    }
    let name = keys.join(".");
    let wanted = value.get("value")?;
    let listed = wanted.down(&["list_match"]).get("one_of");
    let form = if listed.is_some() { "claim_items" } else { "claim_texts" };
    let wanted = listed.unwrap_or(wanted);
    let pattern = matcher::string(wanted.get("string_match")?).ok()?;
    let claim = vec![ImportedAccess::named(form, name, vec![pattern])];
    if value.is("invert") { access::not(&claim) } else { Some(claim) }
}

fn network(value: &Node) -> Option<String> {
    let address = value.str("address_prefix")?;
    crate::text::network(address, value.number("prefix_len").unwrap_or(0.0) as u32)
}

/// Reads RBAC of connections. Returns the reason if everything behind it must be refused.
pub(crate) fn network_filter(
    config: &Node,
    at: &FileLine,
    listener: &mut PlannedListener,
) -> Option<(FileLine, String)> {
    if let Some(matcher) = config.get("matcher") {
        return Some((
            matcher.at.clone(),
            "the RBAC of these connections uses a matcher tree, which this import doesn't read".to_owned(),
        ));
    }
    if let Some(key) = stranger(config) {
        return Some((
            at.clone(),
            format!("this import doesn't know `{key}` of RBAC. Find out what it does"),
        ));
    }
    let rules = config.get("rules")?;
    let why = |name: &str| {
        let what = format!("`authorization` can't express the RBAC policy `{name}` of connections");
        Some((at.clone(), what))
    };
    let action = rules.str("action").unwrap_or("ALLOW");
    if action == "LOG" || action == "2" {
        return None;
    }
    let proven = listener.keys.get("tls").is_some_and(
        |tls| matches!(tls, crate::value::ConfigValue::Map(map) if map.get("client_ca").is_some()),
    );
    let proxied = listener.keys.get("proxy_protocol").is_some();
    let clients = ClientTraits { proven, direct: true, secure: false, proxied, payload: None };
    let policies = match policies(rules, &clients) {
        Ok(policies) => policies,
        Err(name) => return why(&name),
    };
    if !listener.chains.is_empty() {
        return Some((at.clone(), "attache can't limit RBAC to one of several filter chains".to_owned()));
    }
    if let Some((name, _)) = policies.iter().find(|(_, rule)| {
        ["path", "methods", "headers", "host", "claim_texts", "claim_items"].iter().any(|key| rule.asks(key))
    }) {
        return why(name);
    }
    let denies = action == "DENY" || action == "1";
    let said = if denies { access::deny(&policies) } else { access::allow(&policies) };
    let mut shut = YamlMap::default();
    let keys = match said {
        AccessEffect::Open => return None,
        AccessEffect::Shut => {
            shut.set("allow", crate::value::ConfigValue::List(Vec::new()));
            shut
        }
        AccessEffect::Keys(keys) => keys,
    };
    let mut own = match listener.keys.get("authorization") {
        Some(crate::value::ConfigValue::Map(map)) => map.clone(),
        _ => YamlMap::default(),
    };
    if !access::merge(&mut own, &keys) {
        return Some((at.clone(), "attache can't combine two RBAC filters that allow".to_owned()));
    }
    listener.keys.set("authorization", own);
    None
}

/// The RBAC config inside of a route's settings.
pub(crate) fn of_route(own: &Node) -> &Node {
    own.get("rbac").or_else(|| own.get("config")).unwrap_or(own)
}

/// Whether a route's settings have no rules: then the filter is off for this route.
pub(crate) fn is_off(own: &Node) -> bool {
    own.get("rbac").is_none() && own.get("config").is_none()
}
