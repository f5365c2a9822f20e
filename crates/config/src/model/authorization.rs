//! Which requests and connections are allowed.

use super::prelude::*;

section! {
    "`authorization`"
    /// Which requests and connections are allowed. A request must pass the rules of its listener and those of its
    /// route. `deny` is checked first. If there is an `allow`, a request that none of its rules allows is refused with
    /// 403 `denied-by-rule`. The rules apply to HTTP, CONNECT and opaque connections. If attache can't see a value that
    /// a rule needs, it refuses the request.
    pub struct Authorization {
        /// Requests that are refused, even if another rule allows them.
        #[schema(examples = [[json!({"path": "/admin/*"})]])]
        deny(Vec<Spanned<ParsedSection<AccessRule>>>): Vec<AccessRule> = Vec::new(),
        /// One of these rules must match; `[]` refuses everything. Without it, every request that isn't denied is
        /// allowed.
        #[schema(examples = [[json!({"identity": "spiffe://cluster.local/ns/shop/sa/web"})]])]
        allow(Vec<Spanned<ParsedSection<AccessRule>>>): Option<Vec<AccessRule>> = None,
        /// A request that would be denied is counted (`attache_authorization_total`, outcome `would-deny`) and logged,
        /// and continues.
        dry_run: bool = false,
        /// Proxies in front of attache whose entries in `X-Forwarded-For` it trusts, for `forwarded_client`. The client
        /// is the first entry from the right that is not one of them.
        trusted_proxies: Vec<AddressMatch> as List<Network> = Vec::new(),
        /// Tokens that requests must bring, or may. That of a route replaces the listener's.
        jwt(ParsedSection<JwtUse>): Option<JwtUse> = None,
        /// The service that is asked once the token and the rules let a request through. That of a route replaces the listener's.
        external(Spanned<ExternalForm>): Option<AuthorizerUse> = None,
    }
    holds {
        /// Line in the file, for `explain`.
        line: SourceLine = SourceLine::default(),
    }
    shows Self::show_line
}

section! {
    "an access rule"
    /// An access rule. Every given key must match; of a list, one item must match.
    pub struct AccessRule {
        /// Its name in metrics and logs. By default `LISTENER/allow/INDEX`, or with the route's name.
        #[schema(default = ())]
        name: Name as Label = "".into(),
        /// The conditions that must be met.
        ..when: AccessConditions,
        /// Conditions of which none may be met.
        not(Spanned<ParsedSection<AccessConditions>>) in unless: AccessConditions = AccessConditions::default(),
    }
    holds {
        /// Line in the file, for `explain`.
        line: SourceLine = SourceLine::default(),
    }
    shows Self::show_given
}

section! {
    "`not` of an access rule"
    /// Conditions of which none may be met, with the keys of the rule.
    pub struct AccessConditions {
        /// The identity of the client's verified certificate: `*` is every client with one; otherwise as in `allow` of
        /// `tls`.
        identity in identities: Vec<IdentityMatch> as List<IdentityText> = Vec::new(),
        /// Networks of the client: the connection's, or that of the PROXY protocol header where one was read.
        client in clients: Vec<AddressMatch> as List<Network> = Vec::new(),
        /// Networks of the client that the trusted proxies saw (`X-Forwarded-For`). This needs `trusted_proxies`.
        forwarded_client in forwarded_clients: Vec<AddressMatch> as List<Network> = Vec::new(),
        /// Ports that the client connected to; of an intercepted connection the original ones.
        #[schema(examples = [[8443]])]
        port in ports: Vec<u16> as List<Plain> = Vec::new(),
        /// TLS server names, of TLS that is passed through or terminated.
        sni: Vec<HostPattern> as List<HostText> = Vec::new(),
        /// `Host` or `:authority`, with the patterns of routes: case, a dot at the end and the default port make no difference. `~regex`
        /// matches the whole text as the client sent it, with its port. If only another spelling of the host would match, the host is in
        /// doubt: a rule of `deny` denies it, and a rule of `allow` doesn't allow it.
        host in hosts: Vec<AccessHost> as List<AccessHostText> = Vec::new(),
        /// Methods.
        methods: Vec<Method> as List<MethodText> = Vec::new(),
        /// Paths without the query, with the patterns of routes. A path that decodes to another one (`/a/..%2Fb`) is in doubt: a rule of
        /// `deny` denies it if it matches one of the two, and a rule of `allow` allows it only if it matches both.
        path in paths: Vec<PathPattern> as List<PathText> = Vec::new(),
        /// Headers, all of which must have one of their values, with the patterns of routes. If a header has several lines, all of them
        /// must match in a rule of `allow`, and one is enough in a rule of `deny`.
        #[schema(examples = [json!({"x-tenant": "shop"})])]
        headers(Mapping<HeaderText, OneOrMany<Text<ValueText>>>): Vec<HeaderCondition> as Conditions = Vec::new(),
        /// Claims of the verified token, all of which must have one of their values; `realm.role` is `role` inside of `realm`. Of a
        /// list, and of `scope`'s words, one is enough. Needs `jwt`.
        #[schema(examples = [json!({"scope": "orders:write"})])]
        claims: Vec<ClaimCondition> as ClaimMap = Vec::new(),
        /// The same for claims that must be one text, which the value must match as a whole: a list, a number or a
        /// single word of a text don't match.
        #[schema(examples = [json!({"sub": "orders"})])]
        claim_texts: Vec<ClaimCondition> as ClaimMap = Vec::new(),
        /// The same for claims that must be a list: one of its items must be a text that matches.
        #[schema(examples = [json!({"groups": "ops"})])]
        claim_items: Vec<ClaimCondition> as ClaimMap = Vec::new(),
    }
    shows only_given
}

/// A line in the file. All lines are equal to each other: a rule that only moved is the same rule.
#[derive(Clone, Copy, Debug, Default)]
pub struct SourceLine(pub u32);

impl PartialEq for SourceLine {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

struct Conditions;

impl Show<Vec<HeaderCondition>> for Conditions {
    fn show(value: &Vec<HeaderCondition>) -> Value {
        let one = |HeaderCondition { name, any }: &HeaderCondition| {
            let hidden = names_a_credential(name.as_str());
            let hide = |(_, not): &(_, bool)| Value::from(format!("{}{HIDDEN}", if *not { "!" } else { "" }));
            let shown = if hidden { any.iter().map(hide).collect() } else { List::<ValueText>::show(any) };
            (name.to_string(), shown)
        };
        Value::Object(value.iter().map(one).collect())
    }
}

struct ClaimMap;

impl Show<Vec<ClaimCondition>> for ClaimMap {
    fn show(value: &Vec<ClaimCondition>) -> Value {
        let one =
            |ClaimCondition { name, any }: &ClaimCondition| (name.to_string(), List::<ValueText>::show(any));
        Value::Object(value.iter().map(one).collect())
    }
}

impl Notation<Vec<ClaimCondition>> for ClaimMap {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        <Pairs<Word, List<ValueText>> as Notation<Vec<_>>>::schema(generator)
    }

    fn read(value: Value) -> serde_json::Result<Vec<ClaimCondition>> {
        let pairs = <Pairs<Word, List<ValueText>> as Notation<Vec<_>>>::read(value)?;
        Ok(pairs.into_iter().map(|(name, any)| ClaimCondition { name, any }).collect())
    }
}

/// A claim, and the values of which it must have one.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimCondition {
    /// Its name; `realm.role` is `role` inside of `realm`.
    pub name: Name,
    /// Values, and whether each is inverted.
    pub any: Vec<(ValuePattern, bool)>,
}

/// A host of an access rule.
#[derive(Clone, Debug, PartialEq)]
pub enum AccessHost {
    /// A host in any spelling.
    Name(HostPattern),
    /// The text of `Host` or `:authority` as the client sent it.
    Text(WholeRegex),
}

/// As the file writes it.
impl fmt::Display for AccessHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Text(regex) => write!(f, "~{regex}"),
        }
    }
}

/// A header, and the values of which it must have one.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderCondition {
    /// Its name.
    pub name: HeaderName,
    /// Values, and whether each is inverted.
    pub any: Vec<(ValuePattern, bool)>,
}

/// The identity that a client must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityMatch {
    /// Every client whose certificate was verified.
    Verified,
    /// A certificate with this name.
    Name(SanPattern),
}

impl Authorization {
    fn show_line(&self, shown: &mut Object<String, Value>) {
        shown.insert("line".into(), self.line.0.into());
    }

    /// The headers that its rules ask for.
    pub fn header_names(&self) -> impl Iterator<Item = &HeaderName> {
        let rules = self.deny.iter().chain(self.allow.iter().flatten());
        rules.flat_map(|rule| rule.when.headers.iter().chain(&rule.unless.headers)).map(|header| &header.name)
    }
}

impl AccessRule {
    fn show_given(&self, shown: &mut Object<String, Value>) {
        shown.insert("line".into(), self.line.0.into());
        only_given(self, shown);
    }
}

impl AccessConditions {
    /// There is no condition.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// It asks for what a verified token claims.
    pub fn needs_token(&self) -> bool {
        !self.claims.is_empty() || !self.claim_texts.is_empty() || !self.claim_items.is_empty()
    }

    /// It asks for something that only an HTTP request has.
    pub fn needs_http(&self) -> bool {
        !self.forwarded_clients.is_empty()
            || !self.hosts.is_empty()
            || !self.methods.is_empty()
            || !self.paths.is_empty()
            || !self.headers.is_empty()
            || self.needs_token()
    }
}
