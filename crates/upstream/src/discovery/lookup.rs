//! The result of a look-up: the interface between DNS and the code that uses its answers.

use std::{net::SocketAddr, time::Duration};

use attache_config::model::{EndpointTarget, Name};
use attache_telemetry::Reason;

/// Looks names up. [`Resolver`](super::Resolver) does it by DNS; tests do it by script, under paused time.
pub trait Lookup: Send + Sync + 'static {
    /// Every address of `target`. An answer has at least one.
    fn lookup(
        &self,
        target: &EndpointTarget,
    ) -> impl Future<Output = Result<LookupAnswer, LookupError>> + Send;
}

/// A good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupAnswer {
    /// At least one address of a name. A Service of Kubernetes may have none.
    pub found: Vec<DiscoveredAddress>,
    /// How long it is valid: the shortest TTL of all records used.
    pub ttl: Duration,
    /// The parts that could not be looked up, although the rest could.
    pub gaps: Vec<LookupGap>,
}

/// One address that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveredAddress {
    /// Where.
    pub address: SocketAddr,
    /// The queried name of the A or AAAA record: an SRV record's target, or the configured name.
    pub name: Name,
    /// The name that the endpoint must prove in TLS: always from the config, never from an answer (RFC 6125 section
    /// 6.2.1). Otherwise an attacker who forges DNS could choose the name.
    pub host: Name,
    /// The SRV weight, unchanged (0 included); 1 for other names.
    pub weight: u32,
    /// SRV priority; 0 for other names.
    pub priority: u16,
    /// The zone from an EndpointSlice; `None` for names.
    pub zone: Option<Name>,
}

/// An address family of a name that could not be looked up: its last good addresses stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupGap {
    /// The name, as in [`DiscoveredAddress::name`].
    pub name: Name,
    /// True is IPv6, false is IPv4; `None` is both.
    pub v6: Option<bool>,
    /// Why.
    pub failure: LookupError,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupError {
    /// `dns-nxdomain`, `dns-failed`, `dns-timeout` or `discovery-failed`.
    pub reason: Reason,
    /// In words, for the log.
    pub detail: String,
}

impl LookupError {
    /// A failure in words.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}
