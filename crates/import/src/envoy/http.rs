//! The HTTP connection manager: its filters and its virtual hosts.

use crate::plan::{FilterChain, PlannedListener, PlannedRule, VirtualHost};
use crate::remark::{Impact, Remarks};
use crate::tree::Node;
use crate::value::ConfigValue;

use super::{
    EnvoyImport, applied, changes, filters, options, rbac::ClientTraits, replies, resources, route,
    route::HostPorts, scheme, tokens, tracing, words,
};

const KNOWN: &[&str] = &[
    "stat_prefix",
    "codec_type",
    "http_filters",
    "route_config",
    "rds",
    "use_remote_address",
    "common_http_protocol_options",
    "http_protocol_options",
    "http2_protocol_options",
    "stream_idle_timeout",
    "request_headers_timeout",
    "max_request_headers_kb",
    "normalize_path",
    "merge_slashes",
    "path_with_escaped_slashes_action",
    "preserve_external_request_id",
    "generate_request_id",
    "via",
    "strip_matching_host_port",
    "strip_any_host_port",
    "skip_xff_append",
    "upgrade_configs",
    "delayed_close_timeout",
    "drain_timeout",
    "forward_client_cert_details",
    "set_current_client_cert_details",
    "proxy_100_continue",
    "represent_ipv4_remote_address_as_ipv4_mapped_ipv6",
    "http_service_name",
    "server_header_transformation",
    "xff_num_trusted_hops",
    "tracing",
    "local_reply_config",
    "early_header_mutation_extensions",
    "access_log",
    "scoped_routes",
    "route_specifier",
    "http3_protocol_options",
    "scheme_header_transformation",
    "request_id_extension",
    "access_log_options",
    "access_log_flush_interval",
    "flush_access_log_on_new_request",
    "append_local_overload",
    "append_x_forwarded_port",
    "stream_error_on_invalid_http_message",
    "max_stream_duration",
    "strip_trailing_host_dot",
    "internal_address_config",
    "add_proxy_protocol_connection_state",
];

const REMARKS: &[(&str, Impact, &str)] = &[
    ("server_name", Impact::Note, "the header `server` of answers is the application's own."),
    ("add_user_agent", Impact::Soft, "no `user-agent` is added."),
    (
        "request_timeout",
        Impact::Soft,
        "attache has no timeout for the request alone; the route's `timeout` limits request and response together.",
    ),
    (
        "always_set_request_id_in_response",
        Impact::Soft,
        "attache doesn't add the request id to responses; to do it, write `headers: { response: { set: { x-request-id: \"%{request.id}\" } } }`.",
    ),
    (
        "original_ip_detection_extensions",
        Impact::Soft,
        "attache takes the client's address from the connection or the PROXY protocol, and not from a header.",
    ),
    ("path_normalization_options", Impact::Soft, "`http.path` normalises paths."),
    (
        "typed_header_validation_config",
        Impact::Soft,
        "headers are validated by attache's own rules (docs/http.md).",
    ),
];

const ROUTES_KNOWN: &[&str] = &[
    "name",
    "virtual_hosts",
    "validate_clusters",
    "request_headers_to_add",
    "request_headers_to_remove",
    "response_headers_to_add",
    "response_headers_to_remove",
    "internal_only_headers",
    "most_specific_header_mutations_wins",
    "ignore_port_in_host_matching",
    "max_direct_response_body_size_bytes",
    "typed_per_filter_config",
    "metadata",
    "request_mirror_policies",
];

const ROUTES_REMARKS: &[(&str, Impact, &str)] = &[
    ("vhds", Impact::Point, "virtual hosts are not discovered."),
    ("cluster_specifier_plugins", Impact::Point, "plug-ins that choose a cluster are absent."),
];

pub(crate) fn manager(
    config: &Node,
    listener: &mut PlannedListener,
    chain: &mut FilterChain,
    cx: &mut EnvoyImport,
) {
    chain.remarks.rest(config, "the HTTP connection manager", KNOWN, REMARKS);
    options::options(config, listener, &mut chain.remarks);
    cx.upgrades = listener.keys.child("http").get("upgrades").cloned();
    observe(config, &mut chain.remarks, cx);
    if let Some(local) = config.get("local_reply_config") {
        replies::local(local, listener, &mut chain.remarks);
    }
    let proven = listener.keys.child("tls").get("client_ca").is_some();
    let secure = listener.keys.get("tls").is_some();
    let clients = ClientTraits {
        proven,
        direct: config.is("use_remote_address")
            && config.number("xff_num_trusted_hops").unwrap_or(0.0) <= 0.0,
        secure,
        proxied: listener.keys.get("proxy_protocol").is_some(),
        payload: tokens::payload(config.list("http_filters")),
    };
    let (list, front) = filter_list(config, &clients, &mut chain.remarks, cx);
    let Some(routes) = route_config(config, cx) else {
        let mut rule = PlannedRule::default();
        rule.refuse(
            &config.at,
            "the routes are on a control plane, or in a file that could not be read. Save them from `/config_dump`, and give the file as a further argument of the import.",
        );
        chain.sites.push(VirtualHost {
            hosts: vec!["*".to_owned()],
            rules: vec![rule],
            ..VirtualHost::default()
        });
        return;
    };
    let ports = ports(config, &routes, listener);
    chain.remarks.rest(&routes, "the route configuration", ROUTES_KNOWN, ROUTES_REMARKS);
    as_compared(&routes, config, ports, listener);
    query_as_compared(&routes, listener);
    let shape = route::RouteContext {
        filters: &list,
        clients: &clients,
        secure,
        ports,
        manager: config,
        config: &routes,
    };
    for host in routes.list("virtual_hosts") {
        let mut site = route::site(host, &shape, cx);
        for rule in front.iter().rev() {
            site.rules.insert(0, rule.clone());
        }
        chain.sites.push(site);
    }
    shared_limit(&list, config, chain);
    set_by_envoy(config, &routes, &clients, chain);
    not_said(&routes, &shape, chain);
    // The health check answers for any host.
    if !front.is_empty() && chain.sites.iter().all(|site| site.hosts.iter().all(|host| host != "*")) {
        chain.sites.push(VirtualHost { hosts: vec!["*".to_owned()], rules: front, ..VirtualHost::default() });
    }
}

/// The filters, and the rules of those that answer requests themselves.
fn filter_list(
    config: &Node,
    clients: &ClientTraits,
    remarks: &mut Remarks,
    cx: &mut EnvoyImport,
) -> (Vec<filters::Filter>, Vec<PlannedRule>) {
    let kinds: Vec<String> = config.list("http_filters").iter().map(words::extension).collect();
    // Before the filter that verifies tokens there are no claims.
    let mut known = ClientTraits { payload: None, ..clients.clone() };
    order(&kinds, config, remarks);
    let mut front = Vec::new();
    let mut list = refusing(config, &kinds);
    for node in config.list("http_filters") {
        let mut answers = Vec::new();
        let found = filters::filter(node, &known, &mut answers, remarks, cx);
        // A request that a filter answers itself has passed the filters before it.
        for rule in answers {
            front.extend(applied::apply(rule, &list, &[], &known, cx));
        }
        if found.as_ref().is_some_and(|filter| matches!(filter.effect, filters::FilterEffect::Tokens(..))) {
            known = clients.clone();
        }
        list.extend(found);
    }
    (list, front)
}

/// Filters that refuse every request, in place of parts that decided about requests and that attache lacks.
fn refusing(config: &Node, kinds: &[String]) -> Vec<filters::Filter> {
    let mut list = Vec::new();
    let own_chain = config.list("upgrade_configs").iter().find_map(|upgrade| {
        filters::deciding(upgrade.list("filters")).filter(|_| !upgrade.list("filters").is_empty())
    });
    if let Some(filter) = own_chain.filter(|filter| !kinds.contains(&words::extension(filter))) {
        let why = "in the original, upgrades had their own filters, and attache has the same rules for all requests. Write the rules; then replace the refusal.";
        list.push(filters::Filter::closed("upgrade_filters", &filter.at, why));
    }
    if let Some(early) = config.get("early_header_mutation_extensions") {
        let why = "the original changed headers before it chose a route; attache chooses by the headers that clients send. Write the conditions for those headers; then replace the refusal.";
        list.push(filters::Filter::closed("early_header_mutation", &early.at, why));
    }
    for (at, names) in changes::before_guards(config.list("http_filters")) {
        let why = format!(
            "the original changed `{}` before this guard read the request; attache's guards read what clients send. Write the guard for that; then replace the refusal.",
            names.join("`, `")
        );
        list.push(filters::Filter::closed("changed_headers", &at, &why));
    }
    list
}

/// Envoy compares the first value of a parameter, as the client sent it.
fn query_as_compared(routes: &Node, listener: &mut PlannedListener) {
    let asks = |host: &Node| {
        let mut matches = host.list("routes").iter().map(|route| route.down(&["match"]));
        matches.any(|matcher| matcher.get("query_parameters").is_some())
    };
    if routes.list("virtual_hosts").iter().any(asks) {
        let mut http = listener.keys.child("http");
        let mut query = http.child("query");
        query.set("decode", false);
        query.set("repeated", "first");
    }
}

fn ports(config: &Node, routes: &Node, listener: &PlannedListener) -> HostPorts {
    if config.is("strip_any_host_port") || routes.is("ignore_port_in_host_matching") {
        return HostPorts::Ignored;
    }
    if !config.is("strip_matching_host_port") {
        return HostPorts::Compared;
    }
    // Envoy asks the connection for its local port. With several addresses it is not known here.
    match listener.keys.get("bind") {
        Some(ConfigValue::Text(bind)) => bind
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok())
            .map_or(HostPorts::Compared, HostPorts::OwnIgnored),
        _ => HostPorts::Ignored,
    }
}

/// Envoy compares the whole `Host` with the domains: a dot at its end, and a port that they don't have, make it another host.
fn as_compared(routes: &Node, config: &Node, ports: HostPorts, listener: &mut PlannedListener) {
    let domains: Vec<&str> = routes
        .list("virtual_hosts")
        .iter()
        .flat_map(|host| host.list("domains"))
        .filter_map(Node::text)
        .filter(|domain| *domain != "*")
        .collect();
    if domains.is_empty() {
        return;
    }
    let mut http = listener.keys.child("http");
    let mut host = http.child("host");
    if !config.is("strip_trailing_host_dot") {
        host.set("trailing", "reject");
    }
    let port = |domain: &str| domain.ends_with(":*") || domain.ends_with(":80") || domain.ends_with(":443");
    if !matches!(ports, HostPorts::Ignored) && !domains.into_iter().any(port) {
        host.set("default_port", "reject");
    }
}

/// attache verifies tokens first, then evaluates rules, then asks a service; CORS answers preflights before. Reports other orders.
fn order(kinds: &[String], config: &Node, remarks: &mut Remarks) {
    let at = |kind: &str| kinds.iter().position(|other| other == kind);
    if let (Some(service), Some(tokens)) = (at("ext_authz"), at("jwt_authn"))
        && service < tokens
    {
        remarks.point(
            &config.at,
            "the original called the authorization service before it verified the token, so the service could add a token; attache verifies the token first.",
        );
    }
    if let (Some(service), Some(rules)) = (at("ext_authz"), at("rbac"))
        && service < rules
    {
        remarks.point(
            &config.at,
            "RBAC could read headers that the authorization service set; attache's rules read the headers that the client sent.",
        );
    }
    let guards = ["ext_authz", "jwt_authn", "rbac"].iter().filter_map(|kind| at(kind)).min();
    if let (Some(cors), Some(guard)) = (at("cors"), guards)
        && guard < cors
    {
        remarks.note(&config.at, "`cors` answers preflights before any authentication.");
    }
}

/// Refuses routes with conditions on headers that Envoy itself sets or removes: in attache a client could send these headers.
fn set_by_envoy(manager: &Node, routes: &Node, clients: &ClientTraits, chain: &mut FilterChain) {
    let set = |name: &str| scheme::is_set(name, manager, routes);
    for site in &mut chain.sites {
        let rules = std::mem::take(&mut site.rules);
        for mut rule in rules.into_iter().flat_map(|rule| scheme::forwarded_proto(rule, clients)) {
            // Every request has an id.
            rule.when
                .headers
                .retain(|(name, pattern)| !(name == "x-request-id" && pattern == "*" && set(name)));
            let found = rule.when.headers.iter().map(|(name, _)| name.clone()).find(|name| set(name));
            rule.when.headers.retain(|(name, _)| !set(name));
            let read = rule.keys.get("authorization").and_then(|keys| scheme::read(keys, &set));
            if let Some(name) = found.or_else(|| read.map(ToOwned::to_owned)) {
                let at = rule.at.clone();
                rule.refuse(&at, format!("this route is refused: its condition is on `{name}`, which Envoy sets or removes itself; in attache a client could send it. Write another condition; then replace the refusal."));
            }
            site.rules.extend(scheme::said_once(rule));
        }
    }
}

/// A host that attache can't express must not reach another virtual host: so the pattern that covers it is refused.
fn not_said(routes: &Node, shape: &route::RouteContext<'_>, chain: &mut FilterChain) {
    // A virtual host without an expressible host gets no request.
    for site in std::mem::take(&mut chain.sites) {
        if site.hosts.is_empty() {
            chain.remarks.0.extend(site.remarks.0);
        } else {
            chain.sites.push(site);
        }
    }
    for host in routes.list("virtual_hosts") {
        for domain in route::lost(host, shape) {
            let wide = match domain.strip_prefix('*').and_then(|rest| rest.split_once('.')) {
                Some((_, suffix)) if !suffix.contains('*') => format!("*.{}", suffix.to_ascii_lowercase()),
                _ => "*".to_owned(),
            };
            let mut rule = PlannedRule { at: host.at.clone(), ..PlannedRule::default() };
            rule.when.path = crate::path::PlannedPath::Any;
            rule.refuse(&host.at, format!("attache can't express the host `{domain}`, so the import refuses `{wide}`, which includes it. List the hosts; then replace the refusal."));
            let mut known = false;
            for site in &mut chain.sites {
                known |= site.hosts.contains(&wide);
                site.hosts.retain(|own| *own != wide);
            }
            chain.sites.retain(|site| !site.hosts.is_empty());
            if known || wide != "*" {
                chain.sites.push(VirtualHost {
                    hosts: vec![wide],
                    rules: vec![rule],
                    ..VirtualHost::default()
                });
            }
        }
    }
}

/// Reports that each route has its own bucket; in Envoy all routes share the filter's bucket.
fn shared_limit(filters: &[filters::Filter], config: &Node, chain: &mut FilterChain) {
    let limited =
        filters.iter().any(|filter| matches!(filter.effect, filters::FilterEffect::Key("rate_limit", _)));
    let routes = chain
        .sites
        .iter()
        .flat_map(|site| &site.rules)
        .filter(|rule| rule.keys.get("rate_limit").is_some())
        .count();
    if limited && routes > 1 {
        chain.remarks.point(
            &config.at,
            format!("in the original one bucket limited all routes together; now each of {routes} routes has a bucket of this size. Make the buckets smaller, or write one route."),
        );
    }
}

fn route_config(config: &Node, cx: &EnvoyImport) -> Option<Node> {
    if let Some(routes) = config.get("route_config") {
        return Some(routes.clone());
    }
    let rds = config.get("rds")?;
    let name = rds.str("route_config_name");
    let found = rds.get("config_source").and_then(|source| resources::of(source, cx)).unwrap_or_default();
    let only = found.len() == 1;
    let by_name = |routes: &&Node| name.is_none() || routes.str("name") == name;
    found
        .iter()
        .find(by_name)
        .or_else(|| found.first().filter(|_| only))
        .or_else(|| cx.routes.iter().find(by_name))
        .cloned()
}

/// Access log and tracing: attache has one of each for all listeners.
fn observe(config: &Node, remarks: &mut Remarks, cx: &mut EnvoyImport) {
    for log in config.list("access_log") {
        let kind = words::extension(log);
        let own = words::config(log);
        let to = match kind.as_str() {
            "file_access_log" | "file" => match own.str("path") {
                Some("/dev/stdout") | None => "stdout".to_owned(),
                Some("/dev/stderr" | "/dev/null") => "stdout".to_owned(),
                Some(path) => path.to_owned(),
            },
            "stdout_access_log" | "stderr_access_log" | "stdout" | "stderr" | "file_access_log_" => {
                "stdout".to_owned()
            }
            _ => {
                log.skip();
                remarks.soft(&log.at, format!("attache has no access log of the kind `{kind}`; `access_log` writes to stdout or to a file."));
                continue;
            }
        };
        if own.str("path") != Some("/dev/null") && cx.plan.top.get("access_log").is_none() {
            cx.plan.top.set("access_log", to);
        }
        if ["format", "log_format", "json_format", "typed_json_format"].iter().any(|key| {
            own.get(key).is_some_and(|format| {
                format.skip();
                true
            })
        }) {
            remarks.soft(&own.at, "the format of the access log is attache's: `access_log: { to: …, format: { template: … } }` has its own fields (docs/access-log.md).");
        }
        if let Some(filter) = log.get("filter") {
            filter.skip();
            remarks
                .soft(&log.at, "the filter of the access log is not carried over: see `access_log.filter`.");
        }
    }
    if let Some(found) = config.get("tracing") {
        tracing::observed(found, remarks, cx);
    }
}
