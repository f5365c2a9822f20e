//! `listeners:`

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, Authorization, Compression, Cors, OneOrMany, OrOff, Route, TlsServer, To, Txt};
use crate::{
    model,
    text::{
        Binds, HeadSize, Positive, Size, SocketMode, Timeout, WindowSize, Word, show_duration, show_size,
    },
};

fn limits() -> model::HttpLimits {
    model::HttpLimits::default()
}

fn http() -> model::HttpServer {
    model::HttpServer::default()
}

/// A listener: its sockets, and what happens to the connections on them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "a listener")]
pub(crate) struct Listener {
    /// Where it listens: `ADDRESS:PORT`, `[IPV6]:PORT`, `localhost:PORT` (both loopbacks), `:PORT` (every IPv4 address),
    /// or `unix:PATH`.
    pub(crate) bind: OneOrMany<At<Txt<Binds>>>,
    /// Mode of the files of `unix:` sockets, octal.
    #[schemars(extend("default" = "0660"))]
    pub(crate) unix_mode: Option<Txt<SocketMode>>,
    /// Which protocol is expected.
    #[schemars(extend("default" = model::ListenProtocol::default()))]
    pub(crate) protocol: Option<At<model::ListenProtocol>>,
    /// With `transparent` and `protocol: auto`: original destination ports whose servers speak first, so that no byte of the
    /// client is waited for.
    #[schemars(extend("default" = model::Listener::SERVER_FIRST_PORTS))]
    pub(crate) server_first_ports: Option<Vec<u16>>,
    /// With `protocol: auto`, where routes take opaque bytes: how long the first bytes are waited for before a server is connected that
    /// may speak first.
    #[schemars(extend("default" = show_duration(model::Listener::DETECT_TIMEOUT)))]
    pub(crate) detect_timeout: Option<Txt<Positive>>,
    /// PROXY protocol (versions 1 and 2) at the start of accepted connections.
    #[schemars(extend("default" = model::ProxyProtocolIn::default()))]
    pub(crate) proxy_protocol: Option<model::ProxyProtocolIn>,
    /// Connections were redirected here by the kernel: the original destination is read from the socket.
    #[schemars(extend("default" = false))]
    pub(crate) transparent: Option<bool>,
    /// TLS termination. Plaintext without it.
    pub(crate) tls: Option<At<TlsServer>>,
    /// How HTTP is spoken.
    pub(crate) http: Option<HttpServer>,
    /// Who may do what here. Without it, everybody may do everything.
    pub(crate) authorization: Option<At<Box<Authorization>>>,
    /// Which pages of other origins may read the answers; or `off`. For all routes that don't say otherwise.
    pub(crate) cors: Option<At<OrOff<Box<Cors>>>>,
    /// gRPC-Web, which browsers speak, is translated to gRPC and back. For all routes that don't say otherwise.
    #[schemars(extend("default" = false))]
    pub(crate) grpc_web: Option<bool>,
    /// Which answers are compressed; or `off`. For all routes that don't say otherwise.
    #[schemars(extend("default" = "off"))]
    pub(crate) compression: Option<OrOff<Compression>>,
    /// Rules of which the most specific that matches has the request or connection.
    pub(crate) routes: Option<Vec<At<Route>>>,
    /// Where everything goes that no route matches: an upstream, or a split by weight.
    pub(crate) to: Option<At<To>>,
    /// Connections open at once over all workers; more are closed at accept.
    #[schemars(range(min = 1), extend("default" = model::Listener::MAX_CONNECTIONS))]
    pub(crate) max_connections: Option<u32>,
    /// An opaque connection without a byte either way for this long is closed.
    #[schemars(extend("default" = show_duration(model::Listener::TCP_IDLE_TIMEOUT)))]
    pub(crate) tcp_idle_timeout: Option<Txt<Positive>>,
    /// Bulk of opaque connections moves from socket to socket inside the kernel (`splice(2)`) where neither side has TLS. `false`
    /// copies all bytes: for a kernel that does it badly.
    #[schemars(extend("default" = true))]
    pub(crate) tcp_splice: Option<bool>,
}

/// How a listener speaks HTTP.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`http` of a listener")]
pub(crate) struct HttpServer {
    /// Bounds on what one client may send.
    pub(crate) limits: Option<HttpLimits>,
    /// Time for a request's head, from its first byte to its last; then 408.
    #[schemars(extend("default" = show_duration(http().header_timeout)))]
    pub(crate) header_timeout: Option<Txt<Positive>>,
    /// A connection without a running request for this long is closed.
    #[schemars(extend("default" = show_duration(http().idle_timeout)))]
    pub(crate) idle_timeout: Option<Txt<Positive>>,
    /// A client that takes no byte of an answer for this long is cut, so that it doesn't hold the upstream's connection.
    #[schemars(extend("default" = show_duration(http().write_timeout)))]
    pub(crate) write_timeout: Option<Txt<Positive>>,
    /// What becomes of a running HTTP/1 request whose client has closed its side of the connection.
    #[schemars(extend("default" = model::HalfClose::default()))]
    pub(crate) half_close: Option<model::HalfClose>,
    /// What is done about raw UTF-8 in an HTTP/1 request's target.
    #[schemars(extend("default" = model::TargetPolicy::default()))]
    pub(crate) target: Option<model::TargetPolicy>,
    /// Headers that tell the upstream about the client: one word for all of them, or one for each family. By default
    /// `append` on a listener with `tls`, and `pass` on one without, whose client is the application itself.
    pub(crate) forwarded: Option<ForwardedForm>,
    /// What is done to a path before it is matched and sent on.
    pub(crate) path: Option<PathPolicy>,
    /// The pseudonym in the `Via` header, or `off`.
    #[schemars(extend("default" = http().via.map(|via| via.to_string())))]
    pub(crate) via: Option<Txt<Word>>,
    /// `X-Request-Id` is made where the client sent none.
    #[schemars(extend("default" = http().request_id))]
    pub(crate) request_id: Option<bool>,
    /// `X-Request-Id` of the client is kept.
    #[schemars(extend("default" = http().trust_request_id))]
    pub(crate) trust_request_id: Option<bool>,
    /// `x-attache-reason` on answers that attache makes itself.
    #[schemars(extend("default" = http().reason_header))]
    pub(crate) reason_header: Option<bool>,
    /// A connection is ended gracefully (`Connection: close`, GOAWAY) at this age, up to 20 % earlier at random; `0s` is no
    /// bound. Requests that run finish. By default `1h` where TLS is terminated, so that clients prove who they are again, and
    /// no bound elsewhere. Opaque connections and tunnels are not ended by it.
    #[schemars(extend("examples" = ["30m"]))]
    pub(crate) max_connection_age: Option<Txt<Timeout>>,
    /// What becomes of `X-Forwarded-Client-Cert`.
    #[schemars(extend("default" = model::ForwardClientCert::default()))]
    pub(crate) forward_client_cert_details: Option<At<model::ForwardClientCert>>,
    /// What attache itself writes there of its client, beside `By` and `Hash`.
    #[schemars(extend("default" = model::ClientCertDetail::ALL))]
    pub(crate) set_current_client_cert_details: Option<Vec<model::ClientCertDetail>>,
}

/// Bounds on what one client may make attache hold or do.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`limits`")]
pub(crate) struct HttpLimits {
    /// Bytes of the request line; more is 414.
    #[schemars(extend("default" = show_size(limits().request_line as u64)))]
    pub(crate) request_line: Option<Txt<Size>>,
    /// Bytes of all header lines together; more is 431.
    #[schemars(extend("default" = show_size(limits().headers_size as u64)))]
    pub(crate) headers_size: Option<Txt<HeadSize>>,
    /// Number of header lines; more is 431.
    #[schemars(range(min = 1, max = 10000), extend("default" = limits().headers_count))]
    pub(crate) headers_count: Option<u32>,
    /// HTTP/2 streams open at once on one connection.
    #[schemars(range(min = 1), extend("default" = limits().h2_streams))]
    pub(crate) h2_streams: Option<u32>,
    /// HTTP/2 streams that the client reset before they were accepted (rapid reset, CVE-2023-44487); more at one moment ends the
    /// connection.
    #[schemars(range(min = 1), extend("default" = limits().h2_pending_resets))]
    pub(crate) h2_pending_resets: Option<u32>,
    /// HTTP/2 frames that cost the client nothing and that no answer paid for, per second and connection, in prices of a PING:
    /// see [http2.md](http2.md). More than that, once the burst is used up, ends the connection with `http2-flood`.
    #[schemars(range(min = 1), extend("default" = limits().h2_flood_rate))]
    pub(crate) h2_flood_rate: Option<u32>,
    /// The same at once, per connection.
    #[schemars(range(min = 100), extend("default" = limits().h2_flood_burst))]
    pub(crate) h2_flood_burst: Option<u32>,
    /// How many times `h2_flood_rate` and `h2_flood_burst` all connections of one client address may spend, in each worker. An
    /// address is a /64 of IPv6.
    #[schemars(range(min = 1), extend("default" = limits().h2_flood_per_client))]
    pub(crate) h2_flood_per_client: Option<u32>,
    /// HTTP/2 receive window with which streams begin.
    #[schemars(extend("default" = show_size(limits().h2_stream_window.into())))]
    pub(crate) h2_stream_window: Option<Txt<WindowSize>>,
    /// The largest that a stream's receive window grows to while its reader keeps up.
    #[schemars(extend("default" = show_size(limits().h2_stream_window_max.into())))]
    pub(crate) h2_stream_window_max: Option<Txt<WindowSize>>,
    /// Bytes buffered for writing to one HTTP/2 stream.
    #[schemars(extend("default" = show_size(limits().h2_send_buffer as u64)))]
    pub(crate) h2_send_buffer: Option<Txt<HeadSize>>,
    /// Requests on one connection before it is closed; 0 is no bound.
    #[schemars(extend("default" = limits().requests_per_connection))]
    pub(crate) requests_per_connection: Option<u32>,
}

/// Forwarding headers: one word, or one for each family.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum ForwardedForm {
    All(model::ForwardedMode),
    Each(Forwarded),
}

/// Forwarding headers by family.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`forwarded`")]
pub(crate) struct Forwarded {
    /// `X-Forwarded-For`, `-Proto`, `-Host`.
    pub(crate) x_forwarded: Option<model::ForwardedMode>,
    /// `Forwarded` (RFC 7239).
    pub(crate) rfc7239: Option<model::ForwardedMode>,
}

/// Path normalisation: one policy, applied once, so that the route and the upstream read the same path.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`path` of `http`")]
pub(crate) struct PathPolicy {
    /// `.` and `..` segments are resolved (RFC 3986 section 5.2.4); one that climbs above the root is 400.
    #[schemars(extend("default" = model::PathPolicy::default().dot_segments))]
    pub(crate) dot_segments: Option<bool>,
    /// `%41` becomes `A` where the byte is unreserved (RFC 3986 section 6.2.2.2).
    #[schemars(extend("default" = model::PathPolicy::default().decode_unreserved))]
    pub(crate) decode_unreserved: Option<bool>,
    /// `//` becomes `/`. Object stores have keys with `//`.
    #[schemars(extend("default" = model::PathPolicy::default().merge_slashes))]
    pub(crate) merge_slashes: Option<bool>,
    /// What an escaped `/` or `\` (`%2F`, `%5C`) means.
    #[schemars(extend("default" = model::EscapedSlashes::default()))]
    pub(crate) escaped_slashes: Option<model::EscapedSlashes>,
    /// What path parameters (`;name=value` behind a segment) mean.
    #[schemars(extend("default" = model::PathParameters::default()))]
    pub(crate) parameters: Option<model::PathParameters>,
}
