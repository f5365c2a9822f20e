//! A filter chain: its conditions, its TLS, and its last filter.

use crate::plan::{Chain, Listener, Rule};
use crate::remark::{Remarks, Weight};
use crate::tree::Node;

use super::{Cx, cluster, filters, guards, http, tls, words};

const CONDITIONS: &[&str] = &[
    "server_names",
    "destination_port",
    "prefix_ranges",
    "transport_protocol",
    "application_protocols",
    "address_suffix",
    "suffix_len",
];

/// The most specific first: destination, server names, transport, application, then what has no condition.
pub(crate) fn order(chain: &Node) -> (bool, bool, usize, bool, bool, bool) {
    let conditions = chain.down(&["filter_chain_match"]);
    let names = conditions.list("server_names");
    let wildcard = names.iter().filter_map(Node::text).any(|name| name.starts_with('*'));
    let longest = names.iter().filter_map(Node::text).map(str::len).max().unwrap_or(0);
    (
        conditions.get("destination_port").is_none() && conditions.get("prefix_ranges").is_none(),
        names.is_empty() || wildcard,
        usize::MAX - longest,
        !tls::is_downstream(chain),
        conditions.get("transport_protocol").is_none(),
        conditions.get("application_protocols").is_none(),
    )
}

pub(crate) fn chain(node: &Node, many: bool, listener: &mut Listener, cx: &mut Cx) {
    let mut out = Chain::default();
    let conditions = node.down(&["filter_chain_match"]);
    out.remarks.rest(
        node,
        "the filter chain",
        &[
            "filter_chain_match",
            "filters",
            "transport_socket",
            "tls_context",
            "name",
            "use_proxy_proto",
            "metadata",
            "transport_socket_connect_timeout",
        ],
        &[("on_demand_configuration", Weight::Point, "chains are never built on demand.")],
    );
    for (key, value) in conditions.entries() {
        let key = crate::tree::snake(key);
        if value.is_empty() || CONDITIONS.contains(&key.as_str()) {
            continue;
        }
        listener.remarks.point(
            &value.at,
            format!("a filter chain is left out, so what it took is not served here: its condition `{key}` is absent. `identity` and `destination` are the \
             conditions on connections that attache has."),
        );
        return;
    }
    let secure = tls::is_downstream(node);
    let passed = !secure
        && (conditions.str("transport_protocol") == Some("tls") || conditions.get("server_names").is_some());
    out.sni =
        conditions.list("server_names").iter().filter_map(Node::text).map(str::to_ascii_lowercase).collect();
    out.destination = destination(conditions);
    if passed && out.sni.is_empty() {
        out.sni.push("*".to_owned());
    }
    if secure && !tls::downstream(node, listener, &out.sni, &mut out.remarks, cx) {
        let Remarks(remarks) = out.remarks;
        listener.remarks.0.extend(remarks);
        return;
    }
    let in_clear = !secure && !passed && many && listener.keys.get("tls").is_some();
    let Some((last, before)) = split(node.list("filters")) else {
        listener
            .remarks
            .point(&node.at, "a filter chain without filters closes every connection; it is left out.");
        return;
    };
    let guard = before.iter().find_map(|filter| guards::network(filter, listener, &mut out.remarks));
    let kind = words::extension(last);
    match kind.as_str() {
        "http_connection_manager" => {
            http::manager(words::config(last), listener, &mut out, cx);
            if let Some((at, why)) = &guard {
                for rule in out.sites.iter_mut().flat_map(|site| &mut site.rules) {
                    rule.refuse(at, why.clone());
                }
            }
        }
        "tcp_proxy" if guard.is_none() => {
            let config = words::config(last);
            super::duration(&mut listener.keys, "tcp_idle_timeout", config.get("idle_timeout"));
            match tcp(config, cx) {
                Some(rule) => out.opaque = Some(rule),
                None => {
                    let what = "this TCP proxy names no cluster that could be carried over: its connections are closed.";
                    listener.remarks.point(&config.at, what);
                    return;
                }
            }
        }
        "redis_proxy" | "mongo_proxy" | "thrift_proxy" | "dubbo_proxy" => {
            listener.remarks.point(
                &last.at,
                format!("`{kind}` routes by the messages of its protocol, which attache carries as bytes: this chain is left out. For a single backend, a \
                 `tcp://` upstream and `protocol: tcp` do."),
            );
            return;
        }
        _ => {
            let why =
                guard.map_or_else(|| format!("the network filter `{kind}` isn't known"), |(_, why)| why);
            listener.remarks.point(
                &last.at,
                format!("a filter chain is left out, and its connections are refused: {why}"),
            );
            return;
        }
    }
    if in_clear {
        // One listener has one set of routes for TLS and for what comes in clear.
        if listener.chains.iter().any(|chain| same(chain, &out)) {
            listener.keys.child("tls").set("mode", "permissive");
        } else {
            let what = "plaintext is refused here: what it met is not what TLS meets, and one listener has one set of routes. Give it a listener of its own.";
            listener.remarks.point(&node.at, what);
        }
        return;
    }
    listener.chains.push(out);
}

/// Both chains do the same with every request.
fn same(a: &Chain, b: &Chain) -> bool {
    a.opaque.is_none()
        && b.opaque.is_none()
        && a.sni.is_empty()
        && a.destination == b.destination
        && a.sites.len() == b.sites.len()
        && a.sites.iter().zip(&b.sites).all(|(a, b)| {
            a.hosts == b.hosts
                && a.rules.len() == b.rules.len()
                && a.rules.iter().zip(&b.rules).all(|(a, b)| a.when == b.when && a.keys == b.keys)
        })
}

fn split(filters: &[Node]) -> Option<(&Node, &[Node])> {
    // An HTTP connection manager ends its chain wherever it stands.
    let end = filters.iter().position(|filter| words::extension(filter) == "http_connection_manager");
    match end {
        Some(index) => Some((&filters[index], &filters[..index])),
        None => filters.split_last(),
    }
}

fn destination(conditions: &Node) -> Vec<String> {
    let port = conditions.str("destination_port").map_or_else(String::new, |port| format!(":{port}"));
    let ranges = conditions.list("prefix_ranges");
    if ranges.is_empty() {
        return if port.is_empty() { Vec::new() } else { vec![port] };
    }
    ranges
        .iter()
        .map(|range| {
            let (address, length) =
                (range.str("address_prefix").unwrap_or_default(), range.number("prefix_len"));
            // What is no network stays as it is: the check of the config closes it.
            let network = crate::text::network(address, length.unwrap_or(32.0) as u32)
                .unwrap_or_else(|| address.to_owned());
            if network.contains(':') { format!("[{network}]{port}") } else { format!("{network}{port}") }
        })
        .collect()
}

fn tcp(config: &Node, cx: &mut Cx) -> Option<Rule> {
    let mut rule = Rule { at: config.at.clone(), ..Rule::default() };
    rule.when.path = crate::path::Path::Any;
    rule.remarks.rest(
        config,
        "`tcp_proxy`",
        &[
            "stat_prefix",
            "cluster",
            "weighted_clusters",
            "idle_timeout",
            "max_connect_attempts",
            "access_log_flush_interval",
            "flush_access_log_on_connected",
            "access_log_options",
        ],
        &[
            (
                "access_log",
                Weight::Soft,
                "the access log is not carried over; `access_log: stdout` writes every connection.",
            ),
            (
                "hash_policy",
                Weight::Soft,
                "`balance: { algorithm: maglev, hash: source }` on the upstream hashes the client's address.",
            ),
            (
                "tunneling_config",
                Weight::Point,
                "TCP is not tunnelled in CONNECT: bytes go to the upstream as they are.",
            ),
            ("metadata_match", Weight::Point, "subsets are absent: make an upstream of each."),
            (
                "max_downstream_connection_duration",
                Weight::Soft,
                "opaque connections have no greatest age; `tcp_idle_timeout` ends idle ones.",
            ),
        ],
    );
    filters::targets(config, cluster::Use::Tcp, &mut rule, cx).then_some(rule)
}
