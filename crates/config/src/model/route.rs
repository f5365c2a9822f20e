//! Which request or connection goes where.

use super::prelude::*;

section! {
    "a route"
    /// A route: which requests it matches, and what happens to them. Exactly one of `to`, `redirect` and `respond`.
    pub struct Route {
        /// Its name in metrics and logs. By default `LISTENER/INDEX`.
        #[schema(default = ())]
        name(Txt<Label>): Name as Label = "".into(),
        /// Conditions. Without them, the route matches everything.
        r#match(At<Read<Match>>) in matcher: Match = Match::default(),
        /// The destination: an upstream, or a split by weight.
        to(At<To>),
        /// The header that names the one of the upstreams in `to` that a request is for: `to: [orders, billing]`. A request that names none
        /// of them, or several, is refused with 404 `no-upstream`.
        #[schema(examples = ["x-upstream"])]
        upstream_header(Txt<HeaderText>),
        /// Only endpoints of the upstream with certain labels.
        subset(At<Subset>),
        /// A cookie that keeps the requests of a client at one endpoint while that endpoint can serve.
        session_cookie(At<SessionCookie>),
        /// On a listener that terminates TLS: what happens to connections whose server name is one of `match.sni`.
        #[schema(default = RouteTls::default())]
        tls(RouteTls),
        /// Answered with a redirect.
        redirect(At<Redirect>),
        /// Answered by attache itself: a status, or with a body.
        #[schema(examples = [404])]
        respond(Short<Respond>),
        ..policy(PolicyKeys),
        /// A secret that attache adds to requests, or `off`. By default that of the upstream.
        credential(At<OrOff<Read<Credential>>>),
        /// Protocols that its requests may switch to; this replaces `upgrades` of the listener's `http`.
        #[schema(examples = [json!(["websocket"])])]
        upgrades: Option<Upgrades> as Maybe<UpgradesForm> = None,
        /// The largest request body in bytes; this replaces `limits.body_size` of the listener's `http`. 0 means no limit.
        #[schema(examples = ["10MiB"])]
        body_size: Option<usize> as Maybe<Size> = None,
        /// Which requests of this route are allowed. The listener's rules apply as well.
        authorization(At<Read<Authorization>>): Option<Arc<Authorization>> as Maybe<Shared<Nested>> = None,
        /// What it does for browsers.
        ..web: Web,
        /// Changes to the path and the host on the way up.
        rewrite(At<Rewrite>),
        /// Changes to headers.
        headers(Read<Headers>),
        /// Copies of the requests, whose answers are dropped: an upstream, or a share for each. A copy has its own upstream's `timeout`.
        mirror(At<MirrorForm>),
        /// How many requests are allowed, over all workers; attache answers the others with 429. Write a rate, or a mapping.
        rate_limit(RateLimitForm),
        /// A limit over all proxies: attache asks a service that counts before a request continues.
        global_rate_limit(Read<GlobalRateLimit>),
        /// Faults injected on purpose, to test how callers handle them.
        fault(At<Read<Fault>>),
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
}

/// TLS of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RouteTls {
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
pub(crate) enum To {
    One(Txt<Label>),
    Several(Vec<At<Txt<Label>>>),
    Split(Mapping<Label, At<Txt<WeightText>>>),
}

/// An upstream's name, or names with the share of the requests that is copied.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("examples" = ["shadow", {"shadow": "10%"}]))]
pub(crate) enum MirrorForm {
    One(Txt<Label>),
    Shares(Mapping<Label, Txt<Ratio>>),
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
            Action::Forward(forward) => ("forward", forward.show()),
            Action::Redirect(redirect) => ("redirect", json!(redirect)),
            Action::Respond(respond) => ("respond", json!(respond)),
        };
        shown.insert(key.into(), action);
    }

    /// Opaque bytes that took `other` could bypass this route: it is about HTTP, and it answers or leads to one of the
    /// same upstreams.
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

    /// What it asks for, or what it does, has a meaning for HTTP alone.
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
    /// What it may say: the names of the route's upstreams, in the order of [`Forward::to`].
    pub names: Vec<Name>,
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
