//! A route's changes to requests and responses, and its own answers.

use super::prelude::*;

/// What happens to the path of a request on its way to the upstream.
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

/// What happens to the Host header (HTTP/2's `:authority`) on its way to the upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostRewrite {
    /// A route leaves the decision to its upstream; an upstream decides by the host that the request names.
    /// docs/routing.md has the rule.
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
    /// True if the route itself replaces the client's host.
    pub const fn changes(&self) -> bool {
        matches!(self, Self::Upstream | Self::To(_))
    }
}

section! {
    "`rewrite`"
    /// Changes to the path and the host.
    pub struct Rewrite: Eq {
        /// The whole path becomes this; `{name}` inserts what the route's path captured.
        path: Option<Name> as Optional<PathValue> = None,
        /// The prefix that matched (`/v1/*`) becomes this.
        prefix: Option<Name> as Optional<PathValue> = None,
        /// The Host header (HTTP/2: `:authority`) becomes this: `preserve` (or `keep`) is as the client sent it, `upstream` is the
        /// upstream's own, anything else is a host. Without it the upstream's `host` decides.
        host: HostRewrite as HostOrAuto = HostRewrite::Auto,
    }
    rules {
        excludes [prefix] [path] "both `path` and `{}`" "keep one of them";
    }
}

section! {
    "`redirect`"
    /// A redirect. Parts that are not given are copied from the request.
    pub struct Redirect: Eq {
        /// 301, 302, 303, 307 or 308.
        #[schema(minimum = 301, maximum = 308, r#enum = [301, 302, 303, 307, 308])]
        status: StatusCode as StatusNumber = StatusCode::FOUND,
        /// `http` or `https`.
        scheme: Option<Name> as Optional<RedirectScheme> = None,
        /// Host and, where given, port.
        host: Option<Name> as Optional<HostAndPort> = None,
        /// Path; `{name}` inserts what the route's path captured.
        path: Option<Name> as Optional<PathValue> = None,
        /// The query is dropped.
        strip_query: bool = false,
    }
    rules {
        any_of [scheme, host, path] "this redirects to the same URL" "give it a `scheme`, `host` or `path`";
    }
}

section! {
    "`respond`"
    /// A direct answer.
    pub struct Respond: Eq {
        /// Its status.
        #[schema(minimum = 200, maximum = 599, examples = [404])]
        status: StatusCode as StatusNumber = StatusCode::OK,
        /// Its body.
        #[schema(default = (), examples = ["not here"])]
        body: Arc<[u8]> as AnyText = Arc::default(),
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
        /// Headers of requests, on their way to the upstream.
        request(ParsedSection<HeaderEdits>): HeaderEdits = HeaderEdits::default(),
        /// Headers of responses, on their way to the client.
        response(ParsedSection<HeaderEdits>): HeaderEdits = HeaderEdits::default(),
    }
}

section! {
    "header changes"
    /// Header changes: removals first, then `set`, then `add`. Values may have variables: `%{client.address}`,
    /// `%{client.port}`, `%{client.identity}`, `%{request.host}`, `%{request.path}`, `%{request.method}`, `%{request.id}`,
    /// `%{request.scheme}`, `%{request.header.NAME}`, `%{capture.NAME}`, `%{route}`, `%{upstream}`, `%{listener}`; `%%` is
    /// one `%`.
    pub struct HeaderEdits: Eq {
        /// Headers that get this value, whether they are there or not.
        #[schema(examples = [json!({"x-client": "%{client.address}"})])]
        set(EditsForm): Vec<(HeaderName, Template)> as ShownEdits = Vec::new(),
        /// Headers that are added to existing ones of the same name.
        #[schema(examples = [json!({"x-seen-by": "%{listener}"})])]
        add(EditsForm): Vec<(HeaderName, Template)> as ShownEdits = Vec::new(),
        /// Headers that are removed.
        #[schema(examples = [["x-internal"]])]
        remove(OneOrMany<Spanned<Text<HeaderText>>>): Vec<HeaderName> as List<HeaderText> = Vec::new(),
    }
}

/// Header changes by the header's name, as the file gives them.
pub(crate) type EditsForm = Mapping<HeaderText, Spanned<Text<TemplateText>>>;

/// Header changes as they are shown: one mapping each, because a name may occur twice. Credentials (by their name) are
/// hidden.
struct ShownEdits;

impl Show<Vec<(HeaderName, Template)>> for ShownEdits {
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
pub struct Template(pub Vec<TemplatePart>);

/// As the file writes it.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            TemplatePart::Text(text) => f.write_str(text),
            TemplatePart::Variable(variable) => write!(f, "%{{{variable}}}"),
        })
    }
}

/// One part of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplatePart {
    /// Plain text.
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
