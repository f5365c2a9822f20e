//! A rate limit that a service counts for all who ask it.

use std::time::Duration;

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Name, UpstreamId};

/// A limit over all proxies: a service that speaks `envoy.service.ratelimit.v3` is asked before a request goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalRateLimit {
    /// The service.
    pub service: UpstreamId,
    /// Whose limits they are; the service's configuration knows it.
    pub domain: Name,
    /// How long the service is waited for. Default 20 ms.
    pub timeout: Duration,
    /// What becomes of a request when the service doesn't answer. Default allow.
    pub failure_mode: FailureMode,
    /// What a request counts as. Default 1.
    pub hits_addend: u32,
    /// What is counted; each is one bucket, and a request must have room in all. At least one, each with at least one action.
    pub descriptors: Vec<Vec<DescriptorAction>>,
}

impl GlobalRateLimit {
    /// Default of [`Self::timeout`].
    pub const TIMEOUT: Duration = Duration::from_millis(20);
    /// Default of [`Self::hits_addend`].
    pub const HITS_ADDEND: u32 = 1;
}

/// What becomes of requests that nobody can count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FailureMode {
    /// They go on.
    #[default]
    Allow,
    /// They are answered 500 `rate-limit-service-error`.
    Deny,
}

/// One entry of a descriptor: a key, and a value of the request (Envoy's rate limit actions). A value that isn't there leaves the
/// whole descriptor out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DescriptorAction {
    /// `remote_address`: the client's IP.
    RemoteAddress,
    /// `destination_cluster`: the upstream's name.
    DestinationCluster,
    /// `client_identity`: the client's verified identity.
    ClientIdentity,
    /// `route`: the route's name.
    Route,
    /// `path`: without the query.
    Path,
    /// `method`.
    Method,
    /// A fixed text.
    GenericKey {
        /// Default `generic_key`.
        key: Name,
        /// The text.
        value: Name,
    },
    /// A header's value.
    RequestHeader {
        /// The header.
        header: HeaderName,
        /// The key. Default the header's name.
        key: Name,
        /// Without the header only this entry is left out, not the descriptor. Default false.
        skip_if_absent: bool,
    },
}
