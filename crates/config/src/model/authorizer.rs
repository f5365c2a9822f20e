//! A service that is asked who may do what.

use std::time::Duration;

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Name, UpstreamId};

/// A service that decides over requests (external authorization).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorizer {
    /// The key in the file; the `authorizer` label.
    pub name: Name,
    /// The service.
    pub service: UpstreamId,
    /// How it is asked.
    pub protocol: AuthorizerProtocol,
    /// How long it is waited for. Default 200 ms.
    pub timeout: Duration,
    /// What becomes of a request when it doesn't answer. Default closed.
    pub failure_mode: AuthorizerFailure,
    /// The request's headers that it is told.
    pub request_headers: Vec<HeaderMatch>,
    /// Headers of its answer that the upstream is sent. What clients send under these names is removed. Default none.
    pub upstream_headers: Vec<HeaderName>,
    /// Headers of a denial that the client is sent. Default all.
    pub denial_headers: Vec<HeaderMatch>,
    /// Headers of an answer that lets the request through, which the response is given.
    pub response_headers: Vec<HeaderMatch>,
    /// How much of the request's body it is told; `None` is nothing.
    pub body: Option<AuthorizerBody>,
}

impl Authorizer {
    /// Default of [`Self::timeout`].
    pub const TIMEOUT: Duration = Duration::from_millis(200);
}

/// How an authorizer is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorizerProtocol {
    /// `envoy.service.auth.v3.Authorization/Check`.
    Grpc,
    /// The request's head by HTTP: 200 lets it through.
    Http {
        /// Stands in front of the request's path. Default nothing.
        path_prefix: Name,
    },
}

/// What becomes of requests that nobody decides over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AuthorizerFailure {
    /// They are answered 503 `authorizer-unavailable`.
    #[default]
    Closed,
    /// They go on.
    Open,
}

/// How much of a request's body an authorizer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorizerBody {
    /// Bytes at most.
    pub max: usize,
    /// Of a longer body the begin is told; without, such a request is answered 413. Default false.
    pub partial: bool,
}

impl AuthorizerBody {
    /// A larger `max` is refused: each request that waits may hold as much.
    pub const LARGEST: usize = 1 << 20;
}

/// Names of headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderMatch {
    /// This one.
    Exact(HeaderName),
    /// All that begin so, in lower case; an empty one is every name.
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
    /// None, whatever the listener says.
    Off,
    /// One.
    Ask {
        /// An index of [`Config::authorizers`](super::Config::authorizers).
        authorizer: usize,
        /// What it is told beside the request (`context_extensions`), in the order of the file.
        context: Vec<(Name, Name)>,
        /// It is told of the body as the authorizer says. Default true.
        body: bool,
    },
}
