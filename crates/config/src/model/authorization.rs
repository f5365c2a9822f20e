//! Who may do what.

use http::{HeaderName, Method};

use super::{AddressMatch, AuthorizerUse, HostPattern, JwtUse, Name, PathPattern, SanPattern, ValuePattern};

/// Rules of one listener or route. A request must pass both. Denials are looked at first; with `allow` there, what no rule of it
/// allows is denied.
#[derive(Clone, Debug, Default)]
pub struct Authorization {
    /// What is refused, whoever else allows it.
    pub deny: Vec<AccessRule>,
    /// Of which one must match; empty refuses everything. `None`: whatever isn't denied is allowed.
    pub allow: Option<Vec<AccessRule>>,
    /// What would be denied is counted and logged, and goes on. Default false.
    pub dry_run: bool,
    /// Proxies in front, whose `X-Forwarded-For` entries are believed. Default none.
    pub trusted_proxies: Vec<AddressMatch>,
    /// Tokens that requests must bring, or may; `None` looks at none.
    pub jwt: Option<JwtUse>,
    /// The service that is asked once the rules let a request through; `None` is the listener's, if it has one.
    pub external: Option<AuthorizerUse>,
    /// Line in the file, for `explain`.
    pub line: u32,
}

/// One rule: it matches where every part of `when` holds and none of `unless`.
#[derive(Clone, Debug)]
pub struct AccessRule {
    /// The `name` key, or `LISTENER/allow/INDEX`; the `rule` label.
    pub name: Name,
    /// All of these must hold.
    pub when: AccessConditions,
    /// None of these may hold.
    pub unless: AccessConditions,
    /// Line in the file, for `explain`.
    pub line: u32,
}

/// Conditions on who asks for what. An empty part is no condition; of a list, one must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccessConditions {
    /// Who the client proved to be by its certificate.
    pub identities: Vec<IdentityMatch>,
    /// Networks of the connection's client (of the PROXY protocol header, where one was read).
    pub clients: Vec<AddressMatch>,
    /// Networks of the client that the trusted proxies in front saw.
    pub forwarded_clients: Vec<AddressMatch>,
    /// Ports that the client connected to (the original destination's, where the connection was intercepted).
    pub ports: Vec<u16>,
    /// TLS server names.
    pub sni: Vec<HostPattern>,
    /// Host header or `:authority`.
    pub hosts: Vec<HostPattern>,
    /// Methods.
    pub methods: Vec<Method>,
    /// Paths without the query.
    pub paths: Vec<PathPattern>,
    /// Headers, all of which must match.
    pub headers: Vec<HeaderCondition>,
    /// Claims of the verified token, all of which must match.
    pub claims: Vec<ClaimCondition>,
}

/// A claim, and the values of which it must have one.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimCondition {
    /// Its name; `realm.role` is `role` inside of `realm`.
    pub name: Name,
    /// Values, and whether each is inverted.
    pub any: Vec<(ValuePattern, bool)>,
}

/// A header, and the values of which it must have one.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderCondition {
    /// Its name.
    pub name: HeaderName,
    /// Values, and whether each is inverted.
    pub any: Vec<(ValuePattern, bool)>,
}

/// Who a client has proven to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityMatch {
    /// Anybody whose certificate was verified.
    Verified,
    /// A certificate with this name.
    Name(SanPattern),
}

/// Where it stands in the file changes nothing.
impl PartialEq for Authorization {
    fn eq(&self, other: &Self) -> bool {
        let Self { deny, allow, dry_run, trusted_proxies, jwt, external, line: _ } = self;
        *deny == other.deny
            && *allow == other.allow
            && *dry_run == other.dry_run
            && *trusted_proxies == other.trusted_proxies
            && *jwt == other.jwt
            && *external == other.external
    }
}

/// Where it stands in the file changes nothing.
impl PartialEq for AccessRule {
    fn eq(&self, other: &Self) -> bool {
        let Self { name, when, unless, line: _ } = self;
        *name == other.name && *when == other.when && *unless == other.unless
    }
}

impl Authorization {
    /// The headers that its rules ask for.
    pub fn header_names(&self) -> impl Iterator<Item = &HeaderName> {
        let rules = self.deny.iter().chain(self.allow.iter().flatten());
        rules.flat_map(|rule| rule.when.headers.iter().chain(&rule.unless.headers)).map(|header| &header.name)
    }
}

impl AccessConditions {
    /// Nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// It asks for something that only an HTTP request has.
    pub fn needs_http(&self) -> bool {
        !self.forwarded_clients.is_empty()
            || !self.hosts.is_empty()
            || !self.methods.is_empty()
            || !self.paths.is_empty()
            || !self.headers.is_empty()
            || !self.claims.is_empty()
    }
}
