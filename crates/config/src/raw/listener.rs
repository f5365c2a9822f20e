//! `listeners:`

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, Authorization, Cors, OneOrMany, OrOff, Route, TlsServer, To, Txt};
use crate::{
    model,
    section::Given,
    text::{Binds, Positive, SocketMode, show_duration},
};

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
    pub(crate) http: Option<At<Given<model::HttpServer>>>,
    /// Who may do what here. Without it, everybody may do everything.
    pub(crate) authorization: Option<At<Box<Authorization>>>,
    /// Which pages of other origins may read the answers; or `off`. For all routes that don't say otherwise.
    pub(crate) cors: Option<At<OrOff<Box<Cors>>>>,
    /// gRPC-Web, which browsers speak, is translated to gRPC and back. For all routes that don't say otherwise.
    #[schemars(extend("default" = false))]
    pub(crate) grpc_web: Option<bool>,
    /// Which answers are compressed; or `off`. For all routes that don't say otherwise.
    #[schemars(extend("default" = "off"))]
    pub(crate) compression: Option<OrOff<model::Compression>>,
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
