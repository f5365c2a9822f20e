//! `ext_authz`: its service becomes an authorizer, which the routes behind the filter name.

use crate::gate::{Gate, GateVerdict};
use crate::remark::{Impact, Remarks};
use crate::tree::{FileLine, Node};
use crate::value::{ConfigValue, YamlMap};

use super::{EnvoyImport, cluster, words};

const KNOWN: &[&str] = &[
    "grpc_service",
    "http_service",
    "transport_api_version",
    "failure_mode_allow",
    "with_request_body",
    "stat_prefix",
    "status_on_error",
    "filter_enabled",
    "deny_at_disable",
    "allowed_headers",
    "bootstrap_metadata_labels_key",
    "encode_raw_headers",
    "include_peer_certificate",
    "emit_filter_state_stats",
    "filter_metadata",
    "charge_cluster_response_stats",
    "enable_dynamic_metadata_ingestion",
    "clear_route_cache",
];

/// Settings that attache lacks: further facts that Envoy sends to the service, and other ways to decide. They close the
/// routes.
const CLOSED: &[(&str, &str)] = &[
    ("metadata_context_namespaces", "in the original the service got metadata of other filters"),
    ("typed_metadata_context_namespaces", "in the original the service got metadata of other filters"),
    ("route_metadata_context_namespaces", "in the original the service got metadata of routes"),
    ("route_typed_metadata_context_namespaces", "in the original the service got metadata of routes"),
    ("filter_enabled_metadata", "metadata of other filters decided whether the service is called"),
    ("deny_at_disable", "the original denied requests for which it didn't call the service"),
    (
        "disallowed_headers",
        "the original lists the headers that the service must not get; attache lists those that it gets",
    ),
    ("decoder_header_mutation_rules", "rules decided which headers the service may change"),
    (
        "include_peer_certificate",
        "the service got the client's whole certificate; attache sends the identity",
    ),
];

/// The gate that the filter becomes.
pub(crate) fn gate(config: &Node, filter: &Node, remarks: &mut Remarks, cx: &mut EnvoyImport) -> Gate {
    let at = &filter.at;
    match authorizer(config, at, remarks, cx) {
        Ok(None) => Gate { at: at.clone(), cases: Vec::new(), otherwise: GateVerdict::Pass, denied: "" },
        Ok(Some(map)) => {
            let name = named(filter.str("name").unwrap_or("ext_authz"), &map, cx);
            let mut keys = YamlMap::default();
            keys.set("external", name);
            Gate { at: at.clone(), cases: Vec::new(), otherwise: GateVerdict::With(keys), denied: "" }
        }
        Err(why) => Gate::closed(
            at,
            format!(
                "a service (`ext_authz`) decided about these requests, and attache can't call it in the same way: {why}. Write it as `authorizers` and `external`."
            ),
        ),
    }
}

/// Adds an authorizer under a unique name, and returns that name.
fn named(filter: &str, map: &YamlMap, cx: &mut EnvoyImport) -> String {
    let base = crate::plan::name(&words::last(filter).replace('_', "-"));
    let mut all = cx.plan.top.child("authorizers");
    let mut free = base.clone();
    let mut n = 2;
    while all.get(&free).is_some_and(|other| *other != ConfigValue::Map(map.clone())) {
        free = format!("{base}-{n}");
        n += 1;
    }
    all.set(&free, map.clone());
    free
}

/// The gate of a route with its own settings. `None` if the service isn't asked for this route.
pub(crate) fn of_route(gate: &Gate, own: &Node) -> Option<Gate> {
    let GateVerdict::With(keys) = &gate.otherwise else { return Some(gate.clone()) };
    if own.is("disabled") {
        return None;
    }
    let settings = own.down(&["check_settings"]);
    for (key, value) in settings.entries() {
        let key = crate::tree::snake(key);
        if !value.is_empty()
            && !["context_extensions", "disable_request_body_buffering"].contains(&key.as_str())
        {
            return Some(Gate::closed(
                &value.at,
                format!(
                    "this route sends `{key}` to its authorization service. Make an authorizer for this route; then replace the refusal."
                ),
            ));
        }
    }
    let mut external = YamlMap::default();
    external.put("authorizer", keys.get("external").cloned());
    let mut context = YamlMap::default();
    for (name, value) in settings.down(&["context_extensions"]).entries() {
        context.put(name, value.text());
    }
    if !context.is_empty() {
        external.set("context", context);
    }
    if settings.is("disable_request_body_buffering") {
        external.set("body", false);
    }
    let mut keys = YamlMap::default();
    keys.set(
        "external",
        if external.0.len() == 1 { external.0.remove(0).1 } else { ConfigValue::Map(external) },
    );
    Some(Gate { otherwise: GateVerdict::With(keys), ..gate.clone() })
}

fn authorizer(
    config: &Node,
    at: &FileLine,
    remarks: &mut Remarks,
    cx: &mut EnvoyImport,
) -> Result<Option<YamlMap>, String> {
    for (key, why) in CLOSED {
        if config.get(key).is_some_and(|value| !value.is_empty() && value.text() != Some("false")) {
            return Err((*why).to_owned());
        }
    }
    remarks.rest(config, "`ext_authz`", KNOWN, &[]);
    match config.get("filter_enabled").map(|enabled| words::share(enabled).unwrap_or(0.0)) {
        None => {}
        Some(share) if share >= 1.0 => {}
        Some(share) if share <= 0.0 => {
            remarks.note(at, "the original called the authorization service for no request (`filter_enabled` is 0 %), so the service is left out.");
            return Ok(None);
        }
        Some(_) => return Err("it was called for a share of the requests only".to_owned()),
    }
    let mut map = YamlMap::default();
    let grpc = config.get("grpc_service");
    let service = match (grpc, config.get("http_service")) {
        (Some(grpc), _) => {
            if config.str("transport_api_version").is_some_and(|version| version != "V3" && version != "2") {
                return Err("it speaks an earlier version of its protocol than v3".to_owned());
            }
            let name = grpc
                .down(&["envoy_grpc"])
                .str("cluster_name")
                .ok_or("it is called by Google's gRPC client and not by a cluster")?;
            if grpc.get("initial_metadata").is_some() || grpc.down(&["envoy_grpc"]).get("authority").is_some()
            {
                return Err("it gets metadata of its own".to_owned());
            }
            time(&mut map, grpc.get("timeout"));
            headers_told(config.get("allowed_headers"), &[], &mut map)?;
            remarks.point(
                at,
                "list the headers of the authorization service that upstreams get in `upstream_headers`; upstreams don't get others.",
            );
            name.to_owned()
        }
        (None, Some(http)) => http_service(http, config, &mut map, remarks)?,
        (None, None) => return Err("it has no service".to_owned()),
    };
    if cx.clusters.iter().all(|cluster| cluster.str("name") != Some(&service)) {
        return Err(format!("its cluster `{service}` is not in this config"));
    }
    let mut out = YamlMap::default();
    out.set("service", cluster::used(&service, cluster::ClusterUse::Http, cx));
    if grpc.is_none() {
        out.set("protocol", "http");
    }
    out.0.extend(map.0);
    if config.is("failure_mode_allow") {
        out.set("failure_mode", "open");
    } else {
        let status = config.down(&["status_on_error"]).str("code").unwrap_or("403").to_owned();
        if status != "503" && status != "ServiceUnavailable" {
            remarks.note(at, format!("if the authorization service doesn't answer, attache refuses the request with 503; the original answered {status}."));
        }
    }
    if let Some(body) = config.get("with_request_body") {
        let most = body.number("max_request_bytes").unwrap_or(0.0) as u64;
        if most == 0 || most > 1024 * 1024 {
            return Err("it gets more than 1 MiB of a body".to_owned());
        }
        let mut told = YamlMap::default();
        told.set("max", format!("{most}B"));
        if body.is("allow_partial_message") {
            told.set("partial", true);
        }
        out.set("body", told);
    }
    if config.is("clear_route_cache") {
        remarks.point(
            at,
            "the original chose the route again after the authorization service had changed headers; attache doesn't.",
        );
    }
    Ok(Some(out))
}

fn time(map: &mut YamlMap, node: Option<&Node>) {
    if let Some(time) = node.and_then(words::seconds).filter(|time| *time > 0.0) {
        map.set("timeout", words::duration(time));
    }
}

fn http_service(
    http: &Node,
    config: &Node,
    map: &mut YamlMap,
    remarks: &mut Remarks,
) -> Result<String, String> {
    remarks.rest(
        http,
        "the service of `ext_authz`",
        &["server_uri", "path_prefix", "authorization_request", "authorization_response"],
        &[("retry_policy", Impact::Soft, "attache calls the authorization service once, without retries.")],
    );
    if http.get("path_override").is_some() {
        return Err("it is called with one fixed path".to_owned());
    }
    let service = http.down(&["server_uri"]).str("cluster").ok_or("it has no cluster")?;
    if let Some(prefix) = http.str("path_prefix") {
        if !prefix.starts_with('/') {
            return Err("its path prefix has no slash".to_owned());
        }
        map.set("path_prefix", prefix);
    }
    time(map, http.down(&["server_uri"]).get("timeout"));
    let request = http.down(&["authorization_request"]);
    if request.get("headers_to_add").is_some() {
        return Err("it gets its own headers".to_owned());
    }
    // Envoy always sends `Authorization`, in addition to the listed headers.
    headers_told(
        config.get("allowed_headers").or_else(|| request.get("allowed_headers")),
        &["authorization"],
        map,
    )?;
    let response = http.down(&["authorization_response"]);
    let mut up = Vec::new();
    for (key, appended) in [("allowed_upstream_headers", false), ("allowed_upstream_headers_to_append", true)]
    {
        for pattern in response.down(&[key]).list("patterns") {
            match pattern.str("exact").filter(|_| !pattern.is("ignore_case")) {
                Some(name) => up.push(name.to_ascii_lowercase()),
                None => remarks.point(
                    &pattern.at,
                    "`upstream_headers` has only names, and this pattern is left out: list each header.",
                ),
            }
            if appended {
                remarks.point(&pattern.at, "a header of the authorization service replaces the client's header, and is not appended to it.");
            }
        }
    }
    up.dedup();
    if !up.is_empty() {
        map.set("upstream_headers", up);
    }
    let mut denial = patterns(response.get("allowed_client_headers"))?;
    if response.get("allowed_client_headers").is_some() {
        for always in ["www-authenticate", "location"] {
            if !denial.iter().any(|known| known == always) {
                denial.push(always.to_owned());
            }
        }
        map.set("denial_headers", denial);
    }
    let passed = patterns(response.get("allowed_client_headers_on_success"))?;
    if !passed.is_empty() {
        map.set("response_headers", passed);
    }
    if response.get("dynamic_metadata_from_headers").is_some() {
        return Err("its answer became metadata for other filters".to_owned());
    }
    Ok(service.to_owned())
}

/// The request headers that the service gets. Without a list, attache's default is the same as Envoy's.
fn headers_told(node: Option<&Node>, always: &[&str], map: &mut YamlMap) -> Result<(), String> {
    let mut names = patterns(node)?;
    if names.is_empty() {
        return Ok(());
    }
    for name in always {
        if !names.iter().any(|known| known == name) {
            names.insert(0, (*name).to_owned());
        }
    }
    map.set("request_headers", names);
    Ok(())
}

/// Names of headers; a prefix ends with `*`.
fn patterns(node: Option<&Node>) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for pattern in node.map(|node| node.list("patterns")).unwrap_or_default() {
        let name = match (pattern.str("exact"), pattern.str("prefix")) {
            (Some(exact), _) => exact.to_ascii_lowercase(),
            (None, Some(prefix)) => format!("{}*", prefix.to_ascii_lowercase()),
            _ => {
                return Err(
                    "a list of its headers has patterns that are neither names nor prefixes".to_owned()
                );
            }
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}
