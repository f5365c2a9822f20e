//! `routes:`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{At, Authorization, Cors, Credential, GlobalRateLimit, Map, Off, OneOrMany, OrOff, Txt};
use crate::{
    model,
    section::Given,
    text::{
        AddressRange, HeaderText, HostAndPort, HostText, Label, LimitBy, MediaType, MethodText, PathText,
        PathValue, Positive, Rate, Ratio, RedirectScheme, RewriteHost, SanText, TemplateText, Timeout,
        ValueText, Weight, Word, show_duration, show_timeout,
    },
};

/// A route: what it applies to, and what is done. Exactly one of `to`, `redirect` and `respond`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "a route")]
pub(crate) struct Route {
    /// Its name in metrics and logs. By default `LISTENER/INDEX`.
    pub(crate) name: Option<At<Txt<Label>>>,
    /// What it applies to. Without it, everything.
    pub(crate) r#match: Option<At<Match>>,
    /// Where it is sent: an upstream, or a split by weight.
    pub(crate) to: Option<At<To>>,
    /// What becomes of TLS whose server name is one of `match.sni`, on a listener that terminates TLS.
    #[schemars(extend("default" = RouteTls::default()))]
    pub(crate) tls: Option<At<RouteTls>>,
    /// Answered with a redirect.
    pub(crate) redirect: Option<At<Redirect>>,
    /// Answered by attache itself: a status, or with a body.
    #[schemars(extend("examples" = [404]))]
    pub(crate) respond: Option<At<RespondForm>>,
    /// From the whole request head until the response's end, of all tries together. Streams (`text/event-stream`, gRPC,
    /// upgrades) are bounded until the response head, and so is everything where no `timeout` is set: then `idle_timeout` alone bounds what
    /// flows. By default that of the upstream.
    #[schemars(extend("default" = show_timeout(model::Timeouts::default().request)))]
    pub(crate) timeout: Option<At<Txt<Timeout>>>,
    /// A stream without a byte either way for this long is cut. By default that of the upstream.
    #[schemars(extend("default" = show_timeout(model::Timeouts::default().idle)))]
    pub(crate) idle_timeout: Option<At<Txt<Timeout>>>,
    /// The header in which callers say how many milliseconds they still wait, `x-envoy-expected-rq-timeout-ms` for example. It
    /// shortens the deadline, and every try passes on what remains of the shortest one. By default that of the upstream.
    #[schemars(extend("examples" = ["x-request-deadline"]))]
    pub(crate) deadline_header: Option<At<Txt<HeaderText>>>,
    /// Retries: `off`, a number of tries after the first, or in full. Keys that aren't given are those of the upstream.
    pub(crate) retry: Option<At<RetryForm>>,
    /// A secret that requests are given, or `off`. By default that of the upstream.
    pub(crate) credential: Option<At<OrOff<Credential>>>,
    /// Who may do it. The listener's rules hold beside these.
    pub(crate) authorization: Option<At<Box<Authorization>>>,
    /// Which pages of other origins may read the answers; or `off`. By default that of the listener.
    pub(crate) cors: Option<At<OrOff<Box<Cors>>>>,
    /// gRPC-Web, which browsers speak, is translated to gRPC and back. By default as the listener says.
    #[schemars(extend("default" = false))]
    pub(crate) grpc_web: Option<bool>,
    /// Which answers are compressed; or `off`. By default that of the listener.
    #[schemars(extend("default" = "off"))]
    pub(crate) compression: Option<OrOff<model::Compression>>,
    /// Changes to the path and the host on the way up.
    pub(crate) rewrite: Option<At<Rewrite>>,
    /// Changes to headers.
    pub(crate) headers: Option<At<Headers>>,
    /// Copies of the requests, whose answers are dropped: an upstream, or a share for each. A copy has its own upstream's `timeout`.
    pub(crate) mirror: Option<At<MirrorForm>>,
    /// How much is let through, over all workers; the rest is 429. A rate alone, or in full.
    pub(crate) rate_limit: Option<At<RateLimitForm>>,
    /// A limit over all proxies: a service that counts is asked before a request goes on.
    pub(crate) global_rate_limit: Option<At<Box<GlobalRateLimit>>>,
    /// Faults injected on purpose, to see what callers do about them.
    pub(crate) fault: Option<At<Fault>>,
}

/// TLS of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RouteTls {
    /// The listener terminates it.
    #[default]
    Terminate,
    /// It goes to the upstream undecrypted: the upstream shows its own certificate, and nothing of the listener's `tls` (`client_ca`,
    /// `allow`) is asked of the client.
    Passthrough,
}

/// What a route applies to: every key that is given must match; of a list, one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`match`")]
pub(crate) struct Match {
    /// `Host` or `:authority`: `orders.internal`, `*.internal`, `orders.*`, `*`. The port is ignored unless it is given.
    pub(crate) host: Option<At<OneOrMany<Txt<HostText>>>>,
    /// Path without the query: `/v1/*` is a prefix on a segment boundary, `/users/{id}` and `/files/{rest...}` capture
    /// segments, `~regex` matches the whole path, anything else is exact. A `{`, `}` or `*` itself is percent-encoded.
    pub(crate) path: Option<At<OneOrMany<Txt<PathText>>>>,
    /// Methods.
    pub(crate) methods: Option<At<OneOrMany<Txt<MethodText>>>>,
    /// The same as `methods`.
    pub(crate) method: Option<At<OneOrMany<Txt<MethodText>>>>,
    /// Headers, all of which must match: `v1` is exact, `*` is there at all, `v1*` a prefix, `*v1` a suffix, `~regex` the whole
    /// value. A leading `!` inverts; then a leading `=` takes the rest as it is (`=*` is one asterisk).
    #[schemars(extend("examples" = [{"x-version": "v2", "x-debug": "!*"}]))]
    pub(crate) headers: Option<At<Map<HeaderText, Txt<ValueText>>>>,
    /// Query parameters, all of which must match; the same patterns.
    #[schemars(extend("examples" = [{"page": "~[0-9]+"}]))]
    pub(crate) query: Option<At<Map<Word, Txt<ValueText>>>>,
    /// TLS server name, of TLS that is passed through or terminated.
    pub(crate) sni: Option<At<OneOrMany<Txt<HostText>>>>,
    /// Identities of which the client must have proven one, on a listener whose `tls` has a `client_ca`; as in its `allow`.
    pub(crate) identity: Option<At<OneOrMany<Txt<SanText>>>>,
    /// Original destination of an intercepted connection: networks, addresses, ports.
    pub(crate) destination: Option<At<OneOrMany<Txt<AddressRange>>>>,
}

/// An upstream's name, or names with weights: percentages that sum to 100 %, or whole numbers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("examples" = ["orders", {"orders": "95%", "orders-next": "5%"}]))]
pub(crate) enum To {
    One(Txt<Label>),
    Split(Map<Label, At<Txt<Weight>>>),
}

/// An upstream's name, or names with the share of the requests that is copied.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("examples" = ["shadow", {"shadow": "10%"}]))]
pub(crate) enum MirrorForm {
    One(Txt<Label>),
    Shares(Map<Label, Txt<Ratio>>),
}

/// A redirect. Parts that aren't given are those of the request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`redirect`")]
pub(crate) struct Redirect {
    /// 301, 302, 303, 307 or 308.
    #[schemars(range(min = 301, max = 308), extend("default" = model::Redirect::STATUS.as_u16()))]
    pub(crate) status: Option<At<u16>>,
    /// `http` or `https`.
    pub(crate) scheme: Option<Txt<RedirectScheme>>,
    /// Host and, where given, port.
    pub(crate) host: Option<Txt<HostAndPort>>,
    /// Path; `{name}` inserts what the route's path captured.
    pub(crate) path: Option<At<Txt<PathValue>>>,
    /// The query is dropped.
    #[schemars(extend("default" = false))]
    pub(crate) strip_query: Option<bool>,
}

/// A direct answer: its status alone, or in full.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum RespondForm {
    Status(#[schemars(range(min = 200, max = 599))] u16),
    Full(Respond),
}

/// A direct answer.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`respond`")]
pub(crate) struct Respond {
    /// Its status.
    #[schemars(range(min = 200, max = 599), extend("examples" = [404]))]
    pub(crate) status: u16,
    /// Its body.
    #[schemars(extend("examples" = ["not here"]))]
    pub(crate) body: Option<At<String>>,
    /// Its content type.
    #[schemars(extend("default" = model::Respond::CONTENT_TYPE.to_str().unwrap_or_default()))]
    pub(crate) content_type: Option<Txt<MediaType>>,
}

/// Retries: `off`, a number, or in full.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("examples" = ["off", 3]))]
pub(crate) enum RetryForm {
    Off(Off),
    Attempts(#[schemars(range(max = 100))] u32),
    Full(Given<model::Retry>),
}

/// Changes to the path and the host.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`rewrite`")]
pub(crate) struct Rewrite {
    /// The whole path becomes this; `{name}` inserts what the route's path captured.
    pub(crate) path: Option<At<Txt<PathValue>>>,
    /// The prefix that matched (`/v1/*`) becomes this.
    pub(crate) prefix: Option<At<Txt<PathValue>>>,
    /// The Host header (HTTP/2: `:authority`) becomes this: `preserve` (or `keep`) is as the client sent it, `upstream` is the
    /// upstream's own, anything else is a host. Without it the upstream's `host` decides.
    pub(crate) host: Option<Txt<RewriteHost>>,
}

/// Changes to headers in both directions.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`headers` of a route")]
pub(crate) struct Headers {
    /// On the way up.
    pub(crate) request: Option<HeaderEdits>,
    /// On the way down.
    pub(crate) response: Option<HeaderEdits>,
}

/// Header changes: removals first, then `set`, then `add`. Values may have variables: `%{client.address}`,
/// `%{client.port}`, `%{client.identity}`, `%{request.host}`, `%{request.path}`, `%{request.method}`, `%{request.id}`,
/// `%{request.scheme}`, `%{request.header.NAME}`, `%{capture.NAME}`, `%{route}`, `%{upstream}`, `%{listener}`; `%%` is
/// one `%`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "header changes")]
pub(crate) struct HeaderEdits {
    /// Replaced or made.
    #[schemars(extend("examples" = [{"x-client": "%{client.address}"}]))]
    pub(crate) set: Option<Map<HeaderText, At<Txt<TemplateText>>>>,
    /// Added beside what is there.
    #[schemars(extend("examples" = [{"x-seen-by": "%{listener}"}]))]
    pub(crate) add: Option<Map<HeaderText, At<Txt<TemplateText>>>>,
    /// Removed.
    #[schemars(extend("examples" = [["x-internal"]]))]
    pub(crate) remove: Option<OneOrMany<At<Txt<HeaderText>>>>,
}

/// A rate alone, or with its burst and key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum RateLimitForm {
    Rate(Txt<Rate>),
    Full(RateLimit),
}

/// A local rate limit: a token bucket over all workers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`rate_limit`")]
pub(crate) struct RateLimit {
    /// Requests in each `per`.
    #[schemars(range(min = 1), extend("examples" = [100]))]
    pub(crate) requests: u32,
    /// The time that `requests` are for.
    #[schemars(extend("default" = show_duration(model::RateLimit::PER)))]
    pub(crate) per: Option<Txt<Positive>>,
    /// Requests at once after a pause. By default as many as `requests`.
    #[schemars(range(min = 1), extend("examples" = [200]))]
    pub(crate) burst: Option<u32>,
    /// What has a bucket of its own: the `route`, each `client` address, each verified `identity`, or each value of
    /// `header:NAME`.
    #[schemars(extend("default" = "route"))]
    pub(crate) by: Option<Txt<LimitBy>>,
    /// Buckets kept at once (16 bytes each); keys above share one.
    #[schemars(range(min = 1, max = 10_000_000), extend("default" = model::RateLimit::MAX_KEYS))]
    pub(crate) max_keys: Option<u32>,
}

/// Faults injected on purpose: a delay, an answer in place of the upstream's, a slow response.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`fault`")]
pub(crate) struct Fault {
    /// Only requests with this header, or with this header and value.
    #[schemars(extend("examples" = ["x-fault", {"x-fault": "please"}]))]
    pub(crate) header: Option<At<FaultHeader>>,
    /// Some requests wait before they are sent on.
    pub(crate) delay: Option<model::FaultDelay>,
    /// Some requests are answered by attache.
    pub(crate) abort: Option<model::FaultAbort>,
    /// The bodies of some responses come slowly.
    pub(crate) response_rate: Option<At<model::FaultRate>>,
}

/// A header's name, or its name and value.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum FaultHeader {
    Name(Txt<HeaderText>),
    Value(Map<HeaderText, Txt<Word>>),
}
