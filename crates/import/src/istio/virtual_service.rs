//! VirtualService: the routes of a host, of which the first match wins. Several matches of one route are alternatives.

use crate::remark::Remarks;
use crate::tree::Node;

use super::duration::duration;
use super::services::Clusters;
use super::{ManifestObject, MeshObjects, hosts, redirect_code, string};

const SPEC: &[&str] = &["hosts", "gateways", "http", "tls", "tcp", "export_to"];

/// Whether an object is left out: it is for gateways, or it isn't exported to this namespace.
fn left_out(object: &ManifestObject, mesh: &MeshObjects, remarks: &mut Remarks) -> bool {
    let spec = object.spec();
    let gateways = spec.list("gateways");
    if !gateways.is_empty() && !gateways.iter().any(|gateway| gateway.text() == Some("mesh")) {
        remarks.note(
            object.at(),
            format!("the VirtualService `{}` is for gateways, and not for sidecars.", object.name),
        );
        return true;
    }
    let hidden = |to: &Node| match to.text() {
        Some(".") => object.namespace != mesh.workload.namespace,
        Some("*") => false,
        Some(other) => other != mesh.workload.namespace,
        None => false,
    };
    let export = spec.list("export_to");
    if !export.is_empty() && export.iter().all(hidden) {
        remarks.note(
            object.at(),
            format!("the VirtualService `{}` is not exported to this namespace.", object.name),
        );
        return true;
    }
    false
}

/// A virtual host for each VirtualService.
pub(crate) fn sites(
    mesh: &MeshObjects,
    clusters: &mut Clusters<'_>,
    sites: &mut Vec<Node>,
    remarks: &mut Remarks,
) {
    for object in mesh.all("VirtualService") {
        if left_out(object, mesh, remarks) {
            continue;
        }
        let spec = object.spec();
        remarks.rest(spec, "the VirtualService", SPEC, &[]);
        for kind in ["tcp", "tls"] {
            if let Some(routes) = spec.get(kind) {
                remarks.point(
                    &routes.at,
                    format!(
                        "`{kind}` routes are left out: these connections go to their original destination. Write routes with `destination` or `sni`."
                    ),
                );
            }
        }
        if spec.list("http").is_empty() {
            continue;
        }
        let mut domains: Vec<String> = Vec::new();
        for host in spec.list("hosts").iter().filter_map(Node::text) {
            let whole = hosts::whole(host, &object.namespace);
            if !clusters.visible(&whole, &object.namespace) {
                remarks.note(object.at(), format!("`{whole}` is not among the hosts of the Sidecar."));
                continue;
            }
            for name in hosts::spellings(&whole, &mesh.workload.namespace) {
                if clusters.taken(&name) {
                    remarks.point(
                        object.at(),
                        format!(
                            "the host `{name}` has routes in an earlier object, which gets its requests."
                        ),
                    );
                } else {
                    domains.push(name);
                }
            }
        }
        if domains.is_empty() {
            continue;
        }
        let mut routes = Vec::new();
        for route in spec.list("http") {
            one(route, object, mesh, clusters, &mut routes);
        }
        let at = &object.node;
        sites.push(at.map(vec![
            ("name", at.scalar(&object.name)),
            ("domains", at.seq(domains.iter().map(|host| at.scalar(host)).collect())),
            ("routes", at.seq(routes)),
        ]));
    }
}

/// A route becomes one for each of its matches.
fn one(
    route: &Node,
    object: &ManifestObject,
    mesh: &MeshObjects,
    clusters: &mut Clusters<'_>,
    out: &mut Vec<Node>,
) {
    let mut action = action(route, object, clusters);
    let name = route.str("name").map(|name| route.scalar(name));
    let matches = route.list("match");
    if matches.is_empty() {
        action.set("match", route.map(vec![("prefix", route.scalar("/"))]));
        action.put("name", name);
        out.push(action);
        return;
    }
    // A port is no condition where there is no other.
    let host = object
        .spec()
        .list("hosts")
        .first()
        .and_then(Node::text)
        .map(|host| hosts::whole(host, &object.namespace));
    let only = host.and_then(|host| super::services::only_port(mesh, &host));
    for (index, item) in matches.iter().enumerate() {
        match matched(item, only.as_deref(), mesh) {
            MatchedBy::Never => {}
            MatchedBy::When(node) => {
                let mut one = action.clone();
                one.set("match", node);
                one.put("name", name.clone().filter(|_| index == 0));
                out.push(one);
            }
        }
    }
}

/// Keys of a match that are read.
const MATCH: &[&str] = &[
    "name",
    "uri",
    "ignore_uri_case",
    "method",
    "headers",
    "without_headers",
    "query_params",
    "source_labels",
    "source_namespace",
    "gateways",
    "stat_prefix",
];

/// Keys of a route that are read.
const ROUTE: &[&str] = &[
    "name",
    "match",
    "route",
    "redirect",
    "direct_response",
    "delegate",
    "rewrite",
    "timeout",
    "retries",
    "fault",
    "mirror",
    "mirrors",
    "mirror_percent",
    "mirror_percentage",
    "cors_policy",
    "headers",
];

enum MatchedBy {
    /// It applies to other workloads.
    Never,
    /// It applies under these conditions of Envoy.
    When(Node),
}

fn matched(item: &Node, port: Option<&str>, mesh: &MeshObjects) -> MatchedBy {
    if let Some(namespace) = item.str("source_namespace")
        && namespace != mesh.workload.namespace
    {
        return MatchedBy::Never;
    }
    let gateways = item.list("gateways");
    if !gateways.is_empty() && !gateways.iter().any(|gateway| gateway.text() == Some("mesh")) {
        return MatchedBy::Never;
    }
    let mut out = item.map(Vec::new());
    if let Some(labels) = item.get("source_labels") {
        match mesh.selects(labels) {
            Some(true) => {}
            Some(false) => return MatchedBy::Never,
            // An unknown condition: every request that the route could match is refused.
            None => out.set("source_labels", labels.clone()),
        }
    }
    path(item.down(&["uri"]), item.is("ignore_uri_case"), &mut out);
    let mut headers = Vec::new();
    if let Some(method) = item.get("method") {
        headers.push(header(":method", method, false));
    }
    for (name, value) in item.down(&["headers"]).entries() {
        headers.push(header(name, value, false));
    }
    for (name, value) in item.down(&["without_headers"]).entries() {
        headers.push(header(name, value, true));
    }
    if !headers.is_empty() {
        out.set("headers", item.seq(headers));
    }
    let mut query = Vec::new();
    for (name, value) in item.down(&["query_params"]).entries() {
        let mut one = value.map(vec![("name", value.scalar(name))]);
        match string(value) {
            Some(matcher) => one.set("string_match", matcher),
            None => one.set("present_match", value.scalar("true")),
        }
        query.push(one);
    }
    if !query.is_empty() {
        out.set("query_parameters", item.seq(query));
    }
    // The importer of routes doesn't know the keys that are left, so it refuses the route.
    for (key, value) in item.entries() {
        let key = crate::tree::snake(key);
        if key == "port" && port.is_some() && value.text() == port {
            continue;
        }
        if !MATCH.contains(&key.as_str()) {
            let plain = ["port", "authority", "scheme"].contains(&key.as_str());
            out.set(&if plain { key } else { format!("match_{key}") }, value.clone());
        }
    }
    MatchedBy::When(out)
}

fn path(uri: &Node, folded: bool, out: &mut Node) {
    let (key, value) = match (uri.get("exact"), uri.get("prefix"), uri.get("regex")) {
        (Some(exact), ..) => ("path", exact.clone()),
        (_, Some(prefix), _) => ("prefix", prefix.clone()),
        (.., Some(regex)) => ("safe_regex", regex.map(vec![("regex", regex.clone())])),
        _ if uri.is_empty() => ("prefix", out.scalar("/")),
        _ => {
            out.set("match_uri", uri.clone());
            ("prefix", out.scalar("/"))
        }
    };
    if uri.entries().len() > 1 {
        out.set("match_uri", uri.clone());
    }
    out.set(key, value);
    if folded {
        out.set("case_sensitive", out.scalar("false"));
    }
}

fn header(name: &str, value: &Node, without: bool) -> Node {
    let mut out = value.map(vec![("name", value.scalar(name))]);
    match string(value) {
        Some(matcher) => {
            out.set("string_match", matcher);
            if without {
                out.set("invert_match", value.scalar("true"));
                // The inverted condition also holds if the header is missing.
                out.set("without", value.scalar("true"));
            }
        }
        None => out.set("present_match", value.scalar(if without { "false" } else { "true" })),
    }
    out
}

/// The action of a route, in Envoy's form.
fn action(route: &Node, object: &ManifestObject, clusters: &mut Clusters<'_>) -> Node {
    let mut out = route.map(Vec::new());
    if let Some(redirect) = route.get("redirect") {
        let mut node = redirect.map(Vec::new());
        for (from, to) in [
            ("uri", "path_redirect"),
            ("authority", "host_redirect"),
            ("scheme", "scheme_redirect"),
            ("port", "port_redirect"),
            ("prefix_rewrite", "prefix_rewrite"),
        ] {
            node.put(to, redirect.get(from).cloned());
        }
        let code = redirect_code(redirect.str("redirect_code"), "MOVED_PERMANENTLY");
        node.set("response_code", redirect.scalar(code));
        out.set("redirect", node);
    } else if let Some(direct) = route.get("direct_response") {
        let mut node = direct.map(Vec::new());
        node.put("status", direct.get("status").cloned());
        if let Some(text) = direct.down(&["body"]).get("string") {
            node.set("body", direct.map(vec![("inline_string", text.clone())]));
        }
        out.set("direct_response", node);
    } else if let Some(delegate) = route.get("delegate") {
        out.set(
            "untranslatable",
            delegate.scalar("another VirtualService has its routes (`delegate`): write them here"),
        );
    } else {
        out.set("route", forwarded(route, object, clusters));
    }
    if let Some((key, value)) =
        route.entries().iter().find(|(key, _)| !ROUTE.contains(&crate::tree::snake(key).as_str()))
    {
        out.set("untranslatable", value.scalar(&format!("this import doesn't know `{key}` of a route")));
    }
    let mut filters = route.map(Vec::new());
    if let Some(policy) = route.get("cors_policy") {
        filters.set("envoy.filters.http.cors", cors(policy));
    }
    if let Some(fault) = route.get("fault") {
        filters.set("envoy.filters.http.fault", fault_of(fault));
    }
    if !filters.is_empty() {
        out.set("typed_per_filter_config", filters);
    }
    headers(route.down(&["headers"]), &mut out);
    out
}

/// Changes to headers: `set` replaces, `add` appends.
fn headers(node: &Node, out: &mut Node) {
    for way in ["request", "response"] {
        let operations = node.down(&[way]);
        let mut add = Vec::new();
        for (key, action) in [("set", "OVERWRITE_IF_EXISTS_OR_ADD"), ("add", "APPEND_IF_EXISTS_OR_ADD")] {
            for (name, value) in operations.down(&[key]).entries() {
                add.push(value.map(vec![
                    ("header", value.map(vec![("key", value.scalar(name)), ("value", value.clone())])),
                    ("append_action", value.scalar(action)),
                ]));
            }
        }
        if !add.is_empty() {
            out.set(&format!("{way}_headers_to_add"), node.seq(add));
        }
        out.put(&format!("{way}_headers_to_remove"), operations.get("remove").cloned());
    }
}

fn forwarded(route: &Node, object: &ManifestObject, clusters: &mut Clusters<'_>) -> Node {
    let mut out = route.map(Vec::new());
    let mut parts = Vec::new();
    for part in route.list("route") {
        let cluster = clusters.of(part.down(&["destination"]), &object.namespace);
        let mut one = part.map(vec![("name", part.scalar(&cluster))]);
        let weight = part.get("weight").cloned();
        one.set(
            "weight",
            weight.unwrap_or_else(|| part.scalar(if route.list("route").len() == 1 { "1" } else { "0" })),
        );
        headers(part.down(&["headers"]), &mut one);
        parts.push(one);
    }
    match parts.as_slice() {
        [] => {}
        [only]
            if ["request", "response"].iter().all(|way| {
                only.get(&format!("{way}_headers_to_add")).is_none()
                    && only.get(&format!("{way}_headers_to_remove")).is_none()
            }) =>
        {
            out.put("cluster", only.get("name").cloned());
        }
        _ => out.set("weighted_clusters", route.map(vec![("clusters", route.seq(parts))])),
    }
    // Without `timeout` a route of Istio has no timeout.
    out.set(
        "timeout",
        route.get("timeout").cloned().map_or_else(|| route.scalar("0s"), |time| duration(&time)),
    );
    if let Some(rewrite) = route.get("rewrite") {
        out.put("host_rewrite_literal", rewrite.get("authority").cloned());
        out.put("prefix_rewrite", rewrite.get("uri").cloned());
        if let Some(regex) = rewrite.get("uri_regex_rewrite") {
            let pattern =
                regex.map(vec![("regex", regex.get("match").cloned().unwrap_or_else(|| regex.scalar("")))]);
            let mut node = regex.map(vec![("pattern", pattern)]);
            node.put("substitution", regex.get("rewrite").cloned());
            out.set("regex_rewrite", node);
        }
    }
    if let Some(retries) = route.get("retries") {
        out.set("retry_policy", retry(retries));
    }
    let mut mirrors = Vec::new();
    let older = route.get("mirror_percent").map(|share| share.map(vec![("value", share.clone())]));
    let share = route.get("mirror_percentage").cloned().or(older);
    let direct = route.get("mirror").map(|mirror| (mirror.clone(), share));
    let listed = route
        .list("mirrors")
        .iter()
        .filter_map(|mirror| Some((mirror.get("destination")?.clone(), mirror.get("percentage").cloned())));
    for (destination, share) in direct.into_iter().chain(listed) {
        let mut policy = destination
            .map(vec![("cluster", destination.scalar(&clusters.of(&destination, &object.namespace)))]);
        if let Some(share) = share {
            policy.set("runtime_fraction", share.map(vec![("default_value", percent(&share))]));
        }
        mirrors.push(policy);
    }
    if !mirrors.is_empty() {
        out.set("request_mirror_policies", route.seq(mirrors));
    }
    out
}

/// A percentage in Envoy's form, in parts of a million.
fn percent(node: &Node) -> Node {
    let share = node.number("value").unwrap_or(100.0);
    let millionths = (share * 10_000.0).round().clamp(0.0, 1_000_000.0) as u64;
    node.map(vec![
        ("numerator", node.scalar(&millionths.to_string())),
        ("denominator", node.scalar("MILLION")),
    ])
}

fn retry(node: &Node) -> Node {
    let mut out = node.map(Vec::new());
    let on = node
        .str("retry_on")
        .unwrap_or("connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes");
    let (codes, words): (Vec<&str>, Vec<&str>) =
        on.split(',').map(str::trim).partition(|word| word.bytes().all(|b| b.is_ascii_digit()));
    let mut words: Vec<&str> = words;
    let mut codes: Vec<&str> = codes;
    if codes.is_empty() && words.contains(&"retriable-status-codes") {
        codes.push("503");
    } else if !codes.is_empty() && !words.contains(&"retriable-status-codes") {
        words.push("retriable-status-codes");
    }
    out.set("retry_on", node.scalar(&words.join(",")));
    if !codes.is_empty() {
        out.set("retriable_status_codes", node.seq(codes.iter().map(|code| node.scalar(code)).collect()));
    }
    out.set("num_retries", node.get("attempts").cloned().unwrap_or_else(|| node.scalar("2")));
    out.put("per_try_timeout", node.get("per_try_timeout").map(duration));
    if let Some(base) = node.get("backoff") {
        out.set("retry_back_off", base.map(vec![("base_interval", duration(base))]));
    }
    out
}

fn fault_of(fault: &Node) -> Node {
    let mut out = fault.map(Vec::new());
    let share = |node: &Node| match (node.get("percentage"), node.number("percent")) {
        (Some(share), _) => percent(share),
        (None, Some(share)) => percent(&node.map(vec![("value", node.scalar(&share.to_string()))])),
        (None, None) => percent(node),
    };
    if let Some(delay) = fault.get("delay") {
        let mut node = delay.map(vec![("percentage", share(delay))]);
        node.put("fixed_delay", delay.get("fixed_delay").map(duration));
        out.set("delay", node);
    }
    if let Some(abort) = fault.get("abort") {
        let mut node = abort.map(vec![("percentage", share(abort))]);
        node.put("http_status", abort.get("http_status").cloned());
        out.set("abort", node);
    }
    out
}

fn cors(policy: &Node) -> Node {
    let mut out = policy.map(Vec::new());
    let mut origins: Vec<Node> = policy.list("allow_origins").iter().filter_map(string).collect();
    for origin in policy.list("allow_origin") {
        origins.push(origin.map(vec![("exact", origin.clone())]));
    }
    out.set("allow_origin_string_match", policy.seq(origins));
    for key in ["allow_methods", "allow_headers", "expose_headers"] {
        let all: Vec<&str> = policy.list(key).iter().filter_map(Node::text).collect();
        if !all.is_empty() {
            out.set(key, policy.scalar(&all.join(",")));
        }
    }
    if let Some(age) = policy.get("max_age") {
        let seconds = duration(age).text().unwrap_or_default().trim_end_matches('s').to_owned();
        out.set("max_age", age.scalar(&seconds));
    }
    out.put("allow_credentials", policy.get("allow_credentials").cloned());
    if policy.str("unmatched_preflights") == Some("IGNORE") {
        out.set("forward_not_matching_preflights", policy.scalar("false"));
    }
    out
}
