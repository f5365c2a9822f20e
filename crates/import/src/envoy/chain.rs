//! A filter chain: its conditions, its TLS, and its last filter.

use crate::plan::{FilterChain, PlannedListener, PlannedRule, VirtualHost};
use crate::remark::{Impact, Remarks};
use crate::tree::Node;

use super::{EnvoyImport, cluster, filters, guards, http, tls, words};

const CONDITIONS: &[&str] = &[
    "server_names",
    "destination_port",
    "prefix_ranges",
    "transport_protocol",
    "application_protocols",
    "address_suffix",
    "suffix_len",
];

/// A sort key that puts the most specific chain first: by destination, server names, transport, application; a chain
/// without conditions is last.
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

/// Reads a chain. If it can't be carried over, a chain that refuses takes its place: its connections must not reach another chain.
pub(crate) fn chain(node: &Node, many: bool, listener: &mut PlannedListener, cx: &mut EnvoyImport) {
    if !read(node, many, listener, cx) {
        let conditions = node.down(&["filter_chain_match"]);
        listener.chains.push(closed(server_names(conditions), destination(conditions), node));
    }
}

/// A chain that refuses every request.
pub(crate) fn closed(sni: Vec<String>, destination: Vec<String>, node: &Node) -> FilterChain {
    let mut rule = PlannedRule { at: node.at.clone(), ..PlannedRule::default() };
    rule.refuse(&node.at, "a filter chain is left out, and its requests are refused.");
    let site = VirtualHost { hosts: vec!["*".to_owned()], rules: vec![rule], ..VirtualHost::default() };
    FilterChain { sni, destination, sites: vec![site], closed: true, ..FilterChain::default() }
}

fn server_names(conditions: &Node) -> Vec<String> {
    conditions.list("server_names").iter().filter_map(Node::text).map(str::to_ascii_lowercase).collect()
}

/// False if the chain can't be carried over.
fn read(node: &Node, many: bool, listener: &mut PlannedListener, cx: &mut EnvoyImport) -> bool {
    let mut out = FilterChain::default();
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
        &[("on_demand_configuration", Impact::Point, "chains are never built on demand.")],
    );
    if has_other_condition(conditions, listener) {
        return false;
    }
    let secure = tls::is_downstream(node);
    let passed = !secure
        && (conditions.str("transport_protocol") == Some("tls") || conditions.get("server_names").is_some());
    out.sni = server_names(conditions);
    out.destination = destination(conditions);
    if passed && out.sni.is_empty() {
        out.sni.push("*".to_owned());
    }
    if secure && !tls::downstream(node, listener, &mut out.remarks, cx) {
        let Remarks(remarks) = out.remarks;
        listener.remarks.0.extend(remarks);
        return false;
    }
    let in_clear = !secure && !passed && many && listener.keys.get("tls").is_some();
    if !last_filter(node, many, listener, &mut out, cx) {
        return false;
    }
    if in_clear {
        plaintext(&out, node, listener);
        return true;
    }
    out.protocols = conditions
        .list("application_protocols")
        .iter()
        .filter_map(Node::text)
        .map(ToOwned::to_owned)
        .collect();
    listener.chains.push(out);
    true
}

/// Whether a chain has a condition that attache lacks.
fn has_other_condition(conditions: &Node, listener: &mut PlannedListener) -> bool {
    for (key, value) in conditions.entries() {
        let key = crate::tree::snake(key);
        if value.is_empty() || CONDITIONS.contains(&key.as_str()) {
            continue;
        }
        listener.remarks.point(
            &value.at,
            format!("a filter chain is refused: its condition `{key}` is absent. Use `identity` and `destination` to distinguish connections."),
        );
        return true;
    }
    false
}

/// What happens to the connections of a chain. False if that can't be carried over.
fn last_filter(
    node: &Node,
    many: bool,
    listener: &mut PlannedListener,
    out: &mut FilterChain,
    cx: &mut EnvoyImport,
) -> bool {
    let Some((last, before)) = split(node.list("filters")) else {
        listener.remarks.point(
            &node.at,
            "a filter chain without filters closes every connection; here requests are refused.",
        );
        return false;
    };
    let guard = before.iter().find_map(|filter| guards::network(filter, listener, &mut out.remarks));
    if many && before.iter().any(|filter| words::extension(filter) == "rbac") {
        listener
            .remarks
            .point(&node.at, "the RBAC of connections of one filter chain is now for the whole listener.");
    }
    let kind = words::extension(last);
    match kind.as_str() {
        "http_connection_manager" => {
            http::manager(words::config(last), listener, out, cx);
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
                    let what = "this TCP proxy has no cluster that could be carried over: its connections are closed.";
                    listener.remarks.point(&config.at, what);
                    return false;
                }
            }
        }
        "redis_proxy" | "mongo_proxy" | "thrift_proxy" | "dubbo_proxy" => {
            listener.remarks.point(
                &last.at,
                format!("`{kind}` routes single messages, and attache only passes on bytes: this chain is left out. If there is one backend, a `tcp://` upstream is enough."),
            );
            return false;
        }
        _ => {
            let why =
                guard.map_or_else(|| format!("the network filter `{kind}` isn't known"), |(_, why)| why);
            listener.remarks.point(
                &last.at,
                format!("a filter chain is left out, and its connections are refused: {why}"),
            );
            return false;
        }
    }
    true
}

/// One listener has one set of routes for TLS and plaintext.
fn plaintext(chain: &FilterChain, node: &Node, listener: &mut PlannedListener) {
    if listener.chains.iter().any(|other| same(other, chain)) {
        listener.keys.child("tls").set("mode", "permissive");
    } else {
        let what = "plaintext is refused: in the original it had other routes than TLS, and a listener has one set of routes. Give plaintext its own listener.";
        listener.remarks.point(&node.at, what);
    }
}

/// Chains that differ by their protocol only become one chain. If they don't do the same, their connections are refused.
pub(crate) fn by_protocol(listener: &mut PlannedListener) {
    const OF_HTTP: &[&str] = &["http/1.0", "http/1.1", "h2", "h2c"];
    for index in 0..listener.chains.len() {
        let Some(chain) =
            listener.chains.get(index).filter(|chain| !chain.protocols.is_empty() && !chain.closed)
        else {
            continue;
        };
        let behind = listener.chains[index + 1..]
            .iter()
            .find(|other| other.sni == chain.sni && other.destination == chain.destination);
        let found = match behind {
            None => Some(false),
            // `protocol: auto` distinguishes HTTP from other bytes.
            Some(other) if other.opaque.is_some() && chain.opaque.is_none() => {
                (!chain.protocols.iter().all(|name| OF_HTTP.contains(&name.as_str()))).then_some(true)
            }
            Some(other) => (!same(chain, other)).then_some(true),
        };
        match found {
            None => {}
            Some(false) => listener.remarks.point(
                &crate::tree::FileLine::default(),
                "in the original a filter chain was only for some protocols (`application_protocols`); now it is for all.",
            ),
            Some(true) => {
                listener.remarks.point(
                    &crate::tree::FileLine::default(),
                    "filter chains that do different things differ only by `application_protocols`: they are refused. Give each chain its own listener.",
                );
                let (sni, destination) = (chain.sni.clone(), chain.destination.clone());
                let empty = Node::empty(crate::tree::FileLine::default());
                listener.chains[index] = closed(sni, destination, &empty);
            }
        }
    }
}

/// No route can refuse opaque bytes of a closed chain: so each later chain that could get its connections is closed, too.
pub(crate) fn opaque(listener: &mut PlannedListener) {
    for index in 0..listener.chains.len() {
        let (before, rest) = listener.chains.split_at_mut(index);
        let Some(chain) = rest.first_mut().filter(|chain| chain.opaque.is_some()) else { continue };
        if before.iter().any(|other| other.closed && meet(other, chain)) {
            let at = chain.opaque.take().map(|rule| rule.at).unwrap_or_default();
            listener.remarks.point(
                &at,
                "a chain that is left out could match the connections of this chain, too: they are refused.",
            );
            chain.closed = true;
        }
    }
    let (opaque, http) = (
        listener.chains.iter().any(|chain| chain.opaque.is_some()),
        listener.chains.iter().any(|chain| chain.opaque.is_none() && !chain.closed),
    );
    if opaque && !http {
        listener.chains.retain(|chain| !chain.closed);
    }
    for chain in listener.chains.iter_mut().filter(|chain| chain.closed && chain.sites.is_empty()) {
        let empty = Node::empty(crate::tree::FileLine::default());
        *chain = closed(std::mem::take(&mut chain.sni), std::mem::take(&mut chain.destination), &empty);
    }
    // Chains behind one without conditions never get a connection.
    if let Some(last) = listener
        .chains
        .iter()
        .position(|chain| chain.sni.is_empty() && chain.destination.is_empty() && chain.opaque.is_none())
    {
        let opaque: Vec<FilterChain> =
            listener.chains.drain(last + 1..).filter(|chain| chain.opaque.is_some()).collect();
        if !listener.chains[last].closed {
            listener.chains.extend(opaque);
        }
    }
}

/// Whether a connection may match both. Never false if there is such a connection.
fn meet(a: &FilterChain, b: &FilterChain) -> bool {
    let names = a.sni.is_empty()
        || b.sni.is_empty()
        || a.sni.iter().any(|x| b.sni.iter().any(|y| x == y || x.contains('*') || y.contains('*')));
    let port = |text: &str| text.rsplit_once(':').map(|(_, port)| port.to_owned());
    let destinations = a.destination.is_empty()
        || b.destination.is_empty()
        || a.destination.iter().any(|x| {
            b.destination.iter().any(|y| match (port(x), port(y)) {
                (Some(x), Some(y)) => x == y,
                _ => true,
            })
        });
    names && destinations
}

/// Whether both chains do the same with every request.
fn same(a: &FilterChain, b: &FilterChain) -> bool {
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
            // An invalid network is written as it is: the check of the config then closes it.
            let network = crate::text::network(address, length.unwrap_or(32.0) as u32)
                .unwrap_or_else(|| address.to_owned());
            if network.contains(':') { format!("[{network}]{port}") } else { format!("{network}{port}") }
        })
        .collect()
}

fn tcp(config: &Node, cx: &mut EnvoyImport) -> Option<PlannedRule> {
    let mut rule = PlannedRule { at: config.at.clone(), ..PlannedRule::default() };
    rule.when.path = crate::path::PlannedPath::Any;
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
            "metadata_match",
        ],
        &[
            (
                "access_log",
                Impact::Soft,
                "the access log is not carried over; `access_log: stdout` writes every connection.",
            ),
            (
                "hash_policy",
                Impact::Soft,
                "`balance: { algorithm: maglev, hash: source }` on the upstream hashes the client's address.",
            ),
            (
                "tunneling_config",
                Impact::Point,
                "attache doesn't tunnel TCP in CONNECT: the bytes go to the upstream without it.",
            ),
            (
                "max_downstream_connection_duration",
                Impact::Soft,
                "opaque connections have no maximum age; `tcp_idle_timeout` ends idle ones.",
            ),
        ],
    );
    let parts = config.down(&["weighted_clusters"]).list("clusters");
    if let Some(node) = parts.iter().chain([config]).find_map(|part| part.get("metadata_match")) {
        rule.remarks.point(
            &node.at,
            "metadata chose the endpoints of these connections. Make an upstream of these endpoints.",
        );
        cx.plan.remarks.0.append(&mut rule.remarks.0);
        return None;
    }
    filters::targets(config, cluster::ClusterUse::Tcp, &mut rule, cx).then_some(rule)
}
