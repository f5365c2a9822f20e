//! Clusters become upstreams.

use crate::plan::Upstream;
use crate::remark::Weight;
use crate::tree::Node;
use crate::value::{Map, Value};

use super::{Cx, resources, tls, words};

/// What a cluster is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// HTTP.
    Http,
    /// Opaque bytes.
    Tcp,
}

/// The name of a cluster's upstream, which is made at the end. A cluster for HTTP and for bytes is two upstreams.
pub(crate) fn used(cluster: &str, used: Use, cx: &mut Cx) -> String {
    if let Some((_, _, name)) = cx.uses.iter().find(|(known, other, _)| known == cluster && *other == used) {
        return name.clone();
    }
    let other = cx.uses.iter().any(|(known, ..)| known == cluster);
    let name = match (other, used) {
        (false, _) => cx.names.of(cluster),
        (true, Use::Tcp) => cx.names.of(&format!("{cluster}-tcp")),
        (true, Use::Http) => cx.names.of(&format!("{cluster}-http")),
    };
    cx.uses.push((cluster.to_owned(), used, name.clone()));
    name
}

/// Makes the upstreams.
pub(crate) fn clusters(cx: &mut Cx) {
    for (cluster, used, name) in cx.uses.clone() {
        let mut upstream = Upstream { name, ..Upstream::default() };
        if let Some(node) = cx.clusters.iter().find(|node| node.str("name") == Some(&cluster)).cloned() {
            fill(&node, used, &mut upstream, cx);
            cx.plan.upstreams.push(upstream);
        }
    }
    let mut remarks = std::mem::take(&mut cx.plan.remarks);
    for node in &cx.clusters {
        let name = node.str("name").unwrap_or("without a name");
        if !cx.uses.iter().any(|(known, ..)| known == name) {
            remarks.note(&node.at, format!("the cluster `{name}` is left out: no route goes there."));
        }
    }
    cx.plan.remarks = remarks;
}

const KNOWN: &[&str] = &[
    "name",
    "type",
    "cluster_type",
    "connect_timeout",
    "lb_policy",
    "load_assignment",
    "hosts",
    "http2_protocol_options",
    "http_protocol_options",
    "common_http_protocol_options",
    "typed_extension_protocol_options",
    "transport_socket",
    "tls_context",
    "circuit_breakers",
    "health_checks",
    "outlier_detection",
    "dns_lookup_family",
    "dns_refresh_rate",
    "dns_failure_refresh_rate",
    "respect_dns_ttl",
    "max_requests_per_connection",
    "upstream_connection_options",
    "eds_cluster_config",
    "ring_hash_lb_config",
    "maglev_lb_config",
    "least_request_lb_config",
    "alt_stat_name",
    "per_connection_buffer_limit_bytes",
    "original_dst_lb_config",
    "round_robin_lb_config",
    "load_balancing_policy",
    "common_lb_config",
    "metadata",
    "upstream_bind_config",
    "preconnect_policy",
    "protocol_selection",
    "extension_protocol_options",
    "wait_for_warm_on_init",
    "typed_dns_resolver_config",
    "close_connections_on_host_health_failure",
    "connection_pool_per_downstream_connection",
    "cleanup_interval",
    "dns_resolution_config",
    "lb_subset_config",
    "transport_socket_matches",
    "filters",
    "dns_resolvers",
    "use_tcp_for_dns_lookups",
    "dns_jitter",
    "upstream_http_protocol_options",
    "ignore_health_on_host_removal",
    "drain_connections_on_host_removal",
    "warming_duration",
    "tls_certificate_sds_secret_configs",
];

const TOLD: &[(&str, Weight, &str)] = &[
    ("track_timeout_budgets", Weight::Soft, "budgets of time are not counted."),
    ("track_cluster_stats", Weight::Soft, "sizes are not counted."),
    ("lrs_server", Weight::Soft, "load is not reported to a control plane."),
    ("upstream_config", Weight::Soft, "custom pools are absent."),
];

fn fill(node: &Node, used: Use, out: &mut Upstream, cx: &mut Cx) {
    let mut remarks = std::mem::take(&mut out.remarks);
    remarks.rest(node, "the cluster", KNOWN, TOLD);
    let mut keys = Map::default();
    let options = http_options(node);
    let h2 = speaks_h2(node, &options);
    let secure = tls::upstream(node, &mut keys, &mut remarks, cx).is_some();
    let scheme = match (used, secure, h2) {
        (Use::Tcp, false, _) => "tcp",
        (Use::Tcp, true, _) => "tls",
        (_, true, _) => "https",
        (_, false, true) => "h2c",
        (_, false, false) => "http",
    };
    let kind = node.str("type").unwrap_or("STATIC").to_ascii_uppercase();
    let kind = kind.as_str();
    let custom = words::extension(&node.down(&["cluster_type"]).clone());
    let mut address = match (kind, custom.as_str()) {
        ("ORIGINAL_DST", _) => Some(Value::from("original-destination")),
        (_, "dynamic_forward_proxy" | "cluster_config") if node.get("cluster_type").is_some() => {
            Some(Value::from("authority"))
        }
        _ => addresses(node, scheme, &mut remarks, cx),
    };
    if kind == "LOGICAL_DNS" {
        remarks.note(&node.at, "every address of the name is an endpoint; `LOGICAL_DNS` took one at a time.");
    }
    if address.is_none() {
        remarks.point(&node.at, "the addresses of this cluster come from a control plane: give them as `address`. Until then every call fails.");
        address = Some(Value::from(format!(
            "{scheme}://{}.invalid:80",
            crate::plan::name(&out.name).replace(['_', '/'], "-").to_ascii_lowercase()
        )));
    }
    let mut own = Map::default();
    own.put("address", address);
    if used != Use::Tcp {
        own.set("host", "preserve");
        match (secure, h2, auto(&options)) {
            (true, false, false) => own.set("protocol", "http1"),
            (true, true, false) => own.set("protocol", "http2"),
            _ => {}
        }
    }
    for (key, value) in keys.0 {
        own.set(&key, value);
    }
    if let Some(time) = node.get("connect_timeout").and_then(words::seconds).filter(|time| *time > 0.0) {
        own.set("connect_timeout", words::duration(time));
    } else {
        own.set("connect_timeout", "5s");
    }
    if node.is("close_connections_on_host_health_failure") {
        own.set("on_unhealthy", "close");
    }
    balance(node, &out.name, &mut own, &mut remarks, cx);
    pool(node, &options, used, &mut own, &mut remarks);
    breaker(node, &mut own, &mut remarks);
    outlier(node, &mut own, &mut remarks);
    health(node, &mut own, &mut remarks);
    for (key, what) in [
        ("lb_subset_config", "subsets are absent: make an upstream of each, and routes that choose it."),
        (
            "transport_socket_matches",
            "endpoints of one upstream all have the same TLS: make an upstream of each kind.",
        ),
    ] {
        if let Some(found) = node.get(key) {
            remarks.point(&found.at, format!("`{key}`: {what}"));
        }
    }
    if !node.list("filters").is_empty() {
        remarks.soft(&node.at, "filters on the upstream's side are absent.");
    }
    let socket = words::extension(&node.down(&["transport_socket"]).clone());
    if socket.contains("proxy_protocol") {
        let version = words::config(node.down(&["transport_socket"]))
            .down(&["config"])
            .str("version")
            .unwrap_or("V1")
            .to_ascii_lowercase();
        own.set("proxy_protocol", version);
    }
    out.keys = own;
    out.remarks = remarks;
}

/// `HttpProtocolOptions` of v3.
fn http_options(node: &Node) -> Node {
    let all = node.down(&["typed_extension_protocol_options"]).entries();
    all.iter()
        .find(|(key, _)| key.contains("HttpProtocolOptions"))
        .map_or_else(|| node.down(&["none"]).clone(), |(_, value)| value.clone())
}

fn auto(options: &Node) -> bool {
    options.get("auto_config").is_some()
}

fn speaks_h2(node: &Node, options: &Node) -> bool {
    node.get("http2_protocol_options").is_some()
        || options.down(&["explicit_http_config"]).get("http2_protocol_options").is_some()
        || options.get("auto_config").is_some() && node.get("transport_socket").is_some()
}

fn addresses(node: &Node, scheme: &str, remarks: &mut crate::remark::Remarks, cx: &Cx) -> Option<Value> {
    let mut found: Vec<(String, Map)> = Vec::new();
    let by_files = node
        .down(&["eds_cluster_config"])
        .get("eds_config")
        .and_then(|source| resources::of(source, cx))
        .and_then(|all| {
            let name = node
                .down(&["eds_cluster_config"])
                .str("service_name")
                .or_else(|| node.str("name"))
                .map(ToOwned::to_owned);
            all.iter().find(|one| one.str("cluster_name") == name.as_deref()).cloned()
        });
    let assignment = node.get("load_assignment").cloned().or(by_files);
    let dns = node.str("type").is_some_and(|kind| kind.ends_with("_DNS"));
    for locality in assignment.iter().flat_map(|assignment| assignment.list("endpoints")) {
        let priority = locality.number("priority").unwrap_or(0.0) as u64;
        let weight = locality.number("load_balancing_weight").map(|weight| weight as u64);
        let zone = locality.down(&["locality"]).str("zone");
        for endpoint in locality.list("lb_endpoints") {
            let mut map = Map::default();
            let inner = endpoint.down(&["endpoint"]);
            if matches!(endpoint.str("health_status"), Some("UNHEALTHY" | "DRAINING" | "TIMEOUT")) {
                remarks.soft(&endpoint.at, "an endpoint that was marked unhealthy is left out.");
                continue;
            }
            let own = endpoint.number("load_balancing_weight").map(|weight| weight as u64);
            if let Some(weight) = own.filter(|weight| *weight != 1) {
                map.set("weight", weight);
            }
            if priority > 0 {
                map.set("priority", priority);
            }
            if let Some(zone) = zone {
                map.set("zone", zone);
            }
            if inner.get("health_check_config").is_some() {
                remarks.soft(&inner.at, "health checks go to the endpoint's own port.");
            }
            if let Some(address) = address(inner.down(&["address"]), scheme) {
                found.push((address, map));
            } else {
                remarks.point(&inner.at, "an endpoint is left out: it has neither an IP address or name with a port nor a Unix socket.");
            }
        }
        if weight.is_some_and(|weight| weight != 1) {
            remarks.soft(
                &locality.at,
                "weights of localities are left out; endpoints have `weight` and `zone`.",
            );
        }
    }
    // v2.
    for host in node.list("hosts") {
        found.extend(address(host, scheme).map(|address| (address, Map::default())));
    }
    let _ = dns;
    if assignment.is_some_and(|assignment| assignment.down(&["policy"]).get("drop_overloads").is_some()) {
        remarks.soft(&node.at, "a share of the requests is not dropped: `fault.abort` does it.");
    }
    let mut items: Vec<Value> = Vec::new();
    for (address, mut map) in found {
        if map.is_empty() {
            items.push(address.into());
        } else {
            map.0.insert(0, ("address".to_owned(), address.into()));
            items.push(Value::Map(map));
        }
    }
    match items.len() {
        0 => None,
        1 if matches!(items[0], Value::Text(_)) => items.pop(),
        _ => Some(Value::List(items)),
    }
}

fn address(node: &Node, scheme: &str) -> Option<String> {
    if let Some(path) = node.down(&["pipe"]).str("path") {
        return Some(match scheme {
            "http" => format!("unix:{path}"),
            scheme => format!("unix+{scheme}:{path}"),
        });
    }
    let socket = node.down(&["socket_address"]);
    let (host, port) = (socket.str("address")?, socket.str("port_value")?);
    if host.contains(':') {
        Some(format!("{scheme}://[{host}]:{port}"))
    } else {
        Some(format!("{scheme}://{host}:{port}"))
    }
}

fn balance(node: &Node, name: &str, out: &mut Map, remarks: &mut crate::remark::Remarks, cx: &Cx) {
    let by_policy = node.down(&["load_balancing_policy"]).list("policies").first().map(|policy| {
        let inner = policy.down(&["typed_extension_config"]);
        words::extension(inner)
    });
    let word =
        by_policy.unwrap_or_else(|| node.str("lb_policy").unwrap_or("ROUND_ROBIN").to_ascii_lowercase());
    let hash = cx.hashes.iter().find(|(upstream, _)| upstream == name).map(|(_, key)| key.clone());
    let mut map = Map::default();
    match word.trim_end_matches("_lb") {
        "least_request" => {}
        "random" => map.set("algorithm", "random"),
        "ring_hash" | "maglev" => match hash {
            Some(hash) => {
                map.set("algorithm", if word.starts_with("ring") { "ring-hash" } else { "maglev" });
                map.set("hash", hash);
            }
            None => {
                remarks.note(
                    &node.at,
                    "no route gives this cluster a hash, so endpoints were chosen at random.",
                );
                map.set("algorithm", "random");
            }
        },
        "cluster_provided" | "original_dst" | "load_balancing_policy_config" => {}
        _ => map.set("algorithm", "round-robin"),
    }
    let common = node.down(&["common_lb_config"]);
    if let Some(share) = common
        .get("healthy_panic_threshold")
        .and_then(words::share)
        .filter(|share| (*share - 0.5).abs() > 1e-9)
    {
        map.set("panic_threshold", words::percent(share));
    }
    for config in ["round_robin_lb_config", "least_request_lb_config"] {
        if let Some(time) =
            node.down(&[config, "slow_start_config"]).get("slow_start_window").and_then(words::seconds)
        {
            map.set("slow_start", words::duration(time));
        }
    }
    match map.0.as_slice() {
        [] => {}
        [(key, value)] if key == "algorithm" => out.set("balance", value.clone()),
        _ => out.set("balance", map),
    }
}

fn pool(node: &Node, options: &Node, used: Use, out: &mut Map, remarks: &mut crate::remark::Remarks) {
    let mut map = Map::default();
    let common = if options.has(&["common_http_protocol_options"]) {
        options.down(&["common_http_protocol_options"])
    } else {
        node.down(&["common_http_protocol_options"])
    };
    if used != Use::Tcp {
        if let Some(time) = common.get("idle_timeout").and_then(words::seconds).filter(|time| *time > 0.0) {
            map.set("idle_timeout", words::duration(time));
        }
        let most = node
            .number("max_requests_per_connection")
            .or_else(|| common.number("max_requests_per_connection"));
        if let Some(most) = most.filter(|most| *most > 0.0) {
            map.set("max_requests", most as u64);
        }
        if let Some(time) =
            common.get("max_connection_duration").and_then(words::seconds).filter(|time| *time > 0.0)
        {
            map.set("max_age", words::duration(time));
        }
        let h2 = options.down(&["explicit_http_config", "http2_protocol_options"]);
        let h2 = if h2.is_empty() { node.down(&["http2_protocol_options"]) } else { h2 };
        if let Some(streams) = h2.number("max_concurrent_streams") {
            map.set("h2_streams", (streams as u64).clamp(1, 1024));
        }
        if let Some(time) = h2
            .down(&["connection_keepalive"])
            .get("interval")
            .and_then(words::seconds)
            .filter(|time| *time > 0.0)
        {
            map.set("h2_keepalive", words::duration(time));
        }
        if options.get("use_downstream_protocol_config").is_some()
            || node.str("protocol_selection") == Some("USE_DOWNSTREAM_PROTOCOL")
        {
            remarks.soft(&node.at, "what is spoken to the upstream doesn't follow the client: HTTP/1.1, and HTTP/2 for gRPC; `protocol: http2` sets it.");
        }
    }
    let keepalive = node.down(&["upstream_connection_options", "tcp_keepalive"]);
    if let Some(time) = keepalive.number("keepalive_time").filter(|time| *time >= 1.0) {
        map.set("tcp_keepalive", words::duration(time));
    }
    if !map.is_empty() {
        out.set("pool", map);
    }
    if let Some(ip) = node
        .down(&["upstream_bind_config", "source_address"])
        .str("address")
        .filter(|ip| *ip != "0.0.0.0" && *ip != "::")
    {
        out.set("source_address", ip);
    }
}

fn breaker(node: &Node, out: &mut Map, remarks: &mut crate::remark::Remarks) {
    let mut map = Map::default();
    for threshold in node.down(&["circuit_breakers"]).list("thresholds") {
        if threshold.str("priority").is_some_and(|word| word == "HIGH") {
            remarks.soft(
                &threshold.at,
                "requests have no priority of the breaker; the thresholds of `HIGH` are left out.",
            );
            continue;
        }
        for (key, own) in [
            ("max_connections", "max_connections"),
            ("max_pending_requests", "max_pending"),
            ("max_requests", "max_requests"),
            ("max_retries", "max_retries"),
        ] {
            if let Some(most) = threshold.number(key) {
                map.set(own, (most as u64).clamp(1, 4_294_967_295));
            }
        }
    }
    if node.down(&["circuit_breakers"]).get("per_host_thresholds").is_some() {
        remarks.soft(&node.at, "limits for each endpoint are absent; `circuit_breaker` counts the upstream.");
    }
    if !map.is_empty() {
        out.set("circuit_breaker", map);
    }
}

fn outlier(node: &Node, out: &mut Map, _remarks: &mut crate::remark::Remarks) {
    let Some(outlier) = node.get("outlier_detection") else { return };
    let mut map = Map::default();
    if outlier.number("enforcing_consecutive_5xx") == Some(0.0) {
        map.set("consecutive_5xx", 0_u64);
    } else if let Some(count) = outlier.number("consecutive_5xx") {
        map.set("consecutive_5xx", count as u64);
    }
    if let Some(count) = outlier.number("consecutive_local_origin_failure") {
        map.set("consecutive_local", count as u64);
    }
    super::duration(&mut map, "base", outlier.get("base_ejection_time"));
    super::duration(&mut map, "max", outlier.get("max_ejection_time"));
    super::duration(&mut map, "interval", outlier.get("interval"));
    if let Some(share) = outlier.number("max_ejection_percent") {
        map.set("max_percent", words::percent(share / 100.0));
    }
    if outlier.number("enforcing_success_rate") == Some(0.0) {
        map.set("success_rate", "off");
    }
    if map.get("base").is_some()
        && map.get("max").is_none()
        && let Some(base) =
            outlier.get("base_ejection_time").and_then(words::seconds).filter(|base| *base > 300.0)
    {
        map.set("max", words::duration(base));
    }
    if !map.is_empty() {
        out.set("outlier_ejection", map);
    }
}

fn health(node: &Node, out: &mut Map, remarks: &mut crate::remark::Remarks) {
    let checks = node.list("health_checks");
    let Some(check) = checks.first() else { return };
    if checks.len() > 1 {
        remarks.soft(&checks[1].at, "an upstream has one health check: the others are left out.");
    }
    let mut map = Map::default();
    if let Some(http) = check.get("http_health_check") {
        let path = http.str("path").unwrap_or("/");
        map.set("path", path.split('?').next().unwrap_or("/"));
        if path.contains('?') {
            remarks.soft(&http.at, "the query of the health check is left out.");
        }
        map.put("host", http.str("host"));
        if http.get("expected_statuses").is_some()
            || http.get("request_headers_to_add").is_some()
            || http.get("receive").is_some()
        {
            remarks.soft(
                &http.at,
                "a health check asks by `GET` without further headers, and 200 to 299 is healthy.",
            );
        }
    } else if let Some(grpc) = check.get("grpc_health_check") {
        map.set("grpc", grpc.str("service_name").unwrap_or(""));
    } else if let Some(tcp) = check.get("tcp_health_check") {
        let hex = |node: &Node| node.str("text").map(|hex| format!("hex:{}", hex.to_ascii_lowercase()));
        let mut own = Map::default();
        own.put("send", tcp.get("send").and_then(hex));
        let expected: Vec<String> = tcp.list("receive").iter().filter_map(hex).collect();
        if !expected.is_empty() {
            own.set("expect", expected);
        }
        if own.is_empty() {
            map.set("tcp", true);
        } else {
            map.set("tcp", own);
        }
    } else {
        remarks.soft(&check.at, "this kind of health check is absent: a TCP connection is enough.");
        map.set("tcp", true);
    }
    for (key, own) in
        [("interval", "interval"), ("unhealthy_interval", "unhealthy_interval"), ("timeout", "timeout")]
    {
        super::duration(&mut map, own, check.get(key));
    }
    for (key, own) in [("healthy_threshold", "healthy"), ("unhealthy_threshold", "unhealthy")] {
        if let Some(count) = check.number(key) {
            map.set(own, (count as u64).max(1));
        }
    }
    out.set("health_check", map);
}
