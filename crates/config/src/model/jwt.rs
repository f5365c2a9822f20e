//! Issuers whose tokens (JWT, RFC 7519) are accepted.

use http::header::AUTHORIZATION;

use super::prelude::*;

section! {
    "an issuer of `jwt`"
    /// An issuer of tokens (JWT): RS, PS, ES and EdDSA signatures. `alg: none` and HMAC are never accepted.
    pub struct JwtProvider: Eq {
        /// The value that `iss` must have.
        #[schema(examples = ["https://id.shop.test"])]
        issuer: Name as Word = "".into(),
        /// `aud` must have one of these. Without the key `aud` is not checked: a token for another service is accepted,
        /// too.
        #[schema(examples = ["shop"])]
        audiences: Vec<Name> as List<Word> = Vec::new(),
        /// Where attache gets the keys, a JWK set (RFC 7517).
        keys(Spanned<ParsedSection<KeySource>>): JwtKeys as Keys = JwtKeys::Inline("".into()),
        /// How far clocks may differ, for `exp` and `nbf`.
        clock_skew: Duration as Length = Duration::from_mins(1),
        /// Where attache looks for tokens: `header:NAME` (the value behind `Bearer `, or the whole value), `cookie:NAME`, `query:NAME`. A
        /// request with two tokens of one issuer is refused.
        from: Vec<TokenPlace> as List<TokenFrom> = vec![TokenPlace::Header(AUTHORIZATION, "Bearer ".into())],
        /// Headers in which attache passes claims to the upstream; `realm.role` is `role` inside of `realm`. attache removes these headers
        /// from the client's request.
        #[schema(examples = [json!({"x-user": "sub"})])]
        claim_headers(Mapping<HeaderText, Text<Word>>): Vec<(HeaderName, Name)> as Pairs<HeaderText, Word> = Vec::new(),
        /// attache passes the token on. With `false` it removes the token.
        forward: bool = false,
    }
    holds {
        /// The key in the file.
        name: Name = "".into(),
    }
    requires issuer, keys
}

section! {
    "`keys` of `jwt`"
    /// Exactly one of `inline`, `file` and `upstream`.
    pub struct KeySource: Eq {
        /// The JWK set itself.
        #[schema(examples = ["{\"keys\": […]}"])]
        inline: Option<Name> as Optional<Word> = None,
        /// The file of the JWK set. attache reads it again when it changes.
        #[schema(examples = ["/etc/jwks.json"])]
        file: Option<PathBuf> as Optional<File> = None,
        /// The keys that belong to `upstream`.
        ..remote: RemoteKeys,
    }
    rules {
        one_of [inline, file, upstream]
            "the keys must come from exactly one source" "one of `inline`, `file` and `upstream`";
        needs [path] [upstream] "`{}` without `upstream`" "name the upstream that is asked";
        needs [upstream] [path] "`upstream` without `path`" "such as `path: /.well-known/jwks.json`";
    }
}

section! {
    "keys of an upstream"
    /// A JWK set that an upstream serves.
    pub struct RemoteKeys: Eq {
        /// The upstream that serves the JWK set. If it can't be loaded, attache keeps the last good one.
        #[schema(default = (), examples = ["idp"])]
        upstream(Spanned<Text<Label>>): UpstreamId = UpstreamId(0),
        /// With `upstream`: the path.
        #[schema(default = (), examples = ["/.well-known/jwks.json"])]
        path: Name as PathValue = "/".into(),
        /// With `upstream`: how often the set is loaded again. A token with an unknown `kid` makes attache load it sooner, at most every 10
        /// s.
        refresh: Duration as Positive = Duration::from_mins(5),
        /// With `upstream`: the longest wait for the set.
        timeout: Duration as Positive = Duration::from_secs(5),
    }
}

/// Where the keys are, as the file writes it.
struct Keys;

impl Show<JwtKeys> for Keys {
    fn show(value: &JwtKeys) -> Value {
        match value {
            JwtKeys::Inline(set) => json!({ "inline": &**set }),
            JwtKeys::File(file) => json!({ "file": file }),
            JwtKeys::Remote(remote) => Nested::show(remote),
        }
    }
}

impl JwtProvider {
    /// A longer token is refused.
    pub const MAX_TOKEN_BYTES: usize = 16 << 10;
}

/// Where the keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtKeys {
    /// A JWK set (RFC 7517).
    Inline(Name),
    /// A file with a JWK set; attache reads it again when it changes.
    File(PathBuf),
    /// A path of an upstream that serves a JWK set.
    Remote(RemoteKeys),
}

impl JwtKeys {
    /// A longer JWK set is refused.
    pub const MAX_SET_BYTES: usize = 1 << 20;
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

section! {
    "`jwt` of `authorization`"
    /// Tokens that requests must bring, or may.
    pub struct JwtUse: Eq {
        /// Issuers whose tokens are accepted, by their names in the config's `jwt`. One valid token is enough; an invalid one is answered
        /// 401 `token-invalid`.
        // Indices of `Config::jwt`.
        issuers(OneOrMany<Spanned<Text<Label>>>) in providers: Vec<usize> as Issuers = Vec::new(),
        /// A request without a token is answered 401 `token-missing`. With `false`, the rules decide about such a request, without claims.
        required: bool = true,
    }
    requires issuers
}

struct Issuers;

impl Show<Vec<usize>> for Issuers {
    fn show(value: &Vec<usize>) -> Value {
        value.iter().map(|&index| ConfigReference::Issuer(index).show()).collect()
    }
}
