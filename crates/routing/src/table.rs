//! All routes of one listener, compiled so that finding one takes the same time with five routes as with five thousand.
//!
//! Host first, then path, then the other conditions: two hash look-ups and a walk along a trie for the usual request.
//! If the most specific host has no matching route, the next one is tried: a route is independent, and not a part of a
//! virtual host (docs/routing.md says why). A look-up allocates only the captures of a route that uses them.

use std::{collections::HashMap, net::IpAddr};

use attache_authorization::AccessPolicy;
use attache_config::model::{
    Action, AddressMatch, HostName, HostPattern, Listener, Name, PathPolicy, Route, Traffic,
};
use attache_http::{AcceptedTraffic, CanonicalHost, Client, without_parameters};
use attache_wire::RequestHead;

use crate::{
    Captures, CompiledRoute, RequestFacts,
    conditions::{destination_holds, network, sni_holds, target_port},
    host::HostIndex,
    named::KnownHosts,
    path::PathIndex,
    precedence::{Alternative, alternatives},
    required_by_rules::RequiredByRules,
    route::RouteId,
};

/// The routes of one listener.
#[derive(Debug)]
pub struct RouteTable {
    pub(crate) listener: Name,
    pub(crate) listener_line: u32,
    pub(crate) model: Vec<Route>,
    pub(crate) routes: Vec<CompiledRoute>,
    pub(crate) http: HostIndex<PathIndex<TcpCandidate>>,
    tcp: HostIndex<DestinationIndex>,
    tcp_without_name: DestinationIndex,
    pub(crate) policy: PathPolicy,
    /// The listener's access rules.
    pub(crate) authorization: Option<AccessPolicy>,
    /// `None` if no route has more or other rules.
    pub(crate) asked_of_rules: Option<RequiredByRules>,
    /// The listener terminates TLS: TLS that is passed through takes only routes that say so.
    terminates: bool,
    /// For each route to `original-destination`, the routes that opaque bytes on it could bypass.
    guards: Vec<Vec<usize>>,
    hosts: KnownHosts,
    server_names: KnownHosts,
}

/// The route that was found for a request.
#[derive(Debug)]
pub struct MatchedRoute<'t> {
    /// The route.
    pub route: &'t CompiledRoute,
    /// The captures of its path pattern; empty if the route doesn't use captures.
    pub captures: Captures,
}

#[derive(Debug)]
pub(crate) struct TcpCandidate {
    pub(crate) route: usize,
    sni: Option<HostPattern>,
    destination: Option<AddressMatch>,
}

impl TcpCandidate {
    pub(crate) fn holds(&self, client: &Client) -> bool {
        self.sni.as_ref().is_none_or(|sni| sni_holds(sni, client))
            && self.destination.as_ref().is_none_or(|range| destination_holds(range, client))
    }
}

impl RouteTable {
    /// Compiles the routes of a listener.
    pub fn new(listener: &Listener) -> Self {
        let mut table = Self {
            listener: listener.name.clone(),
            listener_line: listener.line,
            model: listener.routes.clone(),
            routes: listener
                .routes
                .iter()
                .enumerate()
                .map(|(at, route)| CompiledRoute::new(RouteId(at), route, listener))
                .collect(),
            http: HostIndex::default(),
            tcp: HostIndex::default(),
            tcp_without_name: DestinationIndex::default(),
            policy: listener.http.path,
            authorization: listener.authorization.as_deref().map(AccessPolicy::new),
            asked_of_rules: None,
            terminates: listener.tls.is_some(),
            guards: Vec::new(),
            hosts: KnownHosts::by(&listener.routes, |route| &route.matcher.hosts),
            server_names: KnownHosts::by(&listener.routes, |route| &route.matcher.sni),
        };
        let has_route_rules = listener.routes.iter().any(|route| route.authorization.is_some());
        table.asked_of_rules = has_route_rules.then(|| RequiredByRules::new(&table.routes));
        // Only for routes that need it: each list may be as long as the list of routes.
        let is_original = |route: &CompiledRoute| route.traffic() == Traffic::Original;
        let guarded = table.routes.iter().zip(&listener.routes);
        let guarded = guarded.map(|(compiled, route)| is_original(compiled).then(|| guards(route, listener)));
        table.guards = guarded.map(Option::unwrap_or_default).collect();
        let any = HostPattern { name: HostName::Any, port: None };
        for alternative in alternatives(&listener.routes) {
            let Alternative { route: index, host, sni, destination, .. } = alternative;
            let Some(route) = listener.routes.get(index) else { continue };
            let candidate =
                TcpCandidate { route: index, sni: sni.cloned(), destination: destination.copied() };
            if !passes_through(route) {
                table.http.entry(host.unwrap_or(&any)).insert(route.matcher.path.as_ref(), candidate);
            }
            if serves_tcp(route) {
                let destinations = match sni {
                    Some(sni) => table.tcp.entry(sni),
                    None => &mut table.tcp_without_name,
                };
                destinations.insert(destination, index);
            }
        }
        table
    }

    /// The listener's access rules, which apply in addition to each route's.
    pub const fn authorization(&self) -> Option<&AccessPolicy> {
        self.authorization.as_ref()
    }

    /// The most specific route that matches a request.
    pub fn find_http(&self, request: &RequestFacts<'_>) -> Option<MatchedRoute<'_>> {
        let path = without_parameters(request.path, self.policy);
        let route = self.http.find(request.host.as_ref(), request.port, |paths| {
            paths.find(&path, |candidate| {
                let route = self.routes.get(candidate.route)?;
                let client = request.client;
                (route.conditions.hold(request) && candidate.holds(client)).then_some(route)
            })
        })?;
        Some(MatchedRoute { route, captures: route.capture(&path) })
    }

    /// The most specific route that matches an opaque connection, or one whose TLS is passed through: by server name
    /// and original destination, and, if TLS was terminated, by the client's identity. Routes with a condition about
    /// HTTP, and those that don't forward, are not for connections.
    ///
    /// # Errors Why no route takes these bytes, as a sentence. The most specific route decides: if its upstreams aren't
    /// for opaque bytes ([`Traffic`]), no other route is tried.
    pub fn find_tcp(&self, client: &Client) -> Result<&CompiledRoute, &'static str> {
        let holds = |index: usize| {
            self.routes.get(index).is_some_and(|route| route.conditions.identity_holds(client))
                && self.fits_tls(index, client)
        };
        let find = |destinations: &DestinationIndex| destinations.find(client, holds);
        let name = client.sni.as_deref().and_then(CanonicalHost::new);
        let index = name
            .and_then(|name| self.tcp.find(Some(&name), target_port(client), find))
            .or_else(|| find(&self.tcp_without_name))
            .ok_or("no route takes opaque bytes of this server name and destination")?;
        let route = self.routes.get(index).ok_or("the route is gone")?;
        match route.traffic() {
            Traffic::Opaque => Ok(route),
            Traffic::Named if passed_through(client) => Ok(route),
            Traffic::Named => {
                Err("opaque bytes name no host, and the upstream's is the one that is asked for")
            }
            Traffic::Original if !self.is_guarded(index, client) => Ok(route),
            Traffic::Original => {
                Err("the bytes aren't HTTP, and would go round a rule about HTTP of the same upstream")
            }
            Traffic::Http => Err("the bytes aren't HTTP, and the route's upstream is for HTTP alone"),
        }
    }

    /// The traffic that a connection may carry. For TLS that is passed through, `client` has its server name.
    pub fn takes(&self, client: &Client) -> AcceptedTraffic {
        let http = |(index, route): (usize, &CompiledRoute)| {
            !route.passes_through() && route.traffic() != Traffic::Opaque && self.applies(index, client)
        };
        AcceptedTraffic {
            http: self.routes.iter().enumerate().any(http),
            opaque: self.find_tcp(client).is_ok(),
        }
    }

    /// True if a route passes TLS through that the listener would terminate.
    pub fn passes_tls(&self) -> bool {
        self.terminates && self.routes.iter().any(CompiledRoute::passes_through)
    }

    /// True if opaque bytes on this route would bypass another route, or the HTTP conditions of this one.
    fn is_guarded(&self, index: usize, client: &Client) -> bool {
        self.guards.get(index).is_none_or(|guards| guards.iter().any(|guard| self.applies(*guard, client)))
    }

    /// True if the route could match some request on this connection.
    fn applies(&self, index: usize, client: &Client) -> bool {
        let (Some(route), Some(model)) = (self.routes.get(index), self.model.get(index)) else { return true };
        let matcher = &model.matcher;
        self.fits_tls(index, client)
            && (matcher.sni.is_empty() || matcher.sni.iter().any(|sni| sni_holds(sni, client)))
            && (matcher.destination.is_empty()
                || matcher.destination.iter().any(|range| destination_holds(range, client)))
            && route.conditions.identity_holds(client)
    }

    /// If the listener terminates TLS, undecrypted TLS takes only routes that pass it through, and no other traffic
    /// takes these routes.
    fn fits_tls(&self, index: usize, client: &Client) -> bool {
        !self.terminates
            || self.routes.get(index).is_some_and(|route| route.passes_through() == passed_through(client))
    }

    /// Why no route matches a request, in a line: its Host, and the Hosts that routes have.
    pub fn no_route(&self, request: &RequestHead) -> String {
        let (method, target) = (&request.method, request.uri.path());
        let named = request.uri.authority().map_or("none", |authority| authority.as_str());
        match self.hosts.only() {
            Some(hosts) => {
                format!(
                    "the request's Host is `{named}`; listener `{}` has routes for {hosts}",
                    self.listener
                )
            }
            None => format!(
                "{method} {target} with the Host `{named}`: no route of listener `{}` matches",
                self.listener
            ),
        }
    }

    /// Why no route matches TLS that is passed through: its server name, and the server names that routes have. `None`
    /// if no route has one.
    pub fn no_route_of_name(&self, client: &Client) -> Option<String> {
        let names = self.server_names.all()?;
        let asked = client.sni.as_deref().map_or_else(|| "no name".to_owned(), |name| format!("`{name}`"));
        Some(format!(
            "the client's TLS asks for {asked}; listener `{}` has routes for {names}",
            self.listener
        ))
    }

    /// The listener's name.
    pub fn listener(&self) -> &Name {
        &self.listener
    }

    /// The routes in the order of the file.
    pub fn routes(&self) -> &[CompiledRoute] {
        &self.routes
    }
}

/// True if its TLS was not terminated; its server name is known from its first message.
const fn passed_through(client: &Client) -> bool {
    !client.tls && client.sni.is_some()
}

fn passes_through(route: &Route) -> bool {
    matches!(&route.action, Action::Forward(forward) if forward.passes_tls())
}

fn guards(route: &Route, listener: &Listener) -> Vec<usize> {
    let all = listener.routes.iter().enumerate();
    all.filter(|(_, other)| other.guards(route)).map(|(index, _)| index).collect()
}

/// True if a connection can take this route without HTTP.
pub(crate) fn serves_tcp(route: &Route) -> bool {
    !route.matcher.asks_http() && matches!(route.action, Action::Forward(_))
}

/// Routes by original destination: the longest network first, within it one with a port first; of one destination in the order
/// of precedence, since they may ask for different identities.
#[derive(Debug, Default)]
struct DestinationIndex {
    /// The existing prefix lengths, in order of precedence: there are few, and each costs one hash.
    shapes: Vec<RangeShape>,
    by_range: HashMap<(IpAddr, RangeShape), Vec<usize>>,
    any: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct RangeShape {
    prefix: u8,
    v6: bool,
    port: Option<u16>,
}

impl DestinationIndex {
    /// Routes come in order of precedence.
    fn insert(&mut self, range: Option<&AddressMatch>, route: usize) {
        let Some(range) = range else {
            self.any.push(route);
            return;
        };
        // A shape only says whether there is a port; the port itself is a part of the key.
        let shape = RangeShape { prefix: range.prefix, v6: range.network.is_ipv6(), port: range.port };
        let known = RangeShape { port: shape.port.map(|_| 0), ..shape };
        if !self.shapes.contains(&known) {
            self.shapes.push(known);
        }
        self.by_range.entry((network(range.network, range.prefix), shape)).or_default().push(route);
    }

    fn find(&self, client: &Client, holds: impl Fn(usize) -> bool) -> Option<usize> {
        let first = |routes: &[usize]| routes.iter().copied().find(|route| holds(*route));
        let destination = client.original_destination();
        let ranged = destination.and_then(|destination| {
            let address = destination.ip().to_canonical();
            self.shapes.iter().filter(|shape| shape.v6 == address.is_ipv6()).find_map(|shape| {
                let key = RangeShape { port: shape.port.map(|_| destination.port()), ..*shape };
                self.by_range.get(&(network(address, shape.prefix), key)).and_then(|routes| first(routes))
            })
        });
        ranged.or_else(|| first(&self.any))
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "reference_tests.rs"]
mod reference_tests;
