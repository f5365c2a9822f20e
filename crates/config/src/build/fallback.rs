//! Defaults of a file: its listener, and the routes of a listener without any.
//!
//! One upstream gets everything. With several, a request goes by its host: `Host: orders` and `Host: orders.internal`
//! both reach `orders: https://orders.internal`; opaque upstreams (`tcp`, `tls`) are found by the server name of TLS in
//! the same way. An `authority` or `original-destination` upstream gets all other requests.

use std::{
    collections::{HashMap, HashSet},
    net::Ipv4Addr,
};

use super::Targets;
use crate::{
    diagnostic::{Place, Problems},
    model::{
        Action, Address, Bind, Destination, EndpointTarget, Forward, HostName, HostPattern, Listener, Match,
        Name, Route, Upstream, UpstreamId,
    },
};

/// The listener of a file without any.
pub(crate) fn listener(
    upstreams: &[Upstream],
    targets: &mut Targets,
    problems: &mut Problems,
) -> Option<Listener> {
    let mut listener = Listener::new(Listener::OUTBOUND);
    listener.bind = vec![Bind::Tcp((Ipv4Addr::LOCALHOST, 15001).into())];
    listener.routes = routes(Listener::OUTBOUND, Place::default(), upstreams, targets, problems)?;
    targets.set_traffic(&mut listener);
    Some(listener)
}

/// Removes the line numbers: this listener doesn't stand in the file.
pub(crate) fn unplaced(mut listener: Listener) -> Listener {
    listener.line = 0;
    for route in &mut listener.routes {
        route.line = 0;
    }
    listener
}

/// Routes of a listener that has none.
pub(crate) fn routes(
    listener: &str,
    at: Place,
    upstreams: &[Upstream],
    targets: &mut Targets,
    problems: &mut Problems,
) -> Option<Vec<Route>> {
    match upstreams {
        [] => {
            if !targets.some_are_wrong() {
                problems.wrong(
                    at,
                    "no destination: the config names no upstream",
                    "add one: `upstreams: { orders: https://orders.internal:8443 }`",
                );
            }
            None
        }
        [only] => {
            let all = targets.all();
            let id = *all.first()?;
            let policy = targets.policy(id, None, problems);
            Some(vec![forward(
                listener,
                0,
                only.line,
                Match::default(),
                Destination { upstream: id, weight: 1, policy },
            )])
        }
        several => by_host(listener, at, several, targets, problems),
    }
}

fn by_host(
    listener: &str,
    at: Place,
    upstreams: &[Upstream],
    targets: &mut Targets,
    problems: &mut Problems,
) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    let mut rest: Option<(UpstreamId, &Upstream)> = None;
    let ids = targets.all();
    let claimed = NameCounts::by(upstreams);
    for (id, upstream) in ids.iter().copied().zip(upstreams) {
        if !matches!(upstream.address, Address::Endpoints(_)) {
            if let Some((_, first)) = rest {
                problems.wrong(
                    at,
                    format!(
                        "both `{}` and `{}` accept the requests that match no other upstream",
                        first.name, upstream.name
                    ),
                    "say in `routes` which requests go where",
                );
                return None;
            }
            rest = Some((id, upstream));
            continue;
        }
        let hosts = claimed.hosts(upstream);
        let matcher = if targets.is_opaque(id) {
            Match { sni: hosts, ..Match::default() }
        } else {
            Match { hosts, ..Match::default() }
        };
        let policy = targets.policy(id, None, problems);
        let to = Destination { upstream: id, weight: 1, policy };
        routes.push(forward(listener, routes.len(), upstream.line, matcher, to));
    }
    if let Some((id, upstream)) = rest {
        let policy = targets.policy(id, None, problems);
        let to = Destination { upstream: id, weight: 1, policy };
        routes.push(forward(listener, routes.len(), upstream.line, Match::default(), to));
    }
    Some(routes)
}

/// How many upstreams have a name (in lower case), and how many have an address with this host.
#[derive(Default)]
struct NameCounts {
    names: HashMap<String, usize>,
    hosts: HashMap<Name, usize>,
}

impl NameCounts {
    fn by(upstreams: &[Upstream]) -> Self {
        let mut claimed = Self::default();
        for upstream in upstreams {
            *claimed.names.entry(upstream.name.to_ascii_lowercase()).or_default() += 1;
            let hosts: HashSet<Name> = addresses(upstream).into_iter().map(|(host, _)| host).collect();
            for host in hosts {
                *claimed.hosts.entry(host).or_default() += 1;
            }
        }
        claimed
    }

    /// The upstream's name, and the hosts of its addresses; where another upstream has the same host, only with the port.
    fn hosts(&self, upstream: &Upstream) -> Vec<HostPattern> {
        let own = upstream.name.to_ascii_lowercase();
        let pattern =
            |name: &str, port| HostPattern { name: HostName::Exact(name.to_ascii_lowercase().into()), port };
        let mut hosts = vec![pattern(&own, None)];
        let mut known: HashSet<HostPattern> = hosts.iter().cloned().collect();
        for (host, port) in addresses(upstream) {
            let folded = host.to_ascii_lowercase();
            let named = self.names.get(&folded).copied().unwrap_or_default();
            if named > usize::from(folded == own) {
                continue;
            }
            let shared = self.hosts.get(&host).is_some_and(|upstreams| *upstreams > 1);
            // Without a port, this Host could mean any of these upstreams.
            if shared && port.is_none() {
                continue;
            }
            let found = pattern(&host, if shared { port } else { None });
            if known.insert(found.clone()) {
                hosts.push(found);
            }
        }
        hosts
    }
}

fn addresses(upstream: &Upstream) -> Vec<(Name, Option<u16>)> {
    let Address::Endpoints(sources) = &upstream.address else { return Vec::new() };
    sources
        .iter()
        .flat_map(|source| match &source.target {
            EndpointTarget::Dns { host, port } => vec![(host.trim_end_matches('.').into(), Some(*port))],
            EndpointTarget::Ip(address) if address.is_ipv6() => {
                vec![(format!("[{}]", address.ip()).into(), Some(address.port()))]
            }
            EndpointTarget::Ip(address) => vec![(address.ip().to_string().into(), Some(address.port()))],
            // The name that pods use. They may add the Service's port, which the config doesn't know.
            EndpointTarget::Kubernetes(service) => {
                let host = service.host();
                let short = host.strip_suffix(".svc").unwrap_or(&host).into();
                vec![(format!("{host}.cluster.local").into(), None), (short, None), (host, None)]
            }
            EndpointTarget::Srv { .. } | EndpointTarget::Unix(_) => Vec::new(),
        })
        .collect()
}

fn forward(listener: &str, index: usize, line: u32, matcher: Match, to: Destination) -> Route {
    let action = Action::Forward(Forward::new(vec![to]));
    Route { matcher, line, ..Route::new(format!("{listener}/{index}"), action) }
}
