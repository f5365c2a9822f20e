//! What happens to a request on its route: where it goes, what it is sent with, or how it is answered.

use attache_config::model::{
    Address, Credential, EndpointSource, ExistingHeader, Mirror, SubsetFallback, Upgrades, Upstream,
    UpstreamId, Web,
};
use attache_http::{Client, Upgrade, UpgradeDecision};
use attache_wire::{RequestHead, header::LOCATION};
use http::Method;

use super::{DestinationShare, RouteOutcome};
use crate::{
    CompiledRoute, MatchedRoute, RequestFacts, RouteAction, RouteTable, TemplateContext, UpstreamHost,
    words::{percent, show_admission, show_fault, show_retries, show_timeouts, show_unhealthy},
};

/// What happens to a request on its route.
pub(super) fn outcome(
    table: &RouteTable,
    matched: &MatchedRoute<'_>,
    request: &RequestHead,
    client: &Client,
    facts: &RequestFacts<'_>,
    upstreams: &[Upstream],
) -> RouteOutcome {
    let route = matched.route;
    let mut outcome = describe(route, upstreams);
    let web = table.model.get(route.id.0).map(|route| &route.web);
    outcome.browsers = web.map(|web| browsers(web, request)).unwrap_or_default();
    if web.is_some_and(|web| is_preflight(web, request)) {
        let action = "answer the preflight with 200: access rules, limits and the upstream are for the request that follows it";
        return RouteOutcome {
            route: outcome.route,
            browsers: outcome.browsers,
            action: action.into(),
            ..RouteOutcome::default()
        };
    }
    if let Err(refusal) = upgrade(route, request, &mut outcome.limits) {
        return RouteOutcome { route: outcome.route, action: refusal, ..RouteOutcome::default() };
    }
    if route.body_size() > 0 {
        outcome.limits.push(format!("a request's body: {} bytes", route.body_size()));
    }
    let chosen = match choose(route, request, &mut outcome) {
        Ok(chosen) => chosen,
        Err(action) => return RouteOutcome { route: outcome.route, action, ..RouteOutcome::default() },
    };
    let first = match route.step() {
        RouteAction::Forward(forward) => forward.to.get(chosen).and_then(|to| upstreams.get(to.upstream.0)),
        RouteAction::Direct => None,
    };
    let hosts: Vec<UpstreamHost> = match route.step() {
        RouteAction::Forward(forward) => {
            forward.to.iter().filter_map(|to| upstreams.get(to.upstream.0)).map(UpstreamHost::of).collect()
        }
        RouteAction::Direct => Vec::new(),
    };
    show_hosts(route, request, facts, &hosts, &mut outcome.destinations);
    let ctx = TemplateContext {
        client,
        captures: &matched.captures,
        upstream: first.map_or("", |upstream| &upstream.name),
        host: hosts.get(chosen).and_then(|upstream| route.host(facts, upstream)),
    };
    let (up, down) = route.edits(request, &ctx);
    outcome.request_headers = up.describe();
    outcome.response_headers = down.describe();
    if let RouteAction::Forward(forward) = route.step() {
        let given = forward.to.get(chosen).and_then(|to| to.policy.credential.as_deref());
        outcome.request_headers.extend(given.map(secret));
    }
    if let Some(response) = route.respond(request, &ctx) {
        outcome.request_headers.clear();
        let status = response.status();
        outcome.action = match response.headers().get(LOCATION) {
            Some(location) => format!("redirect with {status} to {}", location.as_bytes().escape_ascii()),
            None => format!("answer with {status}"),
        };
        return outcome;
    }
    if request.method == Method::CONNECT && request.protocol.is_none() {
        return tunnel(route, outcome);
    }
    let mut sent = request.clone();
    if let Err(refusal) = route.prepare_request(&mut sent, &ctx) {
        outcome.action = format!("refuse ({refusal})");
    } else if sent.uri.path_and_query() != request.uri.path_and_query() {
        outcome.path = sent.uri.path_and_query().map(ToString::to_string);
    }
    outcome
}

/// The destination that a header of the request names, else the first. An error is how the request is refused.
fn choose(route: &CompiledRoute, request: &RequestHead, outcome: &mut RouteOutcome) -> Result<usize, String> {
    let RouteAction::Forward(forward) = route.step() else { return Ok(0) };
    let Some(by) = &forward.upstream_header else { return Ok(0) };
    let chosen = match route.choose_for(&request.headers, 0) {
        Ok((id, _)) => id.0,
        Err(why) => return Err(format!("refuse with no-upstream: {}", why.unwrap_or_default())),
    };
    outcome.action = format!("forward to the upstream that `{}` names", by.header);
    for (at, share) in outcome.destinations.iter_mut().enumerate() {
        share.ratio = if at == chosen { 1.0 } else { 0.0 };
    }
    Ok(chosen)
}

/// The `Host` that each destination gets.
fn show_hosts(
    route: &CompiledRoute,
    request: &RequestHead,
    facts: &RequestFacts<'_>,
    hosts: &[UpstreamHost],
    destinations: &mut [DestinationShare],
) {
    let own = request.uri.authority().map_or("", |authority| authority.as_str());
    for (share, upstream) in destinations.iter_mut().zip(hosts) {
        let tunnel = request.method == Method::CONNECT;
        let host = route.host(facts, upstream).filter(|_| !tunnel);
        host.unwrap_or(own).clone_into(&mut share.host);
        share.host_is = match host {
            Some(host) if host != own => "in place of the request's",
            _ => "as the request says it",
        };
    }
}

/// What becomes of a CONNECT.
fn tunnel(route: &CompiledRoute, mut outcome: RouteOutcome) -> RouteOutcome {
    if route.takes_connect() {
        outcome.action = "open a tunnel".into();
        outcome.request_headers.clear();
        outcome.response_headers.clear();
    } else {
        let action =
            "refuse with connect-denied: nothing asks for a tunnel here; `methods: CONNECT` on a route does";
        outcome = RouteOutcome { route: outcome.route, action: action.into(), ..RouteOutcome::default() };
    }
    outcome
}

/// What happens to the request's `Upgrade`. The error says how it is refused.
fn upgrade(route: &CompiledRoute, request: &RequestHead, limits: &mut Vec<String>) -> Result<(), String> {
    if let Some(upgrade) = Upgrade::of(request) {
        match upgrade.permitted(route.upgrades()) {
            UpgradeDecision::Yes => {}
            UpgradeDecision::Ignored => limits.push("the upgrade is ignored (`upgrades: ignore`)".into()),
            UpgradeDecision::No => {
                return Err(format!("refuse with upgrade-denied: `upgrades` allows {}", route.upgrades()));
            }
        }
    } else if *route.upgrades() != Upgrades::Any {
        limits.push(format!("upgrades: {}", route.upgrades()));
    }
    Ok(())
}

/// Describes a secret by its file, and never shows the secret.
fn secret(credential: &Credential) -> String {
    let how = if credential.existing == ExistingHeader::Keep { "set where there is none" } else { "set" };
    format!("{how} {}: the secret in {}", credential.secret.header(), credential.secret.file().display())
}

/// True for a preflight: a browser asks whether its page may send a request. attache answers it by itself, before
/// rules, limits and the upstream.
pub(super) fn is_preflight(web: &Web, request: &RequestHead) -> bool {
    let has = |name| request.headers.contains_key(name);
    web.cors.is_some()
        && request.method == Method::OPTIONS
        && has(http::header::ORIGIN)
        && has(http::header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The route's features for browsers.
fn browsers(web: &Web, request: &RequestHead) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(cors) = &web.cors {
        let origins: Vec<String> = cors.origins.iter().map(ToString::to_string).collect();
        let of = request.headers.get(http::header::ORIGIN).and_then(|origin| origin.to_str().ok());
        let fares = match of {
            None => "",
            Some(origin) if cors.origins.iter().any(|it| it.matches(origin)) => "; this one is",
            Some(_) => "; this one isn't",
        };
        lines.push(format!("pages of {} may read the answer{fares}", origins.join(", ")));
    }
    if web.grpc_web {
        lines.push("gRPC-Web becomes gRPC".to_owned());
    }
    if let Some(compression) = &web.compression {
        let codings: Vec<&str> = compression.codings.iter().map(|coding| coding.as_str()).collect();
        lines.push(format!("answers may be compressed: {}", codings.join(", ")));
    }
    lines
}

/// The addresses that the config gives an upstream.
fn sources(upstream: &Upstream) -> &[EndpointSource] {
    match &upstream.address {
        Address::Endpoints(sources) => sources,
        Address::Authority { .. } | Address::OriginalDestination => &[],
    }
}

pub(super) fn describe(route: &CompiledRoute, upstreams: &[Upstream]) -> RouteOutcome {
    let mut outcome = RouteOutcome { route: route.name.to_string(), ..RouteOutcome::default() };
    let RouteAction::Forward(forward) = route.step() else { return outcome };
    outcome.action = "forward".into();
    let upstream = |id: UpstreamId| upstreams.get(id.0);
    let name =
        |id| upstream(id).map_or_else(|| format!("upstream {}", id.0), |upstream| upstream.name.to_string());
    let total: u64 = forward.to.iter().map(|to| u64::from(to.weight)).sum();
    outcome.destinations = forward
        .to
        .iter()
        .map(|to| DestinationShare {
            upstream: name(to.upstream),
            line: upstream(to.upstream).map_or(0, |upstream| upstream.line),
            host: String::new(),
            host_is: "",
            ratio: f64::from(to.weight) / (total.max(1) as f64),
            timeouts: show_timeouts(&to.policy),
            retries: show_retries(&to.policy.retry),
            admission: upstream(to.upstream).map(show_admission).unwrap_or_default(),
            unhealthy: upstream(to.upstream).map(show_unhealthy).unwrap_or_default(),
        })
        .collect();
    let subset = forward.subset.iter().map(|subset| {
        let otherwise =
            if subset.fallback == SubsetFallback::Any { "any endpoint" } else { "503 empty-subset" };
        let fits = |source: &&EndpointSource| subset.holds(&source.labels);
        let sources = forward.to.iter().filter_map(|to| upstream(to.upstream)).flat_map(sources);
        let fitting: Vec<_> = sources.filter(fits).map(|source| source.target.to_string()).collect();
        format!(
            "only endpoints with {subset}: those of {}; if there are none, {otherwise}",
            fitting.join(", ")
        )
    });
    let session = forward.session_cookie.iter().map(|cookie| {
        let otherwise = if cookie.strict { "503 no-healthy-endpoint" } else { "another one" };
        format!("the endpoint that the cookie `{}` names; if it can't serve, {otherwise}", cookie.name)
    });
    outcome.endpoints = subset.chain(session).collect();
    outcome.fault = forward.fault.as_ref().map(show_fault);
    let mirror = |mirror: &Mirror| format!("{} ({})", name(mirror.upstream), percent(mirror.ratio));
    let local = forward
        .rate_limit
        .iter()
        .map(|limit| format!("{} in {:?}, at most {} at once", limit.requests, limit.per, limit.burst));
    let global = forward.global_rate_limit.iter().map(|limit| {
        format!("as {} says for `{}` within {:?}", name(limit.service), limit.domain, limit.timeout)
    });
    outcome.limits = local.chain(global).collect();
    outcome.mirrors = forward.mirrors.iter().map(mirror).collect();
    outcome
}
