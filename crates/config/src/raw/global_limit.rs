//! `global_rate_limit:` of a route.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, OneOrMany, Txt};
use crate::{
    model,
    text::{HeaderText, Label, Positive, Word, show_duration},
};

/// A limit that a service counts for all who ask it (`envoy.service.ratelimit.v3`).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`global_rate_limit`")]
pub(crate) struct GlobalRateLimit {
    /// The upstream that is the service, for example `h2c://ratelimit:8081`. Its pool, TLS and limits are those of any upstream.
    pub(crate) service: At<Txt<Label>>,
    /// Whose limits they are, in the service's own configuration.
    #[schemars(extend("examples" = ["shop"]))]
    pub(crate) domain: Txt<Word>,
    /// How long the service is waited for.
    #[schemars(extend("default" = show_duration(model::GlobalRateLimit::TIMEOUT)))]
    pub(crate) timeout: Option<Txt<Positive>>,
    /// What becomes of a request when the service doesn't answer: it goes on, or is answered 500 `rate-limit-service-error`.
    #[schemars(extend("default" = model::FailureMode::default()))]
    pub(crate) failure_mode: Option<model::FailureMode>,
    /// What a request counts as.
    #[schemars(range(min = 1), extend("default" = model::GlobalRateLimit::HITS_ADDEND))]
    pub(crate) hits_addend: Option<u32>,
    /// What is counted. Each descriptor is one bucket of the service; a request needs room in all of them.
    pub(crate) descriptors: OneOrMany<At<Descriptor>>,
}

/// One bucket: the values that tell it from others.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "a descriptor")]
pub(crate) struct Descriptor {
    /// Its entries, in their order.
    pub(crate) actions: OneOrMany<At<DescriptorAction>>,
}

/// An entry of a descriptor: exactly one of these, with Envoy's names. Where the request has no such value, the descriptor isn't counted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "an action")]
pub(crate) struct DescriptorAction {
    /// `true`: the client's IP, as `remote_address`.
    pub(crate) remote_address: Option<bool>,
    /// `true`: the upstream's name, as `destination_cluster`.
    pub(crate) destination_cluster: Option<bool>,
    /// `true`: the client's verified identity, as `client_identity`.
    pub(crate) client_identity: Option<bool>,
    /// `true`: the route's name, as `route`.
    pub(crate) route: Option<bool>,
    /// `true`: the path without the query, as `path`.
    pub(crate) path: Option<bool>,
    /// `true`: the method, as `method`.
    pub(crate) method: Option<bool>,
    /// A fixed text.
    pub(crate) generic_key: Option<GenericKey>,
    /// A header's value.
    pub(crate) request_headers: Option<RequestHeaders>,
}

/// A fixed text.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`generic_key`")]
pub(crate) struct GenericKey {
    /// The text.
    #[schemars(extend("examples" = ["checkout"]))]
    pub(crate) descriptor_value: Txt<Word>,
    /// Its key.
    #[schemars(extend("default" = "generic_key"))]
    pub(crate) descriptor_key: Option<Txt<Word>>,
}

/// A header's value.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`request_headers`")]
pub(crate) struct RequestHeaders {
    /// The header.
    #[schemars(extend("examples" = ["x-user"]))]
    pub(crate) header_name: Txt<HeaderText>,
    /// Its key. By default the header's name.
    #[schemars(extend("examples" = ["user"]))]
    pub(crate) descriptor_key: Option<Txt<Word>>,
    /// Without the header only this entry is left out, not the whole descriptor.
    #[schemars(extend("default" = false))]
    pub(crate) skip_if_absent: Option<bool>,
}
