//! Active health checks, and what happens to the connections to an endpoint that fails them.

use std::num::NonZeroU16;

use super::prelude::*;

section! {
    "`health_check`"
    /// Active health checks. Exactly one of `path`, `tcp` and `grpc`.
    pub struct HealthCheck: Eq {
        /// `GET` of this path; 200 to 299 is healthy.
        path(Text<PathValue>),
        /// The Host header of that `GET`. By default the upstream's host.
        host(Text<HostAndPort>),
        /// `true`: a TCP connection (and TLS handshake where there is TLS) is enough. Or a mapping: the bytes that are
        /// sent, and the bytes that are expected.
        tcp(TcpForm),
        /// The service that `grpc.health.v1.Health/Check` is asked for; `""` is the whole server.
        #[schema(examples = ["shop.Orders"])]
        grpc(String),
        /// Another port of the same address to probe, without a PROXY protocol header: the REST API beside a database, a
        /// management port. With it, an upstream of opaque bytes can be probed by `path` or `grpc`.
        #[schema(examples = [8008])]
        port: Option<NonZeroU16> as Optional<Plain> = None,
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
        probe: HealthCheckKind = HealthCheckKind::connection(),
    }
    shows Self::show_probe
    rules {
        one_of [path, tcp, grpc]
            "a health check has exactly one probe" "exactly one of `path: /healthz`, `tcp: true` and `grpc: SERVICE`";
        needs [host] [path] "`{}` has no meaning here" "it belongs to a health check by `path`";
    }
}

impl HealthCheck {
    /// A check with this probe and the defaults.
    pub fn new(probe: HealthCheckKind) -> Self {
        Self { probe, ..Self::default() }
    }

    fn show_probe(&self, shown: &mut Object<String, Value>) {
        let (path, host, tcp, grpc) = match &self.probe {
            HealthCheckKind::Http { path, host } => {
                (Some(&**path), host.as_deref(), Value::from(false), None)
            }
            HealthCheckKind::Tcp { send, expect } if send.is_empty() && expect.is_empty() => {
                (None, None, Value::from(true), None)
            }
            HealthCheckKind::Tcp { send, expect } => {
                let bytes = TcpBytes { send: send.clone(), expect: expect.clone() };
                (None, None, json!(bytes), None)
            }
            HealthCheckKind::Grpc { service } => (None, None, Value::from(false), Some(&**service)),
        };
        let keys = [("path", json!(path)), ("host", json!(host)), ("tcp", tcp), ("grpc", json!(grpc))];
        shown.extend(keys.map(|(key, value)| (key.to_owned(), value)));
    }
}

section! {
    "`tcp` of a health check"
    /// A TCP health check with bytes: `hex:` and digits, or plain text.
    pub struct TcpBytes: Eq {
        /// These bytes are sent first.
        #[schema(default = (), examples = ["PING\r\n"])]
        send: Arc<[u8]> as Octets = Arc::default(),
        /// These bytes must be in the first 16 KiB of the answer. Of a list, each must follow the one before; other bytes may be between
        /// them.
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

impl HealthCheckKind {
    /// A connection alone is enough.
    pub fn connection() -> Self {
        Self::Tcp { send: Arc::default(), expect: Vec::new() }
    }
}

/// What an active health check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthCheckKind {
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
        /// These bytes are sent first.
        send: Arc<[u8]>,
        /// Each must be found in the received bytes, after the one before; an empty list needs no bytes.
        expect: Vec<Arc<[u8]>>,
    },
    /// `grpc.health.v1.Health/Check` of this service; empty is the whole server.
    Grpc {
        /// Service name.
        service: Name,
    },
}

/// What happens to the connections of an endpoint when it fails its health checks, is ejected, or is no longer in the results of discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnUnhealthy {
    /// They stay open. Only new calls go to other endpoints.
    #[default]
    Keep,
    /// Idle connections are closed. HTTP/1 and HTTP/2 connections with running calls are closed when these calls have ended. Tunnels,
    /// WebSockets and opaque connections are reset, with the reason `endpoint-unhealthy`.
    Close,
}
