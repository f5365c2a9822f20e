//! Which request or connection goes where.

use super::prelude::*;

section! {
    "a route"
    /// A route: which requests it matches, and what happens to them. Exactly one of `to`, `redirect` and `respond`.
    pub struct Route {
        /// Its name in metrics and logs. By default `LISTENER/INDEX`.
        #[schema(default = ())]
        name(Text<Label>): Name as Label = "".into(),
        /// Conditions. Without them, the route matches everything.
        r#match(Spanned<ParsedSection<Match>>) in matcher: Match = Match::default(),
        /// The destination: an upstream, or a split by weight.
        to(Spanned<DestinationsForm>),
        /// Answered with a redirect.
        redirect(Spanned<Redirect>),
        /// Answered by attache itself: a status, or with a body.
        #[schema(examples = [404])]
        respond(Shorthand<Respond>),
        ..policy(PolicyKeys),
        /// A secret that attache adds to requests, or `off`. By default that of the upstream.
        credential(Spanned<OrOff<ParsedSection<Credential>>>),
        /// Protocols that its requests may switch to; this replaces `upgrades` of the listener's `http`.
        #[schema(examples = [json!(["websocket"])])]
        upgrades: Option<Upgrades> as Optional<UpgradesForm> = None,
        /// The largest request body in bytes; this replaces `limits.body_size` of the listener's `http`. 0 means no limit.
        #[schema(examples = ["10MiB"])]
        body_size: Option<usize> as Optional<Size> = None,
        /// Which requests of this route are allowed. The listener's rules apply as well.
        authorization(Spanned<ParsedSection<Authorization>>): Option<Arc<Authorization>> as Optional<SharedValue<Nested>> = None,
        /// What it does for browsers.
        ..web: Web,
        /// Changes to headers.
        headers(ParsedSection<Headers>),
        ..forward(Forward),
    }
    holds {
        /// What is done.
        action: Action = Action::Forward(Forward::new(Vec::new())),
        /// Changes to the request's headers.
        request_headers: HeaderEdits = HeaderEdits::default(),
        /// Changes to the response's headers.
        response_headers: HeaderEdits = HeaderEdits::default(),
        /// Line in the file, for `explain`.
        line: u32 = 0,
    }
    shows Self::show_rest
    rules {
        any_of [to, redirect, respond]
            "this route does nothing" "give it one of `to`, `redirect` and `respond`";
        excludes [redirect, respond] [to]
            "both `to` and `{}`" "a route does one thing: remove one";
        excludes [respond] [redirect]
            "both `redirect` and `{}`" "a route does one thing: remove one";
        needs [
            body_size, upgrades, upstream_header, subset, session_cookie, tls, rewrite, mirror, timeout, idle_timeout,
            deadline_header, retry, credential, rate_limit, global_rate_limit, fault
        ] [to]
            "`{}` has no meaning here" "it belongs to a route with `to`";
    }
}

/// TLS of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RouteTls {
    /// The listener terminates it.
    #[default]
    Terminate,
    /// attache passes it to the upstream without decrypting it. The upstream shows its own certificate, and the listener's `client_ca` and
    /// `allow` don't apply.
    Passthrough,
}

/// An upstream's name, or names with weights: percentages that sum to 100 %, or whole numbers. With `upstream_header` a list of names.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("examples" = ["orders", {"orders": "95%", "orders-next": "5%"}]))]
pub(crate) enum DestinationsForm {
    One(Text<Label>),
    Several(Vec<Spanned<Text<Label>>>),
    Split(Mapping<Label, Spanned<Text<WeightText>>>),
}

/// An upstream's name, or names with the share of the requests that is copied.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("examples" = ["shadow", {"shadow": "10%"}]))]
pub(crate) enum MirrorForm {
    One(Text<Label>),
    Shares(Mapping<Label, Text<Ratio>>),
}

impl Route {
    /// A route that matches everything, with all defaults.
    pub fn new(name: impl Into<Name>, action: Action) -> Self {
        Self { name: name.into(), action, ..Self::default() }
    }

    fn show_rest(&self, shown: &mut Object<String, Value>) {
        shown.insert("line".into(), self.line.into());
        let headers =
            Headers { request: self.request_headers.clone(), response: self.response_headers.clone() };
        shown.insert("headers".into(), json!(headers));
        let (key, action) = match &self.action {
            Action::Forward(forward) => ("forward", json!(forward)),
            Action::Redirect(redirect) => ("redirect", json!(redirect)),
            Action::Respond(respond) => ("respond", json!(respond)),
        };
        shown.insert(key.into(), action);
    }

    /// True if opaque bytes on the route `other` could bypass this route: this route is about HTTP, and it answers by
    /// itself or leads to one of the same upstreams.
    pub fn guards(&self, other: &Self) -> bool {
        let Action::Forward(there) = &other.action else { return false };
        match &self.action {
            Action::Redirect(_) | Action::Respond(_) => true,
            Action::Forward(here) => {
                let same = |to: &Destination| there.to.iter().any(|other| other.upstream == to.upstream);
                here.to.iter().any(same) && self.is_about_http()
            }
        }
    }

    /// True if its conditions or its action have a meaning only for HTTP.
    pub(crate) fn is_about_http(&self) -> bool {
        let Action::Forward(forward) = &self.action else { return true };
        self.matcher.asks_http()
            || forward.upstream_header.is_some()
            || forward.path != PathRewrite::Keep
            || forward.host.changes()
            || !forward.mirrors.is_empty()
            || !self.request_headers.is_empty()
            || forward.to.iter().any(|to| to.policy.credential.is_some())
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
    /// Its allowed values: the names of the route's upstreams, in the order of [`Forward::to`].
    pub names: Vec<Name>,
}

/// As the file writes it.
impl fmt::Display for UpstreamHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.header.fmt(f)
    }
}

section! {
    "a route with `to`"
    /// Sending on.
    pub struct Forward {
        /// The header that names the one of the upstreams in `to` that a request is for: `to: [orders, billing]`. A request that names none
        /// of them, or several, is refused with 404 `no-upstream`.
        #[schema(examples = ["x-upstream"])]
        upstream_header(Text<HeaderText>): Option<Box<UpstreamHeader>> as Optional<Written> = None,
        /// Only endpoints of the upstream with certain labels.
        subset(Spanned<Subset>): Option<Arc<Subset>> as Optional<SharedValue<Nested>> = None,
        /// A cookie that keeps the requests of a client at one endpoint while that endpoint can serve.
        session_cookie(Spanned<SessionCookie>): Option<Arc<SessionCookie>> as Optional<SharedValue<Nested>> = None,
        /// On a listener that terminates TLS: what happens to connections whose server name is one of `match.sni`.
        tls(RouteTls): RouteTls = RouteTls::Terminate,
        /// Changes to the path and the host on the way up.
        rewrite(Spanned<Rewrite>),
        /// Copies of the requests, whose answers are dropped: an upstream, or a share for each. A copy has its own upstream's `timeout`.
        mirror(Spanned<MirrorForm>) in mirrors: Vec<Mirror> = Vec::new(),
        /// How many requests are allowed, over all workers; attache answers the others with 429. Write a rate, or a mapping.
        rate_limit(RateLimitForm): Option<RateLimit> = None,
        /// A limit over all proxies: attache asks a service that counts before a request continues.
        global_rate_limit(ParsedSection<GlobalRateLimit>): Option<Box<GlobalRateLimit>> = None,
        /// Faults injected on purpose, to test how callers handle them.
        fault(ParsedSection<Fault>): Option<Fault> = None,
    }
    holds {
        /// At least one; weights are relative.
        to: Vec<Destination> = Vec::new(),
        /// Changes to the path.
        path: PathRewrite = PathRewrite::Keep,
        /// Changes to the host.
        host: HostRewrite = HostRewrite::Auto,
        /// What may be sent to these upstreams.
        traffic: Traffic = Traffic::default(),
    }
    shows Self::show_rest
}

impl Forward {
    /// Sending on to these, and nothing else.
    pub fn new(to: Vec<Destination>) -> Self {
        Self { to, ..Self::default() }
    }

    /// TLS whose server name matches is passed through undecrypted, on a listener that terminates TLS elsewhere.
    pub const fn passes_tls(&self) -> bool {
        matches!(self.tls, RouteTls::Passthrough)
    }

    fn show_rest(&self, shown: &mut Object<String, Value>) {
        let (path, prefix) = match &self.path {
            PathRewrite::Keep => (None, None),
            PathRewrite::Prefix(prefix) => (None, Some(prefix.clone())),
            PathRewrite::Whole(path) => (Some(path.clone()), None),
        };
        shown.insert("rewrite".into(), json!(Rewrite { path, prefix, host: self.host.clone() }));
        shown.insert("to".into(), self.to.iter().map(Destination::show).collect());
    }
}

/// The traffic that the upstreams of a route may get. No rule about HTTP can apply to opaque bytes, so they only go to
/// an upstream if the config asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Traffic {
    /// HTTP only: the address has an HTTP scheme, or the listener speaks HTTP.
    #[default]
    Http,
    /// Opaque bytes only: `tcp://`, `tls://`, `protocol: tcp`, or an address without a scheme on a listener for opaque
    /// bytes.
    Opaque,
    /// `authority`: HTTP, CONNECT, and TLS that is passed through to the server name that it asks for.
    Named,
    /// `original-destination`: HTTP, and opaque bytes if no rule about HTTP guards the same upstream.
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
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mirror {
    /// Where copies go.
    pub upstream: UpstreamId,
    /// Share of the requests that are copied, 0 to 1.
    #[serde(serialize_with = "as_percentage")]
    pub ratio: f64,
    /// How long a copy may take: those of its own upstream.
    #[serde(rename = "timeout", serialize_with = "as_timeout")]
    pub timeouts: Timeouts,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn as_percentage<S: Serializer>(ratio: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    show_ratio(*ratio).serialize(serializer)
}

fn as_timeout<S: Serializer>(timeouts: &Timeouts, serializer: S) -> Result<S::Ok, S::Error> {
    show_timeout(timeouts.request).serialize(serializer)
}
