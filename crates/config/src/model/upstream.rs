//! Where calls go.

use std::{fmt, net::IpAddr, num::NonZeroU16, path::PathBuf, sync::Arc, time::Duration};

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AdaptiveConcurrency, CircuitBreaker, Credential, HostRewrite, Name, OutlierEjection, Pool, Queue,
    TlsClient,
};
use crate::{
    section::{Maybe, UnlessEmpty, section},
    text::{Hash, Ratio, Timeout},
};

/// One upstream: a named set of endpoints and how they are used.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// The key in the file; the `upstream` label.
    pub name: Name,
    /// Where its endpoints come from.
    pub address: Address,
    /// What is spoken to it.
    pub protocol: UpstreamProtocol,
    /// The Host header that it is sent, for routes that say nothing of it.
    pub host: HostRewrite,
    /// TLS to it; `None` is plaintext.
    pub tls: Option<TlsClient>,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// How long a TCP connection may take, over all addresses of one endpoint. Default 1 s.
    pub connect_timeout: Duration,
    /// How long the TLS handshake may take. Default 2 s.
    pub handshake_timeout: Duration,
    /// Connections kept for reuse.
    pub pool: Pool,
    /// Concurrency limits.
    pub circuit_breaker: CircuitBreaker,
    /// A concurrency limit that follows the latency; `None` is off.
    pub adaptive_concurrency: Option<AdaptiveConcurrency>,
    /// Calls beyond a limit wait here; `None` refuses them at once.
    pub queue: Option<Queue>,
    /// Passive health.
    pub outlier_ejection: OutlierEjection,
    /// Active health; `None` is off.
    pub health_check: Option<HealthCheck>,
    /// What becomes of the connections to an endpoint that fails.
    pub on_unhealthy: OnUnhealthy,
    /// A secret that requests are given; what a route says of its own stands in its [`Policy`](super::Policy).
    pub credential: Option<Arc<Credential>>,
    /// PROXY protocol sent at the start of every connection.
    pub proxy_protocol: ProxyProtocolOut,
    /// Local port and interface of outgoing connections.
    pub source_address: Option<IpAddr>,
    /// Line in the file, for `explain`.
    pub line: u32,
}

impl Upstream {
    /// Default of [`Self::connect_timeout`].
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
    /// Default of [`Self::handshake_timeout`].
    pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
    /// Default of [`Address::Authority`]'s `max_hosts`.
    pub const MAX_HOSTS: usize = 1024;

    /// An upstream of which nothing but its name and address is said.
    pub fn new(name: impl Into<Name>, address: Address) -> Self {
        Self {
            name: name.into(),
            address,
            protocol: UpstreamProtocol::default(),
            host: HostRewrite::Auto,
            tls: None,
            balance: Balance::default(),
            connect_timeout: Self::CONNECT_TIMEOUT,
            handshake_timeout: Self::HANDSHAKE_TIMEOUT,
            pool: Pool::default(),
            circuit_breaker: CircuitBreaker::default(),
            adaptive_concurrency: None,
            queue: None,
            outlier_ejection: OutlierEjection::default(),
            health_check: None,
            on_unhealthy: OnUnhealthy::default(),
            credential: None,
            proxy_protocol: ProxyProtocolOut::default(),
            source_address: None,
            line: 0,
        }
    }

    /// Its own authority: the host of its first address, without the port that its scheme means anyway. `None` where the request
    /// itself says where to.
    pub fn authority(&self) -> Option<Name> {
        let Address::Endpoints(sources) = &self.address else { return None };
        let usual = if self.tls.is_some() { 443 } else { 80 };
        Some(match &sources.first()?.target {
            Target::Dns { host, port } => {
                let host = host.strip_suffix('.').unwrap_or(host);
                if *port == usual { host.into() } else { format!("{host}:{port}").into() }
            }
            Target::Srv { name } => name.strip_suffix('.').unwrap_or(name).into(),
            Target::Kubernetes(service) => match service.port {
                KubernetesPort::Number(port) if port != usual => format!("{}:{port}", service.host()).into(),
                _ => service.host(),
            },
            Target::Ip(address) if address.port() != usual => address.to_string().into(),
            Target::Ip(address) if address.is_ipv4() => address.ip().to_string().into(),
            Target::Ip(address) => format!("[{}]", address.ip()).into(),
            // A socket has no name of its own.
            Target::Unix(_) => self.name.clone(),
        })
    }

    /// The Host of attache's own requests to it, such as health checks.
    pub fn own_host(&self) -> Name {
        match &self.host {
            HostRewrite::To(host) => host.clone(),
            _ => self.authority().unwrap_or_else(|| self.name.clone()),
        }
    }
}

/// Where an upstream's endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A list of sources, at least one.
    Endpoints(Vec<EndpointSource>),
    /// Whatever host the request names, looked up as it comes: a forward proxy.
    /// The port is the authority's, or the scheme's default.
    Authority {
        /// Hosts looked up and kept at once; the least recently used goes first. Default 1024.
        max_hosts: usize,
        /// Destinations that are refused (link-local metadata services, for example).
        deny: Vec<super::AddressMatch>,
    },
    /// The original destination of an intercepted connection (`SO_ORIGINAL_DST`).
    OriginalDestination,
}

/// One source of endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSource {
    /// Name, address or path.
    pub target: Target,
    /// Relative weight of each endpoint from here, at least 1. Default 1 (SRV weights multiply it).
    pub weight: u32,
    /// 0 is used first; others take over as it becomes unhealthy. SRV priorities follow within one source. Default 0.
    pub priority: u8,
    /// Zone of the endpoints; those of attache's own zone are preferred.
    pub zone: Option<Name>,
}

impl EndpointSource {
    /// A source of which nothing else is said.
    pub fn new(target: Target) -> Self {
        Self { target, weight: 1, priority: 0, zone: None }
    }
}

/// What an endpoint source names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A DNS name: every A and AAAA answer is an endpoint.
    Dns {
        /// The name; a final dot makes it absolute.
        host: Name,
        /// Port of every endpoint.
        port: u16,
    },
    /// An SRV name (RFC 2782): every target with its port, priority and weight.
    Srv {
        /// `_service._proto.name`
        name: Name,
    },
    /// A Service of Kubernetes, by its EndpointSlices.
    Kubernetes(KubernetesService),
    /// A fixed address.
    Ip(std::net::SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// A Service of Kubernetes and one of its ports. It is written as in the config: `kubernetes://SERVICE.NAMESPACE:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KubernetesService {
    /// The Service's name, a DNS label (RFC 1123).
    pub name: Name,
    /// Its namespace, a DNS label.
    pub namespace: Name,
    /// Which of its ports.
    pub port: KubernetesPort,
}

/// A port of a Service's endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KubernetesPort {
    /// The name of the Service's port, a DNS label. Pods of one Service may have different numbers for it.
    Name(Name),
    /// The number that the pods listen on (`targetPort`), which EndpointSlices say; they don't say the Service's own number.
    Number(u16),
}

impl KubernetesService {
    /// `SERVICE.NAMESPACE.svc`: the name that TLS verifies and that requests are given as Host.
    pub fn host(&self) -> Name {
        format!("{}.{}.svc", self.name, self.namespace).into()
    }
}

impl fmt::Display for KubernetesService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kubernetes://{}.{}:{}", self.name, self.namespace, self.port)
    }
}

impl fmt::Display for KubernetesPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// What is spoken to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UpstreamProtocol {
    /// With TLS what ALPN gives (h2 preferred), without it HTTP/1.1. gRPC requests (`application/grpc`) need HTTP/2 and
    /// use it with prior knowledge even without TLS.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; with prior knowledge where there is no TLS.
    Http2,
    /// Opaque bytes; HTTP can't be routed here.
    Tcp,
}

section! {
    "`balance`"
    /// How an endpoint is chosen among the healthy ones of the chosen priority.
    pub struct Balance {
        /// The algorithm.
        algorithm: Algorithm = Algorithm::LeastRequest,
        /// What `ring-hash` and `maglev` hash: `header:NAME`, `cookie:NAME`, `source` (the client's address) or `path`.
        // With these two, and with no other, it is set.
        hash: Option<HashKey> as Maybe<Hash> = None,
        /// The weight of a new or recovered endpoint rises to its full over this time; zero is off.
        slow_start: Duration as Timeout = Duration::ZERO,
        /// Below this share of healthy endpoints all are used, healthy or not.
        panic_threshold: f64 as Ratio = 0.5,
        /// attache's own zone: endpoints of it are preferred, overflow goes to the others in proportion.
        #[schema(examples = ["${ZONE:-}"])]
        zone: Option<Name> as UnlessEmpty = None,
    }
}

/// A balancing algorithm.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    // Power of two choices, Mitzenmacher 2001.
    /// The less loaded of two chosen at random.
    #[default]
    LeastRequest,
    // As Finagle's.
    /// The one of two chosen at random with the lower latency (moving average, sensitive to peaks) times load.
    PeakEwma,
    /// One after the other, by weight.
    RoundRobin,
    /// At random, by weight.
    Random,
    // Karger 1997.
    /// Consistent hashing on a ring; needs `hash`.
    RingHash,
    // Eisenbud 2016.
    /// Consistent hashing by lookup table; needs `hash`.
    Maglev,
}

impl Algorithm {
    /// It hashes something of a request.
    pub const fn hashes(&self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev)
    }
}

/// What a consistent hash is taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// A header's value.
    Header(HeaderName),
    /// A cookie's value.
    Cookie(Name),
    /// The client's address.
    Source,
    /// The path without the query.
    Path,
}

/// Active health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// The port that is asked in place of the endpoint's own.
    pub port: Option<NonZeroU16>,
    /// The probe uses the upstream's TLS, if it has any. Default `true`.
    pub tls: bool,
    /// Time between two probes. Default 5 s, each with up to 10 % of jitter.
    pub interval: Duration,
    /// Time between two probes of an endpoint that is unhealthy. Default `interval`.
    pub unhealthy_interval: Duration,
    /// How long a probe may take. Default 1 s.
    pub timeout: Duration,
    /// Successes in a row that make an endpoint healthy. Default 1.
    pub healthy: u32,
    /// Failures in a row that make it unhealthy. Default 3.
    pub unhealthy: u32,
}

impl HealthCheck {
    /// A check with this probe and the defaults.
    pub fn new(probe: Probe) -> Self {
        Self {
            probe,
            port: None,
            tls: true,
            interval: Duration::from_secs(5),
            unhealthy_interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            healthy: 1,
            unhealthy: 3,
        }
    }
}

impl Probe {
    /// A connection alone is enough.
    pub fn connection() -> Self {
        Self::Tcp { send: Arc::default(), expect: Vec::new() }
    }
}

/// What an active health check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// `GET path`; 200 to 299 is healthy.
    Http {
        /// The path.
        path: Name,
        /// The Host header; the upstream's name by default.
        host: Option<Name>,
    },
    /// A TCP connection, and a TLS handshake where there is TLS; then, where there are any, bytes that are sent and bytes that must
    /// come back.
    Tcp {
        /// Sent at once.
        send: Arc<[u8]>,
        /// Each must be found in what comes back, behind the one before; none is enough.
        expect: Vec<Arc<[u8]>>,
    },
    /// `grpc.health.v1.Health/Check` of this service; empty is the whole server.
    Grpc {
        /// Service name.
        service: Name,
    },
}

/// What becomes of the connections to an endpoint that fails its health checks, is ejected, or is no longer named by discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnUnhealthy {
    /// They stay as long as both sides want: only new calls go elsewhere.
    #[default]
    Keep,
    /// Idle connections are closed. HTTP/1 and HTTP/2 connections on which calls run are closed behind these calls. Tunnels, WebSockets and
    /// opaque connections are reset, with the reason `endpoint-unhealthy`.
    Close,
}

/// PROXY protocol on the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyProtocolOut {
    /// None. Pools may mix clients.
    #[default]
    Off,
    /// Version 1 (text). Every client connection gets a connection of its own.
    V1,
    /// Version 2 (binary).
    V2,
}
