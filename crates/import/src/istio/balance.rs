//! Load balancing, pools and ejection of a DestinationRule.

use crate::remark::Remarks;
use crate::tree::Node;

use super::duration::duration;

/// Load balancing, pools and ejection in Envoy's form.
pub(super) fn balance(policy: &Node, node: &mut Node, remarks: &mut Remarks) {
    let balancer = policy.down(&["load_balancer"]);
    let word = match balancer.str("simple") {
        Some("ROUND_ROBIN") => Some("ROUND_ROBIN"),
        Some("RANDOM") => Some("RANDOM"),
        Some("PASSTHROUGH") => {
            remarks.point(
                &balancer.at,
                "`PASSTHROUGH` called the address to which the client connected: write `address: original-destination`.",
            );
            None
        }
        _ => None,
    };
    node.set("lb_policy", balancer.scalar(word.unwrap_or("LEAST_REQUEST")));
    if let Some(hash) = balancer.get("consistent_hash") {
        hashed(hash, node, remarks);
    }
    for key in ["locality_lb_setting", "warmup_duration_secs", "warmup"] {
        if let Some(found) = balancer.get(key) {
            remarks.soft(&found.at, format!("`{key}` is not carried over: use `balance.zone` and `balance.slow_start` of the upstream."));
        }
    }
    let pool = policy.down(&["connection_pool"]);
    let (tcp, http) = (pool.down(&["tcp"]), pool.down(&["http"]));
    if let Some(time) = tcp.get("connect_timeout") {
        node.set("connect_timeout", duration(time));
    }
    let mut thresholds = pool.map(Vec::new());
    thresholds.put("max_connections", tcp.get("max_connections").cloned());
    thresholds.put("max_pending_requests", http.get("http1_max_pending_requests").cloned());
    thresholds.put("max_requests", http.get("http2_max_requests").cloned());
    thresholds.put("max_retries", http.get("max_retries").cloned());
    if !thresholds.is_empty() {
        node.set("circuit_breakers", pool.map(vec![("thresholds", pool.seq(vec![thresholds]))]));
    }
    node.put("max_requests_per_connection", http.get("max_requests_per_connection").cloned());
    if let Some(time) = http.get("idle_timeout") {
        node.set("common_http_protocol_options", http.map(vec![("idle_timeout", duration(time))]));
    }
    let ejection = policy.down(&["outlier_detection"]);
    if ejection.is_empty() {
        return;
    }
    let mut out = ejection.map(Vec::new());
    for (from, to) in [
        ("consecutive5xx_errors", "consecutive_5xx"),
        ("consecutive_5xx_errors", "consecutive_5xx"),
        ("consecutive5xx", "consecutive_5xx"),
        ("consecutive_gateway_errors", "consecutive_gateway_failure"),
        ("max_ejection_percent", "max_ejection_percent"),
    ] {
        out.put(to, ejection.get(from).cloned());
    }
    for key in ["interval", "base_ejection_time"] {
        out.put(key, ejection.get(key).map(duration));
    }
    node.set("outlier_detection", out);
}

/// Consistent hashing: calls with the same key go to the same endpoint.
fn hashed(hash: &Node, node: &mut Node, remarks: &mut Remarks) {
    let policy = if let Some(name) = hash.get("http_header_name") {
        hash.map(vec![("header", hash.map(vec![("header_name", name.clone())]))])
    } else if let Some(cookie) = hash.get("http_cookie") {
        let mut own = cookie.map(Vec::new());
        own.put("name", cookie.get("name").cloned());
        own.put("path", cookie.get("path").cloned());
        own.put("ttl", cookie.get("ttl").map(duration));
        hash.map(vec![("cookie", own)])
    } else if hash.is("use_source_ip") {
        hash.map(vec![("connection_properties", hash.map(vec![("source_ip", hash.scalar("true"))]))])
    } else {
        remarks.point(
            &hash.at,
            "a query parameter can't be hashed: `balance.hash` takes a header, a cookie, the client's address or the path.",
        );
        return;
    };
    let maglev = hash.get("maglev").is_some();
    node.set("lb_policy", hash.scalar(if maglev { "MAGLEV" } else { "RING_HASH" }));
    node.set("hash_policy", hash.seq(vec![policy]));
}
