//! Where calls go.

use super::prelude::*;

section! {
    "an upstream"
    /// An upstream: a named set of endpoints, and how they are used.
    pub struct Upstream {
        /// The address, with its scheme. `http` (port 80), `h2c` (HTTP/2 with prior knowledge, 80), `https` (443),
        /// `tcp` and `tls` (opaque bytes, the latter within TLS); `unix:PATH`, `srv://_SERVICE._PROTO.NAME` and
        /// `kubernetes://SERVICE.NAMESPACE:PORT` (EndpointSlices, docs/discovery.md) leave the protocol open, or name it with
        /// `unix+h2c:`, `srv+https://` and `kubernetes+https://`. Every address of a name is an endpoint.
        /// `authority` is the host that the request names (a forward proxy); `original-destination` is the address that an intercepted
        /// connection was opened to.
        address(OneOrMany<Shorthand<EndpointSource>>): Address = Address::OriginalDestination,
        /// The protocol, if the scheme leaves it open or the scheme's protocol shall be replaced.
        protocol(UpstreamProtocol): UpstreamProtocol = UpstreamProtocol::default(),
        /// The Host header (HTTP/2: `:authority`) of requests to it, for routes without a `rewrite.host`: `preserve` is as the client sent
        /// it, `upstream` is the upstream's own (host and port of its first address), anything else is a host. Without it, a request that
        /// named this upstream by its Host keeps that, and any other gets the upstream's own; docs/routing.md has the whole rule.
        host: HostRewrite as HostOrAuto = HostRewrite::Auto,
        /// TLS to the upstream. It needs a scheme with TLS, or one that leaves the protocol open.
        tls(Spanned<ParsedSection<TlsClient>>): Option<TlsClient> = None,
        /// How an endpoint is chosen: the algorithm alone, or in full.
        #[schema(default = "least-request")]
        balance(Shorthand<Balance>): Balance = Balance::default(),
        /// How long a TCP connection may take, over all addresses of one endpoint.
        connect_timeout: Duration as Positive = Duration::from_secs(1),
        /// How long the TLS handshake may take.
        handshake_timeout: Duration as Positive = Duration::from_secs(2),
        ..policy(PolicyKeys),
        /// Connections kept for reuse, in each worker.
        pool(GivenKeys<Pool>): Pool = Pool::default(),
        /// Concurrency limits over all workers, or `off`.
        circuit_breaker: CircuitBreaker as NestedOrOff = CircuitBreaker::default(),
        /// A concurrency limit that follows the upstream's latency. Off without it; `{}` has every default.
        #[schema(examples = [json!({ "max_concurrency_limit": 200 })])]
        adaptive_concurrency(OrOff<Spanned<AdaptiveConcurrency>>): Option<AdaptiveConcurrency> = None,
        /// A short queue by priority for what a concurrency limit would refuse. Off without it; `{}` has every default.
        #[schema(examples = [json!({ "target": "10ms" })])]
        queue(OrOff<Spanned<Queue>>): Option<Queue> = None,
        /// Passive health checks: endpoints that fail get no calls for a time. `off` switches them off.
        outlier_ejection: OutlierEjection as NestedOrOff = OutlierEjection::default(),
        /// Active health checks: attache sends probes to the endpoints. Without this key there are none.
        health_check(Spanned<ParsedSection<HealthCheck>>): Option<HealthCheck> = None,
        /// What happens to the connections of an endpoint when it fails its health checks, is ejected, or is no longer in the results of
        /// discovery.
        on_unhealthy: OnUnhealthy = OnUnhealthy::default(),
        /// A secret that attache adds to requests, for routes to this upstream without a `credential`.
        credential(Spanned<ParsedSection<Credential>>): Option<Arc<Credential>> as Optional<SharedValue<Nested>> = None,
        /// PROXY protocol sent at the start of every connection.
        proxy_protocol: ProxyProtocolOut = ProxyProtocolOut::default(),
        /// Local address of outgoing connections.
        source_address: Option<IpAddr> as Optional<SourceAddress> = None,
        /// With `address: authority`: hosts looked up and kept at once.
        #[schema(minimum = 1, default = Self::MAX_HOSTS)]
        max_hosts(u32),
        /// With `address: authority`: destinations that are refused.
        #[schema(examples = ["169.254.0.0/16"])]
        deny(OneOrMany<Text<AddressRange>>),
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

    /// An upstream with a name and an address, and all defaults.
    pub fn new(name: impl Into<Name>, address: Address) -> Self {
        Self { name: name.into(), address, ..Self::default() }
    }

    fn show_rest(&self, shown: &mut Object<String, Value>) {
        shown.insert("line".into(), self.line.into());
        if let Address::Authority { max_hosts, deny } = &self.address {
            shown.insert("max_hosts".into(), (*max_hosts).into());
            shown.insert("deny".into(), deny.iter().map(ToString::to_string).collect());
        }
    }

    /// Its own authority: the host of its first address, without a port that is the scheme's default. `None` if the
    /// request itself names the host.
    pub fn authority(&self) -> Option<Name> {
        let Address::Endpoints(sources) = &self.address else { return None };
        let usual = if self.tls.is_some() { 443 } else { 80 };
        Some(match &sources.first()?.target {
            EndpointTarget::Dns { host, port } => {
                let host = host.strip_suffix('.').unwrap_or(host);
                if *port == usual { host.into() } else { format!("{host}:{port}").into() }
            }
            EndpointTarget::Srv { name } => name.strip_suffix('.').unwrap_or(name).into(),
            EndpointTarget::Kubernetes(service) => match service.port {
                KubernetesPort::Number(port) if port != usual => format!("{}:{port}", service.host()).into(),
                _ => service.host(),
            },
            EndpointTarget::Ip(address) if address.port() != usual => address.to_string().into(),
            EndpointTarget::Ip(address) if address.is_ipv4() => address.ip().to_string().into(),
            EndpointTarget::Ip(address) => format!("[{}]", address.ip()).into(),
            // A Unix socket has no host name.
            EndpointTarget::Unix(_) => self.name.clone(),
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

/// What happens to the Host header; without the key, the rule of docs/routing.md decides.
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
        generator.subschema_for::<Text<RewriteHost>>()
    }

    fn read(value: Value) -> serde_json::Result<HostRewrite> {
        serde_json::from_value::<Text<RewriteHost>>(value).map(|text| text.0)
    }
}

/// Where an upstream's endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A list of sources, at least one.
    Endpoints(Vec<EndpointSource>),
    /// The host that each request names (a forward proxy), looked up when a request comes. The port is the authority's,
    /// or the scheme's default.
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
    /// An address with its weight, priority, zone and labels.
    pub struct EndpointSource: Eq {
        /// The address, with its scheme.
        address(Spanned<Text<SourceText>>) in target: EndpointTarget as Written = EndpointTarget::Unix(PathBuf::new()),
        /// Relative weight of each endpoint of this address; weights of SRV records multiply it.
        #[schema(minimum = 1, maximum = 1_000_000)]
        weight: u32 = 1,
        /// Endpoints with priority 0 are used first. Those with higher numbers take over as these become unhealthy.
        // SRV priorities follow within one source.
        priority: u8 = 0,
        /// Zone of its endpoints; those of attache's own zone (`balance.zone`) are preferred.
        #[schema(examples = ["eu-central-1a"])]
        zone: Option<Name> as Optional<Word> = None,
        /// Labels of its endpoints, which a route's `subset` selects.
        #[schema(examples = [json!({"version": "v2"})])]
        labels: Vec<(Name, Name)> as Pairs<Word, Word> = Vec::new(),
    }
    requires address
    or address
}

impl EndpointSource {
    /// A source with all defaults.
    pub fn new(target: EndpointTarget) -> Self {
        Self { target, ..Self::default() }
    }
}

/// What an endpoint source names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EndpointTarget {
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
impl fmt::Display for EndpointTarget {
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
    /// `SERVICE.NAMESPACE.svc`: the name that TLS verifies, and the Host of requests.
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

/// PROXY protocol on the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyProtocolOut {
    /// None is sent. A connection may carry requests of several clients.
    #[default]
    Off,
    /// Version 1 (text). Every client connection gets its own upstream connection.
    V1,
    /// Version 2 (binary).
    V2,
}
