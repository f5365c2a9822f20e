//! Clusters become upstreams.

use crate::plan::PlannedUpstream;
use crate::remark::{Impact, Remarks};
use crate::tree::Node;
use crate::value::{ConfigValue, YamlMap};

pub(crate) use super::used::ClusterUse;
use super::{
    EnvoyImport, resources, subsets, tls,
    upstream::{balance, breaker, health, outlier, pool},
    words,
};

/// The name of a cluster's upstream; the upstream is made at the end. A cluster for both HTTP and opaque bytes becomes two upstreams.
pub(crate) fn used(cluster: &str, used: ClusterUse, cx: &mut EnvoyImport) -> String {
    if let Some((_, _, name)) = cx.uses.iter().find(|(known, other, _)| known == cluster && *other == used) {
        return name.clone();
    }
    let other = cx.uses.iter().any(|(known, ..)| known == cluster);
    let name = match (other, used) {
        (false, _) => cx.names.of(cluster),
        (true, ClusterUse::Tcp) => cx.names.of(&format!("{cluster}-tcp")),
        (true, ClusterUse::Http) => cx.names.of(&format!("{cluster}-http")),
    };
    cx.uses.push((cluster.to_owned(), used, name.clone()));
    name
}

/// Makes the upstreams.
pub(crate) fn clusters(cx: &mut EnvoyImport) {
    for (cluster, used, name) in cx.uses.clone() {
        let mut upstream = PlannedUpstream { name, ..PlannedUpstream::default() };
        if let Some(node) = cx.clusters.iter().find(|node| node.str("name") == Some(&cluster)).cloned() {
            fill(&node, used, &mut upstream, cx);
            cx.plan.upstreams.push(upstream);
        }
    }
    let mut remarks = std::mem::take(&mut cx.plan.remarks);
    for node in &cx.clusters {
        let name = node.str("name").unwrap_or("without a name");
        let spans = cx.collectors.iter().any(|known| known == name);
        let elsewhere = spans || cx.uses.iter().any(|(known, ..)| known.starts_with(&format!("{name}[")));
        if spans {
            node.skip();
        } else if !elsewhere && !cx.uses.iter().any(|(known, ..)| known == name) {
            node.skip();
            remarks.note(&node.at, format!("the cluster `{name}` is left out, because no route uses it."));
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
    // The key of the hash, set by the import of a DestinationRule.
    "hash_policy",
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

const REMARKS: &[(&str, Impact, &str)] = &[
    ("track_timeout_budgets", Impact::Soft, "budgets of time are not counted."),
    ("track_cluster_stats", Impact::Soft, "sizes are not counted."),
    ("lrs_server", Impact::Soft, "load is not reported to a control plane."),
    ("upstream_config", Impact::Soft, "custom pools are absent."),
];

fn fill(node: &Node, used: ClusterUse, out: &mut PlannedUpstream, cx: &mut EnvoyImport) {
    let mut remarks = std::mem::take(&mut out.remarks);
    remarks.rest(node, "the cluster", KNOWN, REMARKS);
    let mut keys = YamlMap::default();
    let options = http_options(node);
    let h2 = speaks_h2(node, &options);
    let verified = tls::upstream(node, &mut keys, &mut remarks, cx);
    let secure = verified.is_some();
    let scheme = match (used, secure, h2) {
        (ClusterUse::Tcp, false, _) => "tcp",
        (ClusterUse::Tcp, true, _) => "tls",
        (_, true, _) => "https",
        (_, false, true) => "h2c",
        (_, false, false) => "http",
    };
    let address = destination(node, scheme, verified, &out.name, &mut remarks, cx);
    let mut own = YamlMap::default();
    own.set("address", address);
    if used != ClusterUse::Tcp {
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
    pool(node, &options, used != ClusterUse::Tcp, &mut own, &mut remarks);
    breaker(node, &mut own, &mut remarks);
    outlier(node, &mut own, &mut remarks);
    health(node, used, &mut own, &mut remarks);
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

/// The value of `address`. `verified`: what is known of TLS, and whether it is as strict as the original.
fn destination(
    node: &Node,
    scheme: &str,
    verified: Option<bool>,
    name: &str,
    remarks: &mut Remarks,
    cx: &EnvoyImport,
) -> ConfigValue {
    let kind = node.str("type").unwrap_or("STATIC").to_ascii_uppercase();
    let kind = kind.as_str();
    let shut = closed(node, remarks) || verified == Some(false);
    let address = if shut {
        None
    } else if matches!(kind, "ORIGINAL_DST" | "4") {
        Some(ConfigValue::from("original-destination"))
    } else if node.get("cluster_type").is_some() {
        // `closed` has refused every other type.
        Some(ConfigValue::from("authority"))
    } else {
        addresses(node, scheme, remarks, cx)
    };
    let options = http_options(node);
    for own in [&options, node].map(|node| node.down(&["upstream_http_protocol_options"])) {
        own.skip();
        if own.is("auto_sni")
            && verified.is_some()
            && address.as_ref().is_none_or(|address| *address != "authority".into())
        {
            remarks.point(
                &own.at,
                "the original sent the host of each request as server name (`auto_sni`); attache sends the host of the address, or `tls.name`.",
            );
        }
    }
    if kind == "LOGICAL_DNS" {
        remarks.note(&node.at, "every address of the name is an endpoint; `LOGICAL_DNS` took one at a time.");
    }
    address.unwrap_or_else(|| {
        if !shut {
            remarks.point(&node.at, "the addresses of this cluster come from a control plane: give them as `address`. Until then every call fails.");
        }
        ConfigValue::from(format!(
            "{scheme}://{}.invalid:80",
            crate::plan::name(name).replace(['_', '/'], "-").to_ascii_lowercase()
        ))
    })
}

/// Whether calls to this cluster must fail: Envoy sends them to other addresses, or with other TLS, than attache would.
fn closed(node: &Node, remarks: &mut Remarks) -> bool {
    let kind = node.down(&["cluster_type"]);
    let url = words::given_type(kind);
    let forward = kind.str("name").is_some_and(|name| name.ends_with("dynamic_forward_proxy"))
        && (url.is_empty() || url.contains("dynamic_forward_proxy"))
        || url.contains(".dynamic_forward_proxy.");
    let matches = node.list("transport_socket_matches").iter().chain(node.list("filters"));
    for (found, why) in [
        (
            Some(kind).filter(|kind| !kind.is_empty() && !forward),
            "its type is an extension that this import doesn't know",
        ),
        (
            Some(node.down(&["original_dst_lb_config"])).filter(|own| {
                own.is("use_http_header")
                    || own.get("upstream_port_override").is_some()
                    || own.get("metadata_key").is_some()
            }),
            "a header, metadata or another port chose the endpoint",
        ),
        (
            matches.into_iter().next(),
            "single endpoints have their own TLS or filters. Make an upstream for each kind of endpoint",
        ),
    ] {
        if let Some(found) = found {
            remarks
                .point(&found.at, format!("calls to this cluster fail: {why}. Then give it an `address`."));
            return true;
        }
    }
    false
}

/// Whether endpoints are chosen by a hash.
pub(super) fn hashes(node: &Node) -> bool {
    let word = super::upstream::algorithm(node);
    word.starts_with("ring_hash") || word.starts_with("maglev")
}

/// `HttpProtocolOptions` of v3.
pub(super) fn http_options(node: &Node) -> Node {
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

/// The addresses of a cluster, in its config or in files of endpoints.
fn addresses(node: &Node, scheme: &str, remarks: &mut Remarks, cx: &EnvoyImport) -> Option<ConfigValue> {
    let mut found: Vec<(String, YamlMap)> = Vec::new();
    let split = subsets::is_split(node);
    let assignment = assignment(node, cx);
    for locality in assignment.iter().flat_map(|assignment| assignment.list("endpoints")) {
        let of_locality = OfLocality {
            priority: locality.number("priority").unwrap_or(0.0) as u64,
            zone: locality.down(&["locality"]).str("zone"),
            split,
        };
        let weight = locality.number("load_balancing_weight").map(|weight| weight as u64);
        for endpoint in locality.list("lb_endpoints") {
            found.extend(of_locality.endpoint(endpoint, scheme, remarks));
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
        found.extend(address(host, scheme).map(|address| (address, YamlMap::default())));
    }
    if assignment.is_some_and(|assignment| assignment.down(&["policy"]).get("drop_overloads").is_some()) {
        remarks.point(
            &node.at,
            "the original dropped a share of the requests; attache doesn't. Use `fault.abort`.",
        );
    }
    listed(found)
}

/// The endpoints of a cluster.
fn assignment(node: &Node, cx: &EnvoyImport) -> Option<Node> {
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
    node.get("load_assignment").cloned().or(by_files)
}

/// The keys of a locality that apply to its endpoints.
struct OfLocality<'n> {
    priority: u64,
    zone: Option<&'n str>,
    /// The cluster is split into subsets by labels.
    split: bool,
}

impl OfLocality<'_> {
    /// The address of an endpoint, with its keys; `None` where it is left out.
    fn endpoint(&self, endpoint: &Node, scheme: &str, remarks: &mut Remarks) -> Option<(String, YamlMap)> {
        let mut map = YamlMap::default();
        let inner = endpoint.down(&["endpoint"]);
        if matches!(
            endpoint.str("health_status"),
            Some("UNHEALTHY" | "DRAINING" | "TIMEOUT" | "2" | "3" | "4")
        ) {
            remarks.soft(&endpoint.at, "an endpoint that was marked unhealthy is left out.");
            return None;
        }
        let own = endpoint.number("load_balancing_weight").map(|weight| weight as u64);
        if let Some(weight) = own.filter(|weight| *weight != 1) {
            map.set("weight", weight);
        }
        if self.priority > 0 {
            map.set("priority", self.priority);
        }
        if let Some(zone) = self.zone {
            map.set("zone", zone);
        }
        let labels = subsets::labels(endpoint);
        if self.split && !labels.is_empty() {
            map.set("labels", labels);
        }
        let address = address(inner.down(&["address"]), scheme);
        if address.is_none() {
            remarks.point(&inner.at, "an endpoint is left out: it has neither an IP address or name with a port nor a Unix socket.");
        }
        address.map(|address| (address, map))
    }
}

/// The value of `address`: one address alone, or a list.
fn listed(found: Vec<(String, YamlMap)>) -> Option<ConfigValue> {
    let mut items: Vec<ConfigValue> = Vec::new();
    for (address, mut map) in found {
        if map.is_empty() {
            items.push(address.into());
        } else {
            map.0.insert(0, ("address".to_owned(), address.into()));
            items.push(ConfigValue::Map(map));
        }
    }
    match items.len() {
        0 => None,
        1 if matches!(items[0], ConfigValue::Text(_)) => items.pop(),
        _ => Some(ConfigValue::List(items)),
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
