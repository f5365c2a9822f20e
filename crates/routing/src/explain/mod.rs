//! How a request would be routed, and why: `attache explain`.
//!
//! It checks the routes one by one in the order of precedence, and doesn't use the compiled table that serves requests.
//! The tests of the table prove that both agree.

use attache_authorization::Facts;
use attache_config::model::{
    Address, Credential, EndpointSource, Existing, Mirror, SubsetFallback, Upgrades, Upstream, UpstreamId,
    Web,
};
use attache_http::{Client, Permitted, Upgrade, without_parameters};
use attache_wire::{RequestHead, header::LOCATION};
use http::Method;
use serde::Serialize;

use crate::{
    Access, CompiledRoute, Ctx, Matched, RequestFacts, RouteTable, Step, UpstreamHost,
    access::{access, in_doubt},
    conditions::{destination_holds, sni_holds},
    host, path,
    precedence::{Alternative, alternatives},
    table::serves_tcp,
    words::{
        percent, show_admission, show_fault, show_host, show_path, show_range, show_retries, show_timeouts,
        show_unhealthy,
    },
};

/// How one request or connection passes a listener's routes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The request, in a line.
    pub request: String,
    /// The listener.
    pub listener: String,
    /// Its line in the file; 0 where it has none.
    pub listener_line: u32,
    /// The routes for this host in the order they were considered, the most specific first.
    pub candidates: Vec<Candidate>,
    /// The number of routes that are only for other hosts.
    pub other_hosts: usize,
    /// The results of the access rules of the listener and of the route.
    pub access: Vec<Access>,
    /// What happens; `None` is an answer with `no-route`.
    pub outcome: Option<Outcome>,
    /// Why no route takes it.
    pub no_route: Option<String>,
    /// Header changes of the answers that attache makes itself (`local_reply`).
    pub local_reply: Vec<String>,
}

/// One route that was considered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// Its name.
    pub route: String,
    /// Its line in the file.
    pub line: u32,
    /// Its result.
    pub verdict: Verdict,
    /// Why.
    pub why: String,
}

/// The result of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It doesn't match.
    NoMatch,
    /// It is taken.
    Wins,
    /// It matches too, but another is more specific.
    LessSpecific,
}

/// What the route does with the request.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// Its name.
    pub route: String,
    /// `forward to one of these`, `redirect …`, `answer …`.
    pub action: String,
    /// Where to, with the shares of a split.
    pub destinations: Vec<Share>,
    /// The faults that the route injects.
    pub fault: Option<String>,
    /// Upstreams that get a copy.
    pub mirrors: Vec<String>,
    /// The route's features for browsers.
    pub browsers: Vec<String>,
    /// Which endpoints may get it, if not all may, and what keeps it at one endpoint.
    pub endpoints: Vec<String>,
    /// Limits that apply before it is sent.
    pub limits: Vec<String>,
    /// The path and query that the upstream sees, if they are rewritten.
    pub path: Option<String>,
    /// Header changes to the request.
    pub request_headers: Vec<String>,
    /// Header changes to the response.
    pub response_headers: Vec<String>,
}

/// One destination of a split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Share {
    /// The upstream.
    pub upstream: String,
    /// Its line in the file.
    pub line: u32,
    /// Its share of the requests, 0 to 1.
    pub ratio: f64,
    /// The Host header (HTTP/2: `:authority`) that the upstream gets; empty for connections.
    pub host: String,
    /// Where that Host comes from, in words; empty for connections.
    pub host_is: &'static str,
    /// Deadlines in force; empty for connections.
    pub timeouts: String,
    /// Retries in force; empty for connections.
    pub retries: String,
    /// Adaptive concurrency and the queue, where they are on; empty for connections.
    pub admission: String,
    /// What happens to the connections to an endpoint that turns unhealthy; empty if none can.
    pub unhealthy: &'static str,
}

/// Explains a request that was checked and normalized. `upstreams` are those of the config.
pub fn explain(
    table: &RouteTable,
    request: &RequestHead,
    client: &Client,
    upstreams: &[Upstream],
) -> Explanation {
    let facts = RequestFacts::of(request, client);
    let path = without_parameters(facts.path, table.policy);
    let (candidates, other_hosts) = consider(
        table,
        |alternative| {
            alternative.host.is_none_or(|host| host::matches(host, facts.host.as_ref(), facts.port))
        },
        |alternative, route| {
            let pattern = table.model.get(alternative.route)?.matcher.path.as_ref();
            match pattern {
                Some(pattern) if !path::matches(pattern, &path) => {
                    Some(format!("the path is not {}", show_path(pattern)))
                }
                _ => route.conditions.failure(&facts),
            }
            .or_else(|| connection_failure(alternative, client))
        },
    );
    let matched = table.find_http(&facts);
    let web =
        matched.as_ref().and_then(|matched| table.model.get(matched.route.id.0)).map(|route| &route.web);
    let preflight = web.is_some_and(|web| is_preflight(web, request));
    let outcome = matched.map(|matched| outcome(table, &matched, request, client, &facts, upstreams));
    Explanation {
        no_route: outcome.is_none().then(|| table.no_route(request)),
        request: format!("{} {}", request.method, request.uri),
        listener: table.listener.to_string(),
        listener_line: table.listener_line,
        candidates,
        other_hosts,
        local_reply: Vec::new(),
        access: if preflight {
            Vec::new()
        } else {
            let route = table.find_http(&facts).map(|matched| matched.route);
            let facts = Facts::of_request(request, client);
            let mut all = access(table, route, &facts);
            if let Some(found) = route {
                let others = table.other_rules(request, client, found).into_iter();
                all.extend(others.filter_map(|other| in_doubt(table, found, other, &facts)));
            }
            all
        },
        outcome,
    }
}

/// What happens to a request on its route.
fn outcome(
    table: &RouteTable,
    matched: &Matched<'_>,
    request: &RequestHead,
    client: &Client,
    facts: &RequestFacts<'_>,
    upstreams: &[Upstream],
) -> Outcome {
    let route = matched.route;
    let mut outcome = describe(route, upstreams);
    let web = table.model.get(route.id.0).map(|route| &route.web);
    outcome.browsers = web.map(|web| browsers(web, request)).unwrap_or_default();
    if web.is_some_and(|web| is_preflight(web, request)) {
        let action = "answer the preflight with 200: access rules, limits and the upstream are for the request that follows it";
        return Outcome {
            route: outcome.route,
            browsers: outcome.browsers,
            action: action.into(),
            ..Outcome::default()
        };
    }
    if let Err(refusal) = upgrade(route, request, &mut outcome.limits) {
        return Outcome { route: outcome.route, action: refusal, ..Outcome::default() };
    }
    if route.body_size() > 0 {
        outcome.limits.push(format!("a request's body: {} bytes", route.body_size()));
    }
    let mut chosen = 0;
    if let Step::Forward(forward) = route.step()
        && let Some(by) = &forward.upstream_header
    {
        match route.choose_for(&request.headers, 0) {
            Ok((id, _)) => chosen = id.0,
            Err(why) => {
                let action = format!("refuse with no-upstream: {}", why.unwrap_or_default());
                return Outcome { route: outcome.route, action, ..Outcome::default() };
            }
        }
        outcome.action = format!("forward to the upstream that `{}` names", by.header);
        for (at, share) in outcome.destinations.iter_mut().enumerate() {
            share.ratio = if at == chosen { 1.0 } else { 0.0 };
        }
    }
    let first = match route.step() {
        Step::Forward(forward) => forward.to.get(chosen).and_then(|to| upstreams.get(to.upstream.0)),
        Step::Direct => None,
    };
    let hosts: Vec<UpstreamHost> = match route.step() {
        Step::Forward(forward) => {
            forward.to.iter().filter_map(|to| upstreams.get(to.upstream.0)).map(UpstreamHost::of).collect()
        }
        Step::Direct => Vec::new(),
    };
    let own = request.uri.authority().map_or("", |authority| authority.as_str());
    for (share, upstream) in outcome.destinations.iter_mut().zip(&hosts) {
        let tunnel = request.method == Method::CONNECT;
        let host = route.host(facts, upstream).filter(|_| !tunnel);
        host.unwrap_or(own).clone_into(&mut share.host);
        share.host_is = match host {
            Some(host) if host != own => "in place of the request's",
            _ => "as the request says it",
        };
    }
    let ctx = Ctx {
        client,
        captures: &matched.captures,
        upstream: first.map_or("", |upstream| &upstream.name),
        host: hosts.get(chosen).and_then(|upstream| route.host(facts, upstream)),
    };
    let (up, down) = route.edits(request, &ctx);
    outcome.request_headers = up.describe();
    outcome.response_headers = down.describe();
    if let Step::Forward(forward) = route.step() {
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
        if route.takes_connect() {
            outcome.action = "open a tunnel".into();
            outcome.request_headers.clear();
            outcome.response_headers.clear();
        } else {
            let action = "refuse with connect-denied: nothing asks for a tunnel here; `methods: CONNECT` on a route does";
            outcome = Outcome { route: outcome.route, action: action.into(), ..Outcome::default() };
        }
        return outcome;
    }
    let mut sent = request.clone();
    if let Err(refusal) = route.prepare_request(&mut sent, &ctx) {
        outcome.action = format!("refuse ({refusal})");
    } else if sent.uri.path_and_query() != request.uri.path_and_query() {
        outcome.path = sent.uri.path_and_query().map(ToString::to_string);
    }
    outcome
}

/// What happens to the request's `Upgrade`. The error says how it is refused.
fn upgrade(route: &CompiledRoute, request: &RequestHead, limits: &mut Vec<String>) -> Result<(), String> {
    if let Some(upgrade) = Upgrade::of(request) {
        match upgrade.permitted(route.upgrades()) {
            Permitted::Yes => {}
            Permitted::Ignored => limits.push("the upgrade is ignored (`upgrades: ignore`)".into()),
            Permitted::No => {
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
    let how = if credential.existing == Existing::Keep { "set where there is none" } else { "set" };
    format!("{how} {}: the secret in {}", credential.secret.header(), credential.secret.file().display())
}

/// Explains an opaque connection, or one whose TLS is passed through.
pub fn explain_tcp(table: &RouteTable, client: &Client, upstreams: &[Upstream]) -> Explanation {
    let (candidates, other_hosts) = consider(
        table,
        |_| true,
        |alternative, _| {
            if table.model.get(alternative.route).is_some_and(serves_tcp) {
                connection_failure(alternative, client)
                    .or_else(|| table.routes.get(alternative.route)?.conditions.identity_failure(client))
            } else {
                Some("it is for HTTP requests".into())
            }
        },
    );
    let outcome = match table.find_tcp(client) {
        Ok(route) => {
            let mut outcome = describe(route, upstreams);
            for share in &mut outcome.destinations {
                // Deadlines and retries of the policy apply only to requests.
                (share.timeouts, share.retries) = (String::new(), String::new());
                share.admission = String::new();
            }
            Some(outcome)
        }
        Err(why) => {
            let taken = candidates.iter().find(|candidate| candidate.verdict == Verdict::Wins);
            taken.map(|taken| Outcome {
                route: taken.route.clone(),
                action: format!("refuse with no-route: {why}"),
                ..Outcome::default()
            })
        }
    };
    let name = client.sni.as_deref().map_or_else(String::new, |sni| format!(" with server name {sni}"));
    let to = client.original_destination().map_or_else(String::new, |to| format!(" to {to}"));
    Explanation {
        no_route: None,
        request: format!("connection{to}{name}"),
        listener: table.listener.to_string(),
        listener_line: table.listener_line,
        candidates,
        other_hosts,
        local_reply: Vec::new(),
        access: access(table, table.find_tcp(client).ok(), &Facts::of_connection(client)),
        outcome,
    }
}

/// Every route whose host matches, in order, with its result.
fn consider(
    table: &RouteTable,
    host_fits: impl Fn(&Alternative<'_>) -> bool,
    failure: impl Fn(&Alternative<'_>, &CompiledRoute) -> Option<String>,
) -> (Vec<Candidate>, usize) {
    let all = alternatives(&table.model);
    // Each route is listed once, by the first of its alternatives that matches, otherwise by its first.
    let mut candidates: Vec<(usize, Candidate)> = Vec::new();
    let mut told: Vec<Option<Verdict>> = vec![None; table.routes.len()];
    let mut winner: Option<&Alternative<'_>> = None;
    for alternative in all.iter().filter(|alternative| host_fits(alternative)) {
        let index = alternative.route;
        let (Some(route), Some(told)) = (table.routes.get(index), told.get_mut(index)) else { continue };
        let (verdict, why) = match (failure(alternative, route), winner) {
            (Some(why), _) => (Verdict::NoMatch, why),
            (None, None) => {
                winner = Some(alternative);
                (Verdict::Wins, "the most specific that matches".to_owned())
            }
            (None, Some(winner)) => (Verdict::LessSpecific, winner.rank.beats(&alternative.rank)),
        };
        match *told {
            None => {}
            Some(Verdict::NoMatch) if verdict != Verdict::NoMatch => {
                candidates.retain(|(known, _)| *known != index);
            }
            Some(_) => continue,
        }
        *told = Some(verdict);
        candidates.push((index, Candidate { route: route.name.to_string(), line: route.line, verdict, why }));
    }
    let other_hosts = told.iter().filter(|told| told.is_none()).count();
    (candidates.into_iter().map(|(_, candidate)| candidate).collect(), other_hosts)
}

fn connection_failure(alternative: &Alternative<'_>, client: &Client) -> Option<String> {
    if let Some(sni) = alternative.sni
        && !sni_holds(sni, client)
    {
        return Some(format!("the TLS server name is not {}", show_host(sni)));
    }
    if let Some(range) = alternative.destination
        && !destination_holds(range, client)
    {
        return Some(format!("the original destination is not in {}", show_range(range)));
    }
    None
}

/// True for a preflight: a browser asks whether its page may send a request. attache answers it by itself, before
/// rules, limits and the upstream.
fn is_preflight(web: &Web, request: &RequestHead) -> bool {
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

fn describe(route: &CompiledRoute, upstreams: &[Upstream]) -> Outcome {
    let mut outcome = Outcome { route: route.name.to_string(), ..Outcome::default() };
    let Step::Forward(forward) = route.step() else { return outcome };
    outcome.action = "forward".into();
    let upstream = |id: UpstreamId| upstreams.get(id.0);
    let name =
        |id| upstream(id).map_or_else(|| format!("upstream {}", id.0), |upstream| upstream.name.to_string());
    let total: u64 = forward.to.iter().map(|to| u64::from(to.weight)).sum();
    outcome.destinations = forward
        .to
        .iter()
        .map(|to| Share {
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
