//! Where calls go.

use std::{net::IpAddr, num::NonZeroU16, path::PathBuf, sync::Arc, time::Duration};

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AdaptiveConcurrency, Credential, HostRewrite, Name, Queue, TlsClient};

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
    /// A fixed address.
    Ip(std::net::SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
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

/// How an endpoint is chosen among the healthy ones of the chosen priority.
#[derive(Clone, Debug, PartialEq)]
pub struct Balance {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// A new or recovered endpoint's weight rises to its full over this time; zero is off. Default 0 s.
    pub slow_start: Duration,
    /// Below this share of healthy endpoints all are used, healthy or not (Envoy's panic threshold). Default 0.5.
    pub panic_threshold: f64,
    /// attache's own zone; endpoints of it are preferred, overflow goes to the others in proportion. Default `None`.
    pub zone: Option<Name>,
}

impl Default for Balance {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::LeastRequest,
            slow_start: Duration::ZERO,
            panic_threshold: 0.5,
            zone: None,
        }
    }
}

/// A balancing algorithm.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// The less loaded of two chosen at random (power of two choices, Mitzenmacher 2001).
    #[default]
    LeastRequest,
    /// The lower of two chosen at random by an exponentially weighted latency with peak sensitivity times load (Finagle).
    PeakEwma,
    /// One after the other, by weight.
    RoundRobin,
    /// At random, by weight.
    Random,
    /// Consistent hashing on a ring (Karger 1997).
    RingHash(HashKey),
    /// Consistent hashing by lookup table (Maglev, Eisenbud 2016).
    Maglev(HashKey),
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

/// Connections kept for reuse, in each worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// An unused connection is closed after this. Default 60 s.
    pub idle_timeout: Duration,
    /// Unused connections kept for each endpoint in each worker, HTTP/1; as many as `max_connections` lets be open, since a
    /// connection that is closed after a burst has to be made again in the next. Default 1024.
    pub max_idle: usize,
    /// A connection takes no new request after this age; running ones finish. Zero is no bound. Default 1 h where an own certificate is
    /// shown, so that no connection outlives its identity for long, else 0 s.
    pub max_age: Duration,
    /// Requests on one connection before it is closed; 0 is no bound. Default 0.
    pub max_requests: u64,
    /// Connections opened ahead for each endpoint. Default 0.
    pub preconnect: usize,
    /// HTTP/2 streams on one connection at once (the peer's own limit counts too). Default 1024.
    pub h2_streams: u32,
    /// HTTP/2 receive window with which streams begin, bytes. Default 256 KiB.
    pub h2_stream_window: u32,
    /// The largest that a stream's receive window grows to, bytes. Default 16 MiB.
    pub h2_stream_window_max: u32,
    /// HTTP/2 frames that cost the server nothing and that no call paid for, a second, in prices of a PING. Default 20,000.
    pub h2_flood_rate: u32,
    /// The same at once. Default 100,000.
    pub h2_flood_burst: u32,
    /// HTTP/2 connections are asked for a sign of life (PING) after this long without one while streams are open, and given up
    /// 20 s later; zero is off. Default 5 min: gRPC's servers end connections that are asked more often (gRFC A8).
    pub h2_keepalive: Duration,
    /// TCP keepalive starts after this long; zero is off. Default 60 s.
    pub tcp_keepalive: Duration,
    /// Bytes of an HTTP/1 response head; more is `upstream-protocol-error`. Default 60 KiB.
    pub headers_size: usize,
    /// Header lines of a response. Default 100.
    pub headers_count: usize,
}

impl Pool {
    /// Default of [`Self::max_age`] where an own certificate is shown.
    pub const MAX_IDENTITY_AGE: Duration = Duration::from_hours(1);
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_mins(1),
            max_idle: 1024,
            max_age: Duration::ZERO,
            max_requests: 0,
            preconnect: 0,
            h2_streams: 1024,
            h2_stream_window: 256 << 10,
            h2_stream_window_max: 16 << 20,
            h2_flood_rate: 20_000,
            h2_flood_burst: 100_000,
            h2_keepalive: Duration::from_mins(5),
            tcp_keepalive: Duration::from_mins(1),
            headers_size: 60 << 10,
            headers_count: 100,
        }
    }
}

/// Concurrency limits over all workers (Envoy's circuit breakers, with its defaults).
#[derive(Clone, Debug, PartialEq)]
pub struct CircuitBreaker {
    /// Connections at once. An idle one is closed for a call that needs another, on whichever worker it is. Default 1024.
    pub max_connections: u32,
    /// Requests that wait for a connection. Default 1024.
    pub max_pending: u32,
    /// Requests at once. Those whose client reads nothing for a second are given up while more than three quarters are taken. Default
    /// 1024.
    pub max_requests: u32,
    /// Of these, the requests of one client: an address, of IPv6 a /64. Default `None`: no bound of its own.
    pub max_requests_per_client: Option<u32>,
    /// Retries at once, unless a budget is set. Default 3.
    pub max_retries: u32,
    /// Opens when the whole upstream fails. Default `None`: ejection takes single endpoints out, and the
    /// retry budget bounds the load; a breaker over all of them turns a partial outage into a whole one.
    pub failures: Option<FailureBreaker>,
    /// Leaves single endpoints alone, and takes them back by the evidence of probes. Default `None`.
    pub endpoint_failures: Option<FailureBreaker>,
}

/// A breaker. Of a whole upstream: while it is open, calls are answered at once with `circuit-open`. Of an endpoint: while it is
/// open, the endpoint is left out.
#[derive(Clone, Debug, PartialEq)]
pub struct FailureBreaker {
    /// Failures in a row that open it; 0 is off. Default 20.
    pub consecutive: u32,
    /// It opens when fewer than this share of the window's calls succeed, 0 to 1; 0 is off. Default 0.5.
    pub success_rate: f64,
    /// The sliding window of `success_rate`, at least 10 ms. Default 10 s.
    pub window: Duration,
    /// Calls in the window before their rate counts. Default 50.
    pub min_samples: u32,
    /// First open time, doubled with each time its probes fail, and up to 20 % longer at random. Default 1 s.
    pub open: Duration,
    /// Longest open time before the random part. Default 60 s.
    pub open_max: Duration,
    /// Calls let through after the open time, all of which must succeed; 1 to 65535. Default 3.
    pub probes: u16,
}

impl Default for FailureBreaker {
    fn default() -> Self {
        Self {
            consecutive: 20,
            success_rate: 0.5,
            window: Duration::from_secs(10),
            min_samples: 50,
            open: Duration::from_secs(1),
            open_max: Duration::from_mins(1),
            probes: 3,
        }
    }
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending: 1024,
            max_requests: 1024,
            max_requests_per_client: None,
            max_retries: 3,
            failures: None,
            endpoint_failures: None,
        }
    }
}

/// Passive health (Envoy's outlier detection).
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierEjection {
    /// 5xx answers, resets and failed connections in a row; 0 is off. Default 5.
    pub consecutive_5xx: u32,
    /// Failures of attache's own making (connect, reset, timeout) in a row; 0 is off. Default 5.
    pub consecutive_local: u32,
    /// First ejection time; the n-th lasts n times as long. Default 30 s.
    pub base: Duration,
    /// Longest ejection. Default 300 s.
    pub max: Duration,
    /// Share of the endpoints that may be ejected at once, 0 to 1; one is always left. Default 0.1, but at least one
    /// endpoint where there are two or more.
    pub max_percent: f64,
    /// How often rates are judged. Default 10 s.
    pub interval: Duration,
    /// Ejection of what fails much more than the others; `None` is off. Default on.
    pub success_rate: Option<SuccessRate>,
    /// Ejection of what fails by a fixed share; `None` is off. Default off.
    pub failure_percentage: Option<FailurePercentage>,
}

/// An endpoint goes when its success rate is below the mean of all by more than so many standard deviations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuccessRate {
    /// Endpoints with `request_volume` that a comparison needs. Default 5.
    pub minimum_hosts: u32,
    /// Requests in an interval before an endpoint is compared. Default 100.
    pub request_volume: u32,
    /// Standard deviations, in thousandths. Default 1900.
    pub stdev_factor: u32,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { minimum_hosts: 5, request_volume: 100, stdev_factor: 1900 }
    }
}

/// An endpoint goes when so large a share of its requests failed in an interval.
#[derive(Clone, Debug, PartialEq)]
pub struct FailurePercentage {
    /// The share, 0 to 1. Default 0.85.
    pub threshold: f64,
    /// Endpoints with `request_volume` before any is judged. Default 5.
    pub minimum_hosts: u32,
    /// Requests in an interval before an endpoint is judged. Default 50.
    pub request_volume: u32,
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self { threshold: 0.85, minimum_hosts: 5, request_volume: 50 }
    }
}

impl Default for OutlierEjection {
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            consecutive_local: 5,
            base: Duration::from_secs(30),
            max: Duration::from_mins(5),
            max_percent: 0.1,
            interval: Duration::from_secs(10),
            success_rate: Some(SuccessRate::default()),
            failure_percentage: None,
        }
    }
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
