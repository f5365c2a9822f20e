//! Where attache listens, and how it reads the bytes of clients.

use super::prelude::*;

section! {
    "a listener"
    /// A listener: its sockets, and what happens to the connections on them.
    pub struct Listener {
        /// Where it listens: `ADDRESS:PORT`, `[IPV6]:PORT`, `localhost:PORT` (both loopbacks), `:PORT` (every IPv4 address),
        /// or `unix:PATH`.
        bind(OneOrMany<Spanned<Text<Binds>>>): Vec<Bind> as List<Written> = Vec::new(),
        /// Mode of the files of `unix:` sockets, octal.
        #[schema(default = "0660")]
        unix_mode(Text<SocketMode>),
        /// Which protocol is expected.
        protocol: ListenProtocol = ListenProtocol::default(),
        /// With `transparent` and `protocol: auto`: original destination ports whose servers send first, so that attache does
        /// not wait for bytes of the client.
        // 25 and 587 are SMTP, 3306 is MySQL, 4444 is Galera; servers on 5432, 6379 and 9300 don't speak first.
        server_first_ports: Vec<u16> = vec![25, 587, 3306, 4444],
        /// With `protocol: auto`, where routes take opaque bytes: the longest wait for the client's first bytes before attache
        /// connects to a server that may send first.
        detect_timeout: Duration as Positive = Duration::from_secs(1),
        /// PROXY protocol (versions 1 and 2) at the start of accepted connections.
        proxy_protocol: ProxyProtocolIn = ProxyProtocolIn::default(),
        /// Connections were redirected here by the kernel: the original destination is read from the socket.
        transparent: bool = false,
        /// TLS termination. Plaintext without it.
        tls(Spanned<ParsedSection<TlsServer>>): Option<TlsServer> = None,
        /// How HTTP is spoken.
        http(Spanned<GivenKeys<HttpServer>>): HttpServer = HttpServer::default(),
        /// Changes to the answers that attache makes itself.
        local_reply(Spanned<ParsedSection<LocalReply>>): LocalReply = LocalReply::default(),
        /// Who may do what here. Without it, every client may do everything.
        authorization(Spanned<ParsedSection<Authorization>>): Option<Arc<Authorization>> as Optional<SharedValue<Nested>> = None,
        /// What its routes do for browsers.
        ..web: Web,
        /// Routes. The most specific route that matches gets the request or connection.
        // In the order of the file; a listener's `to` is the last, matching everything.
        routes(Vec<Spanned<ParsedSection<Route>>>): Vec<Route> = Vec::new(),
        /// The destination of everything that no route matches: an upstream, or a split by weight.
        to(Spanned<DestinationsForm>),
        /// The most connections that are open at once, over all workers. attache closes further ones when it accepts them.
        #[schema(minimum = 1)]
        max_connections: usize = 16384,
        /// An opaque connection that carries no byte in either direction for this long is closed.
        tcp_idle_timeout: Duration as Positive = Duration::from_hours(1),
        /// Large transfers of opaque connections move from socket to socket inside the kernel (`splice(2)`) if neither side uses TLS.
        /// `false` makes attache copy all bytes, for a kernel with a bad `splice`.
        tcp_splice: bool = true,
    }
    holds {
        /// The key in the file; the `listener` label.
        name: Name = "".into(),
        /// Line of the listener in the file, for `explain`; 0 when there is none.
        line: u32 = 0,
    }
    requires bind
}

impl Listener {
    /// The name of the listener of a file that has none.
    pub const OUTBOUND: &'static str = "outbound";

    /// A listener with a name, without sockets and routes.
    pub fn new(name: impl Into<Name>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

section! {
    "`local_reply`"
    /// Answers that attache makes itself: those with a reason, from a request that can't be parsed to an upstream that
    /// can't be reached. What routes answer by `respond` has their `headers`.
    pub struct LocalReply: Eq {
        /// Changes to their headers. Their values can use only what every exchange has: no headers of the request, no
        /// captures.
        #[schema(examples = [json!({"set": {"strict-transport-security": "max-age=31536000"}})])]
        headers(ParsedSection<HeaderEdits>): HeaderEdits = HeaderEdits::default(),
    }
}

/// One socket that is listened on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bind {
    /// `ADDRESS:PORT`, `[ADDRESS]:PORT`; a name `localhost` means both loopbacks.
    Tcp(SocketAddr),
    /// `unix:PATH`, with its mode (default 0o660).
    Unix {
        /// Path of the socket; a stale one is replaced.
        path: PathBuf,
        /// File mode.
        mode: u32,
    },
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Bind {
    /// Default mode of a Unix socket.
    pub const UNIX_MODE: u32 = 0o660;
    /// Mode of the admin API's Unix socket: only the own user.
    pub const ADMIN_MODE: u32 = 0o600;
}

/// The protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ListenProtocol {
    /// attache tells the protocols apart by the first bytes: TLS is passed through by SNI (or terminated if `tls` is set), HTTP/1 and
    /// HTTP/2 are routed, everything else is opaque TCP where a route takes that (`tcp://`, `tls://`, `original-destination`) and gets an
    /// HTTP error elsewhere.
    #[default]
    Auto,
    /// HTTP/1 or HTTP/2 by the preface; anything else is refused with 400.
    Http,
    /// Only HTTP/1.
    Http1,
    /// Only HTTP/2 with prior knowledge (or by ALPN).
    Http2,
    /// Opaque bytes: attache doesn't wait for bytes or check them, also inside of `tls` with any ALPN.
    Tcp,
    /// TLS that is passed through and routed by SNI; anything else is closed.
    Tls,
}

/// PROXY protocol (haproxy.org, proxy-protocol.txt, versions 1 and 2) on accepted connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyProtocolIn {
    /// attache never looks for it; bytes that look like it belong to the application.
    #[default]
    Off,
    /// Every connection must begin with a header; one without is closed.
    Require,
    /// A header is used when there is one. Only for networks where every client is trusted: any client can claim any address.
    Optional,
}

section! {
    "`http` of a listener"
    /// How a listener speaks HTTP.
    pub struct HttpServer {
        /// Limits on what one client may send.
        limits: HttpLimits as Nested = HttpLimits::default(),
        /// Time for a request's head, from its first byte to its last; then 408.
        header_timeout: Duration as Positive = Duration::from_secs(10),
        /// A connection without a running request for this long is closed.
        idle_timeout: Duration as Positive = Duration::from_hours(1),
        /// A client that reads no byte of an answer for this long is disconnected, so that it doesn't occupy the upstream's
        /// connection.
        write_timeout: Duration as Positive = Duration::from_mins(1),
        /// What attache does with a running HTTP/1 request whose client has closed its side of the connection.
        half_close: HalfClose = HalfClose::default(),
        /// What attache does with raw UTF-8 in an HTTP/1 request's target.
        target: TargetPolicy = TargetPolicy::default(),
        /// Headers that tell the upstream about the client: one word for all of them, or one for each family. By default
        /// `append` on a listener with `tls`, and `pass` on one without, whose client is the application itself.
        forwarded: Forwarded as AllOrEach = Forwarded::default(),
        /// How attache normalises a path before it matches it and sends it on.
        path: PathPolicy as Nested = PathPolicy::default(),
        /// Protocols that requests may switch to by `Upgrade`, and in HTTP/2 by an extended CONNECT: `any`; a list of them (a request
        /// for another one is refused with 403 `upgrade-denied`); `off` for none; or `ignore` for none, where the request is served
        /// without its `Upgrade`. A tunnel by CONNECT is a matter of routes (`methods: CONNECT`).
        #[schema(examples = [json!(["websocket"])])]
        upgrades: Upgrades as UpgradesForm = Upgrades::default(),
        /// HTTP/2 clients may open a WebSocket by an extended CONNECT (RFC 8441). Without it they are not told that they may, and such a
        /// request is refused with 501.
        extended_connect: bool = true,
        /// Methods that are accepted; a request with another one is refused with 400.
        methods: Methods = Methods::default(),
        /// What attache does with header names that some applications confuse with others.
        header_names: HeaderNames as Nested = HeaderNames::default(),
        /// What attache does with a spelling of a host that other proxies read as another host.
        host: HostSpellings as Nested = HostSpellings::default(),
        /// How routes read queries.
        query: QueryReading as Nested = QueryReading::default(),
        /// The pseudonym in the `Via` header, or `off`.
        via: Option<Name> as OffOr<Word> = Some("attache".into()),
        /// `X-Request-Id` is made where the client sent none.
        request_id: bool = true,
        /// `X-Request-Id` of the client is kept.
        trust_request_id: bool = true,
        /// `x-attache-reason` on answers that attache makes itself.
        reason_header: bool = true,
        /// A connection is ended gracefully (`Connection: close`, GOAWAY) at this age, up to 20 % earlier at random;
        /// `0s` means no limit. Running requests finish. By default `1h` where TLS is terminated, so that clients prove
        /// their identity again, and no limit elsewhere. Opaque connections and tunnels are not ended by it.
        #[schema(default = (), examples = ["30m"])]
        max_connection_age: Duration as Timeout = Duration::ZERO,
        /// What attache does with `X-Forwarded-Client-Cert`.
        forward_client_cert_details: ForwardClientCert = ForwardClientCert::default(),
        /// What attache writes there about its client, in addition to `By` and `Hash`.
        set_current_client_cert_details: Vec<ClientCertDetail> = ClientCertDetail::ALL.to_vec(),
    }
}

/// What happens to a running HTTP/1 request whose client has closed its side of the connection (RFC 9112 section 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HalfClose {
    /// The request is answered: the client may only mean that no further request follows. If the client has left, attache learns this from
    /// its first write.
    #[default]
    Answer,
    /// The request is cancelled with the reason `client-closed`. This saves work for clients that have left, and breaks clients that
    /// half-close.
    Cut,
}

/// What is done about raw UTF-8 in an HTTP/1 request's target, which no RFC allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TargetPolicy {
    /// The request is refused with 400.
    #[default]
    Strict,
    /// Valid UTF-8 passes unchanged, in path and query.
    Lenient,
}

/// What happens to `X-Forwarded-Client-Cert` (Envoy's `forward_client_cert_details`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardClientCert {
    /// The client's value is removed. If the client has proven its identity, attache writes an element about it.
    #[default]
    SanitizeSet,
    /// If the client has a verified certificate, its header is kept, and its own identity is appended. Otherwise as `sanitize`.
    AppendForward,
    /// If the client has a verified certificate, its header is kept. Otherwise as `sanitize`.
    ForwardOnly,
    /// Removed, nothing is written.
    Sanitize,
    /// The header of any client is kept: every client of the listener can claim any identity.
    AlwaysForwardOnly,
}

/// A part of `X-Forwarded-Client-Cert` (Envoy's `set_current_client_cert_details`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCertDetail {
    /// The subject's distinguished name.
    Subject,
    /// The `URI` subject alternative names.
    Uri,
    /// The `DNS` subject alternative names.
    Dns,
}

impl ClientCertDetail {
    /// All of them, in their order in the header.
    pub const ALL: [Self; 3] = [Self::Subject, Self::Uri, Self::Dns];
}

impl HttpServer {
    /// Default of [`Self::max_connection_age`] where TLS is terminated.
    pub const MAX_TLS_AGE: Duration = Duration::from_hours(1);

    /// The defaults behind terminated TLS: there the client isn't the application, and the upstream can't see its
    /// address itself.
    pub fn behind_tls() -> Self {
        let forwarded = Forwarded::all(ForwardedMode::Append);
        Self { forwarded, max_connection_age: Self::MAX_TLS_AGE, ..Self::default() }
    }
}

section! {
    "`limits`"
    /// Limits on the memory and work that one client may cause.
    pub struct HttpLimits: Eq {
        /// Bytes of the request line; more is 414.
        request_line: usize as Size = 8 << 10,
        /// Bytes of all header lines together; more is 431.
        // As Envoy's.
        headers_size: usize as HeadSize = 60 << 10,
        /// Number of header lines; more is 431.
        #[schema(minimum = 1, maximum = 10000)]
        headers_count: usize = 100,
        /// Bytes of a request's body; more is 413 `body-too-large`. 0 means no limit. `body_size` of a route replaces
        /// it.
        #[schema(examples = ["1MiB"])]
        body_size: usize as Size = 0,
        /// HTTP/2 streams open at once on one connection.
        #[schema(minimum = 1)]
        h2_streams: u32 = 100,
        /// The most HTTP/2 streams at one moment that the client has reset before attache accepted them (rapid reset,
        /// CVE-2023-44487). More of them end the connection.
        #[schema(minimum = 1)]
        h2_pending_resets: usize = 1000,
        /// The rate of HTTP/2 frames that cause work without a request or answer, per second and connection, counted in PINGs: see
        /// [http2.md](http2.md). More than that, once the burst is used up, ends the connection with `http2-flood`.
        #[schema(minimum = 1)]
        h2_flood_rate: u32 = 20_000,
        /// How many of these frames one connection may send at once.
        #[schema(minimum = 100)]
        h2_flood_burst: u32 = 100_000,
        /// All connections of one client address together may use this many times `h2_flood_rate` and `h2_flood_burst`,
        /// in each worker. An address is a /64 of IPv6.
        #[schema(minimum = 1)]
        h2_flood_per_client: u32 = 4,
        /// HTTP/2 receive window with which streams begin.
        h2_stream_window: u32 as WindowSize = 256 << 10,
        /// The largest that a stream's receive window grows to while its reader keeps up.
        h2_stream_window_max: u32 as WindowSize = 4 << 20,
        /// Bytes of answers that may wait for the socket of one HTTP/2 connection, all its streams together.
        h2_send_buffer: usize as HeadSize = 64 << 10,
        /// Requests on one connection before it is closed; 0 means no limit.
        requests_per_connection: u64 = 0,
    }
}

section! {
    "`forwarded`"
    /// Forwarding headers by family.
    pub struct Forwarded: Copy, Eq {
        /// `X-Forwarded-For`, `-Proto`, `-Host`.
        #[schema(default = ())]
        x_forwarded: ForwardedMode = ForwardedMode::default(),
        /// `X-Forwarded-Proto` alone, where it isn't to be treated as `x_forwarded` says. `append` writes the scheme where the client sent
        /// none, `replace` always.
        #[schema(default = ())]
        x_forwarded_proto: ForwardedMode = ForwardedMode::default(),
        /// `Forwarded` (RFC 7239).
        #[schema(default = ())]
        rfc7239: ForwardedMode = ForwardedMode::default(),
    }
}

impl Forwarded {
    /// One mode for all headers.
    pub const fn all(mode: ForwardedMode) -> Self {
        Self { x_forwarded: mode, x_forwarded_proto: mode, rfc7239: mode }
    }
}

/// One word for all families of forwarding headers, or one for each.
struct AllOrEach;

impl Show<Forwarded> for AllOrEach {
    fn show(value: &Forwarded) -> Value {
        Nested::show(value)
    }
}

impl Notation<Forwarded> for AllOrEach {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let all = generator.subschema_for::<ForwardedMode>();
        let each = generator.subschema_for::<Forwarded>();
        json_schema!({ "anyOf": [all, each] })
    }

    fn read(value: Value) -> serde_json::Result<Forwarded> {
        let mut forwarded = Forwarded::default();
        Self::set(&mut forwarded, value)?;
        Ok(forwarded)
    }

    fn set(over: &mut Forwarded, value: Value) -> serde_json::Result<()> {
        if value.is_object() {
            let with_proto = value.get("x_forwarded").is_some() && value.get("x_forwarded_proto").is_none();
            Nested::set(over, value)?;
            if with_proto {
                over.x_forwarded_proto = over.x_forwarded;
            }
            return Ok(());
        }
        *over = Forwarded::all(serde_json::from_value(value)?);
        Ok(())
    }
}

/// What happens to one family of forwarding headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedMode {
    /// Passed on untouched.
    #[default]
    Pass,
    /// This hop is appended to what the client sent.
    Append,
    /// The client's value is removed; this hop is the first.
    Replace,
    /// Removed.
    Remove,
}

section! {
    "`path` of `http`"
    /// Path normalisation: one policy, applied once, so that the route and the upstream read the same path.
    pub struct PathPolicy: Copy, Eq {
        /// `.` and `..` segments are resolved (RFC 3986 section 5.2.4); one that climbs above the root is 400.
        dot_segments: bool = true,
        /// `%41` becomes `A` where the byte is unreserved (RFC 3986 section 6.2.2.2).
        decode_unreserved: bool = true,
        /// `//` becomes `/`. Object stores have keys with `//`.
        merge_slashes: bool = false,
        /// What an escaped `/` or `\` (`%2F`, `%5C`) means.
        escaped_slashes: EscapedSlashes = EscapedSlashes::Keep,
        /// What path parameters (`;name=value` behind a segment) mean.
        parameters: PathParameters = PathParameters::Ignore,
    }
}

/// What path parameters (`;name=value` behind a segment, RFC 3986 section 3.3) mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PathParameters {
    /// Routes are matched without them, the upstream gets them as they came. A rewritten path has none. A dot segment or an empty one
    /// with parameters (`/..;/`) is refused with 400: some servers resolve it, others don't.
    #[default]
    Ignore,
    /// Ordinary characters of the segment: `/admin;x` isn't below `/admin`. Use it only if no upstream knows
    /// parameters.
    Keep,
    /// Refused with 400.
    Reject,
}

/// What `%2F` and `%5C` in a path mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EscapedSlashes {
    /// Kept, never a segment boundary.
    #[default]
    Keep,
    /// Refused with 400.
    Reject,
    /// Decoded to `/` before matching.
    Decode,
}
