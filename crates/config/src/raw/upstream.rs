//! `upstreams:`

use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{AdaptiveConcurrency, At, Credential, OneOrMany, OrOff, Queue, RetryForm, TlsClient, Txt};
use crate::{
    model,
    text::{
        AddressRange, Hash, HeadSize, HeaderText, HostAndPort, Octets, PathValue, Positive, Ratio,
        RewriteHost, Source, SourceAddress, Timeout, WindowSize, Word, show_duration, show_ratio, show_size,
        show_timeout,
    },
};

fn pool() -> model::Pool {
    model::Pool::default()
}

fn breaker() -> model::CircuitBreaker {
    model::CircuitBreaker::default()
}

fn failures() -> model::FailureBreaker {
    model::FailureBreaker::default()
}

fn ejection() -> model::OutlierEjection {
    model::OutlierEjection::default()
}

fn success_rate() -> model::SuccessRate {
    model::SuccessRate::default()
}

fn failure_percentage() -> model::FailurePercentage {
    model::FailurePercentage::default()
}

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
    /// (opaque bytes, the latter within TLS); `unix:PATH` and `srv://_SERVICE._PROTO.NAME` take what comes, or say it with
    /// `unix+h2c:` and `srv+https://`. Every address that a name has is an endpoint. `authority` is whatever host the request
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
    pub(crate) pool: Option<Pool>,
    /// Concurrency limits over all workers, or `off`.
    pub(crate) circuit_breaker: Option<OrOff<CircuitBreaker>>,
    /// A concurrency limit that follows the upstream's latency. Off without it; `{}` has every default.
    #[schemars(extend("examples" = [{}]))]
    pub(crate) adaptive_concurrency: Option<OrOff<AdaptiveConcurrency>>,
    /// A short queue by priority for what a concurrency limit would refuse. Off without it; `{}` has every default.
    #[schemars(extend("examples" = [{}]))]
    pub(crate) queue: Option<OrOff<Queue>>,
    /// Passive health: endpoints that fail are left out for a while. Or `off`.
    pub(crate) outlier_ejection: Option<OrOff<OutlierEjection>>,
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
    Algorithm(Algorithm),
    Full(Balance),
}

/// How an endpoint is chosen among the healthy ones of the chosen priority.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`balance`")]
pub(crate) struct Balance {
    /// The algorithm.
    #[schemars(extend("default" = "least-request"))]
    pub(crate) algorithm: Option<Algorithm>,
    /// What `ring-hash` and `maglev` hash: `header:NAME`, `cookie:NAME`, `source` (the client's address) or `path`.
    pub(crate) hash: Option<At<Txt<Hash>>>,
    /// The weight of a new or recovered endpoint rises to its full over this time; zero is off.
    #[schemars(extend("default" = show_timeout(model::Balance::default().slow_start)))]
    pub(crate) slow_start: Option<Txt<Timeout>>,
    /// Below this share of healthy endpoints all are used, healthy or not.
    #[schemars(extend("default" = show_ratio(model::Balance::default().panic_threshold)))]
    pub(crate) panic_threshold: Option<Txt<Ratio>>,
    /// attache's own zone: endpoints of it are preferred, overflow goes to the others in proportion.
    #[schemars(extend("examples" = ["${ZONE:-}"]))]
    pub(crate) zone: Option<String>,
}

/// A balancing algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Algorithm {
    /// The less loaded of two chosen at random.
    LeastRequest,
    /// The one of two chosen at random with the lower latency (moving average, sensitive to peaks) times load.
    PeakEwma,
    /// One after the other, by weight.
    RoundRobin,
    /// At random, by weight.
    Random,
    /// Consistent hashing on a ring; needs `hash`.
    RingHash,
    /// Consistent hashing by lookup table; needs `hash`.
    Maglev,
}

/// Connections kept for reuse, in each worker.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`pool`")]
pub(crate) struct Pool {
    /// An unused connection is closed after this.
    #[schemars(extend("default" = show_duration(pool().idle_timeout)))]
    pub(crate) idle_timeout: Option<Txt<Positive>>,
    /// Unused HTTP/1 connections kept for each endpoint in each worker.
    #[schemars(extend("default" = pool().max_idle))]
    pub(crate) max_idle: Option<u32>,
    /// A connection takes no new request after this age; running ones finish. `0s` is no bound. By default `1h` where `tls` shows an
    /// own certificate, so that peers see a renewed one, and no bound elsewhere.
    #[schemars(extend("examples" = ["30m"]))]
    pub(crate) max_age: Option<Txt<Timeout>>,
    /// Requests on one connection before it is closed; 0 is no bound.
    #[schemars(extend("default" = pool().max_requests))]
    pub(crate) max_requests: Option<u32>,
    /// Connections opened ahead for each endpoint.
    #[schemars(range(max = 1024), extend("default" = pool().preconnect))]
    pub(crate) preconnect: Option<u32>,
    /// HTTP/2 streams on one connection at once; the peer's own limit counts too.
    #[schemars(range(min = 1), extend("default" = pool().h2_streams))]
    pub(crate) h2_streams: Option<u32>,
    /// HTTP/2 receive window with which streams begin.
    #[schemars(extend("default" = show_size(pool().h2_stream_window.into())))]
    pub(crate) h2_stream_window: Option<Txt<WindowSize>>,
    /// The largest that a stream's receive window grows to while its reader keeps up.
    #[schemars(extend("default" = show_size(pool().h2_stream_window_max.into())))]
    pub(crate) h2_stream_window_max: Option<Txt<WindowSize>>,
    /// HTTP/2 frames that cost the server nothing and that no call paid for, per second and connection, in prices of a PING: see
    /// [http2.md](http2.md). More than that, once the burst is used up, ends the connection with `upstream-protocol-error`.
    #[schemars(range(min = 1), extend("default" = pool().h2_flood_rate))]
    pub(crate) h2_flood_rate: Option<u32>,
    /// The same at once, per connection.
    #[schemars(range(min = 100), extend("default" = pool().h2_flood_burst))]
    pub(crate) h2_flood_burst: Option<u32>,
    /// HTTP/2 connections are asked for a sign of life (PING) after this long without one while streams are open.
    #[schemars(extend("default" = show_timeout(pool().h2_keepalive)))]
    pub(crate) h2_keepalive: Option<Txt<Timeout>>,
    /// TCP keepalive starts after this long without a byte.
    #[schemars(extend("default" = show_timeout(pool().tcp_keepalive)))]
    pub(crate) tcp_keepalive: Option<Txt<Timeout>>,
    /// Bytes of an HTTP/1 response head; more is `upstream-protocol-error`.
    #[schemars(extend("default" = show_size(pool().headers_size as u64)))]
    pub(crate) headers_size: Option<Txt<HeadSize>>,
    /// Header lines of a response.
    #[schemars(range(min = 1, max = 10000), extend("default" = pool().headers_count))]
    pub(crate) headers_count: Option<u32>,
}

/// Concurrency limits over all workers: what is beyond is answered 503 at once.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`circuit_breaker`")]
pub(crate) struct CircuitBreaker {
    /// Connections at once. An idle one is closed for a call that needs another, on whichever worker it is.
    #[schemars(range(min = 1), extend("default" = breaker().max_connections))]
    pub(crate) max_connections: Option<u32>,
    /// Requests that wait for a connection.
    #[schemars(extend("default" = breaker().max_pending))]
    pub(crate) max_pending: Option<u32>,
    /// Requests at once. Those whose client reads nothing for a second are given up while more than three quarters are taken.
    #[schemars(range(min = 1), extend("default" = breaker().max_requests))]
    pub(crate) max_requests: Option<u32>,
    /// Of these, the requests of one client at once: of an address, and of IPv6 of a /64. One more is answered 429
    /// `overflow-client`. Without it one client may have them all: what stands behind one address, as a load balancer
    /// or the application itself, is often many.
    #[schemars(range(min = 1), extend("examples" = [100]))]
    pub(crate) max_requests_per_client: Option<u32>,
    /// Retries at once, unless a budget is set.
    #[schemars(extend("default" = breaker().max_retries))]
    pub(crate) max_retries: Option<u32>,
    /// Opens when the whole upstream fails. Off without it: ejection takes single endpoints out, and a breaker over all of them
    /// turns a partial outage into a whole one. `{}` has every default.
    #[schemars(extend("examples" = [{}]))]
    pub(crate) failures: Option<FailureBreaker>,
    /// Leaves a failing endpoint alone, then lets probes through to it and takes it back when all of them succeed. Beside
    /// ejection, which takes it back by time. Off without it; `{}` has every default.
    #[schemars(extend("examples" = [{}]))]
    pub(crate) endpoint_failures: Option<FailureBreaker>,
}

/// A failure breaker, of a whole upstream (`failures`) or of each endpoint (`endpoint_failures`).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`failures`")]
pub(crate) struct FailureBreaker {
    /// Failures in a row that open it; 0 is off.
    #[schemars(extend("default" = failures().consecutive))]
    pub(crate) consecutive: Option<u32>,
    /// It opens when fewer than this share of the window's calls succeed; 0 is off.
    #[schemars(extend("default" = show_ratio(failures().success_rate)))]
    pub(crate) success_rate: Option<Txt<Ratio>>,
    /// The sliding window of `success_rate`; at least 10 ms.
    #[schemars(extend("default" = show_duration(failures().window)))]
    pub(crate) window: Option<At<Txt<Positive>>>,
    /// Calls in the window before their rate counts.
    #[schemars(extend("default" = failures().min_samples))]
    pub(crate) min_samples: Option<u32>,
    /// First open time, doubled each time its probes fail, and up to 20 % longer at random.
    #[schemars(extend("default" = show_duration(failures().open)))]
    pub(crate) open: Option<Txt<Positive>>,
    /// Longest open time, before the random part.
    #[schemars(extend("default" = show_duration(failures().open_max)))]
    pub(crate) open_max: Option<Txt<Positive>>,
    /// Calls let through after the open time, all of which must succeed.
    #[schemars(range(min = 1), extend("default" = failures().probes))]
    pub(crate) probes: Option<u16>,
}

/// Passive health.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`outlier_ejection`")]
pub(crate) struct OutlierEjection {
    /// 5xx answers, resets and failed connections in a row; 0 is off.
    #[schemars(extend("default" = ejection().consecutive_5xx))]
    pub(crate) consecutive_5xx: Option<u32>,
    /// Failures of attache's own making (connect, reset, timeout) in a row; 0 is off.
    #[schemars(extend("default" = ejection().consecutive_local))]
    pub(crate) consecutive_local: Option<u32>,
    /// First ejection time; the n-th lasts n times as long.
    #[schemars(extend("default" = show_duration(ejection().base)))]
    pub(crate) base: Option<Txt<Positive>>,
    /// Longest ejection.
    #[schemars(extend("default" = show_duration(ejection().max)))]
    pub(crate) max: Option<Txt<Positive>>,
    /// Share of the endpoints that may be ejected at once; one always may where there are two or more, and one is always
    /// left.
    #[schemars(extend("default" = show_ratio(ejection().max_percent)))]
    pub(crate) max_percent: Option<Txt<Ratio>>,
    /// How often `success_rate` and `failure_percentage` are judged.
    #[schemars(extend("default" = show_duration(ejection().interval)))]
    pub(crate) interval: Option<Txt<Positive>>,
    /// Ejects what fails much more often than the others. On by default; or `off`.
    pub(crate) success_rate: Option<OrOff<SuccessRate>>,
    /// Ejects what fails too often, whatever the others do. Off without it; `{}` has every default.
    #[schemars(extend("examples" = [{}]))]
    pub(crate) failure_percentage: Option<OrOff<FailurePercentage>>,
}

/// Ejection of an endpoint whose success rate is far below the mean of all.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`success_rate`")]
pub(crate) struct SuccessRate {
    /// Endpoints with `request_volume` that a comparison needs.
    #[schemars(extend("default" = success_rate().minimum_hosts))]
    pub(crate) minimum_hosts: Option<u32>,
    /// Requests in an interval before an endpoint is compared.
    #[schemars(extend("default" = success_rate().request_volume))]
    pub(crate) request_volume: Option<u32>,
    /// Standard deviations below the mean, in thousandths.
    #[schemars(extend("default" = success_rate().stdev_factor))]
    pub(crate) stdev_factor: Option<u32>,
}

/// Ejection of an endpoint of whose requests too many failed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`failure_percentage`")]
pub(crate) struct FailurePercentage {
    /// The share of failures at which it goes.
    #[schemars(extend("default" = show_ratio(failure_percentage().threshold)))]
    pub(crate) threshold: Option<Txt<Ratio>>,
    /// Endpoints with `request_volume` before any is judged.
    #[schemars(extend("default" = failure_percentage().minimum_hosts))]
    pub(crate) minimum_hosts: Option<u32>,
    /// Requests in an interval before an endpoint is judged.
    #[schemars(extend("default" = failure_percentage().request_volume))]
    pub(crate) request_volume: Option<u32>,
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
