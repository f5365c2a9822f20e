//! The policies of a route for browsers.

use super::prelude::*;

section! {
    "what browsers need"
    /// What a route does for browsers: its own, or that of its listener.
    pub struct Web {
        /// Which pages of other origins may read the answers; or `off`. A route has by default what its listener has.
        cors(OrOff<ParsedSection<Cors>>): Option<Arc<Cors>> as OffOr<SharedValue<Nested>> = None,
        /// gRPC-Web, which browsers speak, is translated to gRPC and back. A route has by default what its listener has.
        grpc_web(bool): bool = false,
        /// Which answers are compressed; or `off`. A route has by default what its listener has.
        compression(OrOff<Compression>): Option<Arc<Compression>> as OffOr<SharedValue<Nested>> = None,
    }
}

section! {
    "`compression`"
    /// Which answers are compressed, for clients that accept it. attache doesn't compress an answer that is already encoded, partial, or
    /// `no-transform`. If a page contains a secret and text that an attacker can choose, its compressed size reveals the secret (BREACH):
    /// set `off` for such routes.
    pub struct Compression: Eq {
        /// The codings that may be used. If a client prefers several of them equally, attache uses the first.
        codings: Vec<Coding> as List<Plain> = vec![Coding::Zstd, Coding::Br, Coding::Gzip],
        /// Media types of the answers: one, `text/*`, or `*+json`.
        types: Vec<MediaTypes> as List<MediaTypesText> = Self::TYPES.iter().map(|&text| MediaTypes::of(text)).collect(),
        /// A response whose `Content-Length` is smaller stays uncompressed.
        min_size: usize as Size = 1 << 10,
        /// The most answers that are compressed at the same time, over all workers. Further answers are not compressed. Each takes up to 1
        /// MiB of memory until it ends.
        #[schema(minimum = 1)]
        max_responses: usize = 256,
    }
}

impl Compression {
    const TYPES: [&str; 9] = [
        "text/*",
        "application/json",
        "*+json",
        "application/javascript",
        "application/xml",
        "*+xml",
        "application/wasm",
        "application/x-ndjson",
        "application/yaml",
    ];
}

/// A coding of content (RFC 9110 section 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    /// RFC 8878.
    Zstd,
    /// Brotli, RFC 7932.
    Br,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// Its name in `Content-Encoding`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// Media types, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaTypes {
    /// This one.
    Exact(Name),
    /// `text/*`: all that begin with this.
    Prefix(Name),
    /// `*+json`: all that end with this.
    Suffix(Name),
}

impl MediaTypes {
    /// As the file writes it.
    pub fn of(text: &str) -> Self {
        match (text.strip_suffix('*'), text.strip_prefix('*')) {
            (Some(prefix), _) => Self::Prefix(prefix.into()),
            (None, Some(suffix)) => Self::Suffix(suffix.into()),
            (None, None) => Self::Exact(text.into()),
        }
    }

    /// Whether a media type without parameters, in lower case, is one of these.
    pub fn matches(&self, found: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *found,
            Self::Prefix(prefix) => found.starts_with(&**prefix),
            Self::Suffix(suffix) => found.ends_with(&**suffix),
        }
    }
}

/// As the file writes them.
impl fmt::Display for MediaTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(exact) => f.write_str(exact),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

section! {
    "`cors`"
    /// Which pages of other origins may read the answers (CORS). attache answers preflights, before authorization. attache removes the CORS
    /// headers of upstreams.
    pub struct Cors {
        /// Origins of these pages: one origin, `https://*.shop.test` for all names below one, `~regex` over the whole origin, or `*`.
        origins(OneOrMany<Spanned<Text<OriginText>>>): Vec<OriginPattern> as List<Written> = Vec::new(),
        /// Methods that the pages may use; `*` allows all.
        methods: Option<Vec<Method>> as AllOr<MethodOrAll> = Some(Self::METHODS.to_vec()),
        /// Headers that the pages may send, in addition to those that every page may send; `*` allows all.
        #[schema(examples = [["content-type", "authorization"]])]
        headers(HeadersForm): Option<Vec<HeaderName>> as AllOr<HeaderText> = Some(Vec::new()),
        /// Headers of answers that the pages may read, in addition to those that every page may read.
        #[schema(examples = [["x-request-id", "grpc-status", "grpc-message"]])]
        expose: Vec<HeaderName> as List<HeaderText> = Vec::new(),
        /// The pages may send cookies and other credentials. attache refuses this with `origins: "*"`, because every page could then act as
        /// the user.
        credentials: bool = false,
        /// How long a browser may remember the answer to a preflight. By default the browser decides, usually 5 s.
        #[schema(examples = ["10m"])]
        max_age: Option<Duration> as Optional<Length> = None,
        /// Pages of public sites may send requests, although attache has a private address (Private Network Access).
        private_network: bool = false,
    }
    requires origins
}

impl Cors {
    /// Default of [`Self::methods`].
    pub const METHODS: [Method; 3] = [Method::GET, Method::HEAD, Method::POST];
}

/// `*`, or names of headers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum HeadersForm {
    All(Text<Star>),
    These(OneOrMany<Text<HeaderText>>),
}

/// A list, or `*` for all.
struct AllOr<N>(N);

impl<T, N: Show<T>> Show<Option<Vec<T>>> for AllOr<N> {
    fn show(value: &Option<Vec<T>>) -> Value {
        value.as_ref().map_or_else(|| json!(["*"]), |list| list.iter().map(N::show).collect())
    }
}

impl Show<Method> for MethodOrAll {
    fn show(value: &Method) -> Value {
        value.as_str().into()
    }
}

impl Notation<Option<Vec<Method>>> for AllOr<MethodOrAll> {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<OneOrMany<Text<MethodOrAll>>>()
    }

    fn read(value: Value) -> serde_json::Result<Option<Vec<Method>>> {
        let methods: OneOrMany<Text<MethodOrAll>> = serde_json::from_value(value)?;
        Ok(methods.into_vec().into_iter().map(|method| method.0).collect())
    }
}

/// Origins of pages.
#[derive(Clone, Debug, PartialEq)]
pub enum OriginPattern {
    /// All, `null` too.
    Any,
    /// This one.
    Exact(Name),
    /// `https://*.shop.test`: one or more labels between these.
    Subdomains {
        /// The scheme with `://`.
        begin: Name,
        /// The rest, with its leading dot.
        end: Name,
    },
    /// A regular expression over the whole origin.
    Regex(WholeRegex),
}

impl OriginPattern {
    /// Whether an origin, as a browser writes it, is one of these.
    pub fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => **exact == *origin,
            Self::Subdomains { begin, end } => {
                let labels = origin.strip_prefix(&**begin).and_then(|rest| rest.strip_suffix(&**end));
                labels.is_some_and(|labels| {
                    labels.split('.').all(|label| {
                        !label.is_empty()
                            && label
                                .bytes()
                                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
                    })
                })
            }
            Self::Regex(regex) => regex.is_match(origin),
        }
    }
}

/// As the file writes it.
impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(exact) => f.write_str(exact),
            Self::Subdomains { begin, end } => write!(f, "{begin}*{end}"),
            Self::Regex(regex) => write!(f, "~{regex}"),
        }
    }
}
