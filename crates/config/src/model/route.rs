//! Which request or connection goes where.

use std::{borrow::Borrow, fmt, marker::PhantomData, net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Authorization, Compression, Cors, Credential, Fault, GlobalRateLimit, HostOrAuto, Name, Policy,
    RateLimit, RateLimitForm, RetryForm, SanPattern, Timeouts, UpstreamId, Web,
};
use crate::{
    section::{
        self, List, Maybe, Notation, Pairs, Read, Shared, Short, Show, Status, Text, Written, section,
    },
    shapes::{self, At, OneOrMany, OrOff, Txt},
    shown::{HIDDEN, names_a_credential, only_given},
    text::{
        AddressRange, HeaderText, HostAndPort, HostText, Label, MediaType, MethodText, PathText, PathValue,
        Positive, Ratio, RedirectScheme, SanText, SecretText, TemplateText, Timeout, Unit, ValueText, Weight,
        Word, show_ratio, show_timeout,
    },
};

section! {
    "a route"
    /// A route: what it applies to, and what is done. Exactly one of `to`, `redirect` and `respond`.
    pub struct Route {
        /// Its name in metrics and logs. By default `LISTENER/INDEX`.
        #[schema(default = ())]
        name(Txt<Label>): Name as Label = "".into(),
        /// What it applies to. Without it, everything.
        r#match(At<Read<Match>>) in matcher: Match = Match::default(),
        /// Where it is sent: an upstream, or a split by weight.
        to(At<To>),
        /// The header that names the one of the upstreams in `to` that a request is for: `to: [orders, billing]`. A request that names none
        /// of them, or several, is refused with 404 `no-upstream`.
        #[schema(examples = ["x-upstream"])]
        upstream_header(Txt<HeaderText>),
        /// Only endpoints of the upstream with certain labels.
        subset(At<Subset>),
        /// A cookie by which a client's requests go to one endpoint, for as long as it can serve.
        session_cookie(At<SessionCookie>),
        /// What becomes of TLS whose server name is one of `match.sni`, on a listener that terminates TLS.
        #[schema(default = RouteTls::default())]
        tls(RouteTls),
        /// Answered with a redirect.
        redirect(At<Redirect>),
        /// Answered by attache itself: a status, or with a body.
        #[schema(examples = [404])]
        respond(Short<Respond>),
        /// From the whole request head until the response's end, of all attempts together. Streams (`text/event-stream`, gRPC,
        /// upgrades) are bounded until the response head, and so is everything where no `timeout` is set: then `idle_timeout` alone bounds what
        /// flows. By default that of the upstream.
        #[schema(default = show_timeout(Timeouts::default().request))]
        timeout(Txt<Timeout>),
        /// A stream without a byte either way for this long is cut. By default that of the upstream.
        #[schema(default = show_timeout(Timeouts::default().idle))]
        idle_timeout(Txt<Timeout>),
        /// The header in which callers say how many milliseconds they still wait, `x-envoy-expected-rq-timeout-ms` for example. It
        /// shortens the deadline, and every attempt passes on what remains of the shortest one. By default that of the upstream.
        #[schema(examples = ["x-request-deadline"])]
        deadline_header(Txt<HeaderText>),
        /// Retries: `off`, a number of attempts after the first, or in full. Keys that aren't given are those of the upstream.
        retry(RetryForm),
        /// A secret that requests are given, or `off`. By default that of the upstream.
        credential(At<OrOff<Read<Credential>>>),
        /// Who may do it. The listener's rules hold beside these.
        authorization(At<Read<Authorization>>): Option<Arc<Authorization>> as Maybe<Shared<section::Part>> = None,
        /// Which pages of other origins may read the answers; or `off`. By default that of the listener.
        cors(OrOff<Read<Cors>>),
        /// gRPC-Web, which browsers speak, is translated to gRPC and back. By default as the listener says.
        #[schema(default = false)]
        grpc_web(bool),
        /// Which answers are compressed; or `off`. By default that of the listener.
        #[schema(default = "off")]
        compression(OrOff<Compression>),
        /// Changes to the path and the host on the way up.
        rewrite(At<Rewrite>),
        /// Changes to headers.
        headers(Read<Headers>),
        /// Copies of the requests, whose answers are dropped: an upstream, or a share for each. A copy has its own upstream's `timeout`.
        mirror(At<MirrorForm>),
        /// How much is let through, over all workers; the rest is 429. A rate alone, or in full.
        rate_limit(RateLimitForm),
        /// A limit over all proxies: a service that counts is asked before a request goes on.
        global_rate_limit(Read<GlobalRateLimit>),
        /// Faults injected on purpose, to see what callers do about them.
        fault(At<Read<Fault>>),
    }
    holds {
        /// What is done.
        action: Action = Action::Forward(Forward::new(Vec::new())),
        /// What it does for browsers.
        web: Web = Web::default(),
        /// Changes to the request's headers.
        request_headers: HeaderEdits = HeaderEdits::default(),
        /// Changes to the response's headers.
        response_headers: HeaderEdits = HeaderEdits::default(),
        /// Line in the file, for `explain`.
        line: u32 = 0,
    }
    shows Self::show_rest
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

section! {
    "`match`"
    /// What a route applies to: every key that is given must match; of a list, one.
    pub struct Match {
        /// `Host` or `:authority`: `orders.internal`, `*.internal`, `orders.*`, `*`. The port is ignored unless it is given.
        host in hosts: Vec<HostPattern> as List<HostText> = Vec::new(),
        /// Path without the query: `/v1/*` is a prefix on a segment boundary, `/users/{id}` and `/files/{rest...}` capture
        /// segments, `~regex` matches the whole path, anything else is exact. A `{`, `}` or `*` itself is percent-encoded.
        path(OneOrMany<Txt<PathText>>): Option<PathPattern> as Maybe<PathText> = None,
        /// Methods.
        methods: Vec<Method> as List<MethodText> = Vec::new(),
        /// The same as `methods`.
        method(OneOrMany<Txt<MethodText>>),
        /// Headers, all of which must match: `v1` is exact, `*` is there at all, `v1*` a prefix, `*v1` a suffix, `~regex` the whole
        /// value. A leading `!` inverts; then a leading `=` takes the rest as it is (`=*` is one asterisk).
        #[schema(examples = [json!({"x-version": "v2", "x-debug": "!*"})])]
        headers: Vec<ValueMatch> as Values<HeaderText> = Vec::new(),
        /// Query parameters, all of which must match; the same patterns.
        #[schema(examples = [json!({"page": "~[0-9]+"})])]
        query: Vec<ValueMatch> as Values<Word> = Vec::new(),
        /// TLS server name, of TLS that is passed through or terminated.
        sni: Vec<HostPattern> as List<HostText> = Vec::new(),
        /// Identities of which the client must have proven one, on a listener whose `tls` has a `client_ca`; as in its `allow`.
        identity in identities: Vec<SanPattern> as List<SanText> = Vec::new(),
        /// Original destination of an intercepted connection: networks, addresses, ports.
        destination: Vec<AddressMatch> as Ranges = Vec::new(),
    }
    shows only_given
}

/// An upstream's name, or names with weights: percentages that sum to 100 %, or whole numbers. With `upstream_header` a list of names.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("examples" = ["orders", {"orders": "95%", "orders-next": "5%"}]))]
pub(crate) enum To {
    One(Txt<Label>),
    Several(Vec<At<Txt<Label>>>),
    Split(shapes::Map<Label, At<Txt<Weight>>>),
}

/// An upstream's name, or names with the share of the requests that is copied.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("examples" = ["shadow", {"shadow": "10%"}]))]
pub(crate) enum MirrorForm {
    One(Txt<Label>),
    Shares(shapes::Map<Label, Txt<Ratio>>),
}

impl Match {
    /// It asks something of HTTP: a host, path, method, header or query.
    pub fn asks_http(&self) -> bool {
        !self.hosts.is_empty()
            || self.path.is_some()
            || !self.methods.is_empty()
            || !self.headers.is_empty()
            || !self.query.is_empty()
    }

    /// It names the method CONNECT: the route asks for tunnels.
    pub fn names_connect(&self) -> bool {
        self.methods.contains(&Method::CONNECT)
    }

    /// It names no method but CONNECT.
    pub fn only_connects(&self) -> bool {
        self.names_connect() && self.methods.len() == 1
    }
}

impl Route {
    /// A route that has everything, and of which nothing else is said.
    pub fn new(name: impl Into<Name>, action: Action) -> Self {
        Self { name: name.into(), action, ..Self::default() }
    }

    fn show_rest(&self, shown: &mut Map<String, Value>) {
        shown.insert("line".into(), self.line.into());
        shown.extend(self.web.show());
        let headers =
            Headers { request: self.request_headers.clone(), response: self.response_headers.clone() };
        shown.insert("headers".into(), json!(headers));
        let (key, action) = match &self.action {
            Action::Forward(forward) => ("forward", forward.show()),
            Action::Redirect(redirect) => ("redirect", json!(redirect)),
            Action::Respond(respond) => ("respond", json!(respond)),
        };
        shown.insert(key.into(), action);
    }

    /// Opaque bytes that took `other` could go round what this route says: it is about HTTP, and it answers or leads to one of the
    /// same upstreams.
    pub fn guards(&self, other: &Self) -> bool {
        let Action::Forward(there) = &other.action else { return false };
        match &self.action {
            Action::Redirect(_) | Action::Respond(_) => true,
            Action::Forward(here) => {
                let same = |to: &Destination| there.to.iter().any(|other| other.upstream == to.upstream);
                here.to.iter().any(same)
                    && (self.matcher.asks_http()
                        || here.upstream_header.is_some()
                        || here.path != PathRewrite::Keep
                        || here.host.changes()
                        || !here.mirrors.is_empty()
                        || !self.request_headers.is_empty()
                        || here.to.iter().any(|to| to.policy.credential.is_some()))
            }
        }
    }
}

/// A host name to match. Names are kept in lower case, without the final dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPattern {
    /// The name.
    pub name: HostName,
    /// `None` ignores the request's port, `Some` must equal it (the scheme's default where the request has none).
    pub port: Option<u16>,
}

/// As the file writes it.
impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            HostName::Any => f.write_str("*")?,
            HostName::Exact(name) => f.write_str(name)?,
            HostName::Suffix(suffix) => write!(f, "*{suffix}")?,
            HostName::Prefix(prefix) => write!(f, "{prefix}*")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// The name part of a [`HostPattern`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostName {
    /// Every host.
    Any,
    /// Exactly this name.
    Exact(Name),
    /// `*.example.com`: one or more labels before this suffix, which is kept with its leading dot.
    Suffix(Name),
    /// `orders.*`: this prefix, kept with its final dot, and one or more labels.
    Prefix(Name),
}

/// A path to match.
#[derive(Clone, Debug)]
pub enum PathPattern {
    /// Exactly this path.
    Exact(Name),
    /// `/v1/*`: `/v1`, and everything below it on a segment boundary. Kept without the final `/*`.
    Prefix(Name),
    /// `/users/{id}/orders`, `/files/{rest...}`: segments with captures that rewrites can use.
    Template(Vec<Segment>),
    /// `~^/v[0-9]+/`: a regular expression over the whole path (anchored by the parser), linear in time.
    Regex(Box<regex::Regex>),
}

/// As the file writes it.
impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Prefix(prefix) => write!(f, "{}/*", prefix.trim_end_matches('/')),
            Self::Regex(regex) => write!(f, "~{regex}"),
            Self::Template(segments) => segments.iter().try_for_each(|segment| match segment {
                Segment::Literal(text) => write!(f, "/{text}"),
                Segment::Capture(name) => write!(f, "/{{{name}}}"),
                Segment::Rest(name) => write!(f, "/{{{name}...}}"),
            }),
        }
    }
}

impl PartialEq for PathPattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) | (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (Self::Template(a), Self::Template(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

/// One segment of a path template.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// These characters.
    Literal(Name),
    /// `{name}`: one segment that isn't empty.
    Capture(Name),
    /// `{name...}`: the rest of the path, only as the last segment.
    Rest(Name),
}

/// A header or query parameter to match.
#[derive(Clone, Debug)]
pub struct ValueMatch {
    /// Header name in lower case, or parameter name.
    pub name: Name,
    /// What its value must be.
    pub value: ValuePattern,
    /// The match is inverted.
    pub not: bool,
}

impl PartialEq for ValueMatch {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.not == other.not && self.value == other.value
    }
}

/// Headers or parameters that must match, by their names. What is a credential by its name isn't shown.
pub(crate) struct Values<K>(PhantomData<K>);

impl<K: Unit> Show<Vec<ValueMatch>> for Values<K> {
    fn show(value: &Vec<ValueMatch>) -> Value {
        let one = |wanted: &ValueMatch| {
            let pattern = match &wanted.value {
                _ if names_a_credential(&wanted.name) => HIDDEN.to_owned(),
                pattern => pattern.to_string(),
            };
            (wanted.name.to_string(), format!("{}{pattern}", if wanted.not { "!" } else { "" }).into())
        };
        Value::Object(value.iter().map(one).collect())
    }
}

impl<K: Unit<Value: Borrow<str>>> Notation<Vec<ValueMatch>> for Values<K> {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        <Pairs<K, ValueText> as Notation<_>>::schema(generator)
    }

    fn read(value: Value) -> serde_json::Result<Vec<ValueMatch>> {
        let pairs = <Pairs<K, ValueText> as Notation<Vec<_>>>::read(value)?.into_iter();
        Ok(pairs.map(|(name, (value, not))| ValueMatch { name: name.borrow().into(), value, not }).collect())
    }
}

/// What a value must be.
#[derive(Clone, Debug)]
pub enum ValuePattern {
    /// There is one.
    Present,
    /// Exactly this.
    Exact(Name),
    /// Begins with this.
    Prefix(Name),
    /// Ends with this.
    Suffix(Name),
    /// A regular expression over the whole value.
    Regex(Box<regex::Regex>),
}

/// As the file writes it.
impl fmt::Display for ValuePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present => f.write_str("*"),
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(text) => write!(f, "{text}*"),
            Self::Suffix(text) => write!(f, "*{text}"),
            Self::Regex(regex) => write!(f, "~{regex}"),
        }
    }
}

impl PartialEq for ValuePattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present, Self::Present) => true,
            (Self::Exact(a), Self::Exact(b))
            | (Self::Prefix(a), Self::Prefix(b))
            | (Self::Suffix(a), Self::Suffix(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

/// An address range and port to match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressMatch {
    /// Network address.
    pub network: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
    /// `None` is every port.
    pub port: Option<u16>,
}

/// Networks, addresses and ports; one text may stand for several.
pub(crate) struct Ranges;

impl Show<Vec<AddressMatch>> for Ranges {
    fn show(value: &Vec<AddressMatch>) -> Value {
        <List<Written> as Show<_>>::show(value)
    }
}

impl Notation<Vec<AddressMatch>> for Ranges {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<OneOrMany<Txt<AddressRange>>>()
    }

    fn read(value: Value) -> serde_json::Result<Vec<AddressMatch>> {
        let ranges: OneOrMany<Txt<AddressRange>> = serde_json::from_value(value)?;
        Ok(ranges.into_vec().into_iter().flat_map(|range| range.0.0).collect())
    }
}

impl fmt::Display for AddressMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)?;
        self.port.map_or(Ok(()), |port| write!(f, " port {port}"))
    }
}

/// What a route does.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one for each route of a config, and most forward")]
pub enum Action {
    /// Sent to an upstream, chosen by weight.
    Forward(Forward),
    /// Answered with a redirect.
    Redirect(Redirect),
    /// Answered by attache itself.
    Respond(Respond),
}

/// A header that names the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamHeader {
    /// The header.
    pub header: HeaderName,
    /// What it may say: the names of the route's upstreams, in the order of [`Forward::to`].
    pub names: Vec<Name>,
}

section! {
    "`subset`"
    /// Endpoints of an upstream by their labels.
    pub struct Subset: Eq {
        /// What an endpoint must have, all of it: `labels` of the upstream's addresses.
        #[schema(examples = [json!({"version": "v2"})])]
        labels: Vec<(Name, Name)> as Pairs<Word, Word> = Vec::new(),
        /// What becomes of requests where no endpoint has these labels.
        fallback: SubsetFallback = SubsetFallback::default(),
    }
    requires labels
}

/// Where a subset has no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SubsetFallback {
    /// Requests are refused with 503 `empty-subset`.
    #[default]
    None,
    /// Any endpoint has them.
    Any,
}

impl Subset {
    /// Whether an endpoint with these labels is one of it.
    pub fn holds(&self, labels: &[(Name, Name)]) -> bool {
        self.labels.iter().all(|wanted| labels.contains(wanted))
    }
}

/// As logs and `attache explain` write it.
impl fmt::Display for Subset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.labels.iter().enumerate() {
            write!(f, "{}{key}={value}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

section! {
    "`session_cookie`"
    /// A session by a cookie that attache sets. Its value is encrypted: it shows no address, nobody else can make one, and it leads to
    /// endpoints of the route's upstream alone.
    pub struct SessionCookie: Eq {
        /// Its name.
        #[schema(default = (), examples = ["attache-session"])]
        name: Name as Word = "".into(),
        /// The secret that the value is encrypted with, the same for all processes that a client may reach. Of several, the first
        /// encrypts and all decrypt, so that a secret can be replaced while sessions last. Without it each process has one of its
        /// own: its sessions end with it, and no other process knows them.
        #[schema(examples = ["${SESSION_KEY}"])]
        key: Vec<Name> as List<SecretText> = Vec::new(),
        /// Requests below this path have a session, and browsers send the cookie with them alone.
        path: Name as PathValue = "/".into(),
        /// How long browsers keep it. Without it, until they are closed.
        ttl: Option<Duration> as Maybe<Positive> = None,
        /// A request whose endpoint can't serve is refused with 503 `no-healthy-endpoint`; otherwise another endpoint has it, and the
        /// session from then on.
        strict: bool = false,
    }
    requires name
}

/// Sending on.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// At least one; weights are relative.
    pub to: Vec<Destination>,
    /// Which of them it is says a header of the request, not chance; `None` is by weight.
    pub upstream_header: Option<Box<UpstreamHeader>>,
    /// Only endpoints with these labels; `None` is all of them.
    pub subset: Option<Arc<Subset>>,
    /// A cookie that keeps a client's requests at one endpoint.
    pub session_cookie: Option<Arc<SessionCookie>>,
    /// Changes to the path.
    pub path: PathRewrite,
    /// Changes to the host.
    pub host: HostRewrite,
    /// Copies, whose answers are dropped.
    pub mirrors: Vec<Mirror>,
    /// How much of it is let through; `None` is everything.
    pub rate_limit: Option<RateLimit>,
    /// The same, counted by a service for all proxies; `None` asks none.
    pub global_rate_limit: Option<Box<GlobalRateLimit>>,
    /// Faults injected on purpose; `None` is none.
    pub fault: Option<Fault>,
    /// What may be sent to these upstreams.
    pub traffic: Traffic,
    /// TLS whose server name matches is passed through undecrypted, on a listener that terminates TLS elsewhere. Default false.
    pub passthrough: bool,
}

impl Forward {
    /// Sending on to these, and nothing else.
    pub fn new(to: Vec<Destination>) -> Self {
        Self {
            to,
            upstream_header: None,
            subset: None,
            session_cookie: None,
            path: PathRewrite::Keep,
            host: HostRewrite::Auto,
            mirrors: Vec::new(),
            rate_limit: None,
            global_rate_limit: None,
            fault: None,
            traffic: Traffic::default(),
            passthrough: false,
        }
    }

    fn show(&self) -> Value {
        let rewrite = Rewrite {
            path: if let PathRewrite::Whole(path) = &self.path { Some(path.clone()) } else { None },
            prefix: if let PathRewrite::Prefix(prefix) = &self.path { Some(prefix.clone()) } else { None },
            host: self.host.clone(),
        };
        let mirror = |mirror: &Mirror| {
            json!({
                "upstream": mirror.upstream,
                "ratio": show_ratio(mirror.ratio),
                "timeout": show_timeout(mirror.timeouts.request),
            })
        };
        json!({
            "to": self.to.iter().map(Destination::show).collect::<Vec<_>>(),
            "upstream_header": self.upstream_header.as_ref().map(|by| by.header.as_str()),
            "subset": self.subset.as_deref(),
            "session_cookie": self.session_cookie.as_deref(),
            "rewrite": rewrite,
            "mirror": self.mirrors.iter().map(mirror).collect::<Vec<_>>(),
            "rate_limit": self.rate_limit,
            "global_rate_limit": self.global_rate_limit.as_deref(),
            "fault": self.fault,
            "tls": if self.passthrough { RouteTls::Passthrough } else { RouteTls::Terminate },
        })
    }
}

/// What the upstreams of a route are meant for. Opaque bytes can't be held to a rule about HTTP, so they only go where the config
/// asks for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Traffic {
    /// HTTP alone: the address has an HTTP scheme, or the listener speaks HTTP.
    #[default]
    Http,
    /// Opaque bytes alone: `tcp://`, `tls://`, `protocol: tcp`, or an address without a scheme on a listener for opaque bytes.
    Opaque,
    /// `authority`: HTTP, CONNECT, and TLS that is passed through to the server name that it asks for.
    Named,
    /// `original-destination`: HTTP, and opaque bytes where no rule about HTTP guards the same upstream.
    Original,
}

/// An index into [`Forward::to`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DestinationId(pub usize);

/// One target of a split.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    /// The upstream.
    pub upstream: UpstreamId,
    /// Relative weight; all weights of a split sum to at least 1.
    pub weight: u32,
    /// Deadlines and retries: the route's, and where it has none the upstream's, and then the defaults.
    pub policy: Arc<Policy>,
}

impl Destination {
    fn show(&self) -> Value {
        let Policy { timeouts, retry, deadline_header, credential } = &*self.policy;
        json!({
            "upstream": self.upstream,
            "weight": self.weight,
            "timeout": show_timeout(timeouts.request),
            "timeout_bounds": if timeouts.whole { "the whole exchange" } else { "the time to the answer's head" },
            "idle_timeout": show_timeout(timeouts.idle),
            "credential": credential.as_deref(),
            "deadline_header": deadline_header.as_ref().map(HeaderName::as_str),
            "retry": retry,
        })
    }
}

/// A shadow of a route's traffic.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// Where copies go.
    pub upstream: UpstreamId,
    /// Share of the requests that are copied, 0 to 1.
    pub ratio: f64,
    /// How long a copy may take: those of its own upstream.
    pub timeouts: Timeouts,
}

/// What becomes of the path on its way up.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum PathRewrite {
    /// Nothing.
    #[default]
    Keep,
    /// The matched prefix is replaced by this.
    Prefix(Name),
    /// The whole path becomes this; `{capture}` inserts what the template or regex captured.
    Whole(Name),
}

/// What becomes of the Host header (HTTP/2's `:authority`) on its way up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostRewrite {
    /// A route leaves it to its upstream; an upstream decides by who was named: `docs/routing.md` has the rule.
    #[default]
    Auto,
    /// Kept as the client sent it.
    Preserve,
    /// Becomes the upstream's own authority (nginx's `$proxy_host`, Envoy's `auto_host_rewrite`).
    Upstream,
    /// Becomes this.
    To(Name),
}

impl HostRewrite {
    /// The route itself asks for another host than the client's.
    pub const fn changes(&self) -> bool {
        matches!(self, Self::Upstream | Self::To(_))
    }
}

section! {
    "`rewrite`"
    /// Changes to the path and the host.
    pub struct Rewrite: Eq {
        /// The whole path becomes this; `{name}` inserts what the route's path captured.
        path: Option<Name> as Maybe<PathValue> = None,
        /// The prefix that matched (`/v1/*`) becomes this.
        prefix: Option<Name> as Maybe<PathValue> = None,
        /// The Host header (HTTP/2: `:authority`) becomes this: `preserve` (or `keep`) is as the client sent it, `upstream` is the
        /// upstream's own, anything else is a host. Without it the upstream's `host` decides.
        host: HostRewrite as HostOrAuto = HostRewrite::Auto,
    }
}

section! {
    "`redirect`"
    /// A redirect. Parts that aren't given are those of the request.
    pub struct Redirect: Eq {
        /// 301, 302, 303, 307 or 308.
        #[schema(minimum = 301, maximum = 308)]
        status: StatusCode as Status = StatusCode::FOUND,
        /// `http` or `https`.
        scheme: Option<Name> as Maybe<RedirectScheme> = None,
        /// Host and, where given, port.
        host: Option<Name> as Maybe<HostAndPort> = None,
        /// Path; `{name}` inserts what the route's path captured.
        path: Option<Name> as Maybe<PathValue> = None,
        /// The query is dropped.
        strip_query: bool = false,
    }
}

section! {
    "`respond`"
    /// A direct answer.
    pub struct Respond: Eq {
        /// Its status.
        #[schema(minimum = 200, maximum = 599, examples = [404])]
        status: StatusCode as Status = StatusCode::OK,
        /// Its body.
        #[schema(default = (), examples = ["not here"])]
        body: Arc<[u8]> as Text = Arc::default(),
        /// Its content type.
        content_type: HeaderValue as MediaType = Self::CONTENT_TYPE,
    }
    requires status
    or status
}

impl Respond {
    /// Default of [`Self::content_type`].
    pub const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
}

section! {
    "`headers` of a route"
    /// Changes to headers in both directions.
    pub struct Headers: Eq {
        /// On the way up.
        request(Read<HeaderEdits>): HeaderEdits = HeaderEdits::default(),
        /// On the way down.
        response(Read<HeaderEdits>): HeaderEdits = HeaderEdits::default(),
    }
}

section! {
    "header changes"
    /// Header changes: removals first, then `set`, then `add`. Values may have variables: `%{client.address}`,
    /// `%{client.port}`, `%{client.identity}`, `%{request.host}`, `%{request.path}`, `%{request.method}`, `%{request.id}`,
    /// `%{request.scheme}`, `%{request.header.NAME}`, `%{capture.NAME}`, `%{route}`, `%{upstream}`, `%{listener}`; `%%` is
    /// one `%`.
    pub struct HeaderEdits: Eq {
        /// Replaced or made.
        #[schema(examples = [json!({"x-client": "%{client.address}"})])]
        set(EditsForm): Vec<(HeaderName, Template)> as Edits = Vec::new(),
        /// Added beside what is there.
        #[schema(examples = [json!({"x-seen-by": "%{listener}"})])]
        add(EditsForm): Vec<(HeaderName, Template)> as Edits = Vec::new(),
        /// Removed.
        #[schema(examples = [["x-internal"]])]
        remove(OneOrMany<At<Txt<HeaderText>>>): Vec<HeaderName> as List<HeaderText> = Vec::new(),
    }
}

/// Header changes by the header's name, as the file gives them.
pub(crate) type EditsForm = shapes::Map<HeaderText, At<Txt<TemplateText>>>;

/// Header changes as they are shown: one mapping each, since a name may stand there twice. What is a credential by its name isn't.
struct Edits;

impl Show<Vec<(HeaderName, Template)>> for Edits {
    fn show(value: &Vec<(HeaderName, Template)>) -> Value {
        let one = |(name, to): &(HeaderName, Template)| {
            let hidden = names_a_credential(name.as_str());
            json!({ name.as_str(): if hidden { HIDDEN.to_owned() } else { to.to_string() } })
        };
        value.iter().map(one).collect()
    }
}

impl HeaderEdits {
    /// Nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

/// A text with `%{variable}` parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(pub Vec<Part>);

/// As the file writes it.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Variable(variable) => write!(f, "%{{{variable}}}"),
        })
    }
}

/// One part of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text as it is.
    Text(Name),
    /// A value of the request.
    Variable(Variable),
}

/// Values that a template can insert. A value that isn't there is the empty text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// `client.address`: IP of the client.
    ClientAddress,
    /// `client.port`.
    ClientPort,
    /// `client.identity`: the verified peer's first URI or DNS SAN.
    ClientIdentity,
    /// `request.host`.
    Host,
    /// `request.path`.
    Path,
    /// `request.method`.
    Method,
    /// `request.id`.
    RequestId,
    /// `request.scheme`.
    Scheme,
    /// `request.header.NAME`.
    Header(HeaderName),
    /// `capture.NAME` of the path pattern.
    Capture(Name),
    /// `route`.
    Route,
    /// `upstream`.
    Upstream,
    /// `listener`.
    Listener,
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientAddress => "client.address",
            Self::ClientPort => "client.port",
            Self::ClientIdentity => "client.identity",
            Self::Host => "request.host",
            Self::Path => "request.path",
            Self::Method => "request.method",
            Self::RequestId => "request.id",
            Self::Scheme => "request.scheme",
            Self::Header(name) => return write!(f, "request.header.{name}"),
            Self::Capture(name) => return write!(f, "capture.{name}"),
            Self::Route => "route",
            Self::Upstream => "upstream",
            Self::Listener => "listener",
        })
    }
}
