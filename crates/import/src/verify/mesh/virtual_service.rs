//! The result of a `VirtualService` for a request: the first matching rule decides
//! (<https://istio.io/latest/docs/reference/config/networking/virtual-service/>).

use crate::tree::Node;

use super::{DeliveredRequest, Expectation, MeshModel, MeshObject, ProbedRequest, matches};

/// `None` if no `VirtualService` is for the host.
pub(super) fn says(mesh: &MeshModel, request: &ProbedRequest<'_>, host: &str) -> Option<Expectation> {
    // The longest host wins; among equals the older object.
    let mut best: Option<(usize, &MeshObject)> = None;
    for object in mesh.objects.iter().filter(|object| object.kind == "VirtualService") {
        let gateways = object.spec().list("gateways");
        if !gateways.is_empty() && gateways.iter().all(|gateway| gateway.text() != Some("mesh")) {
            continue;
        }
        for pattern in object.spec().list("hosts").iter().filter_map(Node::text) {
            let length = named(mesh, object, pattern, host);
            if let Some(length) = length.filter(|length| best.is_none_or(|(longest, _)| *length > longest)) {
                best = Some((length, object));
            }
        }
    }
    let (_, object) = best?;
    if object.spec().get("http").is_none() {
        return Some(Expectation::Unknown("a VirtualService without rules of HTTP"));
    }
    for rule in object.spec().list("http") {
        match takes(rule, request) {
            Err(why) => return Some(Expectation::Unknown(why)),
            Ok(None) => {}
            Ok(Some(taken)) => return Some(done(rule, taken.uri.as_ref(), request, object, mesh)),
        }
    }
    Some(Expectation::Answered { status: 404, location: None, body: None })
}

/// The length of the part of the host that a pattern fixes. `None` if it doesn't match the host.
fn named(mesh: &MeshModel, object: &MeshObject, pattern: &str, host: &str) -> Option<usize> {
    let whole = if pattern.contains(['.', '*']) {
        mesh.full(pattern)
    } else {
        format!("{pattern}.{}.svc.cluster.local", object.namespace)
    };
    match whole.strip_prefix('*') {
        Some(rest) => host.ends_with(rest).then_some(rest.len()),
        None => (whole == host).then_some(whole.len() + 1),
    }
}

/// A match of a rule that fits the request.
struct FittingMatch {
    /// Its condition on the path, if it has one.
    uri: Option<Node>,
}

/// The first match of a rule that fits the request.
fn takes(rule: &Node, request: &ProbedRequest<'_>) -> Result<Option<FittingMatch>, &'static str> {
    if rule.list("match").is_empty() {
        return Ok(Some(FittingMatch { uri: None }));
    }
    for one in rule.list("match") {
        for key in ["source_labels", "source_namespace", "gateways", "port"] {
            if one.get(key).is_some() {
                return Err("conditions on callers, gateways or ports");
            }
        }
        let ignoring = one.is("ignore_uri_case");
        let path = one.get("uri").is_none_or(|uri| matches(uri, request.path, ignoring));
        let method = one.get("method").is_none_or(|method| matches(method, &request.probe.method, false));
        let authority = one.get("authority").is_none_or(|host| matches(host, &request.probe.host, false));
        let scheme = one.get("scheme").is_none_or(|scheme| matches(scheme, "http", false));
        let header = |(name, matcher): &(String, Node)| {
            request.header(name).is_some_and(|value| matcher.is_empty() || matches(matcher, value, false))
        };
        let headers = one.down(&["headers"]).entries().iter().all(header);
        let without = !one.down(&["without_headers"]).entries().iter().any(header);
        let query =
            one.down(&["query_params"]).entries().iter().all(|(name, matcher)| {
                request.query(name).is_some_and(|value| matches(matcher, value, false))
            });
        if path && method && authority && scheme && headers && without && query {
            return Ok(Some(FittingMatch { uri: one.get("uri").cloned() }));
        }
    }
    Ok(None)
}

fn done(
    rule: &Node,
    uri: Option<&Node>,
    request: &ProbedRequest<'_>,
    object: &MeshObject,
    mesh: &MeshModel,
) -> Expectation {
    if rule.get("delegate").is_some() {
        return Expectation::Unknown("delegates");
    }
    if rule.get("cors_policy").is_some() && request.header("origin").is_some() {
        return Expectation::Unknown("requests of pages on a rule with CORS");
    }
    let abort = rule.down(&["fault", "abort"]);
    if !abort.is_empty() {
        let share = abort.down(&["percentage"]).number("value").unwrap_or(0.0);
        return match abort.number("http_status").filter(|_| share >= 100.0) {
            Some(status) => Expectation::Answered { status: status as u16, location: None, body: None },
            None => Expectation::Unknown("faults for a share of the requests"),
        };
    }
    if let Some(redirect) = rule.get("redirect") {
        let path =
            redirect.str("uri").map_or_else(|| request.target(request.path), |path| request.target(path));
        let code = redirect.number("redirect_code").unwrap_or(301.0) as u16;
        let scheme = redirect.str("scheme").unwrap_or("http");
        let host = redirect.str("authority").unwrap_or(&request.probe.host);
        let location = (redirect.get("port").is_none() && redirect.get("derive_port").is_none())
            .then(|| format!("{scheme}://{host}{path}"));
        return Expectation::Answered { status: code, location, body: None };
    }
    if let Some(direct) = rule.get("direct_response") {
        let status = direct.number("status").unwrap_or(200.0) as u16;
        let body = direct.down(&["body"]).str("string").map(ToOwned::to_owned);
        return Expectation::Answered { status, location: None, body };
    }
    sent(rule, uri, request, object, mesh)
}

fn sent(
    rule: &Node,
    uri: Option<&Node>,
    request: &ProbedRequest<'_>,
    object: &MeshObject,
    mesh: &MeshModel,
) -> Expectation {
    let mut out = DeliveredRequest { target: request.probe.target.clone(), ..DeliveredRequest::default() };
    let rewrite = rule.down(&["rewrite"]);
    if rewrite.get("uri_regex_rewrite").is_some() {
        return Expectation::Unknown("rewrites by a regular expression");
    }
    if let Some(to) = rewrite.str("uri") {
        // The part that matched is replaced: a prefix, or else the whole path.
        let rest = match uri.and_then(|uri| uri.str("prefix")) {
            Some(prefix) => request.path.get(prefix.len()..).unwrap_or_default(),
            None if uri.is_none() => request.path.get(1..).unwrap_or_default(),
            None => "",
        };
        out.target = request.target(&format!("{to}{rest}"));
    }
    out.host = rewrite.str("authority").map(ToOwned::to_owned);
    headers(rule.down(&["headers", "request"]), &mut out);
    let parts: Vec<&Node> = rule.list("route").iter().collect();
    let alone = parts.len() == 1;
    for part in parts {
        if !alone && part.number("weight").unwrap_or(0.0) <= 0.0 {
            continue;
        }
        if part.get("headers").is_some() && !alone {
            return Expectation::Unknown("headers of one of several destinations");
        }
        headers(part.down(&["headers", "request"]), &mut out);
        let destination = part.down(&["destination"]);
        let host = destination.str("host").unwrap_or_default();
        let whole = if host.contains('.') {
            mesh.full(host)
        } else {
            format!("{host}.{}.svc.cluster.local", object.namespace)
        };
        let short = whole.strip_suffix(".svc.cluster.local").unwrap_or(&whole);
        out.services.push(match destination.str("subset") {
            Some(subset) => format!("{short}-{subset}"),
            None => short.to_owned(),
        });
    }
    Expectation::DeliveredRequest(out)
}

fn headers(edits: &Node, out: &mut DeliveredRequest) {
    if let Some(host) =
        edits.down(&["set"]).entries().iter().find(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        out.host = host.1.text().map(ToOwned::to_owned);
    }
    for (name, value) in edits.down(&["set"]).entries() {
        // Istio's variables have another syntax.
        if let Some(value) =
            value.text().filter(|value| !value.contains('%') && !name.eq_ignore_ascii_case("host"))
        {
            out.headers.push((name.clone(), Some(value.to_owned())));
        }
    }
    out.headers
        .extend(edits.list("remove").iter().filter_map(Node::text).map(|name| (name.to_owned(), None)));
}
