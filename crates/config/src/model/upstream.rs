//! Where calls go.

use std::{fmt, net::IpAddr, num::NonZeroU16, path::PathBuf, sync::Arc, time::Duration};

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AdaptiveConcurrency, Credential, HostRewrite, Name, Queue, TlsClient};
use crate::{
    section::{Empty, Maybe, OffOr, Plain, section},
    text::{HeadSize, Positive, Ratio, Timeout, Window, WindowSize},
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

section! {
    "`pool`"
    /// Connections kept for reuse, in each worker.
    pub struct Pool: Eq {
        /// An unused connection is closed after this.
        idle_timeout: Duration as Positive = Duration::from_mins(1),
        /// Unused HTTP/1 connections kept for each endpoint in each worker.
        // As many as `max_connections` lets be open: a connection that is closed after a burst has to be made again in the next.
        max_idle: usize = 1024,
        /// A connection takes no new request after this age; running ones finish. `0s` is no bound. By default `1h` where `tls` shows an
        /// own certificate, so that peers see a renewed one, and no bound elsewhere.
        #[schema(default = (), examples = ["30m"])]
        max_age: Duration as Timeout = Duration::ZERO,
        /// Requests on one connection before it is closed; 0 is no bound.
        max_requests: u64 = 0,
        /// Connections opened ahead for each endpoint.
        #[schema(maximum = 1024)]
        preconnect: usize = 0,
        /// HTTP/2 streams on one connection at once; the peer's own limit counts too.
        #[schema(minimum = 1)]
        h2_streams: u32 = 1024,
        /// HTTP/2 receive window with which streams begin.
        h2_stream_window: u32 as WindowSize = 256 << 10,
        /// The largest that a stream's receive window grows to while its reader keeps up.
        h2_stream_window_max: u32 as WindowSize = 16 << 20,
        /// HTTP/2 frames that cost the server nothing and that no call paid for, per second and connection, in prices of a PING: see
        /// [http2.md](http2.md). More than that, once the burst is used up, ends the connection with `upstream-protocol-error`.
        #[schema(minimum = 1)]
        h2_flood_rate: u32 = 20_000,
        /// The same at once, per connection.
        #[schema(minimum = 100)]
        h2_flood_burst: u32 = 100_000,
        /// HTTP/2 connections are asked for a sign of life (PING) after this long without one while streams are open.
        // They are given up 20 s later. gRPC's servers end connections that are asked more often than this default (gRFC A8).
        h2_keepalive: Duration as Timeout = Duration::from_mins(5),
        /// TCP keepalive starts after this long without a byte.
        tcp_keepalive: Duration as Timeout = Duration::from_mins(1),
        /// Bytes of an HTTP/1 response head; more is `upstream-protocol-error`.
        headers_size: usize as HeadSize = 60 << 10,
        /// Header lines of a response.
        #[schema(minimum = 1, maximum = 10000)]
        headers_count: usize = 100,
    }
}

impl Pool {
    /// Default of [`Self::max_age`] where an own certificate is shown.
    pub const MAX_IDENTITY_AGE: Duration = Duration::from_hours(1);
}

section! {
    "`circuit_breaker`"
    /// Concurrency limits over all workers: what is beyond is answered 503 at once.
    // Envoy's circuit breakers, with its defaults.
    pub struct CircuitBreaker {
        /// Connections at once. An idle one is closed for a call that needs another, on whichever worker it is.
        #[schema(minimum = 1)]
        max_connections: u32 = 1024,
        /// Requests that wait for a connection.
        max_pending: u32 = 1024,
        /// Requests at once. Those whose client reads nothing for a second are given up while more than three quarters are taken.
        #[schema(minimum = 1)]
        max_requests: u32 = 1024,
        /// Of these, the requests of one client at once: of an address, and of IPv6 of a /64. One more is answered 429
        /// `overflow-client`. Without it one client may have them all: what stands behind one address, as a load balancer
        /// or the application itself, is often many.
        #[schema(minimum = 1, examples = [100])]
        max_requests_per_client: Option<u32> as Maybe<Plain> = None,
        /// Retries at once, unless a budget is set.
        max_retries: u32 = 3,
        /// Opens when the whole upstream fails. Off without it: ejection takes single endpoints out, and a breaker over all of them
        /// turns a partial outage into a whole one. `{}` has every default.
        #[schema(examples = [Empty {}])]
        failures: Option<FailureBreaker> as Maybe<Plain> = None,
        /// Leaves a failing endpoint alone, then lets probes through to it and takes it back when all of them succeed. Beside
        /// ejection, which takes it back by time. Off without it; `{}` has every default.
        #[schema(examples = [Empty {}])]
        endpoint_failures: Option<FailureBreaker> as Maybe<Plain> = None,
    }
}

impl CircuitBreaker {
    /// No bound at all: `circuit_breaker: off`.
    pub fn off() -> Self {
        let most = u32::MAX;
        Self {
            max_connections: most,
            max_pending: most,
            max_requests: most,
            max_retries: most,
            ..Self::default()
        }
    }
}

section! {
    "`failures`"
    /// A failure breaker, of a whole upstream (`failures`) or of each endpoint (`endpoint_failures`).
    // While that of an upstream is open, calls are answered at once with `circuit-open`; an endpoint is left out.
    pub struct FailureBreaker {
        /// Failures in a row that open it; 0 is off.
        consecutive: u32 = 20,
        /// It opens when fewer than this share of the window's calls succeed; 0 is off.
        success_rate: f64 as Ratio = 0.5,
        /// The sliding window of `success_rate`; at least 10 ms.
        window: Duration as Window = Duration::from_secs(10),
        /// Calls in the window before their rate counts.
        min_samples: u32 = 50,
        /// First open time, doubled each time its probes fail, and up to 20 % longer at random.
        open: Duration as Positive = Duration::from_secs(1),
        /// Longest open time, before the random part.
        open_max: Duration as Positive = Duration::from_mins(1),
        /// Calls let through after the open time, all of which must succeed.
        #[schema(minimum = 1)]
        probes: u16 = 3,
    }
    then Self::lengthen
}

impl FailureBreaker {
    /// A longer first open time alone lengthens the longest one, too.
    fn lengthen(&mut self) {
        self.open_max = self.open_max.max(self.open);
    }
}

section! {
    "`outlier_ejection`"
    /// Passive health.
    // Envoy's outlier detection.
    pub struct OutlierEjection {
        /// 5xx answers, resets and failed connections in a row; 0 is off.
        consecutive_5xx: u32 = 5,
        /// Failures of attache's own making (connect, reset, timeout) in a row; 0 is off.
        consecutive_local: u32 = 5,
        /// First ejection time; the n-th lasts n times as long.
        base: Duration as Positive = Duration::from_secs(30),
        /// Longest ejection.
        max: Duration as Positive = Duration::from_mins(5),
        /// Share of the endpoints that may be ejected at once; one always may where there are two or more, and one is always
        /// left.
        max_percent: f64 as Ratio = 0.1,
        /// How often `success_rate` and `failure_percentage` are judged.
        interval: Duration as Positive = Duration::from_secs(10),
        /// Ejects what fails much more often than the others. On by default; or `off`.
        success_rate: Option<SuccessRate> as OffOr<Plain> = Some(SuccessRate::default()),
        /// Ejects what fails too often, whatever the others do. Off without it; `{}` has every default.
        #[schema(examples = [Empty {}])]
        failure_percentage: Option<FailurePercentage> as OffOr<Plain> = None,
    }
    then Self::lengthen
}

impl OutlierEjection {
    /// Nothing is ejected: `outlier_ejection: off`.
    pub fn off() -> Self {
        Self { consecutive_5xx: 0, consecutive_local: 0, success_rate: None, ..Self::default() }
    }

    /// A longer first ejection alone lengthens the longest one, too.
    fn lengthen(&mut self) {
        self.max = self.max.max(self.base);
    }
}

section! {
    "`success_rate`"
    /// Ejection of an endpoint whose success rate is far below the mean of all.
    pub struct SuccessRate: Eq {
        /// Endpoints with `request_volume` that a comparison needs.
        minimum_hosts: u32 = 5,
        /// Requests in an interval before an endpoint is compared.
        request_volume: u32 = 100,
        /// Standard deviations below the mean, in thousandths.
        stdev_factor: u32 = 1900,
    }
}

section! {
    "`failure_percentage`"
    /// Ejection of an endpoint of whose requests too many failed.
    pub struct FailurePercentage {
        /// The share of failures at which it goes.
        threshold: f64 as Ratio = 0.85,
        /// Endpoints with `request_volume` before any is judged.
        minimum_hosts: u32 = 5,
        /// Requests in an interval before an endpoint is judged.
        request_volume: u32 = 50,
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
