//! `upstreams:`

use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, Credential, OneOrMany, OrOff, RetryForm, TlsClient, Txt};
use crate::{
    model,
    section::Given,
    text::{
        AddressRange, HeaderText, HostAndPort, Octets, PathValue, Positive, RewriteHost, Source,
        SourceAddress, Timeout, Word, show_duration, show_timeout,
    },
};

fn check() -> model::HealthCheck {
    model::HealthCheck::new(model::Probe::connection())
}

/// An upstream: its address alone, or in full.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Upstream {
    Address(At<Txt<Source>>),
    Full(Box<At<UpstreamFull>>),
}

/// An upstream: a named set of endpoints, and how they are used.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "an upstream")]
pub(crate) struct UpstreamFull {
    /// Where it is, with its scheme. `http` (port 80), `h2c` (HTTP/2 with prior knowledge, 80), `https` (443), `tcp` and `tls`
    /// (opaque bytes, the latter within TLS); `unix:PATH`, `srv://_SERVICE._PROTO.NAME` and `kubernetes://SERVICE.NAMESPACE:PORT`
    /// (EndpointSlices, docs/discovery.md) take what comes, or say it with `unix+h2c:`, `srv+https://` and `kubernetes+https://`.
    /// Every address that a name has is an endpoint. `authority` is whatever host the request
    /// names (a forward proxy); `original-destination` is where an intercepted connection wanted to go.
    pub(crate) address: OneOrMany<AddressForm>,
    /// What is spoken, where the scheme leaves it open or is to be overruled.
    #[schemars(extend("default" = model::UpstreamProtocol::default()))]
    pub(crate) protocol: Option<At<model::UpstreamProtocol>>,
    /// The Host header (HTTP/2: `:authority`) that it is sent, for routes without a `rewrite.host`: `preserve` is as the client sent
    /// it, `upstream` is the upstream's own (host and port of its first address), anything else is a host. Without it, a request
    /// that named this upstream by its Host keeps that, and any other gets the upstream's own; docs/routing.md has the whole rule.
    pub(crate) host: Option<At<Txt<RewriteHost>>>,
    /// TLS to it; needs a scheme with TLS, or one that leaves it open.
    pub(crate) tls: Option<At<TlsClient>>,
    /// How an endpoint is chosen: the algorithm alone, or in full.
    #[schemars(extend("default" = "least-request"))]
    pub(crate) balance: Option<At<BalanceForm>>,
    /// How long a TCP connection may take, over all addresses of one endpoint.
    #[schemars(extend("default" = show_duration(model::Upstream::CONNECT_TIMEOUT)))]
    pub(crate) connect_timeout: Option<Txt<Positive>>,
    /// How long the TLS handshake may take.
    #[schemars(extend("default" = show_duration(model::Upstream::HANDSHAKE_TIMEOUT)))]
    pub(crate) handshake_timeout: Option<Txt<Positive>>,
    /// Deadline of requests, for routes to here that have none of their own. Where it is set it bounds the whole exchange; the default
    /// bounds the time to the answer's head.
    #[schemars(extend("default" = show_timeout(model::Timeouts::default().request)))]
    pub(crate) timeout: Option<At<Txt<Timeout>>>,
    /// A stream without a byte either way for this long is cut; for routes to here that have none of their own.
    #[schemars(extend("default" = show_timeout(model::Timeouts::default().idle)))]
    pub(crate) idle_timeout: Option<At<Txt<Timeout>>>,
    /// The header in which callers say how many milliseconds they still wait, `x-envoy-expected-rq-timeout-ms` for example. It
    /// shortens the deadline, and every try passes on what remains of the shortest one. For routes to here that have none of their own.
    #[schemars(extend("examples" = ["x-request-deadline"]))]
    pub(crate) deadline_header: Option<At<Txt<HeaderText>>>,
    /// Retries, for routes to here that have none of their own.
    pub(crate) retry: Option<At<RetryForm>>,
    /// Connections kept for reuse, in each worker.
    pub(crate) pool: Option<Given<model::Pool>>,
    /// Concurrency limits over all workers, or `off`.
    pub(crate) circuit_breaker: Option<OrOff<model::CircuitBreaker>>,
    /// A concurrency limit that follows the upstream's latency. Off without it; `{}` has every default.
    #[schemars(extend("examples" = [{}]))]
    pub(crate) adaptive_concurrency: Option<OrOff<At<model::AdaptiveConcurrency>>>,
    /// A short queue by priority for what a concurrency limit would refuse. Off without it; `{}` has every default.
    #[schemars(extend("examples" = [{}]))]
    pub(crate) queue: Option<OrOff<At<model::Queue>>>,
    /// Passive health: endpoints that fail are left out for a while. Or `off`.
    pub(crate) outlier_ejection: Option<OrOff<model::OutlierEjection>>,
    /// Active health. Off without it.
    pub(crate) health_check: Option<At<HealthCheck>>,
    /// What becomes of the connections to an endpoint that fails its health checks, is ejected, or is no longer named by discovery.
    #[schemars(extend("default" = model::OnUnhealthy::default()))]
    pub(crate) on_unhealthy: Option<At<model::OnUnhealthy>>,
    /// A secret that requests are given, for routes to here that have none of their own.
    pub(crate) credential: Option<At<Credential>>,
    /// PROXY protocol sent at the start of every connection.
    #[schemars(extend("default" = model::ProxyProtocolOut::default()))]
    pub(crate) proxy_protocol: Option<model::ProxyProtocolOut>,
    /// Local address of outgoing connections.
    pub(crate) source_address: Option<Txt<SourceAddress>>,
    /// With `address: authority`: hosts looked up and kept at once.
    #[schemars(range(min = 1), extend("default" = model::Upstream::MAX_HOSTS))]
    pub(crate) max_hosts: Option<At<u32>>,
    /// With `address: authority`: destinations that are refused.
    #[schemars(extend("examples" = ["169.254.0.0/16"]))]
    pub(crate) deny: Option<At<OneOrMany<Txt<AddressRange>>>>,
}

/// An address alone, or with its weight and place.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum AddressForm {
    Text(At<Txt<Source>>),
    Full(AddressFull),
}

/// An address with its weight and place.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "an address with its weight")]
pub(crate) struct AddressFull {
    /// The address, with its scheme.
    pub(crate) address: At<Txt<Source>>,
    /// Relative weight of each endpoint from here; weights of SRV records multiply it.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 1))]
    pub(crate) weight: Option<u32>,
    /// 0 is used first; others take over as it becomes unhealthy.
    #[schemars(extend("default" = 0))]
    pub(crate) priority: Option<u8>,
    /// Zone of its endpoints; those of attache's own zone (`balance.zone`) are preferred.
    #[schemars(extend("examples" = ["eu-central-1a"]))]
    pub(crate) zone: Option<Txt<Word>>,
}

/// A balancing algorithm alone, or in full.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum BalanceForm {
    Algorithm(model::Algorithm),
    Full(Box<At<model::Balance>>),
}

/// A connection alone, or bytes each way.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("examples" = [true]))]
pub(crate) enum TcpForm {
    Connection(bool),
    Bytes(TcpBytes),
}

/// A TCP health check with bytes: `hex:` and digits, or text as it is.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`tcp` of a health check")]
pub(crate) struct TcpBytes {
    /// Sent at once.
    #[schemars(extend("examples" = ["PING\r\n"]))]
    pub(crate) send: Option<Txt<Octets>>,
    /// Must come back within 16 KiB; of a list each behind the one before. Other bytes may stand between.
    #[schemars(extend("examples" = ["+PONG"]))]
    pub(crate) expect: Option<OneOrMany<Txt<Octets>>>,
}

/// Active health. Exactly one of `path`, `tcp` and `grpc`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`health_check`")]
pub(crate) struct HealthCheck {
    /// `GET` of this path; 200 to 299 is healthy.
    pub(crate) path: Option<At<Txt<PathValue>>>,
    /// The Host header of that `GET`. By default the upstream's host.
    pub(crate) host: Option<At<Txt<HostAndPort>>>,
    /// `true`: a TCP connection (and TLS handshake where there is TLS) is enough. Or what is sent, and what must come back.
    pub(crate) tcp: Option<At<TcpForm>>,
    /// The service that `grpc.health.v1.Health/Check` is asked for; `""` is the whole server.
    #[schemars(extend("examples" = ["shop.Orders"]))]
    pub(crate) grpc: Option<At<String>>,
    /// Another port of the same address that is asked, without a PROXY protocol header: the REST API beside a database, a management
    /// port. With it, an upstream of opaque bytes can be asked by `path` or `grpc`.
    #[schemars(extend("examples" = [8008]))]
    pub(crate) port: Option<At<NonZeroU16>>,
    /// Whether the probe uses the upstream's TLS. By default it does where the upstream has TLS.
    pub(crate) tls: Option<At<bool>>,
    /// Time between two probes, each with up to 10 % of jitter.
    #[schemars(extend("default" = show_duration(check().interval)))]
    pub(crate) interval: Option<At<Txt<Positive>>>,
    /// Time between two probes of an endpoint that is unhealthy. By default `interval`.
    pub(crate) unhealthy_interval: Option<Txt<Positive>>,
    /// How long a probe may take.
    #[schemars(extend("default" = show_duration(check().timeout)))]
    pub(crate) timeout: Option<At<Txt<Positive>>>,
    /// Successes in a row that make an endpoint healthy.
    #[schemars(range(min = 1), extend("default" = check().healthy))]
    pub(crate) healthy: Option<u32>,
    /// Failures in a row that make it unhealthy.
    #[schemars(range(min = 1), extend("default" = check().unhealthy))]
    pub(crate) unhealthy: Option<u32>,
}
