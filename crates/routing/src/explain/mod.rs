//! How a request would be routed, and why: `attache explain`.
//!
//! It checks the routes one by one in the order of precedence, and doesn't use the compiled table that serves requests.
//! The tests of the table prove that both agree.

mod outcome;

use attache_authorization::Facts;
use attache_config::model::Upstream;
use attache_http::{Client, without_parameters};
use attache_wire::RequestHead;
use serde::Serialize;

use crate::{
    AccessExplanation, CompiledRoute, RequestFacts, RouteTable,
    access::{access, in_doubt},
    conditions::{destination_holds, sni_holds},
    host, path,
    precedence::{Alternative, alternatives},
    table::serves_tcp,
    words::{show_host, show_path, show_range},
};
use outcome::{describe, is_preflight, outcome};

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
    pub candidates: Vec<ConsideredRoute>,
    /// The number of routes that are only for other hosts.
    pub other_hosts: usize,
    /// The results of the access rules of the listener and of the route.
    pub access: Vec<AccessExplanation>,
    /// What happens; `None` is an answer with `no-route`.
    pub outcome: Option<RouteOutcome>,
    /// Why no route takes it.
    pub no_route: Option<String>,
    /// Header changes of the answers that attache makes itself (`local_reply`).
    pub local_reply: Vec<String>,
}

/// One route that was considered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConsideredRoute {
    /// Its name.
    pub route: String,
    /// Its line in the file.
    pub line: u32,
    /// Its result.
    pub verdict: RouteVerdict,
    /// Why.
    pub why: String,
}

/// The result of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteVerdict {
    /// It doesn't match.
    NoMatch,
    /// It is taken.
    Wins,
    /// It matches too, but another is more specific.
    LessSpecific,
}

/// What the route does with the request.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RouteOutcome {
    /// Its name.
    pub route: String,
    /// `forward to one of these`, `redirect …`, `answer …`.
    pub action: String,
    /// Where to, with the shares of a split.
    pub destinations: Vec<DestinationShare>,
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
pub struct DestinationShare {
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
    let outcome = matched.as_ref().map(|matched| outcome(table, matched, request, client, &facts, upstreams));
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
            let route = matched.map(|matched| matched.route);
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
            let taken = candidates.iter().find(|candidate| candidate.verdict == RouteVerdict::Wins);
            taken.map(|taken| RouteOutcome {
                route: taken.route.clone(),
                action: format!("refuse with no-route: {why}"),
                ..RouteOutcome::default()
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
) -> (Vec<ConsideredRoute>, usize) {
    let all = alternatives(&table.model);
    // Each route is listed once, by the first of its alternatives that matches, otherwise by its first.
    let mut candidates: Vec<(usize, ConsideredRoute)> = Vec::new();
    let mut told: Vec<Option<RouteVerdict>> = vec![None; table.routes.len()];
    let mut winner: Option<&Alternative<'_>> = None;
    for alternative in all.iter().filter(|alternative| host_fits(alternative)) {
        let index = alternative.route;
        let (Some(route), Some(told)) = (table.routes.get(index), told.get_mut(index)) else { continue };
        let (verdict, why) = match (failure(alternative, route), winner) {
            (Some(why), _) => (RouteVerdict::NoMatch, why),
            (None, None) => {
                winner = Some(alternative);
                (RouteVerdict::Wins, "the most specific that matches".to_owned())
            }
            (None, Some(winner)) => (RouteVerdict::LessSpecific, winner.rank.beats(&alternative.rank)),
        };
        match *told {
            None => {}
            Some(RouteVerdict::NoMatch) if verdict != RouteVerdict::NoMatch => {
                candidates.retain(|(known, _)| *known != index);
            }
            Some(_) => continue,
        }
        *told = Some(verdict);
        candidates
            .push((index, ConsideredRoute { route: route.name.to_string(), line: route.line, verdict, why }));
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
