//! Rate limits of Envoy's filters.

use crate::plan::PlannedRule;
use crate::remark::{Impact, Remarks};
use crate::tree::Node;
use crate::value::{ConfigValue, YamlMap};

use super::{EnvoyImport, cluster, words};

/// `rate_limit` of the filter, or of a route's settings for it. `None` if nothing is limited.
pub(super) fn local_limit(config: &Node, remarks: &mut Remarks) -> Option<YamlMap> {
    let on = |key: &str| config.get(key).and_then(words::share).unwrap_or(0.0);
    if on("filter_enabled") <= 0.0 || on("filter_enforced") <= 0.0 {
        if config.get("token_bucket").is_some() {
            remarks.note(&config.at, "the local rate limit was not enforced (`filter_enabled` and `filter_enforced` default to 0 %), and is left out.");
        }
        return None;
    }
    let bucket = config.get("token_bucket")?;
    remarks.rest(
        config,
        "`local_ratelimit`",
        &[
            "stat_prefix",
            "token_bucket",
            "filter_enabled",
            "filter_enforced",
            "descriptors",
            "status",
            "stage",
            "local_rate_limit_per_downstream_connection",
            "rate_limited_as_resource_exhausted",
        ],
        &[
            (
                "response_headers_to_add",
                Impact::Soft,
                "responses to requests above the limit have attache's own headers.",
            ),
            (
                "request_headers_to_add_when_not_enforced",
                Impact::Soft,
                "no headers are added to requests beyond the limit.",
            ),
            (
                "enable_x_ratelimit_headers",
                Impact::Soft,
                "responses to requests above the limit have `ratelimit-*` headers.",
            ),
        ],
    );
    if config.is("local_rate_limit_per_downstream_connection") {
        remarks.point(&config.at, "in the original each connection had its own bucket; now one bucket counts all connections. `rate_limit: { by: client }` counts by address.");
    }
    if on("filter_enabled") < 1.0 || on("filter_enforced") < 1.0 {
        remarks.soft(&config.at, "the limit counts for all requests, not for a share of them.");
    }
    let most = bucket.number("max_tokens").unwrap_or(0.0) as u64;
    let fill = bucket.number("tokens_per_fill").unwrap_or(1.0) as u64;
    let mut map = YamlMap::default();
    map.set("requests", fill);
    map.set("per", words::duration(bucket.get("fill_interval").and_then(words::seconds).unwrap_or(1.0)));
    if most != fill {
        map.set("burst", most);
    }
    if config.get("descriptors").is_some() {
        remarks.point(
            &config.at,
            "attache lacks local limits by descriptor: `rate_limit: { by: header:NAME }` counts by a header's value.",
        );
    }
    if config.down(&["status"]).str("code").is_some_and(|code| !matches!(code, "429" | "TooManyRequests")) {
        remarks.soft(&config.at, "requests above the limit are answered with 429.");
    }
    Some(map)
}

/// The limits that count a request of a route: those of the route's settings for the filter, else of the filter, else
/// of the route and its virtual host.
fn counted<'n>(config: &'n Node, own: Option<&'n Node>, levels: &[&'n Node]) -> Vec<&'n Node> {
    let own = own.unwrap_or_else(|| config.down(&["absent"]));
    for node in [own, config] {
        if !node.list("rate_limits").is_empty() {
            return node.list("rate_limits").iter().collect();
        }
    }
    let route = levels.first().map(|route| route.down(&["route"]));
    let mut out: Vec<&Node> =
        route.map(|route| route.list("rate_limits")).unwrap_or_default().iter().collect();
    let of_host = match own.str("vh_rate_limits") {
        Some("INCLUDE" | "1") => true,
        Some("IGNORE" | "2") => false,
        _ => out.is_empty() || route.is_some_and(|route| route.is("include_vh_rate_limits")),
    };
    if of_host {
        out.extend(levels.iter().skip(1).flat_map(|level| level.list("rate_limits")));
    }
    out
}

/// Sets `global_rate_limit` of rules that have actions.
pub(super) fn global(
    config: &Node,
    own: Option<&Node>,
    levels: &[&Node],
    rules: &mut [PlannedRule],
    cx: &mut EnvoyImport,
) {
    let actions = counted(config, own, levels);
    if actions.is_empty() {
        return;
    }
    let service = config.down(&["rate_limit_service", "grpc_service", "envoy_grpc"]).str("cluster_name");
    for rule in rules.iter_mut().filter(|rule| rule.keys.get("to").is_some()) {
        let Some(service) = service else {
            rule.refuse(&config.at, "the service that counts for this limit is not a cluster of the config. Add an upstream for it, and name it in `global_rate_limit`; then replace the refusal.");
            continue;
        };
        let mut descriptors = Vec::new();
        let mut lost = false;
        for limit in &actions {
            let list: Vec<Option<ConfigValue>> = limit.list("actions").iter().map(action).collect();
            if list.iter().any(Option::is_none) || limit.get("stage").is_some() {
                lost = true;
                continue;
            }
            let mut map = YamlMap::default();
            map.set("actions", ConfigValue::List(list.into_iter().flatten().collect()));
            descriptors.push(ConfigValue::Map(map));
        }
        if lost {
            rule.remarks.point(&config.at, "attache can't count by the descriptor of one of the limits, which is left out: see `global_rate_limit.descriptors` in docs/config.md.");
        }
        if descriptors.is_empty() {
            continue;
        }
        let mut map = YamlMap::default();
        map.set("service", cx.names.of(service));
        let domain = own.and_then(|own| own.str("domain")).or_else(|| config.str("domain"));
        map.set("domain", domain.unwrap_or("default"));
        super::duration(&mut map, "timeout", config.get("timeout"));
        if config.is("failure_mode_deny") {
            map.set("failure_mode", "deny");
        }
        map.set("descriptors", ConfigValue::List(descriptors));
        rule.keys.set("global_rate_limit", map);
        cluster::used(service, cluster::ClusterUse::Http, cx);
    }
}

fn action(node: &Node) -> Option<ConfigValue> {
    let (key, config) = node.entries().first()?;
    let mut map = YamlMap::default();
    match crate::tree::snake(key).as_str() {
        "remote_address" => map.set("remote_address", true),
        "destination_cluster" => map.set("destination_cluster", true),
        "generic_key" => {
            let mut inner = map.child("generic_key");
            inner.set("descriptor_value", config.str("descriptor_value")?);
            inner.put("descriptor_key", config.str("descriptor_key"));
        }
        "request_headers" => {
            let header = config.str("header_name")?;
            match header {
                ":path" => map.set("path", true),
                ":method" => map.set("method", true),
                header if header.starts_with(':') => return None,
                header => {
                    let mut inner = map.child("request_headers");
                    inner.set("header_name", header);
                    inner.put("descriptor_key", config.str("descriptor_key"));
                    if config.is("skip_if_absent") {
                        inner.set("skip_if_absent", true);
                    }
                }
            }
        }
        _ => return None,
    }
    Some(ConfigValue::Map(map))
}
