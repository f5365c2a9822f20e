//! `authorizers:`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{At, Map, Off, OneOrMany, Txt};
use crate::{
    model,
    text::{HeaderMatchText, HeaderText, Label, PathValue, Positive, Size, Word, show_duration},
};

/// A service that decides over requests: external authorization.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "an authorizer")]
pub(crate) struct Authorizer {
    /// The upstream that is the service, for example `h2c://opa:9191`. Its pool, TLS and limits are those of any upstream.
    pub(crate) service: At<Txt<Label>>,
    /// `grpc` is `envoy.service.auth.v3.Authorization/Check`. `http` sends the request's method, path and headers; 200 lets it through, 5xx
    /// is no answer, any other status is the client's.
    #[schemars(extend("default" = AuthorizerProtocol::default()))]
    pub(crate) protocol: Option<AuthorizerProtocol>,
    /// With `http`: what stands in front of the request's path.
    #[schemars(extend("examples" = ["/check"]))]
    pub(crate) path_prefix: Option<At<Txt<PathValue>>>,
    /// How long the service is waited for.
    #[schemars(extend("default" = show_duration(model::Authorizer::TIMEOUT)))]
    pub(crate) timeout: Option<Txt<Positive>>,
    /// What becomes of a request when the service doesn't answer: `closed` answers it 503 `authorizer-unavailable`, `open` lets it go on,
    /// to whoever can keep the service from answering.
    #[schemars(extend("default" = model::AuthorizerFailure::default()))]
    pub(crate) failure_mode: Option<model::AuthorizerFailure>,
    /// Headers of the request that the service is told. By default all with `grpc`, and `authorization` with `http`.
    #[schemars(extend("examples" = [["authorization", "cookie", "x-tenant-*"]]))]
    pub(crate) request_headers: Option<OneOrMany<Txt<HeaderMatchText>>>,
    /// Headers of the service's answer that the upstream is sent; others are left out. What clients send under these names is removed.
    /// None by default.
    #[schemars(extend("examples" = [["x-user", "x-groups"]]))]
    pub(crate) upstream_headers: Option<OneOrMany<At<Txt<HeaderText>>>>,
    /// Headers of a denial that the client is sent.
    #[schemars(extend("default" = ["*"]))]
    pub(crate) denial_headers: Option<OneOrMany<Txt<HeaderMatchText>>>,
    /// Headers of an answer that lets the request through, which the response is given. By default with `grpc` all of
    /// `response_headers_to_add`, and none with `http`.
    #[schemars(extend("examples" = [["set-cookie"]]))]
    pub(crate) response_headers: Option<OneOrMany<Txt<HeaderMatchText>>>,
    /// How much of the request's body the service is told. Nothing by default.
    pub(crate) body: Option<At<AuthorizerBody>>,
}

/// How an authorizer is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AuthorizerProtocol {
    /// By gRPC.
    #[default]
    Grpc,
    /// By HTTP.
    Http,
}

/// How much of a request's body an authorizer is told.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`body` of an authorizer")]
pub(crate) struct AuthorizerBody {
    /// Bytes at most, up to 1 MiB. The service is asked when the body has ended, or when so much of it is there.
    #[schemars(extend("examples" = ["8KiB"]))]
    pub(crate) max: At<Txt<Size>>,
    /// Of a longer body the service is told the begin (`x-envoy-auth-partial-body: true`). Without it, such a request is answered 413
    /// `body-too-large`.
    #[schemars(extend("default" = false))]
    pub(crate) partial: Option<bool>,
}

/// Which authorizer is asked: its name, or in full; `off` asks none.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("examples" = ["opa", "off"]))]
pub(crate) enum ExternalForm {
    Off(Off),
    Name(Txt<Label>),
    Full(Box<External>),
}

/// Which authorizer is asked, and what it is told beside the request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`external`")]
pub(crate) struct External {
    /// The authorizer, by its name in the config's `authorizers`.
    pub(crate) authorizer: At<Txt<Label>>,
    /// What it is told beside the request: Envoy's `context_extensions`. With `http` these are headers `x-attache-context-NAME`.
    #[schemars(extend("examples" = [{"tier": "gold"}]))]
    pub(crate) context: Option<At<Map<Label, Txt<Word>>>>,
    /// `false`: it is told nothing of the body here.
    #[schemars(extend("default" = true))]
    pub(crate) body: Option<bool>,
}
