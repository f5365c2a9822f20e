//! The conditions of a rule, ready to be tested.

use attache_config::model::{AccessConditions, AddressMatch, ClaimCondition, HostPattern, IdentityMatch};
use attache_http::{
    CanonicalHost,
    pattern::{host_matches, in_network},
};
use http::Method;

use crate::{
    facts::{Facts, Http, Kind},
    forwarded,
    header::Header,
    path::Path,
    truth::Truth,
};

/// Conditions, in the order in which they are tested: the cheapest first.
#[derive(Debug)]
pub(crate) struct Conditions(Vec<Condition>);

/// One key of a rule: of its values one must hold.
#[derive(Debug)]
pub(crate) enum Condition {
    Ports(Vec<u16>),
    Methods(Vec<Method>),
    Clients(Vec<AddressMatch>),
    Identities(Vec<IdentityMatch>),
    Paths(Vec<Path>),
    Header(Header),
    Claim(ClaimCondition),
    Hosts(Vec<HostPattern>),
    Sni(Vec<HostPattern>),
    ForwardedClients(Vec<AddressMatch>),
}

impl Conditions {
    pub(crate) fn new(config: &AccessConditions) -> Self {
        fn some<T: Clone>(list: &[T], make: fn(Vec<T>) -> Condition) -> Option<Condition> {
            (!list.is_empty()).then(|| make(list.to_vec()))
        }
        let paths: Vec<Path> = config.paths.iter().map(Path::new).collect();
        let all = [
            some(&config.ports, Condition::Ports),
            some(&config.methods, Condition::Methods),
            some(&config.clients, Condition::Clients),
            some(&config.identities, Condition::Identities),
            (!paths.is_empty()).then_some(Condition::Paths(paths)),
        ];
        let headers = config.headers.iter().map(|header| Condition::Header(Header::new(header)));
        let claims = config.claims.iter().cloned().map(Condition::Claim);
        let rest = [
            some(&config.hosts, Condition::Hosts),
            some(&config.sni, Condition::Sni),
            some(&config.forwarded_clients, Condition::ForwardedClients),
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

    /// All of them hold.
    pub(crate) fn all(&self, facts: &Facts<'_>, trusted: &[AddressMatch]) -> Truth {
        let mut found = Truth::Yes;
        for condition in &self.0 {
            found = found.and(condition.holds(facts, trusted));
            if found == Truth::No {
                break;
            }
        }
        found
    }

    /// One of them holds.
    pub(crate) fn any(&self, facts: &Facts<'_>, trusted: &[AddressMatch]) -> Truth {
        let mut found = Truth::No;
        for condition in &self.0 {
            found = found.or(condition.holds(facts, trusted));
            if found == Truth::Yes {
                break;
            }
        }
        found
    }

    /// Each of them, and whether it holds.
    pub(crate) fn each<'s>(
        &'s self,
        facts: &'s Facts<'_>,
        trusted: &'s [AddressMatch],
    ) -> impl Iterator<Item = (&'s Condition, Truth)> {
        self.0.iter().map(move |condition| (condition, condition.holds(facts, trusted)))
    }
}

impl Condition {
    fn holds(&self, facts: &Facts<'_>, trusted: &[AddressMatch]) -> Truth {
        let client = facts.client;
        match self {
            Self::Ports(ports) => facts.port().map_or(Truth::Unsure, |port| ports.contains(&port).into()),
            Self::Clients(networks) => among(networks, client.address.map(|address| address.ip())),
            Self::Identities(identities) => {
                let proven = identities.iter().any(|identity| match identity {
                    IdentityMatch::Verified => client.certificate.is_some() || client.identity().is_some(),
                    IdentityMatch::Name(name) => name.matches(client.names()),
                });
                let found = Truth::from(proven);
                // Whose TLS is passed through has an identity that only the upstream sees.
                if facts.http.is_none() && !client.tls { found.no_is_unsure() } else { found }
            }
            Self::Sni(patterns) => match client.sni.as_deref().and_then(CanonicalHost::new) {
                Some(sni) => {
                    let port = facts.port().unwrap_or_default();
                    patterns.iter().any(|pattern| host_matches(pattern, Some(&sni), port)).into()
                }
                // A client may leave it out.
                None => Truth::Unsure,
            },
            // What only a request has can't be seen in opaque bytes.
            _ => facts.http.as_ref().map_or(Truth::Unsure, |http| self.holds_for_http(http, facts, trusted)),
        }
    }

    fn holds_for_http(&self, http: &Http<'_>, facts: &Facts<'_>, trusted: &[AddressMatch]) -> Truth {
        match self {
            Self::Methods(methods) => method(methods, http),
            Self::Paths(paths) => match http.path() {
                Some(path) => {
                    let reading = http.reading();
                    paths.iter().fold(Truth::No, |found, pattern| found.or(pattern.matches(path, reading)))
                }
                // Whoever has a tunnel may ask for any path in it.
                None => Truth::Unsure,
            },
            Self::Header(header) => {
                let found = header.holds(http);
                if http.kind() == Kind::Tunnel { found.no_is_unsure() } else { found }
            }
            Self::Claim(claim) => facts.claims.map_or(Truth::No, |claims| claims.holds(claim)),
            Self::Hosts(hosts) => {
                let (host, port) = http.host();
                match host {
                    Some(host) => hosts.iter().any(|pattern| host_matches(pattern, Some(&host), port)).into(),
                    // HTTP/1.0 without a Host: the upstream has a default.
                    None => Truth::Unsure,
                }
            }
            Self::ForwardedClients(networks) => {
                let connection = facts.client.address.map(|address| address.ip().to_canonical());
                among(networks, forwarded::client(connection, http.headers(), trusted))
            }
            Self::Ports(_) | Self::Clients(_) | Self::Identities(_) | Self::Sni(_) => Truth::Unsure,
        }
    }
}

/// `None`, an unknown address, could be any.
fn among(networks: &[AddressMatch], address: Option<std::net::IpAddr>) -> Truth {
    address
        .map_or(Truth::Unsure, |address| networks.iter().any(|network| in_network(network, address)).into())
}

/// Methods have case (RFC 9110 section 9.1), but not to every upstream; some take another method from a header.
fn method(methods: &[Method], http: &Http<'_>) -> Truth {
    let listed = |name: &[u8]| {
        if methods.iter().any(|method| method.as_str().as_bytes() == name) {
            Truth::Yes
        } else if methods.iter().any(|method| method.as_str().as_bytes().eq_ignore_ascii_case(name)) {
            Truth::Unsure
        } else {
            Truth::No
        }
    };
    let asked = http.method();
    let found = match http.kind() {
        Kind::Request => listed(asked.as_str().as_bytes()),
        Kind::Tunnel => listed(b"CONNECT").no_is_unsure(),
        Kind::Extended if methods.contains(&Method::GET) => Truth::Yes,
        Kind::Extended if methods.contains(&Method::CONNECT) => Truth::Unsure,
        Kind::Extended => Truth::No,
    };
    http.overrides().fold(found, |found, other| found.agree(listed(other)))
}
