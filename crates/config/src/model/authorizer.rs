//! A service that decides who may do what.

use super::prelude::*;

section! {
    "an authorizer"
    /// A service that decides whether requests are allowed: external authorization.
    pub struct Authorizer: Eq {
        /// The upstream that is the service, for example `h2c://opa:9191`. Its pool, TLS and limits are those of any upstream.
        service(Spanned<Text<Label>>): UpstreamId = UpstreamId(0),
        /// `grpc` is `envoy.service.auth.v3.Authorization/Check`. `http` sends the request's method, path and headers.
        /// The answer 200 allows the request, 5xx counts as no answer, and the client gets any other answer.
        protocol(AuthorizerWord): AuthorizerProtocol as ProtocolWord = AuthorizerProtocol::Grpc,
        /// With `http`: a prefix for the request's path.
        #[schema(examples = ["/check"])]
        path_prefix(Text<PathValue>),
        /// The longest wait for the service's answer.
        timeout: Duration as Positive = Duration::from_millis(200),
        /// What happens to a request when the service doesn't answer: `closed` answers 503 `authorizer-unavailable`,
        /// `open` allows it, also if it is the client who prevents the service from answering.
        failure_mode: AuthorizerFailure = AuthorizerFailure::default(),
        /// Headers of the request that the service gets. By default all with `grpc`, and `authorization` with `http`.
        #[schema(examples = [["authorization", "cookie", "x-tenant-*"]])]
        request_headers: Vec<HeaderMatch> as List<HeaderMatchText> = Vec::new(),
        /// Headers of the service's answer that are sent to the upstream. attache removes these headers from the client's request. None by
        /// default.
        #[schema(examples = [["x-user", "x-groups"]])]
        upstream_headers(OneOrMany<Spanned<Text<HeaderText>>>): Vec<HeaderName> as List<HeaderText> = Vec::new(),
        /// Headers of a denial that are sent to the client.
        denial_headers: Vec<HeaderMatch> as List<HeaderMatchText> = vec![HeaderMatch::Prefix("".into())],
        /// Headers of an answer that allows the request; attache adds them to the response. By default with `grpc` all of
        /// `response_headers_to_add`, and none with `http`.
        #[schema(examples = [["set-cookie"]])]
        response_headers: Vec<HeaderMatch> as List<HeaderMatchText> = Vec::new(),
        /// How much of the request's body the service gets. Nothing by default.
        body(Spanned<AuthorizerBody>): Option<AuthorizerBody> = None,
    }
    holds {
        /// The key in the file; the `authorizer` label.
        name: Name = "".into(),
    }
    requires service
    shows Self::show_prefix
}

impl Authorizer {
    fn show_prefix(&self, shown: &mut Object<String, Value>) {
        if let AuthorizerProtocol::Http { path_prefix } = &self.protocol {
            shown.insert("path_prefix".into(), (**path_prefix).into());
        }
    }
}

/// How an authorizer is asked, as the file says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "AuthorizerProtocol")]
pub(crate) enum AuthorizerWord {
    /// By gRPC.
    #[default]
    Grpc,
    /// By HTTP.
    Http,
}

struct ProtocolWord;

impl Show<AuthorizerProtocol> for ProtocolWord {
    fn show(value: &AuthorizerProtocol) -> Value {
        json!(match value {
            AuthorizerProtocol::Grpc => AuthorizerWord::Grpc,
            AuthorizerProtocol::Http { .. } => AuthorizerWord::Http,
        })
    }
}

/// How an authorizer is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorizerProtocol {
    /// `envoy.service.auth.v3.Authorization/Check`.
    Grpc,
    /// The request's head is sent by HTTP; the answer 200 allows the request.
    Http {
        /// A prefix for the request's path. By default none.
        path_prefix: Name,
    },
}

/// What happens to requests when the authorizer doesn't answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AuthorizerFailure {
    /// The requests are answered 503 `authorizer-unavailable`.
    #[default]
    Closed,
    /// The requests continue.
    Open,
}

section! {
    "`body` of an authorizer"
    /// How much of a request's body an authorizer gets.
    pub struct AuthorizerBody: Copy, Eq {
        /// Bytes at most, up to 1 MiB. attache asks the service when the body has ended, or when it has received this much of it.
        #[schema(examples = ["8KiB"])]
        max: usize as Size = 0,
        /// Of a longer body the service gets the beginning (`x-envoy-auth-partial-body: true`). Without this key, such a request is
        /// answered 413 `body-too-large`.
        partial: bool = false,
    }
    requires max
}

impl AuthorizerBody {
    /// A larger `max` is refused: each waiting request may take this much memory.
    pub const MAX_BODY_BYTES: usize = 1 << 20;
}

/// Names of headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderMatch {
    /// This one.
    Exact(HeaderName),
    /// All names that begin with this, in lower case; an empty prefix is every name.
    Prefix(Name),
}

impl HeaderMatch {
    /// Whether a name, in lower case, is one of these.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => *exact == *name,
            Self::Prefix(prefix) => name.starts_with(&**prefix),
        }
    }
}

/// Which authorizer a listener or route asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorizerUse {
    /// None, even if the listener has one.
    Off,
    /// One.
    Ask {
        /// An index of [`Config::authorizers`](super::Config::authorizers).
        authorizer: usize,
        /// The context that it gets in addition to the request (`context_extensions`), in the order of the file.
        context: Vec<(Name, Name)>,
        /// It gets the body, as the authorizer's own `body` says. By default true.
        body: bool,
    },
}

/// Which authorizer is asked: its name, or in full; `off` asks none.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("examples" = ["opa", "off"]))]
pub(crate) enum ExternalForm {
    Off(Off),
    Name(Text<Label>),
    Full(ParsedSection<External>),
}

section! {
    "`external`"
    /// Which authorizer is asked, and what it gets in addition to the request.
    pub struct External {
        /// The authorizer, by its name in the config's `authorizers`.
        authorizer(Spanned<Text<Label>>),
        /// What it gets in addition to the request: Envoy's `context_extensions`. With `http` these are headers `x-attache-context-NAME`.
        #[schema(examples = [json!({"tier": "gold"})])]
        context: Vec<(Name, Name)> as Pairs<Label, Word> = Vec::new(),
        /// With `false` it doesn't get the body of these requests.
        body: bool = true,
    }
    requires authorizer
}

impl Serialize for AuthorizerUse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self::Ask { authorizer, context, body } = self else { return "off".serialize(serializer) };
        let mut shown = External { context: context.clone(), body: *body }.show();
        shown.insert("authorizer".into(), ConfigReference::Authorizer(*authorizer).show());
        shown.serialize(serializer)
    }
}
