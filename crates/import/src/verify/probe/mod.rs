//! Makes requests from the conditions of routes.

mod policies;

use std::fmt;

use crate::path::PlannedPath;
use crate::plan::{Plan, PlannedListener, PlannedRule, RuleConditions, VirtualHost};
use crate::value::{ConfigValue, YamlMap};

use super::{bound, sample};

/// The largest number of requests for one config.
const MAX_PROBES: usize = 3000;

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlannedProbe {
    /// The port of attache's listener.
    pub port: u16,
    /// Its method.
    pub method: String,
    /// Its target.
    pub target: String,
    /// Its `Host`.
    pub host: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
    pub(crate) watched_up: Vec<String>,
    pub(crate) watched_down: Vec<String>,
    pub(crate) splits: Vec<Vec<String>>,
}

impl fmt::Display for PlannedProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} Host: {}", self.method, self.target, self.host)?;
        self.headers.iter().try_for_each(|(name, value)| write!(f, ", {name}: {value}"))
    }
}

impl PlannedProbe {
    /// Its `Origin`.
    pub(crate) fn origin(&self) -> &str {
        self.headers.iter().find(|(name, _)| name == "origin").map_or("", |(_, value)| value)
    }

    pub(crate) fn bytes(&self) -> String {
        let mut out = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
            self.method, self.target, self.host
        );
        for (name, value) in &self.headers {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        if matches!(self.method.as_str(), "POST" | "PUT" | "PATCH") {
            out.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        out.push_str("\r\n");
        out.push_str(&self.body);
        out
    }
}

/// All requests for a plan, and the parts of the plan without requests. `own_headers` are further headers from the
/// user.
pub(crate) fn probes(plan: &Plan, own_headers: &[(String, String)]) -> (Vec<PlannedProbe>, Vec<String>) {
    let (mut out, mut left_out): (Vec<PlannedProbe>, Vec<String>) = (Vec::new(), Vec::new());
    for listener in &plan.listeners {
        let Some(port) = bound(listener.keys.get("bind")) else {
            left_out.push(format!("listener {}: no TCP port", listener.name));
            continue;
        };
        if let Some(why) = not_asked(listener) {
            left_out.push(format!("listener {}: {why}", listener.name));
            continue;
        }
        let base = base(listener, port, &mut left_out);
        let mut own = of_hosts(listener, &base);
        own.extend(of_rules(listener, &base, own_headers));
        // gRPC goes to upstreams by HTTP/2, which the stubs don't speak.
        own.retain(|probe| {
            probe.headers.iter().all(|(name, value)| {
                name != "content-type" || !value.starts_with("application/grpc") || value.contains("web")
            })
        });
        let mut unique: Vec<PlannedProbe> = Vec::new();
        for probe in own {
            if !unique.contains(&probe) && unique.len() < MAX_PROBES {
                unique.push(probe);
            }
        }
        out.append(&mut unique);
    }
    left_out.dedup();
    out.truncate(MAX_PROBES);
    (out, left_out)
}

/// Why a listener gets no requests.
fn not_asked(listener: &PlannedListener) -> Option<&'static str> {
    let word = |key: &str| matches!(listener.keys.get(key), Some(ConfigValue::Text(text)) if text == "tls");
    if listener.keys.get("tls").is_some()
        || word("protocol")
        || listener.chains.iter().any(|chain| !chain.sni.is_empty() || !chain.destination.is_empty())
    {
        return Some("its conditions are on connections");
    }
    if matches!(listener.keys.get("protocol"), Some(ConfigValue::Text(text)) if text == "http2") {
        return Some("HTTP/2 alone");
    }
    None
}

/// The request from which all requests to a listener are made: its compared headers, and the upstreams that it may
/// reach.
fn base(listener: &PlannedListener, port: u16, left_out: &mut Vec<String>) -> PlannedProbe {
    let (mut up, mut down, mut splits) = (Vec::new(), Vec::new(), Vec::new());
    let rules: Vec<&PlannedRule> =
        listener.chains.iter().flat_map(|chain| &chain.sites).flat_map(|site| &site.rules).collect();
    for rule in &rules {
        watched(rule.keys.get("headers"), "request", &mut up);
        watched(rule.keys.get("headers"), "response", &mut down);
        if rule.targets.len() > 1 {
            splits.push(rule.targets.clone());
        }
        let share =
            |key: &str| matches!(rule.keys.get("fault"), Some(ConfigValue::Map(fault)) if part(fault, key));
        if share("delay") || share("abort") {
            left_out.push(format!(
                "listener {}: a route with a fault for a share of its requests",
                listener.name
            ));
        }
    }
    policies::watched(&rules, &mut down);
    if tells_scheme(&listener.keys) {
        up.push("x-forwarded-proto".to_owned());
    }
    if listener.opaque {
        splits.extend(
            listener.chains.iter().filter_map(|chain| chain.opaque.as_ref()).map(|rule| rule.targets.clone()),
        );
    }
    PlannedProbe {
        port,
        method: "GET".to_owned(),
        target: "/".to_owned(),
        host: "unknown.example".to_owned(),
        watched_up: up,
        watched_down: down,
        splits,
        ..PlannedProbe::default()
    }
}

fn sites(listener: &PlannedListener) -> impl Iterator<Item = &VirtualHost> {
    listener.chains.iter().flat_map(|chain| &chain.sites)
}

/// Requests to each host, and those that no route expects.
fn of_hosts(listener: &PlannedListener, base: &PlannedProbe) -> Vec<PlannedProbe> {
    let mut hosts: Vec<String> = vec!["unknown.example".to_owned()];
    for site in sites(listener) {
        hosts.extend(site.hosts.iter().take(4).flat_map(|host| host_samples(host)));
    }
    hosts.dedup();
    let mut own = vec![base.clone()];
    for host in hosts.iter().take(40) {
        for target in ["/", "/nothing/here", "/index.html?a=b"] {
            own.push(PlannedProbe { target: target.to_owned(), host: host.clone(), ..base.clone() });
        }
    }
    let schemes = tells_scheme(&listener.keys);
    // A client may send its own scheme, and another proxy may trust it.
    for host in hosts.iter().filter(|_| schemes).take(6) {
        for scheme in ["https", "http", "HTTPS"] {
            let headers = vec![("x-forwarded-proto".to_owned(), scheme.to_owned())];
            own.push(PlannedProbe { host: host.clone(), headers, ..base.clone() });
        }
    }
    own
}

/// Requests that match the conditions of each rule, or almost match them.
fn of_rules(
    listener: &PlannedListener,
    base: &PlannedProbe,
    own_headers: &[(String, String)],
) -> Vec<PlannedProbe> {
    let mut own = Vec::new();
    for site in sites(listener) {
        let mut at: Vec<String> = site.hosts.iter().take(3).flat_map(|host| host_samples(host)).collect();
        at.truncate(4);
        at.push("unknown.example".to_owned());
        for rule in &site.rules {
            let faulty = matches!(rule.keys.get("fault"), Some(ConfigValue::Map(fault)) if part(fault, "delay") || part(fault, "abort"));
            if faulty {
                continue;
            }
            for (index, host) in at.iter().enumerate() {
                let base = PlannedProbe { host: host.clone(), ..base.clone() };
                let first = own.len();
                of_rule(&rule.when, &base, index == 0, &mut own);
                if let Some(right) = own.get(first).filter(|_| index == 0).cloned() {
                    policies::of_rule(rule, &right, own_headers, &mut own);
                }
            }
        }
    }
    own
}

/// Whether the listener sends the scheme to upstreams in `x-forwarded-proto`.
fn tells_scheme(keys: &YamlMap) -> bool {
    let inner = |map: &YamlMap, key: &str| match map.get(key) {
        Some(ConfigValue::Map(map)) => Some(map.clone()),
        _ => None,
    };
    inner(keys, "http")
        .and_then(|http| inner(&http, "forwarded"))
        .is_some_and(|told| told.get("x_forwarded_proto").is_some())
}

fn part(fault: &YamlMap, key: &str) -> bool {
    matches!(fault.get(key), Some(ConfigValue::Map(map)) if !matches!(map.get("share"), Some(ConfigValue::Text(text)) if text == "100%" || text == "0%"))
}

fn watched(headers: Option<&ConfigValue>, way: &str, out: &mut Vec<String>) {
    let Some(ConfigValue::Map(headers)) = headers else { return };
    let Some(ConfigValue::Map(edits)) = headers.get(way) else { return };
    for (key, value) in &edits.0 {
        let names: Vec<String> = match value {
            ConfigValue::Map(map) => map.0.iter().map(|(name, _)| name.clone()).collect(),
            ConfigValue::Text(name) if key == "remove" => vec![name.clone()],
            ConfigValue::List(items) => items
                .iter()
                .filter_map(|item| if let ConfigValue::Text(name) = item { Some(name.clone()) } else { None })
                .collect(),
            _ => Vec::new(),
        };
        for name in names {
            if !out.contains(&name) {
                out.push(name);
            }
        }
    }
}

pub(crate) fn host_samples(pattern: &str) -> Vec<String> {
    // An expression for the text of a host, as the import writes it.
    if let Some(regex) = pattern.strip_prefix('~') {
        let folded = regex.strip_prefix("(?i:").and_then(|inner| inner.strip_suffix(')'));
        let text = folded.unwrap_or(regex).replace('\\', "").replace(".*", "one");
        let mut out = host_samples(&text);
        out.extend([format!("{text}."), format!("{text}:80")]);
        return out;
    }
    let (name, port) = match pattern.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (pattern, None),
    };
    let samples = match (name.strip_prefix("*."), name.strip_suffix(".*")) {
        _ if name == "*" => vec!["anything.example".to_owned()],
        (Some(suffix), _) => vec![format!("one.{suffix}"), suffix.to_owned(), format!("two.one.{suffix}")],
        (_, Some(prefix)) => vec![format!("{prefix}.one"), prefix.to_owned()],
        _ => vec![name.to_owned(), name.to_ascii_uppercase(), format!("x{name}")],
    };
    let mut out = samples.clone();
    if let Some(port) = port.filter(|port| *port != "80" && *port != "443") {
        out.insert(0, format!("{name}:{port}"));
    }
    out.push(format!("{}:8081", samples[0]));
    out
}

pub(crate) fn paths(path: &PlannedPath) -> Vec<String> {
    let mut out = Vec::new();
    match path {
        PlannedPath::Any | PlannedPath::All => out.extend(["/", "/some/thing"].map(ToOwned::to_owned)),
        PlannedPath::Exact(path) => out.extend([
            path.clone(),
            format!("{path}/"),
            format!("{path}x"),
            format!("{path}?q=1"),
            path.to_ascii_uppercase(),
        ]),
        PlannedPath::Text(path) | PlannedPath::Segments(path) => {
            let bare = path.trim_end_matches('/');
            out.extend([
                path.clone(),
                format!("{path}x"),
                format!("{bare}/x"),
                format!("{bare}/x/y/?q=1"),
                if bare.is_empty() { "/".to_owned() } else { bare.to_owned() },
                format!("{bare}/"),
                format!("{bare}10"),
                path.to_ascii_uppercase(),
            ]);
        }
        PlannedPath::Regex(regex) => {
            for long in [false, true] {
                if let Some(text) = sample::of(regex, long) {
                    out.push(text.clone());
                    out.push(format!("{text}x"));
                    out.push(format!("{text}/x"));
                    out.push(text.trim_end_matches('/').to_owned());
                }
            }
        }
    }
    out.retain(|path| path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic()));
    out
}

/// A value that matches a pattern, and several that don't. `None`: a request without the header.
pub(crate) fn values(pattern: &str) -> (Option<String>, Vec<Option<String>>) {
    let (not, inner) = pattern.strip_prefix('!').map_or((false, pattern), |inner| (true, inner));
    let fits = if let Some(literal) = inner.strip_prefix('=') {
        literal.to_owned()
    } else if let Some(regex) = inner.strip_prefix('~') {
        sample::of(regex, false).unwrap_or_else(|| "x".to_owned())
    } else if inner == "*" {
        "anything".to_owned()
    } else if let Some(suffix) = inner.strip_prefix('*') {
        format!("before{suffix}")
    } else if let Some(prefix) = inner.strip_suffix('*') {
        format!("{prefix}after")
    } else {
        inner.to_owned()
    };
    let longer = format!("{fits}z");
    if not {
        let right = if inner == "*" { None } else { Some("other".to_owned()) };
        return (right, vec![Some(fits), None, Some(longer)]);
    }
    (Some(fits.clone()), vec![None, Some("other".to_owned()), Some(longer), Some(fits.to_ascii_uppercase())])
}

fn of_rule(when: &RuleConditions, base: &PlannedProbe, fully: bool, out: &mut Vec<PlannedProbe>) {
    let method = when.methods.first().cloned().unwrap_or_else(|| "GET".to_owned());
    let mut right = PlannedProbe { method, ..base.clone() };
    let mut query: Vec<(String, Option<String>)> = Vec::new();
    for (name, pattern) in &when.headers {
        if let Some(value) = values(pattern).0 {
            right.headers.push((name.clone(), value));
        }
    }
    for (name, pattern) in &when.query {
        query.push((name.clone(), values(pattern).0));
    }
    let with_query = |path: &str, query: &[(String, Option<String>)]| {
        let parts: Vec<_> = query
            .iter()
            .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={value}")))
            .collect();
        if parts.is_empty() {
            return path.to_owned();
        }
        format!("{path}{}{}", if path.contains('?') { "&" } else { "?" }, parts.join("&"))
    };
    let all = paths(&when.path);
    for path in &all {
        out.push(PlannedProbe { target: with_query(path, &query), ..right.clone() });
    }
    let Some(path) = all.first().filter(|_| fully) else { return };
    right.target = with_query(path, &query);
    for (index, (_, pattern)) in when.headers.iter().enumerate() {
        for value in values(pattern).1 {
            let mut wrong = right.clone();
            let name = when.headers[index].0.clone();
            wrong.headers.retain(|(known, _)| *known != name);
            if let Some(value) = value {
                wrong.headers.push((name, value));
            }
            out.push(wrong);
        }
    }
    for (index, (_, pattern)) in when.query.iter().enumerate() {
        for value in values(pattern).1 {
            let mut other = query.clone();
            other[index].1 = value;
            out.push(PlannedProbe { target: with_query(path, &other), ..right.clone() });
        }
    }
    let methods = if when.methods.is_empty() {
        ["POST", "HEAD", "DELETE"].as_slice()
    } else {
        ["PATCH", "GET", "POST", "PUT"].as_slice()
    };
    for method in when.methods.iter().map(String::as_str).chain(methods.iter().copied()) {
        out.push(PlannedProbe { method: method.to_owned(), ..right.clone() });
    }
}
