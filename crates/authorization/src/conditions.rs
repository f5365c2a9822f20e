//! The conditions of a rule, ready to be tested.

use std::net::{IpAddr, SocketAddr};

use attache_config::model::{
    AccessConditions, AccessHost, AddressMatch, ClaimCondition, HostPattern, IdentityMatch,
};
use attache_http::{CanonicalHost, pattern::host_matches};

use crate::{
    facts::{BodyUse, Facts, HttpFacts},
    forwarded,
    header::CompiledHeader,
    host,
    jwt::ClaimForm,
    methods::MethodSet,
    networks::Networks,
    path::CompiledPath,
    reading::{PathReading, path_of},
    truth::Truth,
};

/// Conditions, in the order in which they are tested: the cheapest first.
#[derive(Debug)]
pub(crate) struct CompiledConditions(Vec<Condition>);

/// One key of a rule: one of its values must match.
#[derive(Debug)]
// The discriminant has its own byte and doesn't use spare values of another field, because every request reads it.
#[repr(u8)]
pub(crate) enum Condition {
    Ports(Vec<u16>),
    Methods(MethodSet),
    Clients(Networks),
    Identities(Vec<IdentityMatch>),
    Paths(Vec<CompiledPath>),
    Header(CompiledHeader),
    Claim(ClaimCondition, ClaimForm),
    Hosts(Vec<AccessHost>),
    Sni(Vec<HostPattern>),
    ForwardedClients(Networks),
}

impl CompiledConditions {
    pub(crate) fn new(config: &AccessConditions) -> Self {
        fn some<T: Clone>(list: &[T], make: fn(Vec<T>) -> Condition) -> Option<Condition> {
            (!list.is_empty()).then(|| make(list.to_vec()))
        }
        fn networks(list: &[AddressMatch], make: fn(Networks) -> Condition) -> Option<Condition> {
            (!list.is_empty()).then(|| make(Networks::new(list)))
        }
        let paths: Vec<CompiledPath> = config.paths.iter().map(CompiledPath::new).collect();
        let all = [
            some(&config.ports, Condition::Ports),
            (!config.methods.is_empty()).then(|| Condition::Methods(MethodSet::new(&config.methods))),
            networks(&config.clients, Condition::Clients),
            some(&config.identities, Condition::Identities),
            (!paths.is_empty()).then_some(Condition::Paths(paths)),
        ];
        let headers = config.headers.iter().map(|header| Condition::Header(CompiledHeader::new(header)));
        let claims = [
            (&config.claims, ClaimForm::Any),
            (&config.claim_texts, ClaimForm::Text),
            (&config.claim_items, ClaimForm::Item),
        ];
        let claims = claims
            .into_iter()
            .flat_map(|(all, form)| all.iter().map(move |claim| Condition::Claim(claim.clone(), form)));
        let rest = [
            some(&config.hosts, Condition::Hosts),
            some(&config.sni, Condition::Sni),
            networks(&config.forwarded_clients, Condition::ForwardedClients),
        ];
        Self(
            all.into_iter()
                .flatten()
                .chain(headers)
                .chain(claims)
                .chain(rest.into_iter().flatten())
                .collect(),
        )
    }

    /// True if there is no condition.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of them hold. One function tests a whole rule: a call for each condition cost more than the
    /// comparison of most conditions.
    #[inline(never)]
    pub(crate) fn all(&self, facts: &Facts<'_>, trusted: &Networks) -> Truth {
        let mut found = Truth::Yes;
        for condition in &self.0 {
            match condition.holds(facts, trusted) {
                Truth::Yes => {}
                Truth::Unsure => found = Truth::Unsure,
                Truth::No => return Truth::No,
            }
        }
        found
    }

    /// Whether one of them holds.
    pub(crate) fn any(&self, facts: &Facts<'_>, trusted: &Networks) -> Truth {
        let mut found = Truth::No;
        for condition in &self.0 {
            match condition.holds(facts, trusted) {
                Truth::No => {}
                Truth::Unsure => found = Truth::Unsure,
                Truth::Yes => return Truth::Yes,
            }
        }
        found
    }

    /// Each of them, and whether it holds.
    pub(crate) fn each<'s>(
        &'s self,
        facts: &'s Facts<'_>,
        trusted: &'s Networks,
    ) -> impl Iterator<Item = (&'s Condition, Truth)> {
        self.0.iter().map(move |condition| (condition, condition.holds(facts, trusted)))
    }
}

impl Condition {
    /// Frequent conditions are inlined here in their usual form; all others are a call.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "it is the body of three loops; left to itself, it becomes a call for each condition"
    )]
    fn holds(&self, facts: &Facts<'_>, trusted: &Networks) -> Truth {
        match (self, &facts.http) {
            (Self::Paths(paths), Some(http)) => path(paths, http),
            (Self::Methods(methods), Some(http)) => methods.hold(http),
            (Self::Clients(networks), _) => client(networks, facts.client.address.as_ref()),
            _ => self.holds_otherwise(facts, trusted),
        }
    }

    #[inline(never)]
    fn holds_otherwise(&self, facts: &Facts<'_>, trusted: &Networks) -> Truth {
        let client = facts.client;
        match self {
            Self::Ports(ports) => facts.port().map_or(Truth::Unsure, |port| ports.contains(&port).into()),
            Self::Identities(identities) => {
                let proven = identities.iter().any(|identity| match identity {
                    IdentityMatch::Verified => client.certificate().is_some() || client.identity().is_some(),
                    IdentityMatch::Name(name) => name.matches(client.names()),
                });
                let found = Truth::from(proven);
                // If TLS is passed through, only the upstream sees the client's identity.
                if facts.http.is_none() && !client.tls { found.no_is_unsure() } else { found }
            }
            Self::Sni(patterns) => match client.sni.as_deref().and_then(CanonicalHost::new) {
                Some(sni) => {
                    let port = facts.port().unwrap_or_default();
                    patterns.iter().any(|pattern| host_matches(pattern, Some(&sni), port)).into()
                }
                // A client may leave out the server name.
                None => Truth::Unsure,
            },
            // A condition on a request can't be decided for opaque bytes.
            _ => facts.http.as_ref().map_or(Truth::Unsure, |http| self.holds_for_http(http, facts, trusted)),
        }
    }

    fn holds_for_http(&self, http: &HttpFacts<'_>, facts: &Facts<'_>, trusted: &Networks) -> Truth {
        match self {
            Self::Header(header) => {
                let found = header.holds(http);
                if http.kind() == BodyUse::Tunnel { found.no_is_unsure() } else { found }
            }
            Self::Claim(claim, form) => facts.claims.map_or(Truth::No, |claims| claims.holds(claim, *form)),
            Self::Hosts(hosts) => {
                let (name, port) = http.host();
                match name {
                    Some(name) => hosts.iter().fold(Truth::No, |found, pattern| {
                        found.or(host::holds(pattern, http.authority(), &name, port))
                    }),
                    // HTTP/1.0 without a Host: the upstream has a default.
                    None => Truth::Unsure,
                }
            }
            Self::ForwardedClients(networks) => {
                let connection = facts.client.address.map(|address| address.ip().to_canonical());
                among(networks, forwarded::client(connection, http.headers(), trusted))
            }
            // These conditions were tested before.
            Self::Ports(_)
            | Self::Clients(_)
            | Self::Identities(_)
            | Self::Sni(_)
            | Self::Methods(_)
            | Self::Paths(_) => Truth::Unsure,
        }
    }
}

/// The result of the patterns for the request's path.
#[inline]
fn path(paths: &[CompiledPath], http: &HttpFacts<'_>) -> Truth {
    match http.simple_path() {
        Some(path) => one_of(paths, |pattern| pattern.matches_plain(path)),
        None => doubtful_path(paths, http),
    }
}

/// Their result for a path that has more than one reading, or if the request names another path as well.
#[cold]
fn doubtful_path(paths: &[CompiledPath], http: &HttpFacts<'_>) -> Truth {
    // A tunnel may carry a request for any path.
    let Some(path) = http.path() else { return Truth::Unsure };
    let found = one_of(paths, |pattern| pattern.matches(path, http.reading()));
    http.other_paths().fold(found, |found, other| found.agree(other_path(paths, other)))
}

/// The result of the pattern that matches best.
#[inline]
fn one_of(paths: &[CompiledPath], matches: impl Fn(&CompiledPath) -> Truth) -> Truth {
    let mut found = Truth::No;
    for path in paths {
        found = found.or(matches(path));
        if found == Truth::Yes {
            break;
        }
    }
    found
}

/// The result of the patterns for a path in a header: the path itself, or a URL.
fn other_path(paths: &[CompiledPath], value: &[u8]) -> Truth {
    let Some(path) = path_of(value) else { return Truth::Unsure };
    let reading = PathReading::of(path);
    one_of(paths, |pattern| pattern.matches(path, &reading))
}

/// Whether the connection's client is in one of these networks.
#[inline]
fn client(networks: &Networks, address: Option<&SocketAddr>) -> Truth {
    match address {
        Some(SocketAddr::V4(v4)) => networks.contains_v4(*v4.ip()).into(),
        address => among(networks, address.map(SocketAddr::ip)),
    }
}

/// `None` is an unknown address, which could be any address.
#[inline(never)]
fn among(networks: &Networks, address: Option<IpAddr>) -> Truth {
    address.map_or(Truth::Unsure, |address| networks.contains(address).into())
}
