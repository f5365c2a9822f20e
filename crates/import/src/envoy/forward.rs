//! Routes of Envoy that go to clusters: rewriting, mirroring, retries and hash.

use crate::path::PlannedPath;
use crate::plan::PlannedRule;
use crate::remark::Impact;
use crate::tree::Node;
use crate::value::YamlMap;

use super::{EnvoyImport, by_header, cluster, filters, options, sessions, subsets, words};

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
    "priority",
    "include_vh_rate_limits",
    "append_x_forwarded_host",
    "flush_timeout",
];

const ACTION_TOLD: &[(&str, Impact, &str)] = &[
    (
        "internal_redirect_policy",
        Impact::Point,
        "attache passes redirects of the upstream to the client, and doesn't follow them.",
    ),
    (
        "internal_redirect_action",
        Impact::Point,
        "attache passes redirects of the upstream to the client, and doesn't follow them.",
    ),
    ("early_data_policy", Impact::Soft, "attache never accepts early data of TLS."),
];

pub(super) fn forward(
    action: &Node,
    matcher: &Node,
    rule: &mut PlannedRule,
    replaced: &mut Vec<PlannedRule>,
    manager: &Node,
    cx: &mut EnvoyImport,
) {
    rule.remarks.rest(action, "the route's action", ACTION_KNOWN, ACTION_TOLD);
    let Some(action) = destination(action, rule, cx) else { return };
    let action = &action;
    if let Some(time) = action.get("timeout").and_then(words::seconds) {
        rule.keys.set("timeout", if time <= 0.0 { "off".to_owned() } else { words::duration(time) });
    }
    let base = options::upgrades(manager.list("upgrade_configs"), Vec::new());
    let own = options::said(&options::upgrades(action.list("upgrade_configs"), base));
    if cx.upgrades.as_ref() != Some(&own) {
        rule.keys.set("upgrades", own);
    }
    times(action, manager, rule);
    rewrite(action, matcher, rule, replaced);
    let slash = action.str("prefix_rewrite").is_some_and(|prefix| prefix.ends_with('/'));
    if slash && matcher.get("path_separated_prefix").is_some() && manager.is("merge_slashes") {
        rule.remarks.point(
            &action.at,
            "the rewritten path began with `//`, and attache sends `/`: `merge_slashes` also changes the path that the upstream gets.",
        );
    }
    if action.str("priority").is_some_and(|word| matches!(word, "HIGH" | "1")) {
        rule.remarks
            .soft(&action.at, "attache has no priorities for circuit breakers: all requests count together.");
    }
    mirror(action, rule, cx);
    if let Some(policy) = action.get("retry_policy") {
        retry(policy, rule);
    }
    let of_clusters = clusters(rule, cx).into_iter().flat_map(|cluster| cluster.list("hash_policy").to_vec());
    let policies: Vec<Node> = action.list("hash_policy").iter().cloned().chain(of_clusters).collect();
    for item in &policies {
        hash(item, rule, cx);
    }
    for earlier in replaced {
        // The rule for the rewritten part has the same policies as the route.
        for key in ["timeout", "idle_timeout", "retry", "mirror", "session_cookie"] {
            if let Some(value) = rule.keys.get(key) {
                earlier.keys.set(key, value.clone());
            }
        }
    }
}

/// Sets where the requests go. `None` where the rule answers by itself, or is refused; else the action, which has the
/// clusters of the chosen subset.
fn destination(action: &Node, rule: &mut PlannedRule, cx: &mut EnvoyImport) -> Option<Node> {
    let header = action.str("cluster_header");
    for (key, why) in [
        ("cluster_specifier_plugin", "a plug-in chose the cluster"),
        ("inline_cluster_specifier_plugin", "a plug-in chose the cluster"),
        ("host_rewrite_header", "a header of the request became its host"),
        ("host_rewrite_path_regex", "the host was made from the path"),
    ] {
        if action.get(key).is_some() {
            rule.refuse(
                &action.at,
                format!("this route is refused: {why}. Write it by hand; then replace the refusal."),
            );
            return None;
        }
    }
    let action = match header {
        Some(header) => {
            if !by_header::named(action, header, rule, cx) {
                return None;
            }
            action.clone()
        }
        None => {
            let action = subsets::chosen(action, rule, cx)?;
            if !filters::targets(&action, cluster::ClusterUse::Http, rule, cx) {
                rule.refuse(&action.at, "this route is refused, because its cluster is not in the given files. Give the file with the cluster as a further argument of the import.");
                return None;
            }
            action
        }
    };
    if let Some(guard) = upstream_guard(rule, cx) {
        rule.refuse(&guard, "this route is refused: a filter of the cluster may refuse or change requests. Find out what it does; then replace the refusal.");
    }
    (!rule.settled).then_some(action)
}

/// How long a stream may be idle, and what has no counterpart.
fn times(action: &Node, manager: &Node, rule: &mut PlannedRule) {
    let idle = action.get("idle_timeout").or_else(|| manager.get("stream_idle_timeout"));
    if let Some(time) = idle.and_then(words::seconds) {
        rule.keys.set("idle_timeout", if time <= 0.0 { "off".to_owned() } else { words::duration(time) });
    }
    let longest = action.down(&["max_stream_duration"]).get("max_stream_duration");
    if let Some(node) =
        longest.or_else(|| manager.down(&["common_http_protocol_options"]).get("max_stream_duration"))
    {
        node.skip();
        rule.remarks.soft(&node.at, "attache has no maximum duration for streams; `idle_timeout` ends idle streams, and `timeout` all others.");
    }
    if let Some(hedge) = action.get("hedge_policy") {
        hedge.skip();
        rule.remarks.soft(&action.at, "attache ends an attempt at its timeout; the original let it run beside the next one. `retry: { hedge: p95 }` sends a second attempt beside a slow one.");
    }
}

/// The clusters that a rule goes to.
fn clusters(rule: &PlannedRule, cx: &EnvoyImport) -> Vec<Node> {
    let names = cx.uses.iter().filter(|(_, _, upstream)| rule.targets.contains(upstream));
    names
        .filter_map(|(name, ..)| {
            cx.clusters.iter().find(|cluster| cluster.str("name") == Some(name)).cloned()
        })
        .collect()
}

/// The place of an upstream filter of a cluster that could refuse requests.
fn upstream_guard(rule: &PlannedRule, cx: &EnvoyImport) -> Option<crate::tree::FileLine> {
    let guarded = |cluster: &Node| {
        let options = cluster::http_options(cluster);
        filters::deciding(options.list("http_filters")).map(|filter| filter.at.clone())
    };
    clusters(rule, cx).iter().find_map(guarded)
}

fn rewrite(action: &Node, matcher: &Node, rule: &mut PlannedRule, replaced: &mut Vec<PlannedRule>) {
    let host = action.str("host_rewrite_literal").or_else(|| action.str("host_rewrite"));
    let mut keys = YamlMap::default();
    match host {
        Some(host) => keys.set("host", host.to_ascii_lowercase()),
        None if action.is("auto_host_rewrite") => keys.set("host", "upstream"),
        None => {}
    }
    if let Some(prefix) = action.str("prefix_rewrite") {
        match &rule.when.path {
            PlannedPath::Exact(_) => keys.set("path", escape(prefix)),
            PlannedPath::Regex(_) if matcher.str("prefix").is_some() => {
                // A prefix that ignores case.
                let from = regex::escape(matcher.str("prefix").unwrap_or_default());
                rule.when.path = PlannedPath::Regex(format!("(?i:{from})(?<rest>.*)"));
                keys.set("path", format!("{}{{rest}}", escape(prefix)));
            }
            PlannedPath::Regex(_) => {
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
                changed.when.path = PlannedPath::Regex(path);
                let mut own = keys.clone();
                own.set("path", whole);
                changed.keys.set("rewrite", own);
                replaced.push(changed);
                rule.remarks.0.clear();
            }
            None => {
                rule.refuse(
                    &regex.at,
                    format!("`{pattern}` rewrote the path, and isn't a part of what this route matches. Write it as `~regex` with captures, and `rewrite`."),
                );
                return;
            }
        }
    } else if let Some(policy) = action.get("path_rewrite_policy") {
        let template = words::config(policy).str("path_template_rewrite").unwrap_or_default();
        if template.starts_with('/') {
            keys.set("path", template);
        } else {
            rule.refuse(&policy.at, "this import doesn't know this way to rewrite the path. Write it as `rewrite`; then replace the refusal.");
            return;
        }
    }
    if action.is("append_x_forwarded_host") && keys.get("host").is_some() {
        rule.keys.child("headers").child("request").child("add").set("x-forwarded-host", "%{request.host}");
    }
    if !keys.is_empty() {
        rule.keys.set("rewrite", keys);
    }
}

/// A path as a literal in a template of attache.
pub(super) fn escape(path: &str) -> String {
    path.replace('{', "%7B").replace('}', "%7D")
}

/// A substitution at the begin of the path becomes a condition with numbered captures and a rewriting. Paths that it doesn't match
/// meet the route itself, which follows.
pub(super) fn substitution(pattern: &str, to: &str, path: &PlannedPath) -> Option<(String, String)> {
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
        PlannedPath::All => true,
        PlannedPath::Text(start) => literal.starts_with(start.as_str()),
        PlannedPath::Segments(start) => literal.starts_with(&format!("{start}/")),
        PlannedPath::Regex(own) => {
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

fn mirror(action: &Node, rule: &mut PlannedRule, cx: &mut EnvoyImport) {
    let mut mirrors = YamlMap::default();
    for policy in action.list("request_mirror_policies").iter().chain(action.get("request_mirror_policy")) {
        let Some(name) = policy.str("cluster") else {
            rule.remarks.soft(
                &policy.at,
                "no copies are sent: a header chose their upstream, and a mirror needs a fixed one.",
            );
            continue;
        };
        if cx.clusters.iter().all(|cluster| cluster.str("name") != Some(name)) {
            rule.remarks.soft(
                &policy.at,
                format!("no copies are sent: the cluster `{name}` for them is not in the given files."),
            );
            continue;
        }
        let share = policy.get("runtime_fraction").and_then(words::share).unwrap_or(1.0);
        let own = cluster::used(name, cluster::ClusterUse::Http, cx);
        mirrors.set(&own, words::percent(share));
    }
    if !mirrors.is_empty() {
        rule.keys.set("mirror", mirrors);
    }
}

const RETRY_KNOWN: &[&str] = &[
    "retry_on",
    "num_retries",
    "per_try_timeout",
    "per_try_idle_timeout",
    "retriable_status_codes",
    "retriable_headers",
    "retry_back_off",
    "retry_host_predicate",
    "host_selection_retry_max_attempts",
];

const RETRY_REMARKS: &[(&str, Impact, &str)] = &[
    ("retry_priority", Impact::Soft, "attache sends a retry to another endpoint of the same priority."),
    ("retry_options_predicates", Impact::Soft, "attache has no options for single retries."),
    (
        "rate_limited_retry_back_off",
        Impact::Soft,
        "attache doesn't use `Retry-After` of a response for the wait.",
    ),
    (
        "retriable_request_headers",
        Impact::Soft,
        "headers of the request don't decide whether attache retries it: match them in a route.",
    ),
];

fn retry(policy: &Node, rule: &mut PlannedRule) {
    rule.remarks.rest(policy, "the retry policy", RETRY_KNOWN, RETRY_REMARKS);
    let on = retry_conditions(policy, rule);
    let mut keys = YamlMap::default();
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

/// `retry_on`, in attache's words.
fn retry_conditions(policy: &Node, rule: &mut PlannedRule) -> Vec<String> {
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
            other => rule.remarks.soft(&policy.at, format!("attache lacks `retry_on: {other}`.")),
        }
    }
    on
}

fn hash(item: &Node, rule: &mut PlannedRule, cx: &mut EnvoyImport) {
    let key =
        if let Some(name) = item.down(&["header"]).str("header_name").filter(|name| !name.starts_with(':')) {
            format!("header:{}", name.to_ascii_lowercase())
        } else if item.down(&["header"]).str("header_name") == Some(":path") {
            "path".to_owned()
        } else if let Some(name) = item.down(&["cookie"]).str("name") {
            let cookie = item.down(&["cookie"]);
            if cookie.get("ttl").is_some() {
                // These keys have no meaning for a cluster that doesn't hash.
                ["ttl", "path"].iter().for_each(|key| cookie.down(&[key]).skip());
                // Envoy gives a cookie to clients without one.
                if clusters(rule, cx).iter().any(cluster::hashes)
                    && let Some(map) = sessions::cookie(cookie, &mut rule.remarks)
                {
                    rule.keys.set("session_cookie", map);
                    cx.sessions.extend(rule.targets.iter().cloned());
                }
                return;
            }
            format!("cookie:{name}")
        } else if item.down(&["connection_properties"]).is("source_ip") {
            "source".to_owned()
        } else {
            rule.remarks.soft(
                &item.at,
                "attache lacks this key of a hash. It has `header:NAME`, `cookie:NAME`, `source` and `path`.",
            );
            return;
        };
    for target in rule.targets.clone() {
        match cx.hashes.iter().find(|(name, _)| *name == target) {
            Some((_, known)) if *known != key => {
                rule.remarks.soft(&item.at, format!("an upstream has one key for its hash: `{target}` uses `{known}`, and `{key}` is left out."));
            }
            Some(_) => {}
            None => cx.hashes.push((target, key.clone())),
        }
    }
}
