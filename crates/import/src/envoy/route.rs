//! Virtual hosts and routes.

use crate::access::{self, AccessEffect};
use crate::gate::{Gate, GateVerdict};
use crate::path::PlannedPath;
use crate::plan::{PlannedRule, VirtualHost};
use crate::remark::{Impact, Remarks};
use crate::tree::Node;
use crate::value::{ConfigValue, YamlMap};

use super::{
    EnvoyImport, applied,
    by_header::unnamed,
    edits::MergedEdits,
    filters,
    forward::{escape, forward, substitution},
    matcher, words,
};

/// What all routes of a connection manager share.
pub(crate) struct RouteContext<'a> {
    pub(crate) filters: &'a [filters::Filter],
    /// What is known of the clients.
    pub(crate) clients: &'a super::rbac::ClientTraits,
    /// TLS is terminated.
    pub(crate) secure: bool,
    pub(crate) ports: HostPorts,
    pub(crate) manager: &'a Node,
    pub(crate) config: &'a Node,
}

/// What Envoy does with the port of `Host` before it compares it with the domains.
#[derive(Clone, Copy)]
pub(crate) enum HostPorts {
    /// It is compared too.
    Compared,
    /// It is removed.
    Ignored,
    /// It is removed if it is the listener's own port.
    OwnIgnored(u64),
}

const SITE_KNOWN: &[&str] = &[
    "name",
    "domains",
    "routes",
    "require_tls",
    "request_headers_to_add",
    "request_headers_to_remove",
    "response_headers_to_add",
    "response_headers_to_remove",
    "retry_policy",
    "typed_per_filter_config",
    "per_filter_config",
    "rate_limits",
    "cors",
    "hedge_policy",
    "include_request_attempt_count",
    "include_attempt_count_in_response",
    "include_is_timeout_retry_header",
    "per_request_buffer_limit_bytes",
    "metadata",
    "retry_policy_typed_config",
    "request_mirror_policies",
    "request_body_buffer_limit",
];

const SITE_REMARKS: &[(&str, Impact, &str)] = &[
    ("virtual_clusters", Impact::Soft, "virtual clusters are left out: they only collect statistics."),
    ("matcher", Impact::Point, "this import doesn't read matcher trees of routes."),
];

pub(crate) fn site(node: &Node, shape: &RouteContext<'_>, cx: &mut EnvoyImport) -> VirtualHost {
    let mut out = VirtualHost::default();
    site_hosts(node, shape, &mut out);
    out.remarks.rest(node, "the virtual host", SITE_KNOWN, SITE_REMARKS);
    if let Some(rule) = requires_tls(node) {
        out.rules.push(rule);
        if shape.clients.direct && !shape.secure {
            return out;
        }
    }
    for route in node.list("routes") {
        if is_for_all(route, &mut out) {
            one(route, node, shape, &mut out.rules, cx);
        }
    }
    out
}

/// `require_tls`: the rule that redirects to https.
fn requires_tls(node: &Node) -> Option<PlannedRule> {
    let tls = node.str("require_tls").filter(|word| !matches!(*word, "NONE" | "0"))?;
    let mut rule = PlannedRule { at: node.at.clone(), ..PlannedRule::default() };
    let mut redirect = YamlMap::default();
    redirect.set("status", 301_u64);
    redirect.set("scheme", "https");
    rule.keys.set("redirect", redirect);
    rule.when.headers.push(super::scheme::not_https());
    if matches!(tls, "EXTERNAL_ONLY" | "1") {
        rule.remarks.point(
            &node.at,
            "clients of the internal network are redirected to https, too: attache doesn't treat their addresses differently.",
        );
    }
    Some(rule)
}

/// The hosts of a virtual host's domains.
fn site_hosts(node: &Node, shape: &RouteContext<'_>, out: &mut VirtualHost) {
    for domain in node.list("domains").iter().filter_map(Node::text) {
        match hosts(domain, shape) {
            Some(hosts) if hosts.is_empty() => out.remarks.note(
                &node.at,
                format!("the domain `{domain}` is left out: Envoy removes the port of each `Host` first, so no request matches it."),
            ),
            Some(hosts) => {
                for host in hosts {
                    if !out.hosts.contains(&host) {
                        out.hosts.push(host);
                    }
                }
            }
            None => out.remarks.point(
                &node.at,
                format!("the domain `{domain}` is left out: in attache `*` stands for whole labels (`*.internal`, `orders.*`). List the hosts."),
            ),
        }
    }
    // `foo` and `foo:*` are one: any port.
    let plain: Vec<String> = out.hosts.iter().filter(|host| !host.contains(':')).cloned().collect();
    out.hosts.retain(|host| {
        plain.contains(host) || !plain.iter().any(|plain| host.split(':').next() == Some(plain))
    });
}

/// False if a route gets only a share of the requests: then it is left out.
fn is_for_all(route: &Node, out: &mut VirtualHost) -> bool {
    let fraction = route.down(&["match"]).get("runtime_fraction");
    let share = fraction.and_then(words::share).unwrap_or(1.0);
    let denies = route.down(&["direct_response"]).number("status").is_some_and(|status| status >= 400.0);
    if denies && share > 0.0 && share < 1.0 {
        route_remark(out, route, share);
    } else if let Some(fraction) = fraction.filter(|_| share < 1.0) {
        // The other requests already go to the next route, so the import opens nothing if it leaves this route out.
        if share > 0.0 {
            let what = words::percent(share);
            out.remarks.point(
                &fraction.at,
                format!(
                    "a route for {what} of the requests is left out: they go to the next route. Write a split: `to: {{ next: {what}, now: … }}`."
                ),
            );
        }
        return false;
    }
    true
}

/// Domains of a virtual host that attache can't express.
pub(crate) fn lost(node: &Node, shape: &RouteContext<'_>) -> Vec<String> {
    let domains = node.list("domains").iter().filter_map(Node::text);
    domains.filter(|domain| hosts(domain, shape).is_none()).map(ToOwned::to_owned).collect()
}

/// A refusal of a share of the requests becomes a refusal of all: the next route would let more pass than before.
fn route_remark(out: &mut VirtualHost, route: &Node, share: f64) {
    out.remarks.point(
        &route.at,
        format!(
            "the original refused {} of these requests; now all are refused. `fault: {{ abort: … }}` refuses a share.",
            words::percent(share)
        ),
    );
}

/// A domain in attache's notation. `None` if attache can't express it, an empty list if no request has it. Envoy
/// compares the whole `Host`: a domain without a port matches requests without a port, which means the default port.
fn hosts(domain: &str, shape: &RouteContext<'_>) -> Option<Vec<String>> {
    if domain == "*" {
        return Some(vec!["*".to_owned()]);
    }
    let default = if shape.secure { "443" } else { "80" };
    let (name, port) = match domain.rsplit_once(':') {
        Some((name, "*")) => (name, None),
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit())
                && !port.is_empty()
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            (name, Some(port.to_owned()))
        }
        _ if matches!(shape.ports, HostPorts::Ignored) || domain.ends_with('*') => (domain, None),
        _ => (domain, Some(default.to_owned())),
    };
    let name = name.to_ascii_lowercase();
    let labels = |text: &str| !text.contains('*') && !text.is_empty();
    let right = match (name.strip_prefix("*."), name.strip_suffix(".*")) {
        (Some(suffix), None) => labels(suffix),
        (None, Some(prefix)) => labels(prefix),
        _ => !name.contains('*') && !name.is_empty(),
    };
    if !right {
        return None;
    }
    let named = domain.len() > name.len();
    let with = |port: &str| format!("{name}:{port}");
    Some(match (port, shape.ports) {
        (_, HostPorts::Ignored) if named => Vec::new(),
        (Some(port), HostPorts::OwnIgnored(own)) if named && port == own.to_string() => Vec::new(),
        (Some(port), HostPorts::OwnIgnored(own)) if !named => vec![with(&port), with(&own.to_string())],
        (Some(port), _) => vec![with(&port)],
        (None, _) => vec![name],
    })
}

const KNOWN: &[&str] = &[
    "name",
    "match",
    "route",
    "redirect",
    "direct_response",
    "request_headers_to_add",
    "request_headers_to_remove",
    "response_headers_to_add",
    "response_headers_to_remove",
    "typed_per_filter_config",
    "per_filter_config",
    "metadata",
    "decorator",
    "tracing",
    "stat_prefix",
    "per_request_buffer_limit_bytes",
    "non_forwarding_action",
    "request_body_buffer_limit",
    "untranslatable",
];

fn one(
    node: &Node,
    host: &Node,
    shape: &RouteContext<'_>,
    rules: &mut Vec<PlannedRule>,
    cx: &mut EnvoyImport,
) {
    let mut rule = PlannedRule { at: node.at.clone(), ..PlannedRule::default() };
    rule.remarks.rest(
        node,
        "the route",
        KNOWN,
        &[("filter_action", Impact::Point, "attache has no filters that answer requests.")],
    );
    let matcher = node.down(&["match"]);
    let untranslatable = match matcher::route(matcher) {
        Ok(when) => {
            rule.when = when;
            None
        }
        Err(matcher::Untranslatable(why)) => {
            // Without the condition the route would match too much: all those requests are refused.
            rule.when.path = wider(matcher);
            Some(why)
        }
    };
    let (mut replaced, mut later) = (Vec::new(), Vec::new());
    if let Some(why) = untranslatable {
        rule.refuse(&matcher.at, format!("this route is refused, together with all requests that match its path: {why}. Write the condition as `match`; then replace the refusal."));
    } else if let Some(why) = node.get("untranslatable") {
        // A condition that another importer could not express in Envoy's form.
        rule.refuse(
            &why.at,
            format!("this route is refused: {}. Write it by hand.", why.text().unwrap_or_default()),
        );
    } else if let Some(action) = node.get("route") {
        let before = rule.when.clone();
        let action = &inherited(action, [host, shape.config]);
        forward(action, matcher, &mut rule, &mut replaced, shape.manager, cx);
        if rule.keys.get("upstream_header").is_some() && rule.when != before {
            let mut rest = PlannedRule { when: before, at: action.at.clone(), ..PlannedRule::default() };
            rest.answer(unnamed(action));
            later.push(rest);
        }
    } else if let Some(redirect) = node.get("redirect") {
        redirected(redirect, &mut rule);
    } else if let Some(direct) = node.get("direct_response") {
        respond(direct, &mut rule);
    } else if node.get("non_forwarding_action").is_some() {
        rule.answer(500);
    } else {
        rule.refuse(&node.at, "this import doesn't know the action of this route.");
    }
    headers(node, host, shape, &mut rule);
    for earlier in &mut replaced {
        headers(node, host, shape, earlier);
    }
    rule.name = node.str("name").map(crate::plan::name).filter(|name| {
        let taken = rules.iter().any(|other| other.name.as_deref() == Some(name))
            || cx.plan.listeners.iter().any(|_| false);
        !taken
    });
    let levels = [node, host, shape.config];
    let doubled = match access::deny(&matcher::doubled(matcher)) {
        AccessEffect::Keys(keys) => Some(Gate {
            at: matcher.at.clone(),
            cases: Vec::new(),
            otherwise: GateVerdict::With(keys),
            denied: "",
        }),
        _ => None,
    };
    let apart = |rule: PlannedRule| match &doubled {
        Some(gate) if rule.keys.get("to").is_some() => gate.before(rule),
        _ => vec![rule],
    };
    for rule in replaced.into_iter().chain([rule]).chain(later).flat_map(apart) {
        let mut own = applied::apply(rule, shape.filters, &levels, shape.clients, cx);
        for (index, extra) in own.iter_mut().enumerate() {
            if index > 0 {
                extra.name = None;
            }
        }
        rules.append(&mut own);
    }
}

/// An action, completed by the settings of its virtual host and route configuration.
fn inherited(action: &Node, levels: [&Node; 2]) -> Node {
    let mut action = action.clone();
    for key in ["retry_policy", "request_mirror_policies", "hedge_policy"] {
        // A level without the setting inherits that of the next level.
        levels
            .iter()
            .filter_map(|level| level.get(key))
            .filter(|_| action.get(key).is_some())
            .for_each(Node::skip);
        if action.get(key).is_none() && action.get("request_mirror_policy").is_none() {
            action.put(key, levels.iter().find_map(|level| level.get(key)).cloned());
        }
    }
    action
}

/// The path of a match whose other conditions attache can't express.
fn wider(matcher: &Node) -> PlannedPath {
    if let Some(prefix) = matcher.str("prefix") {
        return PlannedPath::prefix(prefix);
    }
    if let Some(path) = matcher.str("path") {
        return PlannedPath::Exact(path.to_owned());
    }
    if let Some(prefix) = matcher.str("path_separated_prefix") {
        return PlannedPath::Segments(prefix.to_owned());
    }
    PlannedPath::All
}

fn redirected(node: &Node, rule: &mut PlannedRule) {
    let mut keys = YamlMap::default();
    let status = match node.str("response_code").unwrap_or("MOVED_PERMANENTLY") {
        "FOUND" | "1" => 302_u64,
        "SEE_OTHER" | "2" => 303,
        "TEMPORARY_REDIRECT" | "3" => 307,
        "PERMANENT_REDIRECT" | "4" => 308,
        _ => 301,
    };
    keys.set("status", status);
    if node.is("https_redirect") {
        keys.set("scheme", "https");
    } else if let Some(scheme) = node.str("scheme_redirect") {
        keys.set("scheme", scheme);
    }
    let host = node.str("host_redirect");
    match (host, node.str("port_redirect")) {
        (Some(host), Some(port)) => keys.set("host", format!("{host}:{port}")),
        (Some(host), None) => keys.set("host", host),
        (None, Some(port)) if port == "443" && node.is("https_redirect") => {}
        (None, Some(port)) => {
            rule.refuse(&node.at, format!("this redirect to port {port} of the request's own host is refused: `redirect.host` names host and port."));
            return;
        }
        (None, None) => {}
    }
    if let Some(path) = node.str("path_redirect") {
        match path.split_once('?') {
            Some((path, query)) => {
                keys.set("path", escape(path));
                keys.set("strip_query", true);
                rule.remarks.point(&node.at, format!("the query `{query}` is not put into the redirect."));
            }
            None => keys.set("path", escape(path)),
        }
    } else if let Some(prefix) = node.str("prefix_rewrite") {
        if matches!(rule.when.path, PlannedPath::Regex(_)) {
            rule.refuse(&node.at, "a prefix can't be replaced where a regular expression matched.");
            return;
        }
        rule.when.path = rule.when.path.with_rest();
        keys.set("path", format!("{}{{rest}}", escape(prefix)));
    } else if let Some(regex) = node.get("regex_rewrite") {
        let pattern = regex.down(&["pattern"]).str("regex").unwrap_or_default();
        let to = regex.get("substitution").and_then(Node::text).unwrap_or_default();
        match substitution(pattern, to, &rule.when.path) {
            Some((path, whole)) => {
                rule.when.path = PlannedPath::Regex(path);
                keys.set("path", whole);
            }
            None => {
                rule.refuse(&regex.at, "this redirect is refused: an expression makes its path, and is not a part of the route's own expression.");
                return;
            }
        }
    }
    if node.is("strip_query") {
        keys.set("strip_query", true);
    }
    rule.keys.set("redirect", keys);
}

fn respond(node: &Node, rule: &mut PlannedRule) {
    let Some(status) = node.number("status").filter(|status| (200.0..600.0).contains(status)) else {
        rule.refuse(&node.at, "the status of this route's answer is not valid.");
        return;
    };
    let status = status as u64;
    let body = node.down(&["body"]);
    if let Some(other) = body.get("inline_bytes").or_else(|| body.get("environment_variable")) {
        rule.remarks.point(&other.at, "the body of this answer is left out: write its text as `body`.");
    }
    if let Some(file) = body.str("filename") {
        let mut keys = YamlMap::default();
        keys.set("status", status);
        rule.remarks.soft(
            &node.at,
            format!("the body is the content of `{file}`: write `body: !file {file}` where that file is."),
        );
        rule.keys.set("respond", keys);
        return;
    }
    match body.str("inline_string") {
        Some(text) if !matches!(status, 204 | 304) && status >= 200 => {
            let mut keys = YamlMap::default();
            keys.set("status", status);
            keys.set("body", text);
            rule.keys.set("respond", keys);
        }
        _ => rule.answer(status),
    }
}

fn headers(node: &Node, host: &Node, shape: &RouteContext<'_>, rule: &mut PlannedRule) {
    let forwards = rule.keys.get("to").is_some();
    for way in ["request", "response"] {
        let mut edits = MergedEdits::default();
        for level in [node, host, shape.config] {
            edits.level(level, way, &mut rule.remarks);
        }
        if forwards || way == "response" && rule.remarks.heaviest() != Some(Impact::Point) {
            edits.behind(&mut rule.keys, way);
        }
    }
    // If the header is removed, there is no upgrade.
    let removed = [node, host, shape.config].iter().any(|level| {
        let names = level.list("request_headers_to_remove").iter().filter_map(Node::text);
        names.into_iter().any(|name| name.eq_ignore_ascii_case("upgrade"))
    });
    if removed && forwards {
        rule.keys.set("upgrades", "ignore");
    }
    // `x-forwarded-*` and hop-by-hop headers belong to the connection.
    let mut headers = rule.keys.child("headers");
    drop_fixed(&mut headers.child("request"), &node.at, &mut rule.remarks);
}

const FIXED: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
];

fn drop_fixed(keys: &mut YamlMap, at: &crate::tree::FileLine, remarks: &mut Remarks) {
    for (_, value) in &mut keys.0 {
        if let ConfigValue::Map(map) = value {
            map.0.retain(|(name, _)| {
                let fixed = FIXED.contains(&name.as_str());
                if fixed {
                    remarks.soft(at, format!("`{name}` belongs to one connection; attache sets it."));
                }
                !fixed
            });
        }
    }
    keys.0.retain(|(_, value)| !matches!(value, ConfigValue::Map(map) if map.is_empty()));
}
