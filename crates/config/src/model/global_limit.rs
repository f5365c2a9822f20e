//! A rate limit that a service counts for all proxies that ask it.

use super::prelude::*;

section! {
    "`global_rate_limit`"
    /// A limit that a service counts for all proxies that ask it (`envoy.service.ratelimit.v3`).
    pub struct GlobalRateLimit: Eq {
        /// The upstream that is the service, for example `h2c://ratelimit:8081`. Its pool, TLS and limits are those of any upstream.
        service(Spanned<Text<Label>>): UpstreamId = UpstreamId(0),
        /// The name of this set of limits in the service's own configuration.
        #[schema(examples = ["shop"])]
        domain: Name as Word = "".into(),
        /// The longest wait for the service's answer.
        timeout: Duration as Positive = Duration::from_millis(20),
        /// What happens to a request when the service doesn't answer: it continues, or gets 500
        /// `rate-limit-service-error`.
        failure_mode: FailureMode = FailureMode::default(),
        /// How much a request adds to the count.
        #[schema(minimum = 1)]
        hits_addend: u32 = 1,
        /// What the service counts. Each descriptor is one bucket of the service; a request needs room in all of them.
        descriptors(OneOrMany<ParsedSection<Descriptor>>): Vec<Vec<DescriptorAction>> as Descriptors = Vec::new(),
    }
    requires service, domain, descriptors
}

section! {
    "a descriptor"
    /// One bucket: the values that distinguish it from others.
    pub struct Descriptor {
        /// Its entries, in their order.
        actions(OneOrMany<DescriptorKeys>),
    }
    requires actions
}

section! {
    "an action"
    /// An entry of a descriptor: exactly one of these, with Envoy's names. Where the request has no such value, the
    /// descriptor isn't counted.
    pub struct DescriptorKeys: Eq {
        /// `true`: the client's IP, as `remote_address`.
        #[schema(default = ())]
        remote_address: bool = false,
        /// `true`: the upstream's name, as `destination_cluster`.
        #[schema(default = ())]
        destination_cluster: bool = false,
        /// `true`: the client's verified identity, as `client_identity`.
        #[schema(default = ())]
        client_identity: bool = false,
        /// `true`: the route's name, as `route`.
        #[schema(default = ())]
        route: bool = false,
        /// `true`: the path without the query, as `path`.
        #[schema(default = ())]
        path: bool = false,
        /// `true`: the method, as `method`.
        #[schema(default = ())]
        method: bool = false,
        /// A fixed text.
        generic_key: Option<GenericKey> as Optional<Nested> = None,
        /// A header's value.
        request_headers: Option<RequestHeaders> as Optional<Nested> = None,
    }
    rules {
        one_of [
            remote_address, destination_cluster, client_identity, route, path, method, generic_key, request_headers
        ]
            "an action has exactly one key"
            "`remote_address: true`, `request_headers: { header_name: x-user }`, `generic_key: { descriptor_value: checkout }`, …";
    }
}

section! {
    "`generic_key`"
    /// A fixed text.
    pub struct GenericKey: Eq {
        /// The text.
        #[schema(examples = ["checkout"])]
        descriptor_value: Name as Word = "".into(),
        /// Its key.
        descriptor_key: Name as Word = "generic_key".into(),
    }
    requires descriptor_value
}

section! {
    "`request_headers`"
    /// A header's value.
    pub struct RequestHeaders: Eq {
        /// The header.
        #[schema(examples = ["x-user"])]
        header_name: HeaderName as HeaderText = HeaderName::from_static("x-user"),
        /// Its key. By default the header's name.
        #[schema(examples = ["user"])]
        descriptor_key: Option<Name> as Optional<Word> = None,
        /// Without the header only this entry is left out, not the whole descriptor.
        skip_if_absent: bool = false,
    }
    requires header_name
    then Self::name_key
}

/// What happens to requests when the service doesn't answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FailureMode {
    /// The requests continue.
    #[default]
    Allow,
    /// The requests are answered 500 `rate-limit-service-error`.
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
    GenericKey(GenericKey),
    /// A header's value.
    RequestHeader(RequestHeaders),
}

/// Descriptors as the file writes them: each with its actions, each action with its one key.
struct Descriptors;

impl Show<Vec<Vec<DescriptorAction>>> for Descriptors {
    fn show(value: &Vec<Vec<DescriptorAction>>) -> Value {
        let actions = |actions: &Vec<DescriptorAction>| json!({ "actions": actions.iter().map(DescriptorAction::show).collect::<Vec<_>>() });
        value.iter().map(actions).collect()
    }
}

impl RequestHeaders {
    /// A header's name is its key, unless the file names another one.
    fn name_key(&mut self) {
        let Self { header_name, descriptor_key, .. } = self;
        descriptor_key.get_or_insert_with(|| header_name.as_str().into());
    }

    /// Its key in the descriptor.
    pub fn key(&self) -> &str {
        self.descriptor_key.as_deref().unwrap_or_else(|| self.header_name.as_str())
    }
}

impl DescriptorAction {
    fn show(&self) -> Value {
        match self {
            Self::RemoteAddress => json!({ "remote_address": true }),
            Self::DestinationCluster => json!({ "destination_cluster": true }),
            Self::ClientIdentity => json!({ "client_identity": true }),
            Self::Route => json!({ "route": true }),
            Self::Path => json!({ "path": true }),
            Self::Method => json!({ "method": true }),
            Self::GenericKey(generic) => json!({ "generic_key": generic }),
            Self::RequestHeader(header) => json!({ "request_headers": header }),
        }
    }
}
