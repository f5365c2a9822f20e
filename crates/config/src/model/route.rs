//! Which request or connection goes where.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::{
    Authorization, Fault, GlobalRateLimit, Name, Policy, RateLimit, SanPattern, Timeouts, UpstreamId, Web,
};

/// A rule of one listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The `name` key, or `LISTENER/INDEX`; the `route` label.
    pub name: Name,
    /// What it applies to.
    pub matcher: Match,
    /// What is done.
    pub action: Action,
    /// Who may do it, beside the listener's rules; `None` adds none.
    pub authorization: Option<Arc<Authorization>>,
    /// What it does for browsers.
    pub web: Web,
    /// Changes to the request's headers.
    pub request_headers: HeaderEdits,
    /// Changes to the response's headers.
    pub response_headers: HeaderEdits,
    /// Line in the file, for `explain`.
    pub line: u32,
}

/// What a route applies to: every part that is there must match; a part with alternatives matches if one does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    /// Host header or `:authority`; empty matches every host.
    pub hosts: Vec<HostPattern>,
    /// Path without the query.
    pub path: Option<PathPattern>,
    /// Methods; empty matches every method.
    pub methods: Vec<Method>,
    /// Headers, all of which must match.
    pub headers: Vec<ValueMatch>,
    /// Query parameters, all of which must match.
    pub query: Vec<ValueMatch>,
    /// TLS server name, for TLS passed through and TLS terminated.
    pub sni: Vec<HostPattern>,
    /// Original destination of an intercepted connection.
    pub destination: Vec<AddressMatch>,
    /// Names of the client's verified certificate, of which one must be there; empty matches every client.
    pub identities: Vec<SanPattern>,
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
        Self {
            name: name.into(),
            matcher: Match::default(),
            action,
            authorization: None,
            web: Web::default(),
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            line: 0,
        }
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

/// Sending on.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// At least one; weights are relative.
    pub to: Vec<Destination>,
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

/// A redirect. Parts that are `None` are those of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308. Default 302.
    pub status: StatusCode,
    /// `http` or `https`.
    pub scheme: Option<Name>,
    /// Host and, where given, port.
    pub host: Option<Name>,
    /// Path; `{capture}` as in rewrites.
    pub path: Option<Name>,
    /// The query is dropped. Default false.
    pub strip_query: bool,
}

impl Redirect {
    /// Default of [`Self::status`].
    pub const STATUS: StatusCode = StatusCode::FOUND;
}

/// A direct answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Arc<[u8]>,
    /// Its content type. Default `text/plain; charset=utf-8`.
    pub content_type: HeaderValue,
}

impl Respond {
    /// Default of [`Self::content_type`].
    pub const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
}

/// Header changes; removals first, then sets, then additions, each in the file's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Removed.
    pub remove: Vec<HeaderName>,
    /// Replaced or made.
    pub set: Vec<(HeaderName, Template)>,
    /// Added beside what is there.
    pub add: Vec<(HeaderName, Template)>,
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
