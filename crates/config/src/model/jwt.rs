//! Whose tokens (JWT, RFC 7519) are believed.

use std::{path::PathBuf, time::Duration};

use http::HeaderName;

use super::{Name, UpstreamId};

/// One issuer of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtProvider {
    /// The key in the file.
    pub name: Name,
    /// What `iss` must be.
    pub issuer: Name,
    /// Of which `aud` must have one; empty looks at none.
    pub audiences: Vec<Name>,
    /// The keys that sign.
    pub keys: JwtKeys,
    /// How far clocks may differ, for `exp` and `nbf`. Default 60 s.
    pub clock_skew: Duration,
    /// Where tokens stand. Default the `Authorization` header, behind `Bearer `.
    pub from: Vec<TokenPlace>,
    /// Claims that the upstream is told, by header. What clients send under these names is removed.
    pub claim_headers: Vec<(HeaderName, Name)>,
    /// The token is sent on. Default false: who could read it could use it.
    pub forward: bool,
}

impl JwtProvider {
    /// Default of [`Self::clock_skew`].
    pub const CLOCK_SKEW: Duration = Duration::from_mins(1);
    /// A longer token is refused.
    pub const LONGEST: usize = 16 << 10;
}

/// Where the keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtKeys {
    /// A JWK set (RFC 7517).
    Inline(Name),
    /// A file with one, which is followed.
    File(PathBuf),
    /// A URL with one.
    Remote {
        /// The upstream that is asked.
        upstream: UpstreamId,
        /// The path that is asked for.
        path: Name,
        /// How often it is asked. Default 5 min.
        refresh: Duration,
        /// How long it is waited for. Default 5 s.
        timeout: Duration,
    },
}

impl JwtKeys {
    /// Default of `refresh`.
    pub const REFRESH: Duration = Duration::from_mins(5);
    /// Default of `timeout`.
    pub const TIMEOUT: Duration = Duration::from_secs(5);
    /// A longer JWK set is refused.
    pub const LONGEST: usize = 1 << 20;
}

/// Where in a request a token stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TokenPlace {
    /// A header, behind this prefix.
    Header(HeaderName, Name),
    /// A cookie.
    Cookie(Name),
    /// A parameter of the query.
    Query(Name),
}

/// What tokens a listener or route asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtUse {
    /// Indices of [`Config::jwt`](super::Config::jwt), at least one.
    pub providers: Vec<usize>,
    /// A request without a token is answered 401. Default true.
    pub required: bool,
}
