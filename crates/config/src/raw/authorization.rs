//! `authorization:` of a listener or route.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, ExternalForm, JwtUse, Map, OneOrMany, Txt};
use crate::text::{
    HeaderText, HostText, IdentityText, Label, MethodText, Network, PathText, ValueText, Word,
};

/// Who may do what. A request must pass the rules of its listener and those of its route. `deny` comes first; with `allow`, what no
/// rule of it allows is refused with 403 `denied-by-rule`. HTTP, CONNECT and opaque connections alike: what a rule needs
/// and can't be seen refuses.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`authorization`")]
pub(crate) struct Authorization {
    /// What is refused, whoever else allows it.
    #[schemars(extend("examples" = [[{"path": "/admin/*"}]]))]
    pub(crate) deny: Option<At<Vec<At<AccessRule>>>>,
    /// Of which one must match; `[]` refuses everything. Without it, whatever isn't denied is allowed.
    #[schemars(extend("examples" = [[{"identity": "spiffe://cluster.local/ns/shop/sa/web"}]]))]
    pub(crate) allow: Option<At<Vec<At<AccessRule>>>>,
    /// What would be denied is counted (`attache_authorization_total`, outcome `would-deny`) and logged, and goes on.
    #[schemars(extend("default" = false))]
    pub(crate) dry_run: Option<bool>,
    /// Proxies in front, whose entries in `X-Forwarded-For` are believed, for `forwarded_client`: the client is the nearest entry
    /// (from the right) that is none of them.
    pub(crate) trusted_proxies: Option<OneOrMany<Txt<Network>>>,
    /// Tokens that requests must bring, or may. That of a route replaces the listener's.
    pub(crate) jwt: Option<At<JwtUse>>,
    /// The service that is asked once the token and the rules let a request through. That of a route replaces the listener's.
    pub(crate) external: Option<At<ExternalForm>>,
}

/// A rule: every key that is given must match; of a list, one.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(title = "an access rule", deny_unknown_fields)]
pub(crate) struct AccessRule {
    /// Its name in metrics and logs. By default `LISTENER/allow/INDEX`, or with the route's name.
    pub(crate) name: Option<Txt<Label>>,
    /// What must hold.
    #[serde(flatten)]
    pub(crate) when: AccessConditions,
    /// What must not match: nothing that is listed here may hold.
    pub(crate) not: Option<At<Box<AccessConditions>>>,
}

/// What must not hold, key by key as in the rule.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`not` of an access rule")]
pub(crate) struct AccessConditions {
    /// Who the client proved to be by its certificate: `*` is anybody who did; else as in `allow` of `tls`.
    pub(crate) identity: Option<At<OneOrMany<Txt<IdentityText>>>>,
    /// Networks of the client: the connection's, or that of the PROXY protocol header where one was read.
    pub(crate) client: Option<At<OneOrMany<Txt<Network>>>>,
    /// Networks of the client that the trusted proxies in front saw (`X-Forwarded-For`); needs `trusted_proxies`.
    pub(crate) forwarded_client: Option<At<OneOrMany<Txt<Network>>>>,
    /// Ports that the client connected to; of an intercepted connection the original ones.
    #[schemars(extend("examples" = [[8443]]))]
    pub(crate) port: Option<At<OneOrMany<u16>>>,
    /// TLS server names, of TLS that is passed through or terminated.
    pub(crate) sni: Option<At<OneOrMany<Txt<HostText>>>>,
    /// `Host` or `:authority`.
    pub(crate) host: Option<At<OneOrMany<Txt<HostText>>>>,
    /// Methods.
    pub(crate) methods: Option<At<OneOrMany<Txt<MethodText>>>>,
    /// Paths without the query, with the patterns of routes. A path that decodes to another one (`/a/..%2Fb`) is in doubt: it
    /// is denied by whatever either of them would be, and allowed only by what allows both.
    pub(crate) path: Option<At<OneOrMany<Txt<PathText>>>>,
    /// Headers, all of which must have one of their values, with the patterns of routes. A header that stands there twice must
    /// match with all of its lines to be allowed, and with one to be denied.
    #[schemars(extend("examples" = [{"x-tenant": "shop"}]))]
    pub(crate) headers: Option<At<Map<HeaderText, OneOrMany<Txt<ValueText>>>>>,
    /// Claims of the verified token, all of which must have one of their values; `realm.role` is `role` inside of `realm`. Of a
    /// list, and of `scope`'s words, one is enough. Needs `jwt`.
    #[schemars(extend("examples" = [{"scope": "orders:write"}]))]
    pub(crate) claims: Option<At<Map<Word, OneOrMany<Txt<ValueText>>>>>,
}
