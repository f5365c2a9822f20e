//! The result of the `HTTPRoute`s of a Service for a request: the most specific match decides
//! (<https://gateway-api.sigs.k8s.io/reference/spec/#httprouterule>).

use crate::tree::Node;

use super::{DeliveredRequest, Expectation, MeshModel, MeshObject, ProbedRequest, whole};

/// How specific a match is: the match with the largest value gets the request.
type Specificity = (u8, usize, bool, usize, usize);

/// `None` if no route is for the host.
pub(super) fn says(mesh: &MeshModel, request: &ProbedRequest<'_>, host: &str) -> Option<Expectation> {
    let routes: Vec<&MeshObject> = mesh
        .objects
        .iter()
        .filter(|object| matches!(object.kind.as_str(), "HTTPRoute" | "GRPCRoute") && is_for(object, host))
        .collect();
    if routes.is_empty() {
        return None;
    }
    if routes.iter().any(|route| route.kind == "GRPCRoute") {
        return Some(Expectation::Unknown("routes of gRPC"));
    }
    let mut best: Option<(Specificity, String, &Node, Option<Node>, &MeshObject)> = None;
    for route in routes {
        let age = route.node.down(&["metadata"]).str("creation_timestamp").unwrap_or("9999");
        let tie = format!("{age} {}/{}", route.namespace, route.name);
        for rule in route.spec().list("rules") {
            let everything = rule.map(Vec::new());
            let all = rule.list("matches");
            let all = if all.is_empty() { std::slice::from_ref(&everything) } else { all };
            for one in all {
                let Some(specific) = takes(one, request) else { continue };
                let better = best
                    .as_ref()
                    .is_none_or(|(known, other, ..)| specific > *known || specific == *known && tie < *other);
                if better {
                    best = Some((specific, tie.clone(), rule, one.get("path").cloned(), route));
                }
            }
        }
    }
    let Some((_, _, rule, path, route)) = best else {
        return Some(Expectation::Answered { status: 404, location: None, body: None });
    };
    Some(done(rule, path.as_ref(), request, route))
}

fn is_for(object: &MeshObject, host: &str) -> bool {
    object.spec().list("parent_refs").iter().any(|parent| {
        let namespace = parent.str("namespace").unwrap_or(&object.namespace);
        parent.str("kind") == Some("Service")
            && format!("{}.{namespace}.svc.cluster.local", parent.str("name").unwrap_or_default()) == host
    })
}

fn takes(one: &Node, request: &ProbedRequest<'_>) -> Option<Specificity> {
    let path = one.down(&["path"]);
    let value = path.str("value").unwrap_or("/");
    let (kind, length) = match path.str("type").unwrap_or("PathPrefix") {
        "Exact" => (request.path == value).then_some((2, value.len()))?,
        "RegularExpression" => whole(value, request.path).then_some((0, 0))?,
        _ => {
            // Segments: `/a` matches `/a` and `/a/b`, not `/ab`.
            let bare = value.trim_end_matches('/');
            let rest = request.path.strip_prefix(bare)?;
            (rest.is_empty() || rest.starts_with('/')).then_some((1, value.len()))?
        }
    };
    if one.str("method").is_some_and(|method| method != request.probe.method) {
        return None;
    }
    let fits = |matcher: &Node, value: Option<&str>| {
        let wanted = matcher.get("value").and_then(Node::text).unwrap_or_default();
        value.is_some_and(|value| match matcher.str("type") {
            Some("RegularExpression") => whole(wanted, value),
            _ => wanted == value,
        })
    };
    let name = |matcher: &Node| matcher.str("name").unwrap_or_default().to_owned();
    let headers = one.list("headers");
    let query = one.list("query_params");
    (headers.iter().all(|matcher| fits(matcher, request.header(&name(matcher))))
        && query.iter().all(|matcher| fits(matcher, request.query(&name(matcher)))))
    .then_some((kind, length, one.get("method").is_some(), headers.len(), query.len()))
}

fn done(rule: &Node, path: Option<&Node>, request: &ProbedRequest<'_>, object: &MeshObject) -> Expectation {
    let mut out = DeliveredRequest { target: request.probe.target.clone(), ..DeliveredRequest::default() };
    for filter in rule.list("filters") {
        match filter.str("type").unwrap_or_default() {
            "RequestHeaderModifier" => {
                let edits = filter.down(&["request_header_modifier"]);
                let pair =
                    |one: &Node| Some((one.str("name")?.to_owned(), one.str("value").map(ToOwned::to_owned)));
                out.headers.extend(edits.list("set").iter().filter_map(pair));
                let removed = edits.list("remove").iter().filter_map(Node::text);
                out.headers.extend(removed.map(|name| (name.to_owned(), None)));
            }
            "ResponseHeaderModifier" | "RequestMirror" => {}
            "URLRewrite" => {
                let to = filter.down(&["url_rewrite"]);
                out.host = to.str("hostname").map(ToOwned::to_owned);
                if let Some(new) = to.down(&["path"]).str("replace_full_path") {
                    out.target = request.target(new);
                } else if let Some(new) = to.down(&["path"]).str("replace_prefix_match") {
                    let prefix = path.and_then(|path| path.str("value")).unwrap_or("/").trim_end_matches('/');
                    let rest = request.path.strip_prefix(prefix).unwrap_or_default();
                    let joined = format!("{}{rest}", new.trim_end_matches('/'));
                    out.target = request.target(if joined.is_empty() { "/" } else { &joined });
                }
            }
            "RequestRedirect" => {
                let to = filter.down(&["request_redirect"]);
                let status = to.number("status_code").unwrap_or(302.0) as u16;
                let plain = to.get("port").is_none() && to.get("path").is_none();
                let location = plain.then(|| {
                    let scheme = to.str("scheme").unwrap_or("http");
                    let host = to.str("hostname").unwrap_or(&request.probe.host);
                    format!("{scheme}://{host}{}", request.probe.target)
                });
                return Expectation::Answered { status, location, body: None };
            }
            _ => return Expectation::Unknown("filters that are not in the core of the Gateway API"),
        }
    }
    let weighty = |backend: &&Node| backend.number("weight").unwrap_or(1.0) > 0.0;
    for backend in rule.list("backend_refs").iter().filter(weighty) {
        if backend.str("kind").is_some_and(|kind| kind != "Service") {
            return Expectation::Unknown("backends that are not Services");
        }
        let namespace = backend.str("namespace").unwrap_or(&object.namespace);
        out.services.push(format!("{}.{namespace}", backend.str("name").unwrap_or_default()));
    }
    if out.services.is_empty() {
        return Expectation::Answered { status: 500, location: None, body: None };
    }
    Expectation::DeliveredRequest(out)
}
