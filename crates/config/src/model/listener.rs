//! What is listened on and how its bytes are understood.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Authorization, Name, Route, TlsServer, Web};

/// One listener: its sockets and what happens to connections on them.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// The key in the file; the `listener` label.
    pub name: Name,
    /// One or more sockets.
    pub bind: Vec<Bind>,
    /// Which protocol is expected.
    pub protocol: ListenProtocol,
    /// With `protocol: auto` and transparent interception: original destination ports whose servers speak first, so
    /// that no byte of the client is waited for. Default 25, 587 (SMTP), 3306 (MySQL), 4444 (Galera), 5432 is not
    /// one, 6379 and 9300 are not.
    pub server_first_ports: Vec<u16>,
    /// With `protocol: auto`, where routes take opaque bytes: how long the first bytes are waited for before a server is connected that
    /// may speak first. Default 1 s.
    pub detect_timeout: Duration,
    /// PROXY protocol on the way in.
    pub proxy_protocol: ProxyProtocolIn,
    /// Connections were redirected here by the kernel: the original destination is read from the socket.
    pub transparent: bool,
    /// TLS termination; `None` is plaintext.
    pub tls: Option<TlsServer>,
    /// HTTP behaviour.
    pub http: HttpServer,
    /// Who may do what here; `None` is everybody.
    pub authorization: Option<Arc<Authorization>>,
    /// What its routes do for browsers, where they don't say otherwise.
    pub web: Web,
    /// Routes in the order of the file; a listener's `to:` is the last, matching everything.
    pub routes: Vec<Route>,
    /// Connections open at once over all workers; more are closed at accept. Default 16384.
    pub max_connections: usize,
    /// An opaque connection without a byte either way for this long is closed. Default 1 h.
    pub tcp_idle_timeout: Duration,
    /// Bulk between two plain sockets moves inside the kernel (`splice(2)`). Default true.
    pub tcp_splice: bool,
    /// Line of the listener in the file, for `explain`; 0 when there is none.
    pub line: u32,
}

impl Listener {
    /// The name of the listener of a file that has none.
    pub const OUTBOUND: &'static str = "outbound";
    /// Default of [`Self::server_first_ports`].
    pub const SERVER_FIRST_PORTS: [u16; 4] = [25, 587, 3306, 4444];
    /// Default of [`Self::detect_timeout`].
    pub const DETECT_TIMEOUT: Duration = Duration::from_secs(1);
    /// Default of [`Self::max_connections`].
    pub const MAX_CONNECTIONS: usize = 16384;
    /// Default of [`Self::tcp_idle_timeout`].
    pub const TCP_IDLE_TIMEOUT: Duration = Duration::from_hours(1);
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
    /// Told apart by the first bytes: TLS is passed through by SNI (or terminated if `tls` is set), HTTP/1 and HTTP/2
    /// are routed, everything else is opaque TCP where a route takes that (`tcp://`, `tls://`, `original-destination`) and an HTTP error
    /// elsewhere.
    #[default]
    Auto,
    /// HTTP/1 or HTTP/2 by the preface; anything else is refused with 400.
    Http,
    /// Only HTTP/1.
    Http1,
    /// Only HTTP/2 with prior knowledge (or by ALPN).
    Http2,
    /// Opaque bytes, nothing is waited for or looked at, also inside of `tls` whatever ALPN says.
    Tcp,
    /// TLS that is passed through and routed by SNI; anything else is closed.
    Tls,
}

/// PROXY protocol (haproxy.org, proxy-protocol.txt, versions 1 and 2) on accepted connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyProtocolIn {
    /// Never looked for; bytes that look like it are the application's.
    #[default]
    Off,
    /// Every connection must begin with a header; one without is closed.
    Require,
    /// A header is used when there is one. Only for networks where every client is trusted: any client can claim any address.
    Optional,
}

/// How a listener speaks HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpServer {
    /// Bounds on what a client may send.
    pub limits: HttpLimits,
    /// Time for a request's head, from its first byte to its last; then 408. Default 10 s.
    pub header_timeout: Duration,
    /// A connection without a running request for this long is closed. Default 1 h.
    pub idle_timeout: Duration,
    /// A client that takes no byte of an answer for this long is cut, so that it doesn't hold the upstream's connection.
    /// Zero is for ever. Default 60 s.
    pub write_timeout: Duration,
    /// What becomes of a request whose client has closed its side. Default `answer`.
    pub half_close: HalfClose,
    /// What is done about raw UTF-8 in an HTTP/1 target. Default `strict`.
    pub target: TargetPolicy,
    /// Which headers about the client are added.
    pub forwarded: Forwarded,
    /// What is done to a path before it is matched.
    pub path: PathPolicy,
    /// `Via` on the way up and down: the pseudonym; `None` adds none. Default `attache`.
    pub via: Option<Name>,
    /// `X-Request-Id` is made where the client sent none. Default true.
    pub request_id: bool,
    /// `X-Request-Id` from the client is kept. Default true (the client is the own app).
    pub trust_request_id: bool,
    /// `x-attache-reason` on answers that attache makes. Default true.
    pub reason_header: bool,
    /// A connection is ended gracefully (`Connection: close`, GOAWAY) at this age, up to 20 % earlier at random; zero is
    /// no bound. Running requests finish. Default 1 h where TLS is terminated, so that no identity outlives its end by more, else 0 s.
    pub max_connection_age: Duration,
    /// What becomes of `X-Forwarded-Client-Cert`. Default `sanitize-set`.
    pub client_cert: ForwardClientCert,
    /// What attache itself writes there of its client, beside `By` and `Hash`. Default all.
    pub client_cert_details: Vec<ClientCertDetail>,
}

/// What becomes of a running HTTP/1 request whose client has closed its side of the connection (RFC 9112 section 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HalfClose {
    /// It is answered: the client may only have said that no request follows. One that has left is noticed by the first write.
    #[default]
    Answer,
    /// It is given up with the reason `client-closed`: saves work for clients that leave, and breaks those that half-close.
    Cut,
}

/// What is done about raw UTF-8 in an HTTP/1 request's target, which no RFC allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TargetPolicy {
    /// The request is refused with 400.
    #[default]
    Strict,
    /// Valid UTF-8 passes as it is, in path and query.
    Lenient,
}

/// What becomes of `X-Forwarded-Client-Cert` (Envoy's `forward_client_cert_details`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardClientCert {
    /// What the client sent is removed; the client itself is written, if it has proven who it is.
    #[default]
    SanitizeSet,
    /// From a client that has proven who it is: what it sent is kept, and the client itself is appended. Else as `sanitize`.
    AppendForward,
    /// From a client that has proven who it is: what it sent is kept. Else as `sanitize`.
    ForwardOnly,
    /// Removed, nothing is written.
    Sanitize,
    /// What any client sent is kept: whoever reaches the listener can claim to be anyone.
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
}

impl Default for HttpServer {
    fn default() -> Self {
        Self {
            limits: HttpLimits::default(),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_hours(1),
            write_timeout: Duration::from_mins(1),
            half_close: HalfClose::default(),
            target: TargetPolicy::default(),
            forwarded: Forwarded::default(),
            path: PathPolicy::default(),
            via: Some("attache".into()),
            request_id: true,
            trust_request_id: true,
            reason_header: true,
            max_connection_age: Duration::ZERO,
            client_cert: ForwardClientCert::default(),
            client_cert_details: ClientCertDetail::ALL.to_vec(),
        }
    }
}

/// Bounds on what one client may make attache hold or do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Bytes of the request line; more is 414. Default 8 KiB.
    pub request_line: usize,
    /// Bytes of all header lines together; more is 431. Default 60 KiB (as Envoy).
    pub headers_size: usize,
    /// Number of header lines; more is 431. Default 100.
    pub headers_count: usize,
    /// HTTP/2 streams open at once on one connection. Default 100.
    pub h2_streams: u32,
    /// HTTP/2 streams that the client reset before they were accepted (rapid reset, CVE-2023-44487); more at one moment
    /// ends the connection. Default 1000.
    pub h2_pending_resets: usize,
    /// HTTP/2 frames that nothing paid for, per second and connection, in prices of a PING (`docs/http2.md`). Default 20,000.
    pub h2_flood_rate: u32,
    /// The same at once. Default 100,000.
    pub h2_flood_burst: u32,
    /// How many times as much all connections of one client address may spend, in each worker. Default 4.
    pub h2_flood_per_client: u32,
    /// HTTP/2 receive window with which streams begin, bytes. Default 256 KiB.
    pub h2_stream_window: u32,
    /// The largest that a stream's receive window grows to, bytes. Default 4 MiB.
    pub h2_stream_window_max: u32,
    /// Bytes buffered for writing to one HTTP/2 stream. Default 64 KiB.
    pub h2_send_buffer: usize,
    /// Requests on one connection before it is closed; 0 is no bound. Default 0.
    pub requests_per_connection: u64,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            request_line: 8 << 10,
            headers_size: 60 << 10,
            headers_count: 100,
            h2_streams: 100,
            h2_pending_resets: 1000,
            h2_flood_rate: 20_000,
            h2_flood_burst: 100_000,
            h2_flood_per_client: 4,
            h2_stream_window: 256 << 10,
            h2_stream_window_max: 4 << 20,
            h2_send_buffer: 64 << 10,
            requests_per_connection: 0,
        }
    }
}

/// Headers that tell the upstream about the client. Off by default on `outbound` listeners, where the client is the
/// application itself; on by default where TLS is terminated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Forwarded {
    /// `X-Forwarded-For`, `-Proto`, `-Host`.
    pub x_forwarded: ForwardedMode,
    /// `Forwarded` (RFC 7239).
    pub rfc7239: ForwardedMode,
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
    /// What the client sent is dropped, this hop is the first.
    Replace,
    /// Removed.
    Remove,
}

/// What is done to a request's path before it is matched and sent on. One policy, applied once, so that
/// the route and the upstream read the same path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathPolicy {
    /// `.` and `..` segments are resolved (RFC 3986 section 5.2.4); one that climbs above the root is 400. Default true.
    pub dot_segments: bool,
    /// `%41` becomes `A` where the byte is unreserved (RFC 3986 section 6.2.2.2). Default true.
    pub decode_unreserved: bool,
    /// `//` becomes `/`. Default false (object stores have keys with `//`).
    pub merge_slashes: bool,
    /// What an escaped `/` or `\` (`%2F`, `%5C`) means. Default keep.
    pub escaped_slashes: EscapedSlashes,
    /// What `;name=value` behind a segment means. Default ignore.
    pub parameters: PathParameters,
}

impl Default for PathPolicy {
    fn default() -> Self {
        Self {
            dot_segments: true,
            decode_unreserved: true,
            merge_slashes: false,
            escaped_slashes: EscapedSlashes::Keep,
            parameters: PathParameters::Ignore,
        }
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
    /// Ordinary characters of the segment: `/admin;x` isn't below `/admin`. Only where no upstream knows parameters.
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
