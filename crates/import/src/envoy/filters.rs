//! HTTP filters that change, answer or limit requests, and the clusters that routes go to.

use crate::gate::Gate;
use crate::plan::{self, Rule, When};
use crate::remark::{Remarks, Weight};
use crate::tree::Node;
use crate::value::Value;

use super::{
    Cx, authorizers, browsers, changes, cluster, faults, guards, limits,
    overrides::RouteSettings,
    rbac::{self, Clients},
    sessions,
    tokens::{self, Tokens},
    words,
};

/// What a filter does for the rules behind it.
pub(crate) enum Effect {
    /// Decides who passes.
    Gate(Gate),
    /// Verifies tokens.
    Tokens(Box<Tokens>, Gate),
    /// Asks a service.
    Authorizer(Gate),
    /// Answers pages of other origins, if the route has a policy.
    Cors,
    /// Sets a key of every route.
    Key(&'static str, Value),
    /// Delays requests, or answers them.
    Fault(Box<Node>),
    /// Asks a rate limit service, if the route has actions.
    Global(Box<Node>),
    /// Changes headers.
    Headers(Box<Node>),
    /// It has no meaning for requests: it only counts or tunes.
    Nothing,
}

/// An HTTP filter with the name that routes call it by.
pub(crate) struct Filter {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) disabled: bool,
    pub(crate) effect: Effect,
}

impl Filter {
    /// A filter that refuses every request.
    pub(crate) fn closed(kind: &str, at: &crate::tree::At, why: &str) -> Self {
        let effect = Effect::Gate(Gate::closed(at, why));
        Self { name: kind.to_owned(), kind: kind.to_owned(), disabled: false, effect }
    }
}

/// Filters that attache lacks, with what that means.
const SOFT: &[(&str, Weight, &str)] = &[
    ("decompressor", Weight::Soft, "bodies are not decompressed on the way; the application does it."),
    (
        "grpc_stats",
        Weight::Soft,
        "gRPC is counted by `attache_requests_total`, without a series for each method.",
    ),
    (
        "grpc_http1_reverse_bridge",
        Weight::Point,
        "gRPC is not turned into HTTP/1.1: the upstream must speak gRPC.",
    ),
    ("grpc_http1_bridge", Weight::Point, "HTTP/1.1 is not turned into gRPC: the client must speak gRPC."),
    (
        "grpc_json_transcoder",
        Weight::Point,
        "JSON is not turned into gRPC: what was called by HTTP paths goes to the upstream as it is.",
    ),
    ("grpc_field_extraction", Weight::Soft, "fields of gRPC messages are not extracted."),
    ("proto_message_extraction", Weight::Soft, "fields of messages are not extracted."),
    ("file_system_buffer", Weight::Soft, "whole bodies are not buffered; they stream."),
    ("cache", Weight::Soft, "answers are not cached: every request goes to the upstream."),
    ("tap", Weight::Soft, "`attache tap` follows requests as they end."),
    ("on_demand", Weight::Soft, "nothing is discovered on demand."),
    (
        "original_src",
        Weight::Soft,
        "the client's own address can't be the source of calls; it is in `X-Forwarded-For`.",
    ),
    ("set_metadata", Weight::Soft, "metadata is absent; where a later filter read it, that filter says so."),
    (
        "set_filter_state",
        Weight::Soft,
        "filter state is absent; where a later filter read it, that filter says so.",
    ),
    ("payload_to_metadata", Weight::Soft, "metadata is absent."),
    ("json_to_metadata", Weight::Soft, "metadata is absent."),
    ("bandwidth_limit", Weight::Soft, "bandwidth is not limited."),
    (
        "admission_control",
        Weight::Soft,
        "`circuit_breaker: { failures: {} }` or `adaptive_concurrency: {}` on the upstream sheds load.",
    ),
    ("custom_response", Weight::Point, "answers of the upstream are not replaced; they reach the client."),
    ("dynamo", Weight::Soft, "DynamoDB's statistics are absent."),
    ("alternate_protocols_cache", Weight::Soft, "HTTP/3 is absent."),
    ("connect_grpc_bridge", Weight::Point, "Connect is not turned into gRPC."),
    ("istio_stats", Weight::Soft, "Istio's series are absent; attache has `attache_requests_total`."),
    ("stats", Weight::Soft, "the mesh's series are absent; attache has `attache_requests_total`."),
    (
        "peer_metadata",
        Weight::Soft,
        "metadata of peers is not exchanged; the identity is that of the certificate.",
    ),
    (
        "metadata_exchange",
        Weight::Soft,
        "metadata of peers is not exchanged; the identity is that of the certificate.",
    ),
    ("alpn", Weight::Note, "attache chooses ALPN by the upstream's protocol."),
];

/// Reads a filter. Rules that it answers itself go to `front`.
pub(crate) fn filter(
    node: &Node,
    clients: &Clients,
    front: &mut Vec<Rule>,
    remarks: &mut Remarks,
    cx: &mut Cx,
) -> Option<Filter> {
    let kind = words::extension(node);
    let config = words::config(node);
    let disabled = node.is("disabled");
    let name = node.str("name").unwrap_or_default().to_owned();
    let effect = match kind.as_str() {
        "router" => {
            remarks.rest(
                config,
                "the router",
                &[
                    "dynamic_stats",
                    "start_child_span",
                    "respect_expected_rq_timeout",
                    "strict_check_headers",
                    "suppress_grpc_request_failure_code_stats",
                    "suppress_envoy_headers",
                ],
                &[
                    ("upstream_log", Weight::Soft, "the log of attempts is the access log's `attempts`."),
                    (
                        "upstream_http_filters",
                        Weight::Point,
                        "filters on the upstream's side are absent; one that could decide over requests closes the routes.",
                    ),
                ],
            );
            let guard = deciding(config.list("upstream_http_filters"))?;
            Effect::Gate(Gate::closed(
                &guard.at,
                "a filter on the upstream's side could refuse or change requests here. Then replace the refusal.",
            ))
        }
        "dynamic_forward_proxy" => Effect::Nothing,
        "health_check" => {
            health_check(config, front, remarks);
            Effect::Nothing
        }
        "fault" => Effect::Fault(Box::new(config.clone())),
        "local_ratelimit" => limits::local_limit(config, remarks)
            .map_or(Effect::Nothing, |map| Effect::Key("rate_limit", map.into())),
        "stateful_session" => sessions::stateful(config, remarks)
            .map_or(Effect::Nothing, |map| Effect::Key("session_cookie", map.into())),
        "cors" => Effect::Cors,
        "buffer" => largest(config, remarks).map_or(Effect::Nothing, |size| Effect::Key("body_size", size)),
        "grpc_web" => Effect::Key("grpc_web", true.into()),
        "compressor" | "gzip" => browsers::compressor(config, remarks)
            .map_or(Effect::Nothing, |map| Effect::Key("compression", map.into())),
        // A disabled filter is read too, since a route may enable it.
        "ext_authz" => Effect::Authorizer(authorizers::gate(config, node, remarks, cx)),
        "jwt_authn" => {
            let tokens = tokens::read(config, &node.at, remarks, cx);
            let gate = tokens.gate(remarks, cx);
            Effect::Tokens(Box::new(tokens), gate)
        }
        "rbac" => rbac::http(config, &node.at, clients, remarks).map_or(Effect::Nothing, Effect::Gate),
        "ratelimit" => Effect::Global(Box::new(config.clone())),
        "header_mutation" => Effect::Headers(Box::new(config.clone())),
        "header_to_metadata" => {
            node.skip();
            remarks.soft(&node.at, "filter `header_to_metadata`: metadata is absent. Where routes chose a subset by it, match the header in a route.");
            Effect::Headers(Box::new(changes::removals(config)))
        }
        "set_filter_state" if changes::decides(config) => Effect::Gate(Gate::closed(
            &node.at,
            "filter state chose where requests go here. Write a route for each; then replace the refusal.",
        )),
        "adaptive_concurrency" => {
            remarks.soft(
                &node.at,
                "adaptive concurrency is a key of upstreams here: `adaptive_concurrency: {}`.",
            );
            Effect::Nothing
        }
        kind => match guards::closed(kind, node) {
            Some(gate) => Effect::Gate(gate),
            None => match SOFT.iter().find(|(name, ..)| *name == kind) {
                Some(_) if disabled => {
                    node.skip();
                    Effect::Nothing
                }
                Some((name, weight, text)) => {
                    node.skip();
                    remarks.say(*weight, &node.at, format!("filter `{name}`: {text}"));
                    Effect::Nothing
                }
                None => Effect::Gate(Gate::closed(
                    &node.at,
                    format!(
                        "the HTTP filter `{kind}` isn't known to this import, and may have decided who passes. Find out what it did; then replace the refusal."
                    ),
                )),
            },
        },
    };
    Some(Filter { name, kind, disabled, effect })
}

/// The first filter on the upstream's side that could decide over requests.
pub(super) fn deciding(list: &[Node]) -> Option<&Node> {
    list.iter().find(|filter| {
        let kind = words::extension(filter);
        let harmless = ["router", "upstream_codec", "header_mutation", "header_to_metadata"];
        !harmless.contains(&kind.as_str()) && SOFT.iter().all(|(name, ..)| *name != kind)
    })
}

/// The rules that a rule becomes behind these filters. `levels` are the route, its virtual host and its route configuration.
pub(crate) fn apply(
    rule: Rule,
    filters: &[Filter],
    levels: &[&Node],
    clients: &Clients,
    cx: &mut Cx,
) -> Vec<Rule> {
    let mut rules = vec![rule];
    // Claims are known behind the filter that verifies tokens, where it is on.
    let before = Clients { payload: None, ..clients.clone() };
    let mut known = &before;
    for filter in filters {
        let own = match RouteSettings::of(&filter.name, &filter.kind, levels) {
            RouteSettings::Off => continue,
            RouteSettings::Unset if filter.disabled => continue,
            RouteSettings::Unset => None,
            RouteSettings::On(config) => config,
        };
        match &filter.effect {
            Effect::Nothing => {
                if let Some(own) =
                    own.filter(|_| matches!(filter.kind.as_str(), "local_ratelimit" | "stateful_session"))
                {
                    keyed(&filter.kind, own, &mut rules);
                }
                if filter.kind == "rbac" {
                    rules = gated(own, known, rules);
                }
            }
            Effect::Gate(_) if filter.kind == "rbac" && own.is_some() => {
                rules = gated(own, known, rules);
            }
            Effect::Gate(gate) => rules = rules.into_iter().flat_map(|rule| gate.before(rule)).collect(),
            Effect::Authorizer(gate) => {
                let gate = match own {
                    Some(own) => authorizers::of_route(gate, own),
                    None => Some(gate.clone()),
                };
                if let Some(gate) = gate {
                    rules = rules.into_iter().flat_map(|rule| gate.before(rule)).collect();
                }
            }
            Effect::Tokens(tokens, gate) => {
                known = clients;
                let mut remarks = Remarks::default();
                let routes = own.map(|own| tokens.of_route(own, &mut remarks, cx));
                let gate = routes.as_ref().unwrap_or(gate);
                for rule in rules.iter_mut().filter(|rule| rule.keys.get("to").is_some()) {
                    rule.remarks.0.extend(remarks.0.iter().cloned());
                    for header in &tokens.told {
                        rule.keys.child("headers").child("request").push("remove", header);
                    }
                }
                rules = rules.into_iter().flat_map(|rule| gate.before(rule)).collect();
            }
            Effect::Cors => {
                let legacy = levels.first().and_then(|route| route.down(&["route"]).get("cors"));
                let legacy = legacy.or_else(|| levels.get(1).and_then(|host| host.get("cors")));
                if let Some(policy) = own.or(legacy).filter(|own| !own.is_empty()) {
                    let mut remarks = Remarks::default();
                    let map = browsers::cors(policy, &mut remarks);
                    for rule in &mut rules {
                        rule.remarks.0.extend(remarks.0.iter().cloned());
                        rule.keys.put("cors", map.clone());
                    }
                }
            }
            Effect::Key("compression", Value::Map(map)) if own.is_none() => {
                for rule in rules.iter_mut().filter(|rule| rule.keys.get("to").is_some()) {
                    match rule.keys.get("compression") {
                        Some(Value::Map(known)) => {
                            let mut known = known.clone();
                            if !browsers::also(&mut known, map) {
                                rule.remarks.soft(
                                    &rule.at,
                                    "answers are compressed by the first of several compressors: they have different types or sizes.",
                                );
                            }
                            rule.keys.set("compression", known);
                        }
                        _ => rule.keys.set("compression", map.clone()),
                    }
                }
            }
            Effect::Key("compression", _) => {
                for rule in rules.iter_mut().filter(|_| own.is_some_and(|own| own.get("overrides").is_some()))
                {
                    rule.remarks.soft(
                        &rule.at,
                        "settings of a route for compression other than `disabled` are left out.",
                    );
                }
            }
            Effect::Key(key, value) => match own {
                Some(own) => keyed(&filter.kind, own, &mut rules),
                None => rules
                    .iter_mut()
                    .filter(|rule| rule.keys.get("to").is_some())
                    .for_each(|rule| rule.keys.set(key, value.clone())),
            },
            Effect::Fault(config) => rules = faults::inject(own.unwrap_or(config), rules),
            Effect::Global(config) => limits::global(config, own, levels, &mut rules, cx),
            Effect::Headers(config) => {
                let own = own.map(|own| match filter.kind.as_str() {
                    "header_to_metadata" => changes::removals(own),
                    _ => own.clone(),
                });
                changes::mutated(own.as_ref().unwrap_or(config), &mut rules);
            }
        }
    }
    rules
}

/// Applies a route's own RBAC.
fn gated(own: Option<&Node>, clients: &Clients, mut rules: Vec<Rule>) -> Vec<Rule> {
    let Some(own) = own else { return rules };
    let mut remarks = Remarks::default();
    let gate = rbac::http(rbac::of_route(own), &own.at, clients, &mut remarks);
    if let Some(rule) = rules.first_mut() {
        rule.remarks.0.extend(remarks.0);
    }
    if let Some(gate) = gate {
        rules = rules.into_iter().flat_map(|rule| gate.before(rule)).collect();
    }
    rules
}

/// The largest body that a filter `buffer` takes. attache streams bodies, and holds them to that size.
fn largest(config: &Node, remarks: &mut Remarks) -> Option<Value> {
    let most = config.number("max_request_bytes").filter(|most| *most >= 1.0)?;
    remarks.note(&config.at, "bodies are not buffered here: they stream, up to the same size.");
    Some(format!("{}B", (most as u64).min(1 << 30)).into())
}

fn keyed(kind: &str, own: &Node, rules: &mut [Rule]) {
    for rule in rules.iter_mut().filter(|rule| rule.keys.get("to").is_some()) {
        let found = match kind {
            "stateful_session" => sessions::stateful(own.down(&["stateful_session"]), &mut rule.remarks)
                .map(|map| ("session_cookie", map)),
            "local_ratelimit" => limits::local_limit(own, &mut rule.remarks).map(|map| ("rate_limit", map)),
            _ => None,
        };
        if let Some((key, map)) = found {
            rule.keys.set(key, map);
        }
        if kind == "buffer" {
            let size = largest(own.down(&["buffer"]), &mut rule.remarks);
            rule.keys.put("body_size", size);
        }
    }
}

fn health_check(config: &Node, front: &mut Vec<Rule>, remarks: &mut Remarks) {
    if config.is("pass_through_mode") {
        remarks.soft(&config.at, "answers of the application to health checks are not cached; they pass.");
        return;
    }
    let mut when = When::default();
    for header in config.list("headers") {
        if let Some(path) = exact_path(header) {
            when.path = crate::path::Path::Exact(path.to_owned());
            remarks.note(
                &header.at,
                format!("`{path}` is answered with a query, too, which the original sent on."),
            );
            continue;
        }
        if super::matcher::header(header, &mut when).is_err() {
            remarks.point(
                &header.at,
                "the health check's own path can't be said; requests to it meet the routes.",
            );
            return;
        }
    }
    let mut rule = Rule { when, at: config.at.clone(), ..Rule::default() };
    if config.get("cluster_min_healthy_percentages").is_some() {
        rule.remarks.soft(
            &config.at,
            "this answer is always 200; `/readyz` on port 15090 and `attache status` say how upstreams are.",
        );
    }
    rule.answer(200);
    front.push(rule);
}

/// The path that a condition on `:path` asks for, if it is one path, and without a query.
fn exact_path(header: &Node) -> Option<&str> {
    let matcher = header.down(&["string_match"]);
    let plain = header.stranger(&["name", "string_match", "exact_match"]).is_none();
    if !plain || matcher.stranger(&["exact"]).is_some() || header.str("name") != Some(":path") {
        return None;
    }
    matcher.str("exact").or_else(|| header.str("exact_match")).filter(|path| !path.contains('?'))
}

/// Sets `to` of a route or TCP proxy. False if it names an unknown cluster.
pub(crate) fn targets(config: &Node, used: cluster::Use, rule: &mut Rule, cx: &mut Cx) -> bool {
    let mut parts: Vec<(String, u64)> = Vec::new();
    if let Some(cluster) = config.str("cluster") {
        parts.push((cluster.to_owned(), 1));
    }
    for part in config.down(&["weighted_clusters"]).list("clusters") {
        let Some(name) = part.str("name") else { return false };
        let weight = part.number("weight").unwrap_or(0.0) as u64;
        parts.push((name.to_owned(), weight));
        for key in ["typed_per_filter_config", "per_filter_config"] {
            for (filter, own) in part.down(&[key]).entries() {
                if !own.is("disabled")
                    && !matches!(words::kind_of(filter).as_str(), "fault" | "cors" | "compressor" | "buffer")
                {
                    rule.refuse(&own.at, format!("this route is refused: one part of its split has its own config of `{filter}`. Make a route of each part."));
                    return true;
                }
                rule.remarks.point(&own.at, format!("what one part of a split says of `{filter}` is left out: the filter is as for the whole route."));
            }
        }
    }
    changes::of_parts(config.down(&["weighted_clusters"]).list("clusters"), rule);
    if let Some(missing) =
        parts.iter().find(|(name, _)| cx.clusters.iter().all(|cluster| cluster.str("name") != Some(name)))
    {
        rule.remarks.point(
            &config.at,
            format!("the cluster `{}` is not in this config: it came from a control plane.", missing.0),
        );
        return false;
    }
    let mut named = Vec::new();
    for (name, weight) in parts {
        named.push((cluster::used(&name, used, cx), weight));
    }
    let Some(to) = plan::split(&named) else { return false };
    rule.targets = named.into_iter().filter(|(_, weight)| *weight > 0).map(|(name, _)| name).collect();
    rule.keys.set("to", to);
    true
}
