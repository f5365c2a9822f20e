//! HTTPRoute and GRPCRoute of the Gateway API with a Service as parent: these are about calls within the mesh.
//!
//! The most specific match wins, not the first: exact paths, then the longest prefix, then a method, more headers, more
//! parameters; then the older route. So the import sorts all rules of a Service in that order.

use std::cmp::Reverse;

use crate::remark::Remarks;
use crate::tree::Node;

use super::services::Clusters;
use super::{ManifestObject, MeshObjects, hosts, redirect_code};

/// The sort key of a rule; the lowest comes first.
type MatchRank = (u8, Reverse<usize>, bool, Reverse<usize>, Reverse<usize>, String, String, usize);

pub(crate) fn sites(
    mesh: &MeshObjects,
    clusters: &mut Clusters<'_>,
    sites: &mut Vec<Node>,
    remarks: &mut Remarks,
) {
    let mut found: Vec<(String, Vec<(MatchRank, Node)>)> = Vec::new();
    for object in
        mesh.objects.iter().filter(|object| matches!(object.kind.as_str(), "HTTPRoute" | "GRPCRoute"))
    {
        let parents: Vec<String> = object
            .spec()
            .list("parent_refs")
            .iter()
            .filter(|parent| parent.str("kind") == Some("Service"))
            .map(|parent| {
                format!(
                    "{}.{}.svc.cluster.local",
                    parent.str("name").unwrap_or_default(),
                    parent.str("namespace").unwrap_or(&object.namespace)
                )
            })
            .collect();
        if parents.is_empty() {
            remarks.note(object.at(), format!("`{}` is for a Gateway, and not for sidecars.", object.name));
            continue;
        }
        let several = |host: &String| super::services::ports(mesh, host).len() > 1;
        let one_port = object
            .spec()
            .list("parent_refs")
            .iter()
            .find(|parent| parent.get("port").is_some() || parent.get("section_name").is_some())
            .filter(|_| parents.iter().any(several));
        let mut routes = Vec::new();
        for rule in object.spec().list("rules") {
            of_rule(rule, object, clusters, &mut routes);
        }
        if let Some(parent) = one_port {
            let text = format!(
                "`{}` is for one port of its Service, which has several ports: its requests are refused on all ports. Write its routes with `destination: :PORT`",
                object.name
            );
            for (_, route) in &mut routes {
                route.set("untranslatable", parent.scalar(&text));
            }
        }
        for parent in parents {
            match found.iter_mut().find(|(host, _)| *host == parent) {
                Some((_, all)) => all.extend(routes.iter().cloned()),
                None => found.push((parent, routes.clone())),
            }
        }
    }
    for (host, mut routes) in found {
        routes.sort_by(|(a, _), (b, _)| a.cmp(b));
        let Some((_, first)) = routes.first() else { continue };
        let at = first.clone();
        let names: Vec<String> = hosts::spellings(&host, &mesh.workload.namespace)
            .into_iter()
            .filter(|name| !clusters.taken(name))
            .collect();
        if names.is_empty() {
            remarks.point(&at.at, format!("`{host}` also has a VirtualService, which gets its requests."));
            continue;
        }
        sites.push(at.map(vec![
            ("name", at.scalar(&host)),
            ("domains", at.seq(names.iter().map(|name| at.scalar(name)).collect())),
            ("routes", at.seq(routes.into_iter().map(|(_, route)| route).collect())),
        ]));
    }
}

fn of_rule(
    rule: &Node,
    object: &ManifestObject,
    clusters: &mut Clusters<'_>,
    out: &mut Vec<(MatchRank, Node)>,
) {
    let action = action(rule, object, clusters);
    let whole = rule.map(Vec::new());
    let all: &[Node] = rule.list("matches");
    let all = if all.is_empty() { std::slice::from_ref(&whole) } else { all };
    let created = object.node.down(&["metadata"]).str("creation_timestamp").unwrap_or("9999").to_owned();
    for item in all {
        let mut matched = item.map(Vec::new());
        let mut action = action.clone();
        if let Some(why) = untranslatable(item) {
            action.set("untranslatable", item.scalar(&why));
        }
        let (kind, length) =
            if object.kind == "GRPCRoute" { grpc(item, &mut matched) } else { path(item, &mut matched) };
        let mut headers = Vec::new();
        if let Some(method) =
            item.get("method").filter(|method| object.kind == "HTTPRoute" && method.entries().is_empty())
        {
            headers.push(item.map(vec![
                ("name", item.scalar(":method")),
                ("string_match", item.map(vec![("exact", method.clone())])),
            ]));
        }
        let has_method = !headers.is_empty();
        let mut query = Vec::new();
        for (key, list) in [("headers", &mut headers), ("query_params", &mut query)] {
            for one in item.list(key) {
                let value = one.get("value").cloned().unwrap_or_else(|| one.scalar(""));
                let matcher = if one.str("type") == Some("RegularExpression") {
                    one.map(vec![("safe_regex", one.map(vec![("regex", value)]))])
                } else {
                    one.map(vec![("exact", value)])
                };
                list.push(one.map(vec![
                    ("name", one.scalar(one.str("name").unwrap_or_default())),
                    ("string_match", matcher),
                ]));
            }
        }
        let rank = (
            kind,
            Reverse(length),
            !has_method,
            Reverse(headers.len() - usize::from(has_method)),
            Reverse(query.len()),
            created.clone(),
            format!("{}/{}", object.namespace, object.name),
            out.len(),
        );
        if !headers.is_empty() {
            matched.set("headers", item.seq(headers));
        }
        if !query.is_empty() {
            matched.set("query_parameters", item.seq(query));
        }
        let mut route = action;
        route.at.clone_from(&rule.at);
        route.set("match", matched);
        out.push((rank, route));
    }
}

/// The part of a match that the import doesn't know. Without that part the route would match too many requests.
fn untranslatable(item: &Node) -> Option<String> {
    let unknown = |node: &Node, known: &[&str]| {
        let other = node
            .entries()
            .iter()
            .find(|(key, value)| !value.is_empty() && !known.contains(&crate::tree::snake(key).as_str()));
        other.map(|(key, _)| format!("this import doesn't know `{key}` of a match"))
    };
    let parts = [item.down(&["path"]), item.down(&["method"])];
    let values = item.list("headers").iter().chain(item.list("query_params"));
    let of_type = |node: &Node| {
        let known = ["Exact", "PathPrefix", "RegularExpression"];
        let kind = node.str("type").filter(|kind| !known.contains(kind))?;
        Some(format!("this import doesn't know the type `{kind}` of a match"))
    };
    unknown(item, &["path", "method", "headers", "query_params", "name"])
        .or_else(|| parts.iter().find_map(|part| unknown(part, &["type", "value", "service", "method"])))
        .or_else(|| values.clone().find_map(|value| unknown(value, &["type", "name", "value"])))
        .or_else(|| parts.into_iter().chain(values).find_map(of_type))
}

/// The path of a match, and its place in the order.
fn path(item: &Node, out: &mut Node) -> (u8, usize) {
    let path = item.down(&["path"]);
    let value = path.str("value").unwrap_or("/").to_owned();
    match path.str("type").unwrap_or("PathPrefix") {
        "Exact" => {
            out.set("path", item.scalar(&value));
            (0, value.len())
        }
        "RegularExpression" => {
            out.set("safe_regex", item.map(vec![("regex", item.scalar(&value))]));
            (2, value.len())
        }
        _ => {
            let bare = value.trim_end_matches('/');
            if bare.is_empty() {
                out.set("prefix", item.scalar("/"));
            } else {
                // A prefix of segments.
                out.set("path_separated_prefix", item.scalar(bare));
            }
            (1, value.len())
        }
    }
}

fn grpc(item: &Node, out: &mut Node) -> (u8, usize) {
    let method = item.down(&["method"]);
    let regex = method.str("type") == Some("RegularExpression");
    match (method.str("service"), method.str("method"), regex) {
        (None, None, _) => {
            out.set("prefix", item.scalar("/"));
            (3, 0)
        }
        (Some(service), Some(name), false) => {
            out.set("path", item.scalar(&format!("/{service}/{name}")));
            (0, service.len() + name.len())
        }
        (Some(service), None, false) => {
            out.set("prefix", item.scalar(&format!("/{service}/")));
            (1, service.len())
        }
        (service, name, regex) => {
            let part = |text: Option<&str>| match text {
                Some(text) if regex => text.to_owned(),
                Some(text) => regex::escape(text),
                None => "[^/]+".to_owned(),
            };
            let pattern = format!("/{}/{}", part(service), part(name));
            out.set("safe_regex", item.map(vec![("regex", item.scalar(&pattern))]));
            (2, pattern.len())
        }
    }
}

/// The cluster that a reference to a Service means.
fn cluster(backend: &Node, object: &ManifestObject, clusters: &mut Clusters<'_>) -> String {
    let namespace = backend.str("namespace").unwrap_or(&object.namespace);
    let name = backend.str("name").unwrap_or_default();
    let host = backend.scalar(&format!("{name}.{namespace}.svc.cluster.local"));
    let mut destination = backend.map(vec![("host", host)]);
    if let Some(port) = backend.get("port") {
        destination.set("port", backend.map(vec![("number", port.clone())]));
    }
    clusters.of(&destination, namespace)
}

/// Whether a reference is to something other than a Service of Kubernetes.
fn foreign(backend: &Node) -> bool {
    backend.str("kind").is_some_and(|kind| kind != "Service") || backend.str("group").is_some()
}

/// The share of requests that a mirror gets, in Envoy's form. `None`: all requests.
fn share(mirror: &Node) -> Option<Node> {
    let part = |numerator: &str, denominator: f64| {
        let numerator = numerator.parse::<f64>().ok()? / denominator * 1e6;
        let value = mirror.map(vec![
            ("numerator", mirror.scalar(&numerator.round().to_string())),
            ("denominator", mirror.scalar("MILLION")),
        ]);
        Some(mirror.map(vec![("default_value", value)]))
    };
    if let Some(percent) = mirror.str("percent") {
        return part(percent, 100.0);
    }
    let fraction = mirror.get("fraction")?;
    part(fraction.str("numerator")?, fraction.number("denominator").filter(|n| *n > 0.0).unwrap_or(100.0))
}

/// Keys of a rule that are read here.
const RULE: &[&str] = &["name", "matches", "filters", "backend_refs", "timeouts", "retry"];

fn action(rule: &Node, object: &ManifestObject, clusters: &mut Clusters<'_>) -> Node {
    let mut out = rule.map(Vec::new());
    let mut route = rule.map(Vec::new());
    if let Some((key, _)) =
        rule.entries().iter().find(|(key, _)| !RULE.contains(&crate::tree::snake(key).as_str()))
    {
        out.set("untranslatable", rule.scalar(&format!("this import doesn't know `{key}` of a rule")));
    }
    let parts = weighted(rule, object, clusters, &mut out);
    match parts.as_slice() {
        [] => {}
        [only] if only.str("weight") != Some("0") => route.put("cluster", only.get("name").cloned()),
        _ => route.set("weighted_clusters", rule.map(vec![("clusters", rule.seq(parts.clone()))])),
    }
    let timeouts = rule.down(&["timeouts"]);
    route
        .set("timeout", timeouts.get("request").map_or_else(|| rule.scalar("0s"), super::duration::duration));
    if let Some(retry) = rule.get("retry") {
        route.set("retry_policy", retry_policy(retry, timeouts));
    }
    let mut redirect = None;
    for filter in rule.list("filters") {
        match filter.str("type").unwrap_or_default() {
            "RequestHeaderModifier" => header_edits(filter, "request", &mut out),
            "ResponseHeaderModifier" => header_edits(filter, "response", &mut out),
            "RequestRedirect" => redirect = Some(redirected(filter)),
            "URLRewrite" => rewrite(filter, &mut route),
            "RequestMirror" => mirror(filter, object, clusters, &mut out, &mut route),
            other => {
                out.set(
                    "untranslatable",
                    filter.scalar(&format!("this import doesn't know the filter `{other}`")),
                );
            }
        }
    }
    match redirect {
        Some(redirect) => out.set("redirect", redirect),
        None if parts.is_empty() => {
            out.set("direct_response", rule.map(vec![("status", rule.scalar("500"))]));
        }
        None => out.set("route", route),
    }
    out
}

/// The clusters of a rule, each with its weight.
fn weighted(rule: &Node, object: &ManifestObject, clusters: &mut Clusters<'_>, out: &mut Node) -> Vec<Node> {
    let mut parts = Vec::new();
    for backend in rule.list("backend_refs") {
        let cluster = cluster(backend, object, clusters);
        let mut part = backend.map(vec![("name", backend.scalar(&cluster))]);
        part.set("weight", backend.get("weight").cloned().unwrap_or_else(|| backend.scalar("1")));
        if backend.get("filters").is_some() {
            out.set("untranslatable", backend.scalar("a backend has its own filters"));
        }
        if foreign(backend) {
            out.set("untranslatable", backend.scalar("a backend is not a Service"));
        }
        parts.push(part);
    }
    parts
}

fn retry_policy(retry: &Node, timeouts: &Node) -> Node {
    let codes = retry.list("codes").to_vec();
    let mut policy = retry.map(vec![
        ("retry_on", retry.scalar("connect-failure,refused-stream,reset,retriable-status-codes")),
        ("retriable_status_codes", retry.seq(codes)),
    ]);
    policy.set("num_retries", retry.get("attempts").cloned().unwrap_or_else(|| retry.scalar("1")));
    policy.put("per_try_timeout", timeouts.get("backend_request").map(super::duration::duration));
    if let Some(base) = retry.get("backoff") {
        policy.set("retry_back_off", base.map(vec![("base_interval", super::duration::duration(base))]));
    }
    policy
}

/// `RequestHeaderModifier` and `ResponseHeaderModifier`.
fn header_edits(filter: &Node, way: &str, out: &mut Node) {
    let key = format!("{way}_header_modifier");
    let config = filter.down(&[key.as_str()]);
    let mut add = out.list(&format!("{way}_headers_to_add")).to_vec();
    for (key, action) in [("set", "OVERWRITE_IF_EXISTS_OR_ADD"), ("add", "APPEND_IF_EXISTS_OR_ADD")] {
        for one in config.list(key) {
            let mut header = one.map(vec![("key", one.scalar(one.str("name").unwrap_or_default()))]);
            header.put("value", one.get("value").cloned());
            add.push(one.map(vec![("header", header), ("append_action", one.scalar(action))]));
        }
    }
    if !add.is_empty() {
        out.set(&format!("{way}_headers_to_add"), filter.seq(add));
    }
    out.put(&format!("{way}_headers_to_remove"), config.get("remove").cloned());
}

fn redirected(filter: &Node) -> Node {
    let config = filter.down(&["request_redirect"]);
    let mut node = filter.map(Vec::new());
    for (from, to) in
        [("scheme", "scheme_redirect"), ("hostname", "host_redirect"), ("port", "port_redirect")]
    {
        node.put(to, config.get(from).cloned());
    }
    let code = redirect_code(config.str("status_code"), "FOUND");
    node.set("response_code", filter.scalar(code));
    node.put("path_redirect", config.down(&["path"]).get("replace_full_path").cloned());
    node.put("prefix_rewrite", config.down(&["path"]).get("replace_prefix_match").cloned());
    node
}

fn rewrite(filter: &Node, route: &mut Node) {
    let config = filter.down(&["url_rewrite"]);
    route.put("host_rewrite_literal", config.get("hostname").cloned());
    let path = config.down(&["path"]);
    route.put("prefix_rewrite", path.get("replace_prefix_match").cloned());
    if let Some(whole) = path.get("replace_full_path") {
        let pattern = filter.map(vec![("regex", filter.scalar("^/.*$"))]);
        route.set("regex_rewrite", filter.map(vec![("pattern", pattern), ("substitution", whole.clone())]));
    }
}

fn mirror(
    filter: &Node,
    object: &ManifestObject,
    clusters: &mut Clusters<'_>,
    out: &mut Node,
    route: &mut Node,
) {
    let backend = filter.down(&["request_mirror", "backend_ref"]);
    if foreign(backend) {
        out.set("untranslatable", backend.scalar("a mirror's backend is not a Service"));
    }
    let cluster = cluster(backend, object, clusters);
    let mut policy = backend.map(vec![("cluster", backend.scalar(&cluster))]);
    policy.put("runtime_fraction", share(filter.down(&["request_mirror"])));
    let mut mirrors = route.list("request_mirror_policies").to_vec();
    mirrors.push(policy);
    route.set("request_mirror_policies", filter.seq(mirrors));
}
