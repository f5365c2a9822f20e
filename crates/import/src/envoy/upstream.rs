//! How a cluster of Envoy is balanced, pooled, limited and checked.

use crate::tree::Node;
use crate::value::YamlMap;

use super::{EnvoyImport, used::ClusterUse, words};

/// How endpoints are chosen, in small letters.
pub(super) fn algorithm(node: &Node) -> String {
    let by_policy = node.down(&["load_balancing_policy"]).list("policies").first();
    match by_policy {
        Some(policy) => words::extension(policy.down(&["typed_extension_config"])),
        None => node.str("lb_policy").unwrap_or("ROUND_ROBIN").to_ascii_lowercase(),
    }
}

pub(super) fn balance(
    node: &Node,
    name: &str,
    out: &mut YamlMap,
    remarks: &mut crate::remark::Remarks,
    cx: &EnvoyImport,
) {
    let word = algorithm(node);
    let hash = cx.hashes.iter().find(|(upstream, _)| upstream == name).map(|(_, key)| key.clone());
    let mut map = YamlMap::default();
    match word.trim_end_matches("_lb") {
        "least_request" => {}
        "random" => map.set("algorithm", "random"),
        "ring_hash" | "maglev" => match hash {
            Some(hash) => {
                map.set("algorithm", if word.starts_with("ring") { "ring-hash" } else { "maglev" });
                map.set("hash", hash);
            }
            // A client without a session goes to any endpoint.
            None if cx.sessions.iter().any(|known| known == name) => map.set("algorithm", "random"),
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

pub(super) fn pool(
    node: &Node,
    options: &Node,
    http: bool,
    out: &mut YamlMap,
    remarks: &mut crate::remark::Remarks,
) {
    let mut map = YamlMap::default();
    let common = if options.has(&["common_http_protocol_options"]) {
        options.down(&["common_http_protocol_options"])
    } else {
        node.down(&["common_http_protocol_options"])
    };
    if http {
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
            remarks.soft(&node.at, "the protocol to the upstream doesn't depend on the client's: it is HTTP/1.1, or HTTP/2 for gRPC; `protocol: http2` changes it.");
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

pub(super) fn breaker(node: &Node, out: &mut YamlMap, remarks: &mut crate::remark::Remarks) {
    let mut map = YamlMap::default();
    for threshold in node.down(&["circuit_breakers"]).list("thresholds") {
        if threshold.str("priority").is_some_and(|word| word == "HIGH") {
            remarks.soft(
                &threshold.at,
                "attache has no priorities for circuit breakers: the thresholds of `HIGH` are left out.",
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
                if most < 1.0 {
                    remarks.point(
                        &threshold.at,
                        format!("`{key}: 0` refused everything; the lowest value in attache is 1."),
                    );
                }
                map.set(own, (most as u64).clamp(1, 4_294_967_295));
            }
        }
    }
    if node.down(&["circuit_breakers"]).get("per_host_thresholds").is_some() {
        remarks.soft(
            &node.at,
            "attache has no limits for single endpoints; `circuit_breaker` limits the whole upstream.",
        );
    }
    if !map.is_empty() {
        out.set("circuit_breaker", map);
    }
}

pub(super) fn outlier(node: &Node, out: &mut YamlMap, _remarks: &mut crate::remark::Remarks) {
    let Some(outlier) = node.get("outlier_detection") else { return };
    let mut map = YamlMap::default();
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

pub(super) fn health(node: &Node, used: ClusterUse, out: &mut YamlMap, remarks: &mut crate::remark::Remarks) {
    let checks = node.list("health_checks");
    let Some(check) = checks.first() else { return };
    if checks.len() > 1 {
        remarks.soft(&checks[1].at, "an upstream has one health check: the others are left out.");
    }
    let mut map = YamlMap::default();
    let port = probed(node, remarks);
    // attache checks an upstream of opaque bytes by HTTP only on an explicit port.
    let asked = check.get("tcp_health_check").is_none();
    let port = port.or_else(|| (used == ClusterUse::Tcp && asked).then(|| only_port(node)).flatten());
    if used == ClusterUse::Tcp && asked && port.is_none() {
        remarks.soft(&check.at, "the health check opens a TCP connection only: the endpoints have several ports, and a health check by HTTP needs one fixed port.");
        map.set("tcp", true);
    } else if let Some(http) = check.get("http_health_check") {
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
                "a health check of attache is a `GET` without further headers, and 200 to 299 is healthy.",
            );
        }
    } else if let Some(grpc) = check.get("grpc_health_check") {
        map.set("grpc", grpc.str("service_name").unwrap_or(""));
    } else if let Some(tcp) = check.get("tcp_health_check") {
        let hex = |node: &Node| node.str("text").map(|hex| format!("hex:{}", hex.to_ascii_lowercase()));
        let mut own = YamlMap::default();
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
        remarks
            .soft(&check.at, "attache lacks this kind of health check: it opens a TCP connection instead.");
        map.set("tcp", true);
    }
    map.put("port", port);
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

/// The port for the health checks of all endpoints, if it isn't their own port.
fn probed(node: &Node, remarks: &mut crate::remark::Remarks) -> Option<u64> {
    let mut ports = Vec::new();
    for endpoint in endpoints(node) {
        let config = endpoint.down(&["health_check_config"]);
        if config.get("address").is_some() || config.is("disable_active_health_check") {
            remarks
                .soft(&config.at, "health checks go to the endpoint's own address, and to every endpoint.");
        }
        ports.push(config.number("port_value").filter(|port| *port > 0.0).map(|port| port as u64));
    }
    match ports.as_slice() {
        [first, others @ ..] if others.iter().all(|other| other == first) => *first,
        [] => None,
        _ => {
            remarks.soft(&node.at, "health checks go to the endpoints' own ports: they have different ones.");
            None
        }
    }
}

/// The port that all endpoints have.
fn only_port(node: &Node) -> Option<u64> {
    let mut ports = endpoints(node).map(|endpoint| {
        endpoint.down(&["address", "socket_address"]).number("port_value").map(|port| port as u64)
    });
    let first = ports.next()??;
    ports.all(|port| port == Some(first)).then_some(first)
}

fn endpoints(node: &Node) -> impl Iterator<Item = &Node> {
    let localities = node.down(&["load_assignment"]).list("endpoints").iter();
    localities.flat_map(|locality| locality.list("lb_endpoints")).map(|endpoint| endpoint.down(&["endpoint"]))
}
