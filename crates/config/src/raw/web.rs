//! `cors:` and `compression:` of a listener or route.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, OneOrMany, Txt};
use crate::{
    model,
    text::{HeaderText, Length, MethodOrAll, OriginText, Star},
};

fn methods() -> Vec<String> {
    model::Cors::METHODS.iter().map(ToString::to_string).collect()
}

/// Which pages of other origins may read the answers (CORS). Preflights are answered by attache, before anybody is asked who they are.
/// What upstreams say of it is removed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`cors`")]
pub(crate) struct Cors {
    /// Their origins: one, `https://*.shop.test` for all below a name, `~regex` over the whole origin, or `*`.
    pub(crate) origins: At<OneOrMany<At<Txt<OriginText>>>>,
    /// Methods that they may use; `*` is whatever they ask for.
    #[schemars(extend("default" = methods()))]
    pub(crate) methods: Option<OneOrMany<Txt<MethodOrAll>>>,
    /// Headers that they may send, beside those that every page may; `*` is whatever they ask for.
    #[schemars(extend("examples" = [["content-type", "authorization"]]))]
    pub(crate) headers: Option<HeadersForm>,
    /// Headers of answers that they may read, beside those that every page may.
    #[schemars(extend("examples" = [["x-request-id", "grpc-status", "grpc-message"]]))]
    pub(crate) expose: Option<OneOrMany<Txt<HeaderText>>>,
    /// They may send cookies and other credentials. Not with `origins: "*"`, which would give every page what the user may do.
    #[schemars(extend("default" = false))]
    pub(crate) credentials: Option<At<bool>>,
    /// How long a browser need not ask again. By default it decides itself, usually 5 s.
    #[schemars(extend("examples" = ["10m"]))]
    pub(crate) max_age: Option<Txt<Length>>,
    /// Pages of public sites may ask, though attache's address is a private one (Private Network Access).
    #[schemars(extend("default" = false))]
    pub(crate) private_network: Option<bool>,
}

/// `*`, or names of headers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum HeadersForm {
    All(Txt<Star>),
    These(OneOrMany<Txt<HeaderText>>),
}
