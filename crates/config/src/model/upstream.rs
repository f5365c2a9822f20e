//! Where calls go.

use std::{fmt, net::IpAddr, num::NonZeroU16, path::PathBuf, sync::Arc, time::Duration};

use http::HeaderName;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::{
    AdaptiveConcurrency, CircuitBreaker, Credential, HostRewrite, Name, OutlierEjection, Pool, Queue,
    RetryForm, Timeouts, TlsClient,
};
use crate::{
    section::{
        Given, List, Maybe, Notation, OrOffPart, Pairs, Part, Plain, Read, Shared, Short, Show, UnlessEmpty,
        Written, section,
    },
    shapes::{At, OneOrMany, OrOff, Txt},
    text::{
        AddressRange, Hash, HeaderText, HostAndPort, Octets, PathValue, Positive, Ratio, RewriteHost, Source,
        SourceAddress, Timeout, Word, show_timeout,
    },
};

section! {
    "an upstream"
    /// An upstream: a named set of endpoints, and how they are used.
    pub struct Upstream {
        /// Where it is, with its scheme. `http` (port 80), `h2c` (HTTP/2 with prior knowledge, 80), `https` (443), `tcp` and `tls`
        /// (opaque bytes, the latter within TLS); `unix:PATH`, `srv://_SERVICE._PROTO.NAME` and `kubernetes://SERVICE.NAMESPACE:PORT`
        /// (EndpointSlices, docs/discovery.md) take what comes, or say it with `unix+h2c:`, `srv+https://` and `kubernetes+https://`.
        /// Every address that a name has is an endpoint. `authority` is whatever host the request
        /// names (a forward proxy); `original-destination` is where an intercepted connection wanted to go.
        address(OneOrMany<Short<EndpointSource>>): Address = Address::OriginalDestination,
        /// What is spoken, where the scheme leaves it open or is to be overruled.
        protocol(UpstreamProtocol): UpstreamProtocol = UpstreamProtocol::default(),
        /// The Host header (HTTP/2: `:authority`) that it is sent, for routes without a `rewrite.host`: `preserve` is as the client sent
        /// it, `upstream` is the upstream's own (host and port of its first address), anything else is a host. Without it, a request
        /// that named this upstream by its Host keeps that, and any other gets the upstream's own; docs/routing.md has the whole rule.
        host: HostRewrite as HostOrAuto = HostRewrite::Auto,
        /// TLS to it; needs a scheme with TLS, or one that leaves it open.
        tls(At<Read<TlsClient>>): Option<TlsClient> = None,
        /// How an endpoint is chosen: the algorithm alone, or in full.
        #[schema(default = "least-request")]
        balance(Short<Balance>): Balance = Balance::default(),
        /// How long a TCP connection may take, over all addresses of one endpoint.
        connect_timeout: Duration as Positive = Duration::from_secs(1),
        /// How long the TLS handshake may take.
        handshake_timeout: Duration as Positive = Duration::from_secs(2),
        /// Deadline of requests, for routes to here that have none of their own. Where it is set it bounds the whole exchange; the default
        /// bounds the time to the answer's head.
        #[schema(default = show_timeout(Timeouts::default().request))]
        timeout(Txt<Timeout>),
        /// A stream without a byte either way for this long is cut; for routes to here that have none of their own.
        #[schema(default = show_timeout(Timeouts::default().idle))]
        idle_timeout(Txt<Timeout>),
        /// The header in which callers say how many milliseconds they still wait, `x-envoy-expected-rq-timeout-ms` for example. It
        /// shortens the deadline, and every attempt passes on what remains of the shortest one. For routes to here that have none of their own.
        #[schema(examples = ["x-request-deadline"])]
        deadline_header(Txt<HeaderText>),
        /// Retries, for routes to here that have none of their own.
        retry(RetryForm),
        /// Connections kept for reuse, in each worker.
        pool(Given<Pool>): Pool = Pool::default(),
        /// Concurrency limits over all workers, or `off`.
        circuit_breaker: CircuitBreaker as OrOffPart = CircuitBreaker::default(),
        /// A concurrency limit that follows the upstream's latency. Off without it; `{}` has every default.
        #[schema(examples = [json!({})])]
        adaptive_concurrency(OrOff<At<AdaptiveConcurrency>>): Option<AdaptiveConcurrency> = None,
        /// A short queue by priority for what a concurrency limit would refuse. Off without it; `{}` has every default.
        #[schema(examples = [json!({})])]
        queue(OrOff<At<Queue>>): Option<Queue> = None,
        /// Passive health: endpoints that fail are left out for a while. Or `off`.
        outlier_ejection: OutlierEjection as OrOffPart = OutlierEjection::default(),
        /// Active health. Off without it.
        health_check(At<Read<HealthCheck>>): Option<HealthCheck> = None,
        /// What becomes of the connections to an endpoint that fails its health checks, is ejected, or is no longer named by discovery.
        on_unhealthy: OnUnhealthy = OnUnhealthy::default(),
        /// A secret that requests are given, for routes to here that have none of their own.
        credential(At<Read<Credential>>): Option<Arc<Credential>> as Maybe<Shared<Part>> = None,
        /// PROXY protocol sent at the start of every connection.
        proxy_protocol: ProxyProtocolOut = ProxyProtocolOut::default(),
        /// Local address of outgoing connections.
        source_address: Option<IpAddr> as Maybe<SourceAddress> = None,
        /// With `address: authority`: hosts looked up and kept at once.
        #[schema(minimum = 1, default = Self::MAX_HOSTS)]
        max_hosts(u32),
        /// With `address: authority`: destinations that are refused.
        #[schema(examples = ["169.254.0.0/16"])]
        deny(OneOrMany<Txt<AddressRange>>),
    }
    holds {
        /// The key in the file; the `upstream` label.
        name: Name = "".into(),
        /// Line in the file, for `explain`.
        line: u32 = 0,
    }
    requires address
    or address
    shows Self::show_rest
}

impl Upstream {
    /// Default of [`Address::Authority`]'s `max_hosts`.
    pub const MAX_HOSTS: usize = 1024;

    /// An upstream of which nothing but its name and address is said.
    pub fn new(name: impl Into<Name>, address: Address) -> Self {
        Self { name: name.into(), address, ..Self::default() }
    }

    fn show_rest(&self, shown: &mut Map<String, Value>) {
        shown.insert("line".into(), self.line.into());
        if let Address::Authority { max_hosts, deny } = &self.address {
            shown.insert("max_hosts".into(), (*max_hosts).into());
            shown.insert("deny".into(), deny.iter().map(ToString::to_string).collect());
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

/// What becomes of the Host header; without the key, the rule of docs/routing.md decides.
pub(crate) struct HostOrAuto;

impl Show<HostRewrite> for HostOrAuto {
    fn show(value: &HostRewrite) -> Value {
        match value {
            HostRewrite::Auto => Value::Null,
            HostRewrite::Preserve => "preserve".into(),
            HostRewrite::Upstream => "upstream".into(),
            HostRewrite::To(host) => (**host).into(),
        }
    }
}

impl Notation<HostRewrite> for HostOrAuto {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Txt<RewriteHost>>()
    }

    fn read(value: Value) -> serde_json::Result<HostRewrite> {
        serde_json::from_value::<Txt<RewriteHost>>(value).map(|text| text.0.0)
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

/// As the file writes it.
impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Endpoints(sources) => sources.serialize(serializer),
            Self::Authority { .. } => "authority".serialize(serializer),
            Self::OriginalDestination => "original-destination".serialize(serializer),
        }
    }
}

section! {
    "an address with its weight"
    /// An address with its weight and place.
    pub struct EndpointSource: Eq {
        /// The address, with its scheme.
        address(At<Txt<Source>>) in target: Target as Written = Target::Unix(PathBuf::new()),
        /// Relative weight of each endpoint from here; weights of SRV records multiply it.
        #[schema(minimum = 1, maximum = 1_000_000)]
        weight: u32 = 1,
        /// 0 is used first; others take over as it becomes unhealthy.
        // SRV priorities follow within one source.
        priority: u8 = 0,
        /// Zone of its endpoints; those of attache's own zone (`balance.zone`) are preferred.
        #[schema(examples = ["eu-central-1a"])]
        zone: Option<Name> as Maybe<Word> = None,
        /// What is known of its endpoints: a route's `subset` asks for it.
        #[schema(examples = [json!({"version": "v2"})])]
        labels: Vec<(Name, Name)> as Pairs<Word, Word> = Vec::new(),
    }
    requires address
    or address
}

impl EndpointSource {
    /// A source of which nothing else is said.
    pub fn new(target: Target) -> Self {
        Self { target, ..Self::default() }
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

/// As the file writes it, without the scheme of what is spoken.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns { host, port } => write!(f, "{host}:{port}"),
            Self::Srv { name } => write!(f, "srv://{name}"),
            Self::Kubernetes(service) => service.fmt(f),
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
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
    or algorithm
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

section! {
    "`health_check`"
    /// Active health. Exactly one of `path`, `tcp` and `grpc`.
    pub struct HealthCheck: Eq {
        /// `GET` of this path; 200 to 299 is healthy.
        path(Txt<PathValue>),
        /// The Host header of that `GET`. By default the upstream's host.
        host(Txt<HostAndPort>),
        /// `true`: a TCP connection (and TLS handshake where there is TLS) is enough. Or what is sent, and what must come back.
        tcp(TcpForm),
        /// The service that `grpc.health.v1.Health/Check` is asked for; `""` is the whole server.
        #[schema(examples = ["shop.Orders"])]
        grpc(String),
        /// Another port of the same address that is asked, without a PROXY protocol header: the REST API beside a database, a management
        /// port. With it, an upstream of opaque bytes can be asked by `path` or `grpc`.
        #[schema(examples = [8008])]
        port: Option<NonZeroU16> as Maybe<Plain> = None,
        /// Whether the probe uses the upstream's TLS. By default it does where the upstream has TLS.
        #[schema(default = ())]
        tls: bool = true,
        /// Time between two probes, each with up to 10 % of jitter.
        interval: Duration as Positive = Duration::from_secs(5),
        /// Time between two probes of an endpoint that is unhealthy. By default `interval`.
        #[schema(default = ())]
        unhealthy_interval: Duration as Positive = Duration::from_secs(5),
        /// How long a probe may take.
        timeout: Duration as Positive = Duration::from_secs(1),
        /// Successes in a row that make an endpoint healthy.
        #[schema(minimum = 1)]
        healthy: u32 = 1,
        /// Failures in a row that make it unhealthy.
        #[schema(minimum = 1)]
        unhealthy: u32 = 3,
    }
    holds {
        /// What is asked.
        probe: Probe = Probe::connection(),
    }
    shows Self::show_probe
}

impl HealthCheck {
    /// A check with this probe and the defaults.
    pub fn new(probe: Probe) -> Self {
        Self { probe, ..Self::default() }
    }

    fn show_probe(&self, shown: &mut Map<String, Value>) {
        let (path, host, tcp, grpc) = match &self.probe {
            Probe::Http { path, host } => (Some(&**path), host.as_deref(), Value::from(false), None),
            Probe::Tcp { send, expect } if send.is_empty() && expect.is_empty() => {
                (None, None, Value::from(true), None)
            }
            Probe::Tcp { send, expect } => {
                let bytes = TcpBytes { send: send.clone(), expect: expect.clone() };
                (None, None, json!(bytes), None)
            }
            Probe::Grpc { service } => (None, None, Value::from(false), Some(&**service)),
        };
        let keys = [("path", json!(path)), ("host", json!(host)), ("tcp", tcp), ("grpc", json!(grpc))];
        shown.extend(keys.map(|(key, value)| (key.to_owned(), value)));
    }
}

section! {
    "`tcp` of a health check"
    /// A TCP health check with bytes: `hex:` and digits, or text as it is.
    pub struct TcpBytes: Eq {
        /// Sent at once.
        #[schema(default = (), examples = ["PING\r\n"])]
        send: Arc<[u8]> as Octets = Arc::default(),
        /// Must come back within 16 KiB; of a list each behind the one before. Other bytes may stand between.
        #[schema(examples = ["+PONG"])]
        expect: Vec<Arc<[u8]>> as List<Octets> = Vec::new(),
    }
}

/// A connection alone, or bytes each way.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("examples" = [true]))]
pub(crate) enum TcpForm {
    Connection(bool),
    Bytes(TcpBytes),
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
