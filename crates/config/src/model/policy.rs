//! How long a request may take and what happens when it fails.

use super::prelude::*;

/// Deadlines, retries and credential of one destination of one route.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Retries.
    pub retry: Retry,
    /// The header in which callers say how many milliseconds they still wait. attache reads it, shortens it and passes
    /// it on. Default `None`.
    pub deadline_header: Option<HeaderName>,
    /// A secret that requests are given. Default `None`.
    pub credential: Option<Arc<Credential>>,
}

/// Deadlines. Zero switches one off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the whole request head until the response head of the last attempt; gRPC's `grpc-timeout` shortens it.
    /// Default 15 s.
    pub request: Duration,
    /// `request` lasts until the response's end, unless the response is a stream (`text/event-stream`, gRPC, an
    /// upgrade). It does so if the config sets a `timeout`, as in Envoy; the default ends with the head, so that no
    /// download, upload or long poll is cut without a limit in the config. Default false.
    pub whole: bool,
    /// A stream without a byte either way is cut. Default 5 min.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { request: Duration::from_secs(15), whole: false, idle: Duration::from_mins(5) }
    }
}

section! {
    "deadlines and retries"
    /// Deadlines and retries of a route, or of an upstream for routes without their own.
    pub struct PolicyKeys {
        /// From the whole request head until the response's end, of all attempts together. For streams (`text/event-stream`, gRPC,
        /// upgrades), and for all requests if no `timeout` is set, it ends with the response head; then only `idle_timeout` applies. The
        /// value of a route replaces that of its upstream.
        #[schema(default = show_timeout(Timeouts::default().request))]
        timeout(Text<Timeout>),
        /// A stream without a byte in either direction for this long is cut. The value of a route replaces that of its upstream.
        #[schema(default = show_timeout(Timeouts::default().idle))]
        idle_timeout(Text<Timeout>),
        /// The header in which callers say how many milliseconds they still wait, `x-envoy-expected-rq-timeout-ms` for example. It
        /// shortens the deadline, and every attempt passes on what remains of the shortest one. The value of a route replaces that of its
        /// upstream.
        #[schema(examples = ["x-request-deadline"])]
        deadline_header(Text<HeaderText>),
        /// Retries: `off`, a number of attempts after the first, or in full. Keys that a route doesn't give are those of its upstream.
        retry(RetryForm),
    }
}

section! {
    "`retry`"
    /// Retries.
    pub struct Retry {
        /// Attempts after the first; 0 is off.
        #[schema(maximum = 100)]
        attempts: u32 = 2,
        /// Deadline of each attempt.
        per_try_timeout: Duration as Timeout = Duration::ZERO,
        /// Which failures are retried: a condition that is a word below, a status, `header:NAME` (a response that has it), or `grpc:STATUS`
        /// (a response without a body that has it, by name or number).
        on: Vec<RetryOn> as List<Condition> = vec![RetryOn::ConnectFailure, RetryOn::RefusedStream, RetryOn::ResetBeforeHeaders],
        /// Methods that may be sent again if the application may have received a part of the first request.
        methods: RetryMethods = RetryMethods::Idempotent,
        /// Share of the active requests that may be retries.
        budget: f64 as Ratio = 0.2,
        /// Retries per second that are always allowed, even if the budget is used up.
        budget_floor: u32 = 3,
        /// Waits between attempts.
        backoff: Backoff as Nested = Backoff::default(),
        /// A request body is kept for a retry up to this size.
        buffer: usize as Size = 64 << 10,
        /// A second attempt, sent to another endpoint while the first continues, if no response head arrives for a long
        /// time: a percentile of the upstream's answers (`p95`), a duration, or in full. Only requests that may be sent twice are hedged. A
        /// hedge counts as one of `attempts` and uses the budget.
        #[schema(default = "off")]
        hedge: Option<Hedge> as WhenOrFull = None,
    }
}

/// Retries: `off`, a number, or in full.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("examples" = ["off", 3]))]
pub(crate) enum RetryForm {
    Off(Off),
    Attempts(#[schemars(range(max = 100))] u32),
    Full(GivenKeys<Retry>),
}

section! {
    "`backoff`"
    /// Waits between attempts. Each is twice as long as the one before, with full jitter.
    pub struct Backoff: Copy, Eq {
        /// The first wait.
        base: Duration as Length = Duration::from_millis(25),
        /// The longest wait.
        max: Duration as Length = Duration::from_millis(250),
    }
}

section! {
    "`hedge`"
    /// A second attempt while the first one is slow.
    // It is sent to another endpoint while the first continues: only a request that may be sent twice (`methods`), and
    // whose body is kept whole. A hedge is one of `attempts` and charged to the budget.
    pub struct Hedge {
        /// How long the first may take: a percentile of the upstream's answers, from `p50` to `p99.9`, or a duration.
        #[schema(default = ())]
        after: HedgeAfter as HedgeWhen = HedgeAfter::Percentile(0.95),
        /// The most hedges of one request. Each waits as long after the one before.
        #[schema(minimum = 1, maximum = 10)]
        max: u32 = 1,
        /// The shortest wait, if the percentile is shorter.
        floor: Duration as Length = Duration::from_millis(5),
        /// The number of answers in the last 30 to 60 s from which on their percentile is used. With fewer, attache doesn't hedge.
        min_samples: u32 = 100,
    }
    requires after
}

/// How long an attempt may take before another is sent beside it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HedgeAfter {
    /// Longer than this share of the upstream's answers took to their head, above 0 and below 1.
    Percentile(f64),
    /// This long.
    Time(Duration),
}

impl Hedge {
    /// The defaults.
    pub fn new(after: HedgeAfter) -> Self {
        Self { after, ..Self::default() }
    }
}

impl Show<HedgeAfter> for HedgeWhen {
    fn show(value: &HedgeAfter) -> Value {
        value.to_string().into()
    }
}

impl Notation<HedgeAfter> for HedgeWhen {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Text<Self>>()
    }

    fn read(value: Value) -> serde_json::Result<HedgeAfter> {
        let when = serde_json::from_value::<Text<Self>>(value)?;
        when.0.ok_or_else(|| serde::de::Error::custom("`off` is no time"))
    }
}

/// When another attempt is sent beside a slow one, alone or in full; `off` is never.
struct WhenOrFull;

/// The same for the schema, which describes it in one place.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "HedgeForm", extend("examples" = ["p95"]))]
#[expect(dead_code, reason = "only its schema is used")]
enum HedgeForm {
    When(Text<HedgeWhen>),
    Full(Hedge),
}

impl Show<Option<Hedge>> for WhenOrFull {
    fn show(value: &Option<Hedge>) -> Value {
        value.as_ref().map_or(Value::Null, Nested::show)
    }
}

impl Notation<Option<Hedge>> for WhenOrFull {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<HedgeForm>()
    }

    fn read(value: Value) -> serde_json::Result<Option<Hedge>> {
        match &value {
            Value::Object(keys) if keys.get("after").is_some_and(|after| after == "off") => Ok(None),
            Value::Object(_) => Nested::read(value).map(Some),
            _ => Ok(serde_json::from_value::<Text<HedgeWhen>>(value)?.0.map(Hedge::new)),
        }
    }
}

words! {
/// A condition for another attempt (Envoy's `x-envoy-retry-on`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RetryOn {
    /// The connection or the TLS handshake failed: nothing was sent.
    ConnectFailure = "connect-failure";
    /// HTTP/2 REFUSED_STREAM, or a GOAWAY with a lower stream number: the peer did not process the request.
    RefusedStream = "refused-stream";
    /// The connection ended before the first byte of the response.
    ResetBeforeHeaders = "reset-before-headers";
    /// All of the above, or `per_try_timeout` passed before the whole head of the response.
    Reset = "reset";
    /// All of `reset`, and responses with a status from 500 to 599.
    ServerError = "5xx";
    /// All of `reset`, and responses with the status 502, 503 or 504.
    GatewayError = "gateway-error";
    more {
        /// Responses with this status.
        Status(StatusCode);
        /// Responses with this header.
        Header(HeaderName);
        /// Responses without a body that have this grpc-status.
        GrpcStatus(u16);
    }
}
}

/// Which methods may be sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RetryMethods {
    /// GET, HEAD, OPTIONS, TRACE, PUT, DELETE.
    #[default]
    Idempotent,
    /// Every method. Use it only if the application handles repeated requests.
    All,
}

section! {
    "`rate_limit`"
    /// A local rate limit: a token bucket over all workers.
    pub struct RateLimit: Eq {
        /// Requests in each `per`.
        #[schema(minimum = 1, examples = [100])]
        requests: u32 = 1,
        /// The time that `requests` are for.
        per: Duration as Positive = Duration::from_secs(1),
        /// Requests at once after a pause. By default as many as `requests`.
        #[schema(minimum = 1, default = (), examples = [200])]
        burst: u32 = 0,
        /// What has its own bucket: the `route`, each `client` address, each verified `identity`, or each value of
        /// `header:NAME`.
        by: LimitKey as LimitBy = LimitKey::Route,
        /// Buckets kept at once (16 bytes each); keys above share one.
        #[schema(minimum = 1, maximum = 10_000_000)]
        max_keys: usize = 10_000,
    }
    requires requests
    then Self::fill_burst
}

impl RateLimit {
    const fn fill_burst(&mut self) {
        if self.burst == 0 {
            self.burst = self.requests;
        }
    }
}

/// A rate alone, or with its burst and key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum RateLimitForm {
    Rate(Text<RateText>),
    Full(RateLimit),
}

/// What a rate limit counts by.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum LimitKey {
    /// All requests of the route together.
    #[default]
    Route,
    /// Each value of this header; requests without it are one value more.
    Header(HeaderName),
    /// Each client address.
    Client,
    /// Each verified identity (the first name of the client's certificate); clients without one are one more.
    Identity,
}

section! {
    "`fault`"
    /// Faults injected on purpose: a delay, an answer in place of the upstream's, a slow response.
    pub struct Fault {
        /// Only requests with this header, or with this header and value.
        #[schema(examples = [json!("x-fault"), json!({"x-fault": "please"})])]
        header(Spanned<FaultHeader>): Option<(HeaderName, Option<Name>)> as HeaderAndValue = None,
        /// Some requests wait before they are sent on.
        delay: Option<FaultDelay> as Optional<Nested> = None,
        /// Some requests are answered by attache.
        // A delay comes first.
        abort: Option<FaultAbort> as Optional<Nested> = None,
        /// The bodies of some responses come slowly.
        response_rate(Spanned<FaultRate>): Option<FaultRate> = None,
    }
    rules {
        any_of [delay, abort, response_rate]
            "this fault does nothing"
            "give it `delay: { time: 1s }`, `abort: {}` or `response_rate: { limit: 10KiB }`";
    }
}

/// A header's name, or its name and value.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum FaultHeader {
    Name(Text<HeaderText>),
    Value(Mapping<HeaderText, Text<Word>>),
}

/// A header and its value, as they are shown.
struct HeaderAndValue;

impl Show<Option<(HeaderName, Option<Name>)>> for HeaderAndValue {
    fn show(value: &Option<(HeaderName, Option<Name>)>) -> Value {
        value.as_ref().map_or(Value::Null, |(name, value)| json!({ name.as_str(): value.as_deref() }))
    }
}

section! {
    "`response_rate` of a fault"
    /// A slow response.
    pub struct FaultRate: Copy {
        /// Bytes of the body in each second.
        #[schema(default = (), examples = ["10KiB"])]
        limit: usize as Size = 0,
        /// Share of the requests.
        share: f64 as Ratio = 1.0,
    }
    requires limit
}

section! {
    "`delay` of a fault"
    /// A delay.
    pub struct FaultDelay: Copy {
        /// How long.
        #[schema(default = ())]
        time: Duration as Positive = Duration::ZERO,
        /// Share of the requests.
        share: f64 as Ratio = 1.0,
    }
    requires time
}

section! {
    "`abort` of a fault"
    /// An answer.
    // A gRPC call gets the grpc-status of `fault-injected`.
    pub struct FaultAbort: Copy {
        /// Its status.
        #[schema(minimum = 200, maximum = 599)]
        status: StatusCode as StatusNumber = StatusCode::SERVICE_UNAVAILABLE,
        /// Share of the requests.
        share: f64 as Ratio = 1.0,
    }
}
