//! Virtual hosts and routes.

use crate::path::Path;
use crate::plan::{Rule, Site};
use crate::remark::{Remarks, Weight};
use crate::tree::Node;
use crate::value::{Map, Value};

use super::{Cx, cluster, edits::Edits, filters, matcher, words};

/// What all routes of a connection manager share.
pub(crate) struct Shape<'a> {
    pub(crate) filters: &'a [filters::Filter],
    /// What is known of the clients.
    pub(crate) clients: super::rbac::Clients,
    /// TLS is terminated.
    pub(crate) secure: bool,
    /// The port of `Host` doesn't count.
    pub(crate) ports: bool,
    pub(crate) manager: &'a Node,
    pub(crate) config: &'a Node,
}

pub(crate) fn site(node: &Node, shape: &Shape<'_>, cx: &mut Cx) -> Site {
    let mut out = Site::default();
    let mut lost = false;
    for domain in node.list("domains").iter().filter_map(Node::text) {
        match host(domain, shape) {
            Some(host) if out.hosts.contains(&host) => {}
            Some(host) => out.hosts.push(host),
            None => {
                lost = true;
                out.remarks.point(
                    &node.at,
                    format!("the domain `{domain}` is left out: `*` stands for whole labels here (`*.internal`, `orders.*`). Name the hosts."),
                );
            }
        }
    }
    // `foo` and `foo:*` are one: any port.
    let plain: Vec<String> = out.hosts.iter().filter(|host| !host.contains(':')).cloned().collect();
    out.hosts.retain(|host| {
        plain.contains(host) || !plain.iter().any(|plain| host.split(':').next() == Some(plain))
    });
    if out.hosts.is_empty() && lost {
        // Without any host it must not be for every host.
        out.hosts.push("left-out.invalid".to_owned());
    }
    out.remarks.rest(
        node,
        "the virtual host",
        &[
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
        ],
        &[
            ("virtual_clusters", Weight::Soft, "virtual clusters only count; routes with names do here."),
            ("matcher", Weight::Point, "a matcher tree of routes is not read."),
        ],
    );
    if let Some(tls) = node.str("require_tls").filter(|word| *word != "NONE")
        && !shape.secure
    {
        let mut rule = Rule { at: node.at.clone(), ..Rule::default() };
        let mut redirect = Map::default();
        redirect.set("status", 301_u64);
        redirect.set("scheme", "https");
        rule.keys.set("redirect", redirect);
        if tls == "EXTERNAL_ONLY" {
            rule.remarks.point(
                &node.at,
                "callers from inside are redirected to https, too: their addresses are not told apart.",
            );
        }
        out.rules.push(rule);
        return out;
    }
    for route in node.list("routes") {
        let fraction = route.down(&["match"]).get("runtime_fraction");
        let share = fraction.and_then(words::share).unwrap_or(1.0);
        if let Some(fraction) = fraction.filter(|_| share < 1.0) {
            // What the share doesn't take goes to the next route, so leaving this one out opens nothing.
            if share > 0.0 {
                let what = words::percent(share);
                out.remarks.point(
                    &fraction.at,
                    format!(
                        "{what} of the requests went by a route of their own, which is left out, and now go to the next route. Write a split: `to: {{ next: {what}, now: … }}`."
                    ),
                );
            }
            continue;
        }
        one(route, node, shape, &mut out.rules, cx);
    }
    out
}

/// A domain in attache's notation. The whole of `Host` is compared by Envoy: without a port it is the default one that counts.
fn host(domain: &str, shape: &Shape<'_>) -> Option<String> {
    if domain == "*" {
        return Some("*".to_owned());
    }
    let (name, port) = match domain.rsplit_once(':') {
        Some((name, "*")) => (name, None),
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit())
                && !port.is_empty()
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            (name, Some(port.to_owned()))
        }
        _ if shape.ports => (domain, None),
        _ if domain.ends_with('*') => (domain, None),
        _ => (domain, Some(if shape.secure { "443".to_owned() } else { "80".to_owned() })),
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
    Some(match port {
        Some(port) => format!("{name}:{port}"),
        None => name,
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
    "unsaid",
];

const ACTION_KNOWN: &[&str] = &[
    "cluster",
    "weighted_clusters",
    "prefix_rewrite",
    "regex_rewrite",
    "path_rewrite_policy",
    "host_rewrite",
    "host_rewrite_literal",
    "auto_host_rewrite",
    "timeout",
    "idle_timeout",
    "retry_policy",
    "request_mirror_policies",
    "request_mirror_policy",
    "hash_policy",
    "rate_limits",
    "cluster_not_found_response_code",
    "max_stream_duration",
    "max_grpc_timeout",
    "grpc_timeout_offset",
    "upgrade_configs",
    "cors",
    "metadata_match",
    "cluster_header",
    "cluster_specifier_plugin",
    "inline_cluster_specifier_plugin",
    "host_rewrite_header",
    "host_rewrite_path_regex",
    "hedge_policy",
    "include_vh_rate_limits",
    "append_x_forwarded_host",
    "flush_timeout",
];

const ACTION_TOLD: &[(&str, Weight, &str)] = &[
    ("priority", Weight::Soft, "requests have no priority of the breaker; all count in one."),
    (
        "internal_redirect_policy",
        Weight::Point,
        "redirects of the upstream go to the client; they are not followed here.",
    ),
    (
        "internal_redirect_action",
        Weight::Point,
        "redirects of the upstream go to the client; they are not followed here.",
    ),
    ("early_data_policy", Weight::Soft, "early data of TLS is never taken."),
];

fn one(node: &Node, host: &Node, shape: &Shape<'_>, rules: &mut Vec<Rule>, cx: &mut Cx) {
    let mut rule = Rule { at: node.at.clone(), name: None, ..Rule::default() };
    rule.remarks.rest(
        node,
        "the route",
        KNOWN,
        &[("filter_action", Weight::Point, "filters that answer are absent.")],
    );
    let matcher = node.down(&["match"]);
    let unsaid = match matcher::route(matcher) {
        Ok(when) => {
            rule.when = when;
            None
        }
        Err(matcher::Unsaid(why)) => {
            // Without the condition the route would take too much: it is closed for all of that.
            rule.when.path = wider(matcher);
            Some(why)
        }
    };
    let mut replaced = Vec::new();
    if let Some(why) = unsaid {
        rule.refuse(&matcher.at, format!("this route is refused, and whatever its path takes: {why}. Write it as `match`; then replace the refusal."));
    } else if let Some(why) = node.get("unsaid") {
        // What another importer could not say in Envoy's form.
        rule.refuse(
            &why.at,
            format!("this route is refused: {}. Then replace the refusal.", why.text().unwrap_or_default()),
        );
    } else if let Some(action) = node.get("route") {
        forward(action, &mut rule, &mut replaced, shape, cx);
    } else if let Some(redirect) = node.get("redirect") {
        redirected(redirect, &mut rule);
    } else if let Some(direct) = node.get("direct_response") {
        respond(direct, &mut rule);
    } else if node.get("non_forwarding_action").is_some() {
        rule.answer(500);
    } else {
        rule.refuse(&node.at, "this route has no action that is known.");
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
    for rule in replaced.into_iter().chain([rule]) {
        let mut own = filters::apply(rule, shape.filters, &levels, shape.clients, cx);
        for (index, extra) in own.iter_mut().enumerate() {
            if index > 0 {
                extra.name = None;
            }
        }
        rules.append(&mut own);
    }
}

/// The path of a match whose other conditions can't be said.
fn wider(matcher: &Node) -> Path {
    if let Some(prefix) = matcher.str("prefix") {
        return Path::prefix(prefix);
    }
    if let Some(path) = matcher.str("path") {
        return Path::Exact(path.to_owned());
    }
    if let Some(prefix) = matcher.str("path_separated_prefix") {
        return Path::Segments(prefix.to_owned());
    }
    Path::All
}

fn forward(action: &Node, rule: &mut Rule, replaced: &mut Vec<Rule>, shape: &Shape<'_>, cx: &mut Cx) {
    rule.remarks.rest(action, "the route's action", ACTION_KNOWN, ACTION_TOLD);
    for (key, why) in [
        ("cluster_header", "the request's own header chose the cluster: match each value of it in a route"),
        ("cluster_specifier_plugin", "a plug-in chose the cluster"),
        ("inline_cluster_specifier_plugin", "a plug-in chose the cluster"),
        ("metadata_match", "the subset of a cluster was chosen by metadata: make an upstream of each subset"),
        ("host_rewrite_header", "a header of the request became its host"),
        ("host_rewrite_path_regex", "the host was made of the path"),
    ] {
        if action.get(key).is_some() {
            rule.refuse(&action.at, format!("this route is refused: {why}. Then replace the refusal."));
            return;
        }
    }
    if rule.when.headers.iter().any(|(name, _)| name == "content-type") && matches!(rule.when.path, Path::All)
    {
        // gRPC needs nothing more: it is spoken by what the request is.
    }
    if !filters::targets(action, cluster::Use::Http, rule, cx) {
        rule.refuse(&action.at, "this route is refused: the cluster that it goes to is not here.");
        return;
    }
    if let Some(time) = action.get("timeout").and_then(words::seconds) {
        rule.keys.set("timeout", if time <= 0.0 { "off".to_owned() } else { words::duration(time) });
    }
    let idle = action.get("idle_timeout").or_else(|| shape.manager.get("stream_idle_timeout"));
    if let Some(time) = idle.and_then(words::seconds) {
        rule.keys.set("idle_timeout", if time <= 0.0 { "off".to_owned() } else { words::duration(time) });
    }
    let longest = action.down(&["max_stream_duration"]).get("max_stream_duration");
    if let Some(node) =
        longest.or_else(|| shape.manager.down(&["common_http_protocol_options"]).get("max_stream_duration"))
    {
        rule.remarks.soft(&node.at, "streams have no longest duration; `idle_timeout` ends those without a byte, and `timeout` all others.");
    }
    if action.get("hedge_policy").is_some() {
        rule.remarks.soft(&action.at, "a try whose time is over is not left running beside the next: `retry: { hedge: p95 }` sends a second one earlier.");
    }
    rewrite(action, rule, replaced);
    mirror(action, rule, cx);
    if let Some(policy) = action.get("retry_policy").or_else(|| shape_retry(shape, action)) {
        retry(policy, rule);
    }
    for item in action.list("hash_policy") {
        hash(item, rule, cx);
    }
    for earlier in replaced {
        // The rewritten part of a route has all that the route has.
        for key in ["timeout", "idle_timeout", "retry", "mirror"] {
            if let Some(value) = rule.keys.get(key) {
                earlier.keys.set(key, value.clone());
            }
        }
    }
}

fn shape_retry<'a>(_shape: &Shape<'a>, _action: &Node) -> Option<&'a Node> {
    None
}

fn rewrite(action: &Node, rule: &mut Rule, replaced: &mut Vec<Rule>) {
    let host = action.str("host_rewrite_literal").or_else(|| action.str("host_rewrite"));
    let mut keys = Map::default();
    match host {
        Some(host) => keys.set("host", host.to_ascii_lowercase()),
        None if action.is("auto_host_rewrite") => keys.set("host", "upstream"),
        None => {}
    }
    if let Some(prefix) = action.str("prefix_rewrite") {
        match &rule.when.path {
            Path::Exact(_) => keys.set("path", escape(prefix)),
            Path::Regex(_) => {
                rule.refuse(&action.at, "a prefix can't be replaced where a regular expression matched: use `rewrite: { path: … }` with captures; then replace the refusal.");
                return;
            }
            path => {
                let whole = format!("{}{{rest}}", escape(prefix));
                // `/` was a part of the prefix `/`.
                rule.when.path = path.with_rest();
                keys.set("path", whole);
            }
        }
    } else if let Some(regex) = action.get("regex_rewrite") {
        let pattern = regex.down(&["pattern"]).str("regex").unwrap_or_default();
        let to = regex.get("substitution").and_then(Node::text).unwrap_or_default();
        match substitution(pattern, to, &rule.when.path) {
            Some((path, whole)) => {
                let mut changed = rule.clone();
                changed.when.path = Path::Regex(path);
                let mut own = keys.clone();
                own.set("path", whole);
                changed.keys.set("rewrite", own);
                replaced.push(changed);
                rule.remarks.0.clear();
            }
            None => {
                rule.refuse(
                    &regex.at,
                    format!("the path was rewritten by `{pattern}`, which isn't a part of what this route matches: write it as the route's own `~regex` with captures, and `rewrite: {{ path: … }}`."),
                );
                return;
            }
        }
    } else if let Some(policy) = action.get("path_rewrite_policy") {
        let template = words::config(policy).str("path_template_rewrite").unwrap_or_default();
        if template.starts_with('/') {
            keys.set("path", template);
        } else {
            rule.refuse(&policy.at, "this rewriting of the path isn't known; then replace the refusal.");
            return;
        }
    }
    if !keys.is_empty() {
        rule.keys.set("rewrite", keys);
    }
}

/// A path that stands in a template of attache.
fn escape(path: &str) -> String {
    path.replace('{', "%7B").replace('}', "%7D")
}

/// A substitution from the path's begin becomes a path of its own with numbered captures. What it doesn't match stays as it is, by the
/// route itself, which follows.
fn substitution(pattern: &str, to: &str, path: &Path) -> Option<(String, String)> {
    let inner = pattern.strip_prefix('^')?;
    crate::path::expression(pattern)?;
    if inner.contains('|') {
        return None;
    }
    let literal: String =
        inner.chars().take_while(|c| c.is_ascii_alphanumeric() || "/-_".contains(*c)).collect();
    // The last literal character may be optional.
    let next = inner.chars().nth(literal.chars().count());
    let literal = if matches!(next, Some('*' | '?' | '{')) {
        &literal[..literal.len().saturating_sub(1)]
    } else {
        &literal
    };
    let within = match path {
        Path::All => true,
        Path::Text(start) => literal.starts_with(start.as_str()),
        Path::Segments(start) => literal.starts_with(&format!("{start}/")),
        Path::Regex(own) => {
            own.trim_end_matches(".*") == inner.trim_end_matches('$').trim_end_matches(".*")
                || own == inner.trim_end_matches('$')
        }
        _ => false,
    };
    if !within {
        return None;
    }
    let (inner, rest) = match inner.strip_suffix('$') {
        Some(inner) if !inner.ends_with('\\') => (inner.to_owned(), ""),
        _ => (format!("{inner}(?<rest>.*)"), "{rest}"),
    };
    let mut whole = String::new();
    let mut chars = to.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let digit = chars.next()?.to_digit(10)?;
                if digit == 0 {
                    return None;
                }
                whole.push_str(&format!("{{g{digit}}}"));
            }
            '{' | '}' => return None,
            c => whole.push(c),
        }
    }
    whole.push_str(rest);
    (whole.starts_with('/') || whole.starts_with('{')).then_some((crate::path::named(&inner), whole))
}

fn mirror(action: &Node, rule: &mut Rule, cx: &mut Cx) {
    let mut mirrors = Map::default();
    for policy in action.list("request_mirror_policies").iter().chain(action.get("request_mirror_policy")) {
        let Some(name) = policy.str("cluster") else {
            rule.remarks.soft(
                &policy.at,
                "copies go to upstreams that are named here; this one was chosen by a header.",
            );
            continue;
        };
        if cx.clusters.iter().all(|cluster| cluster.str("name") != Some(name)) {
            rule.remarks.soft(&policy.at, format!("the cluster `{name}` for copies is not here."));
            continue;
        }
        let share = policy.get("runtime_fraction").and_then(words::share).unwrap_or(1.0);
        let own = cluster::used(name, cluster::Use::Http, cx);
        mirrors.set(&own, words::percent(share));
    }
    if !mirrors.is_empty() {
        rule.keys.set("mirror", mirrors);
    }
}

fn retry(policy: &Node, rule: &mut Rule) {
    rule.remarks.rest(
        policy,
        "the retry policy",
        &[
            "retry_on",
            "num_retries",
            "per_try_timeout",
            "per_try_idle_timeout",
            "retriable_status_codes",
            "retriable_headers",
            "retry_back_off",
            "retry_host_predicate",
            "host_selection_retry_max_attempts",
        ],
        &[
            ("retry_priority", Weight::Soft, "a retry goes to another endpoint of the same priority."),
            ("retry_options_predicates", Weight::Soft, "retries have no options of their own."),
            ("rate_limited_retry_back_off", Weight::Soft, "`Retry-After` of an answer doesn't set the wait."),
            (
                "retriable_request_headers",
                Weight::Soft,
                "what is tried again isn't chosen by headers of the request: match them in a route.",
            ),
        ],
    );
    let mut on: Vec<String> = Vec::new();
    let mut add = |word: &str| {
        if !on.iter().any(|known| known == word) {
            on.push(word.to_owned());
        }
    };
    for word in policy.str("retry_on").unwrap_or_default().split(',').map(str::trim) {
        match word {
            "5xx" => ["5xx", "connect-failure", "refused-stream", "reset"].iter().for_each(|word| add(word)),
            "gateway-error" => add("gateway-error"),
            "reset" => ["reset", "connect-failure", "refused-stream"].iter().for_each(|word| add(word)),
            "reset-before-request" => add("connect-failure"),
            "connect-failure" | "refused-stream" => add(word),
            "retriable-4xx" => add("409"),
            "retriable-status-codes" => {
                policy.list("retriable_status_codes").iter().filter_map(Node::text).for_each(&mut add);
            }
            "retriable-headers" => {
                for header in policy.list("retriable_headers") {
                    if let Some(name) = header.str("name") {
                        add(&format!("header:{name}"));
                    }
                }
            }
            "cancelled" | "deadline-exceeded" | "internal" | "resource-exhausted" | "unavailable" => {
                add(&format!("grpc:{word}"));
            }
            "" | "http3-post-connect-failure" => {}
            other => rule.remarks.soft(&policy.at, format!("`retry_on: {other}` is absent.")),
        }
    }
    let mut keys = Map::default();
    let attempts = policy.number("num_retries").unwrap_or(1.0) as u64;
    if on.is_empty() || attempts == 0 {
        rule.keys.set("retry", "off");
        return;
    }
    keys.set("attempts", attempts);
    super::duration(
        &mut keys,
        "per_try_timeout",
        policy.get("per_try_timeout").filter(|node| words::seconds(node).is_some_and(|time| time > 0.0)),
    );
    let repeats = on.iter().any(|word| !matches!(word.as_str(), "connect-failure" | "refused-stream"));
    keys.set("on", on);
    if repeats {
        // Envoy sends any method again.
        keys.set("methods", "all");
    }
    let wait = policy.down(&["retry_back_off"]);
    if let Some(base) = wait.get("base_interval").and_then(words::seconds) {
        let mut backoff = keys.child("backoff");
        backoff.set("base", words::duration(base));
        let most = wait.get("max_interval").and_then(words::seconds).unwrap_or(base * 10.0);
        backoff.set("max", words::duration(most.max(base)));
    }
    rule.keys.set("retry", keys);
}

fn hash(item: &Node, rule: &mut Rule, cx: &mut Cx) {
    let key = if let Some(name) =
        item.down(&["header"]).str("header_name").filter(|name| !name.starts_with(':'))
    {
        format!("header:{}", name.to_ascii_lowercase())
    } else if item.down(&["header"]).str("header_name") == Some(":path") {
        "path".to_owned()
    } else if let Some(name) = item.down(&["cookie"]).str("name") {
        if item.down(&["cookie"]).get("ttl").is_some() {
            rule.remarks.point(&item.at, "attache sets no cookie of its own: clients without one are spread, and stay with an endpoint by the application's.");
        }
        format!("cookie:{name}")
    } else if item.down(&["connection_properties"]).is("source_ip") {
        "source".to_owned()
    } else {
        rule.remarks.soft(
            &item.at,
            "this key of a hash is absent: `header:NAME`, `cookie:NAME`, `source` and `path` are there.",
        );
        return;
    };
    for target in rule.targets.clone() {
        match cx.hashes.iter().find(|(name, _)| *name == target) {
            Some((_, known)) if *known != key => {
                rule.remarks.soft(&item.at, format!("an upstream hashes by one key: `{known}` is that of `{target}`, and `{key}` is left out."));
            }
            Some(_) => {}
            None => cx.hashes.push((target, key.clone())),
        }
    }
}

fn redirected(node: &Node, rule: &mut Rule) {
    let mut keys = Map::default();
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
        if matches!(rule.when.path, Path::Regex(_)) {
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
                rule.when.path = Path::Regex(path);
                keys.set("path", whole);
            }
            None => {
                rule.refuse(&regex.at, "this redirect is refused: its path is made by an expression that isn't a part of what the route matches.");
                return;
            }
        }
    }
    if node.is("strip_query") {
        keys.set("strip_query", true);
    }
    rule.keys.set("redirect", keys);
}

fn respond(node: &Node, rule: &mut Rule) {
    let status = node.number("status").unwrap_or(200.0) as u64;
    let body = node.down(&["body"]);
    if let Some(file) = body.str("filename") {
        let mut keys = Map::default();
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
            let mut keys = Map::default();
            keys.set("status", status);
            keys.set("body", text);
            rule.keys.set("respond", keys);
        }
        _ => rule.answer(status),
    }
}

fn headers(node: &Node, host: &Node, shape: &Shape<'_>, rule: &mut Rule) {
    let mut all = Map::default();
    for way in ["request", "response"] {
        let mut edits = Edits::default();
        for level in [node, host, shape.config] {
            edits.level(level, way, &mut rule.remarks);
        }
        let mut keys = edits.keys();
        if way == "request" {
            // `x-forwarded-*` and hop-by-hop headers belong to the connection.
            drop_fixed(&mut keys, &node.at, &mut rule.remarks);
        }
        if !keys.is_empty() {
            all.set(way, keys);
        }
    }
    if all.is_empty() {
        return;
    }
    if rule.keys.get("to").is_some() {
        rule.keys.set("headers", all);
    } else if all.get("response").is_some() && rule.remarks.heaviest() != Some(Weight::Point) {
        let mut only = Map::default();
        only.put("response", all.get("response").cloned());
        rule.keys.set("headers", only);
    }
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

fn drop_fixed(keys: &mut Map, at: &crate::tree::At, remarks: &mut Remarks) {
    for (_, value) in &mut keys.0 {
        if let Value::Map(map) = value {
            map.0.retain(|(name, _)| {
                let fixed = FIXED.contains(&name.as_str());
                if fixed {
                    remarks.soft(at, format!("`{name}` is about one connection, and set by attache itself."));
                }
                !fixed
            });
        }
    }
    keys.0.retain(|(_, value)| !matches!(value, Value::Map(map) if map.is_empty()));
}
