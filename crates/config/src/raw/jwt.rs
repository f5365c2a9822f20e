//! `jwt:`

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, Map, OneOrMany, Txt};
use crate::{
    model,
    text::{File, HeaderText, Label, Length, PathValue, Positive, TokenFrom, Word, show_duration},
};

/// An issuer of tokens (JWT): RS, PS, ES and EdDSA signatures. `alg: none` and HMAC are never believed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "an issuer of `jwt`")]
pub(crate) struct JwtProvider {
    /// What `iss` must be.
    #[schemars(extend("examples" = ["https://id.shop.test"]))]
    pub(crate) issuer: Txt<Word>,
    /// Of which `aud` must have one. Without it `aud` is not looked at: a token for another service is believed, too.
    #[schemars(extend("examples" = ["shop"]))]
    pub(crate) audiences: Option<OneOrMany<Txt<Word>>>,
    /// Where the keys are, a JWK set (RFC 7517).
    pub(crate) keys: At<JwtKeys>,
    /// How far clocks may differ, for `exp` and `nbf`.
    #[schemars(extend("default" = show_duration(model::JwtProvider::CLOCK_SKEW)))]
    pub(crate) clock_skew: Option<Txt<Length>>,
    /// Where tokens stand: `header:NAME` (the value behind `Bearer `, or the whole value), `cookie:NAME`, `query:NAME`. A request
    /// with two tokens of one issuer is refused.
    #[schemars(extend("default" = ["header:authorization"]))]
    pub(crate) from: Option<OneOrMany<Txt<TokenFrom>>>,
    /// Headers that tell the upstream a claim; `realm.role` is `role` inside of `realm`. What clients send under these names is
    /// removed.
    #[schemars(extend("examples" = [{"x-user": "sub"}]))]
    pub(crate) claim_headers: Option<At<Map<HeaderText, Txt<Word>>>>,
    /// The token itself is sent on. Otherwise it ends here.
    #[schemars(extend("default" = false))]
    pub(crate) forward: Option<bool>,
}

/// Exactly one of `inline`, `file` and `upstream`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`keys` of `jwt`")]
pub(crate) struct JwtKeys {
    /// The JWK set itself.
    #[schemars(extend("examples" = ["{\"keys\": […]}"]))]
    pub(crate) inline: Option<Txt<Word>>,
    /// A file with it, which is followed.
    #[schemars(extend("examples" = ["/etc/jwks.json"]))]
    pub(crate) file: Option<Txt<File>>,
    /// The upstream that is asked for it. The last good set is kept while it can't be had.
    #[schemars(extend("examples" = ["idp"]))]
    pub(crate) upstream: Option<At<Txt<Label>>>,
    /// With `upstream`: the path.
    #[schemars(extend("examples" = ["/.well-known/jwks.json"]))]
    pub(crate) path: Option<At<Txt<PathValue>>>,
    /// With `upstream`: how often it is asked. A token with an unknown `kid` has it asked sooner, every 10 s at most.
    #[schemars(extend("default" = show_duration(model::JwtKeys::REFRESH)))]
    pub(crate) refresh: Option<Txt<Positive>>,
    /// With `upstream`: how long it is waited for.
    #[schemars(extend("default" = show_duration(model::JwtKeys::TIMEOUT)))]
    pub(crate) timeout: Option<Txt<Positive>>,
}

/// Tokens that requests must bring, or may.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`jwt` of `authorization`")]
pub(crate) struct JwtUse {
    /// Whose tokens are believed, by their names in the config's `jwt`. One good token is enough; a bad one is 401 `token-invalid`.
    pub(crate) issuers: At<OneOrMany<At<Txt<Label>>>>,
    /// A request without a token is 401 `token-missing`. With `false` it goes on, to the rules, without claims.
    #[schemars(extend("default" = true))]
    pub(crate) required: Option<bool>,
}
