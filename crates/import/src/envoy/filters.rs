//! HTTP filters that change, answer or limit requests, and the clusters that routes go to.

use crate::gate::Gate;
use crate::plan::{self, PlannedRule, RuleConditions};
use crate::remark::{Impact, Remarks};
use crate::tree::Node;
use crate::value::ConfigValue;

use super::{
    EnvoyImport, authorizers, browsers, changes, cluster, guards, limits,
    rbac::{self, ClientTraits},
    sessions,
    tokens::{self, Tokens},
    words,
};

/// What a filter does for the rules behind it.
pub(crate) enum FilterEffect {
    /// Decides who passes.
    Gate(Gate),
    /// Verifies tokens.
    Tokens(Box<Tokens>, Gate),
    /// Asks a service.
    Authorizer(Gate),
    /// Answers pages of other origins, if the route has a policy.
    Cors,
    /// Sets a key of every route.
    Key(&'static str, ConfigValue),
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
    pub(crate) effect: FilterEffect,
}

impl Filter {
    /// A filter that refuses every request.
    pub(crate) fn closed(kind: &str, at: &crate::tree::FileLine, why: &str) -> Self {
        let effect = FilterEffect::Gate(Gate::closed(at, why));
        Self { name: kind.to_owned(), kind: kind.to_owned(), disabled: false, effect }
    }
}

/// Filters that attache lacks, with the effect of the loss.
const SOFT: &[(&str, Impact, &str)] = &[
    ("decompressor", Impact::Soft, "bodies are not decompressed on the way; the application does it."),
    (
        "grpc_stats",
        Impact::Soft,
        "gRPC is counted by `attache_requests_total`, without a series for each method.",
    ),
    (
        "grpc_http1_reverse_bridge",
        Impact::Point,
        "gRPC is not turned into HTTP/1.1: the upstream must speak gRPC.",
    ),
    ("grpc_http1_bridge", Impact::Point, "HTTP/1.1 is not turned into gRPC: the client must speak gRPC."),
    (
        "grpc_json_transcoder",
        Impact::Point,
        "JSON is not turned into gRPC: what was called by HTTP paths goes to the upstream as it is.",
    ),
    ("grpc_field_extraction", Impact::Soft, "fields of gRPC messages are not extracted."),
    ("proto_message_extraction", Impact::Soft, "fields of messages are not extracted."),
    ("file_system_buffer", Impact::Soft, "whole bodies are not buffered; they stream."),
    ("cache", Impact::Soft, "answers are not cached: every request goes to the upstream."),
    ("tap", Impact::Soft, "`attache tap` follows requests as they end."),
    ("on_demand", Impact::Soft, "nothing is discovered on demand."),
    (
        "original_src",
        Impact::Soft,
        "the client's own address can't be the source of calls; it is in `X-Forwarded-For`.",
    ),
    (
        "set_metadata",
        Impact::Soft,
        "attache has no metadata; if a later filter reads it, a comment there reports this.",
    ),
    (
        "set_filter_state",
        Impact::Soft,
        "attache has no filter state; if a later filter reads it, a comment there reports this.",
    ),
    ("payload_to_metadata", Impact::Soft, "metadata is absent."),
    ("json_to_metadata", Impact::Soft, "metadata is absent."),
    ("bandwidth_limit", Impact::Soft, "bandwidth is not limited."),
    (
        "admission_control",
        Impact::Soft,
        "`circuit_breaker: { failures: {} }` or `adaptive_concurrency: {}` on the upstream sheds load.",
    ),
    (
        "custom_response",
        Impact::Point,
        "attache doesn't replace responses of the upstream; the client gets them.",
    ),
    ("dynamo", Impact::Soft, "DynamoDB's statistics are absent."),
    ("alternate_protocols_cache", Impact::Soft, "attache has no HTTP/3."),
    ("connect_grpc_bridge", Impact::Point, "Connect is not turned into gRPC."),
    ("istio_stats", Impact::Soft, "Istio's series are absent; attache has `attache_requests_total`."),
    ("stats", Impact::Soft, "the mesh's series are absent; attache has `attache_requests_total`."),
    (
        "peer_metadata",
        Impact::Soft,
        "metadata of peers is not exchanged; the identity is that of the certificate.",
    ),
    (
        "metadata_exchange",
        Impact::Soft,
        "metadata of peers is not exchanged; the identity is that of the certificate.",
    ),
    ("alpn", Impact::Note, "attache chooses ALPN by the upstream's protocol."),
];

const ROUTER_KNOWN: &[&str] = &[
    "dynamic_stats",
    "start_child_span",
    "respect_expected_rq_timeout",
    "strict_check_headers",
    "suppress_grpc_request_failure_code_stats",
    "suppress_envoy_headers",
];

const ROUTER_REMARKS: &[(&str, Impact, &str)] = &[
    (
        "upstream_log",
        Impact::Soft,
        "attache has no log of attempts; the access log has the field `attempts`.",
    ),
    (
        "upstream_http_filters",
        Impact::Point,
        "filters of the cluster are left out; if one of them may refuse requests, the routes are refused.",
    ),
];

/// Reads a filter. Rules that it answers itself go to `front`.
pub(crate) fn filter(
    node: &Node,
    clients: &ClientTraits,
    front: &mut Vec<PlannedRule>,
    remarks: &mut Remarks,
    cx: &mut EnvoyImport,
) -> Option<Filter> {
    let kind = words::extension(node);
    let config = words::config(node);
    let disabled = node.is("disabled");
    let name = node.str("name").unwrap_or_default().to_owned();
    let effect = match kind.as_str() {
        "router" => {
            remarks.rest(config, "the router", ROUTER_KNOWN, ROUTER_REMARKS);
            let guard = deciding(config.list("upstream_http_filters"))?;
            FilterEffect::Gate(Gate::closed(
                &guard.at,
                "a filter of the cluster may refuse or change requests. Find out what it does; then replace the refusal.",
            ))
        }
        "dynamic_forward_proxy" => FilterEffect::Nothing,
        "health_check" => {
            health_check(config, front, remarks);
            FilterEffect::Nothing
        }
        "fault" => FilterEffect::Fault(Box::new(config.clone())),
        "local_ratelimit" => limits::local_limit(config, remarks)
            .map_or(FilterEffect::Nothing, |map| FilterEffect::Key("rate_limit", map.into())),
        "stateful_session" => sessions::stateful(config, remarks)
            .map_or(FilterEffect::Nothing, |map| FilterEffect::Key("session_cookie", map.into())),
        "cors" => FilterEffect::Cors,
        "buffer" => largest(config, remarks)
            .map_or(FilterEffect::Nothing, |size| FilterEffect::Key("body_size", size)),
        "grpc_web" => FilterEffect::Key("grpc_web", true.into()),
        "compressor" | "gzip" => browsers::compressor(config, remarks)
            .map_or(FilterEffect::Nothing, |map| FilterEffect::Key("compression", map.into())),
        // A disabled filter is read too, since a route may enable it.
        "ext_authz" => FilterEffect::Authorizer(authorizers::gate(config, node, remarks, cx)),
        "jwt_authn" => {
            let tokens = tokens::read(config, &node.at, remarks, cx);
            let gate = tokens.gate(remarks, cx);
            FilterEffect::Tokens(Box::new(tokens), gate)
        }
        "rbac" => {
            rbac::http(config, &node.at, clients, remarks).map_or(FilterEffect::Nothing, FilterEffect::Gate)
        }
        "ratelimit" => FilterEffect::Global(Box::new(config.clone())),
        "header_mutation" => FilterEffect::Headers(Box::new(config.clone())),
        "header_to_metadata" => {
            node.skip();
            remarks.soft(&node.at, "filter `header_to_metadata`: attache has no metadata. If routes choose a subset by it, match the header in a route.");
            FilterEffect::Headers(Box::new(changes::removals(config)))
        }
        "set_filter_state" if changes::decides(config) => FilterEffect::Gate(Gate::closed(
            &node.at,
            "filter state chose the destination of these requests. Write a route for each destination; then replace the refusal.",
        )),
        "adaptive_concurrency" => {
            remarks.soft(
                &node.at,
                "adaptive concurrency is a key of upstreams here: `adaptive_concurrency: {}`.",
            );
            FilterEffect::Nothing
        }
        kind => guards::closed(kind, node)
            .map_or_else(|| without_config(kind, node, disabled, remarks), FilterEffect::Gate),
    };
    Some(Filter { name, kind, disabled, effect })
}

/// A filter that attache lacks: it only counted or tuned, or it isn't known.
fn without_config(kind: &str, node: &Node, disabled: bool, remarks: &mut Remarks) -> FilterEffect {
    match SOFT.iter().find(|(name, ..)| *name == kind) {
        Some(_) if disabled => {
            node.skip();
            FilterEffect::Nothing
        }
        Some((name, weight, text)) => {
            node.skip();
            remarks.say(*weight, &node.at, format!("filter `{name}`: {text}"));
            FilterEffect::Nothing
        }
        None => FilterEffect::Gate(Gate::closed(
            &node.at,
            format!(
                "this import doesn't know the HTTP filter `{kind}`, which may refuse requests. Find out what it does; then replace the refusal."
            ),
        )),
    }
}

/// The first filter on the upstream's side that could refuse or change requests.
pub(super) fn deciding(list: &[Node]) -> Option<&Node> {
    list.iter().find(|filter| {
        let kind = words::extension(filter);
        let harmless = ["router", "upstream_codec", "header_mutation", "header_to_metadata"];
        !harmless.contains(&kind.as_str()) && SOFT.iter().all(|(name, ..)| *name != kind)
    })
}

/// The largest body that a filter `buffer` accepts. attache streams bodies and limits them to that size.
pub(super) fn largest(config: &Node, remarks: &mut Remarks) -> Option<ConfigValue> {
    let most = config.number("max_request_bytes").filter(|most| *most >= 1.0)?;
    remarks.note(&config.at, "bodies are not buffered here: they stream, up to the same size.");
    Some(format!("{}B", (most as u64).min(1 << 30)).into())
}

fn health_check(config: &Node, front: &mut Vec<PlannedRule>, remarks: &mut Remarks) {
    if config.is("pass_through_mode") {
        remarks.soft(&config.at, "answers of the application to health checks are not cached; they pass.");
        return;
    }
    let mut when = RuleConditions::default();
    for header in config.list("headers") {
        if let Some(path) = exact_path(header) {
            when.path = crate::path::PlannedPath::Exact(path.to_owned());
            remarks.note(
                &header.at,
                format!("`{path}` is also answered if it has a query; the original forwarded such requests."),
            );
            continue;
        }
        if super::matcher::header(header, &mut when).is_err() {
            remarks.point(
                &header.at,
                "attache can't express the path of the health check, so the routes get its requests.",
            );
            return;
        }
    }
    let mut rule = PlannedRule { when, at: config.at.clone(), ..PlannedRule::default() };
    if config.get("cluster_min_healthy_percentages").is_some() {
        rule.remarks.soft(
            &config.at,
            "this answer is always 200; `/readyz` on port 15090 and `attache status` show the state of upstreams.",
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
pub(crate) fn targets(
    config: &Node,
    used: cluster::ClusterUse,
    rule: &mut PlannedRule,
    cx: &mut EnvoyImport,
) -> bool {
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
                    rule.refuse(&own.at, format!("this route is refused: one part of its split has its own config of `{filter}`. Make a route for each part."));
                    return true;
                }
                rule.remarks.point(&own.at, format!("the config of `{filter}` for one part of a split is left out: the config of the whole route is used."));
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
