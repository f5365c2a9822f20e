//! A listener: its address, its listener filters, its chains.

use crate::plan::{FilterChain, PlannedListener, PlannedRule};
use crate::remark::{Impact, Remarks};
use crate::tree::Node;
use crate::value::ConfigValue;

use super::{EnvoyImport, chain, words};

const KNOWN: &[&str] = &[
    "name",
    "address",
    "additional_addresses",
    "filter_chains",
    "default_filter_chain",
    "listener_filters",
    "filter_chain_matcher",
    "use_original_dst",
    "hidden_envoy_deprecated_use_original_dst",
    "stat_prefix",
    "continue_on_listener_filters_timeout",
    "drain_type",
    "enable_reuse_port",
    "reuse_port",
    "deprecated_v1",
    "bind_to_port",
    "freebind",
    "tcp_backlog_size",
    "enable_mptcp",
    "max_connections_to_accept_per_socket_event",
    "bypass_overload_manager",
    "listener_filters_timeout",
    "per_connection_buffer_limit_bytes",
    "metadata",
    "ignore_global_conn_limit",
    "transparent",
    "tcp_fast_open_queue_length",
    "connection_balance_config",
    "udp_listener_config",
    "internal_listener",
    "api_listener",
];

const REMARKS: &[(&str, Impact, &str)] = &[
    (
        "traffic_direction",
        Impact::Note,
        "attache has no traffic direction; the listener's name stands for it.",
    ),
    (
        "access_log",
        Impact::Soft,
        "the listener's access log is not carried over; `access_log: stdout` writes every request and connection.",
    ),
    ("socket_options", Impact::Soft, "attache has no socket options; keepalive and TCP_NODELAY are on."),
];

pub(crate) fn listener(node: &Node, cx: &mut EnvoyImport) {
    let mut out = PlannedListener::default();
    let original = node
        .str("name")
        .map_or_else(|| format!("listener-{}", cx.plan.listeners.len() + 1), ToOwned::to_owned);
    out.name = cx.listeners.of(&original);
    out.remarks.rest(node, "the listener", KNOWN, REMARKS);
    let Some(bind) = binds(node, &mut out.remarks) else {
        let Remarks(remarks) = out.remarks;
        cx.plan.remarks.0.extend(remarks);
        return;
    };
    out.keys.set("bind", bind);
    let mut chains: Vec<&Node> = node.list("filter_chains").iter().collect();
    let mut refused: Option<(crate::tree::FileLine, String)> = None;
    if let Some(matcher) = node.get("filter_chain_matcher") {
        refused = Some((
            matcher.at.clone(),
            "a matcher tree chooses the filter chain, and this import doesn't read it. Give the chains a `filter_chain_match`"
                .to_owned(),
        ));
    }
    if node.is("use_original_dst") {
        out.keys.set("transparent", true);
    }
    listener_filters(node, &mut out, &mut refused);
    let proxied = chains
        .iter()
        .copied()
        .chain(node.get("default_filter_chain"))
        .any(|chain| chain.is("use_proxy_proto"));
    if proxied {
        out.keys.set("proxy_protocol", "require");
    }
    // The most specific conditions first, as Envoy chooses.
    chains.sort_by_key(|chain| chain::order(chain));
    // The default chain gets what no other chain matches, even if it has conditions.
    let default = node.get("default_filter_chain").map(|default| {
        default.down(&["filter_chain_match"]).skip();
        let mut default = default.clone();
        default.remove("filter_chain_match");
        default
    });
    let many = chains.len() + usize::from(default.is_some()) > 1;
    for node in chains.into_iter().chain(default.as_ref()) {
        chain::chain(node, many, &mut out, cx);
    }
    chain::by_protocol(&mut out);
    chain::opaque(&mut out);
    if let Some((at, why)) = refused {
        out.remarks.point(&at, format!("everything is refused here: {why}; then replace the refusal."));
        out.chains = vec![chain::closed(Vec::new(), Vec::new(), node)];
    }
    protocol(&mut out);
    if out.chains.is_empty() {
        out.chains.push(refusing(node));
    }
    cx.plan.listeners.push(out);
}

/// Reads what stands before the filter chains. Sets `refused` where a filter could have refused connections.
fn listener_filters(
    node: &Node,
    out: &mut PlannedListener,
    refused: &mut Option<(crate::tree::FileLine, String)>,
) {
    for filter in node.list("listener_filters") {
        match words::extension(filter).as_str() {
            "tls_inspector" | "http_inspector" | "local_ratelimit_listener" => filter.skip(),
            "original_dst" => out.keys.set("transparent", true),
            "proxy_protocol" => {
                let optional = words::config(filter).is("allow_requests_without_proxy_protocol");
                out.keys.set("proxy_protocol", if optional { "optional" } else { "require" });
            }
            "original_src" => {
                filter.skip();
                out.remarks.soft(
                    &filter.at,
                    "the client's own address can't be the source of calls to the application; it is in `X-Forwarded-For`.",
                );
            }
            "local_ratelimit" => out.remarks.point(
                &filter.at,
                "connections are not limited by rate; `max_connections` limits how many are open.",
            ),
            other => {
                refused.get_or_insert((
                    filter.at.clone(),
                    format!("this import doesn't know the listener filter `{other}`, which may refuse connections. Find out what it does"),
                ));
            }
        }
    }
}

/// The chain of a listener that has none.
fn refusing(node: &Node) -> FilterChain {
    let mut rule = PlannedRule::default();
    rule.refuse(
        &node.at,
        "no filter chain of this listener could be carried over: everything is refused here.",
    );
    let sites = vec![crate::plan::VirtualHost {
        hosts: vec!["*".to_owned()],
        rules: vec![rule],
        ..Default::default()
    }];
    FilterChain { sites, ..FilterChain::default() }
}

/// Sets `protocol` of the listener by the protocols of its chains.
fn protocol(out: &mut PlannedListener) {
    let opaque = out.chains.iter().any(|chain| chain.opaque.is_some());
    let http = out.chains.iter().any(|chain| chain.opaque.is_none());
    let sni = out.chains.iter().any(|chain| !chain.sni.is_empty());
    out.secure = out.keys.get("tls").is_some();
    out.opaque = opaque && !http;
    let word = match (opaque, http) {
        (true, false) if sni && !out.secure => "tls",
        (true, false) => "tcp",
        (true, true) => "auto",
        _ => return,
    };
    if word == "auto" {
        out.keys.0.retain(|(key, _)| key != "protocol");
        out.keys.set("protocol", "auto");
    } else {
        out.keys.set("protocol", word);
    }
}

fn binds(node: &Node, remarks: &mut Remarks) -> Option<ConfigValue> {
    let name = node.str("name").unwrap_or("without a name");
    let mut binds = Vec::new();
    let more = node.list("additional_addresses").iter().filter_map(|address| address.get("address"));
    for address in node.get("address").into_iter().chain(more) {
        if let Some(path) = address.down(&["pipe"]).str("path") {
            if path.starts_with('@') {
                remarks.point(&address.at, "attache can't listen on an abstract Unix socket. Use a path.");
            } else {
                binds.push(format!("unix:{path}"));
            }
            continue;
        }
        let socket = address.down(&["socket_address"]);
        if socket.str("protocol") == Some("UDP") {
            remarks.point(
                &address.at,
                format!("the listener `{name}` is left out: attache has no UDP and no QUIC."),
            );
            continue;
        }
        match (socket.str("address"), socket.str("port_value")) {
            (Some(host), Some(port)) => binds.push(bind(host, port)),
            _ => remarks.point(
                &address.at,
                format!("the listener `{name}` is left out: its address is neither an IP address with a port nor a Unix socket."),
            ),
        }
    }
    if node.get("udp_listener_config").is_some() || binds.is_empty() {
        return None;
    }
    if node.is_false("bind_to_port") || node.down(&["deprecated_v1"]).is_false("bind_to_port") {
        remarks.point(
            &node.at,
            format!(
                "the listener `{name}` has no socket (`bind_to_port: false`), and is left out: give `transparent: true` routes with `destination`."
            ),
        );
        return None;
    }
    Some(binds.into())
}

pub(crate) fn bind(host: &str, port: &str) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
