//! What browsers need of a route.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderName, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Name;
use crate::{
    section::{List, Plain, section},
    text::{MediaTypesText, Size},
};

/// What a route does for browsers: its own, or that of its listener.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Web {
    /// Which pages may read its answers; `None` says nothing of that.
    pub cors: Option<Arc<Cors>>,
    /// gRPC-Web is translated to gRPC. Default false.
    pub grpc_web: bool,
    /// Which answers are compressed; `None` is none.
    pub compression: Option<Arc<Compression>>,
}

section! {
    "`compression`"
    /// Which answers are compressed, for clients that ask for it. Not what is encoded already, a part, or `no-transform`. A
    /// page that shows a secret beside what a stranger may write lets the size of the answer tell of the secret (BREACH):
    /// `off` for such routes.
    pub struct Compression: Eq {
        /// The codings that may be used. Of those that a client likes alike, the first is taken.
        codings: Vec<Coding> as List<Plain> = vec![Coding::Zstd, Coding::Br, Coding::Gzip],
        /// Media types of the answers: one, `text/*`, or `*+json`.
        types: Vec<MediaTypes> as List<MediaTypesText> = Self::TYPES.iter().map(|&text| MediaTypes::of(text)).collect(),
        /// An answer that says to be shorter goes as it is.
        min_size: usize as Size = 1 << 10,
        /// Answers that are compressed at once, over all workers; more go as they are. Each takes up to 1 MiB while it lasts.
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
    /// `text/*`: all that begin so.
    Prefix(Name),
    /// `*+json`: all that end so.
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

/// Which pages may read the answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Cors {
    /// Their origins, at least one.
    pub origins: Vec<OriginPattern>,
    /// Methods that they may use; `None` is whatever they ask for. Default GET, HEAD, POST.
    pub methods: Option<Vec<Method>>,
    /// Headers that they may send; `None` is whatever they ask for. Default none.
    pub headers: Option<Vec<HeaderName>>,
    /// Headers of answers that they may read beside the usual ones.
    pub expose: Vec<HeaderName>,
    /// They may send cookies and other credentials. Default false.
    pub credentials: bool,
    /// How long a browser need not ask again; `None` leaves it to the browser.
    pub max_age: Option<Duration>,
    /// Pages of public sites may ask, though this address is private. Default false.
    pub private_network: bool,
}

impl Cors {
    /// Default of [`Self::methods`].
    pub const METHODS: [Method; 3] = [Method::GET, Method::HEAD, Method::POST];
}

/// Origins of pages.
#[derive(Clone, Debug)]
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
    Regex(Box<regex::Regex>),
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

impl PartialEq for OriginPattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, Self::Any) => true,
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Subdomains { begin, end }, Self::Subdomains { begin: b, end: e }) => {
                (begin, end) == (b, e)
            }
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
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
