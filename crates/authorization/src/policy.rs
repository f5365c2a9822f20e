//! The compiled rules of a listener or route.

use attache_config::model::{AccessRule, Authorization, AuthorizerUse, JwtUse, Name};

use crate::{conditions::CompiledConditions, facts::Facts, networks::Networks, truth::Truth};

/// The rules of a listener or route.
#[derive(Debug)]
pub struct AccessPolicy {
    pub(crate) deny: Vec<PolicyRule>,
    pub(crate) allow: Option<Vec<PolicyRule>>,
    pub(crate) trusted: Networks,
    dry_run: bool,
    jwt: Option<JwtUse>,
    external: Option<AuthorizerUse>,
    line: u32,
}

/// One rule.
#[derive(Debug)]
pub struct PolicyRule {
    /// Its name.
    pub name: Name,
    /// Its line in the file.
    pub line: u32,
    /// Its place in `deny` or `allow`.
    pub place: usize,
    pub(crate) when: CompiledConditions,
    pub(crate) unless: CompiledConditions,
}

/// The decision of the rules.
#[derive(Clone, Copy, Debug)]
pub enum Decision<'p> {
    /// Allowed by this rule; `None` if there is no `allow`.
    Allowed(Option<&'p PolicyRule>),
    /// Denied by this rule, which may be unsure; `None` if no rule of `allow` matches.
    Denied(Option<&'p PolicyRule>, Truth),
}

impl PolicyRule {
    fn new((place, config): (usize, &AccessRule)) -> Self {
        Self {
            name: config.name.clone(),
            line: config.line.0,
            place,
            when: CompiledConditions::new(&config.when),
            unless: CompiledConditions::new(&config.unless),
        }
    }

    #[inline]
    pub(crate) fn matches(&self, facts: &Facts<'_>, trusted: &Networks) -> Truth {
        let when = self.when.all(facts, trusted);
        if when == Truth::No || self.unless.is_empty() {
            return when;
        }
        when.and(self.unless.any(facts, trusted).not())
    }
}

impl AccessPolicy {
    /// Compiles the rules.
    pub fn new(config: &Authorization) -> Self {
        Self {
            deny: config.deny.iter().enumerate().map(PolicyRule::new).collect(),
            allow: config.allow.as_ref().map(|allow| allow.iter().enumerate().map(PolicyRule::new).collect()),
            trusted: Networks::new(&config.trusted_proxies),
            dry_run: config.dry_run,
            jwt: config.jwt.clone(),
            external: config.external.clone(),
            line: config.line.0,
        }
    }

    /// `dry_run`: denials are only counted and logged.
    pub const fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// The rules about tokens.
    pub const fn jwt(&self) -> Option<&JwtUse> {
        self.jwt.as_ref()
    }

    /// The authorizer that is asked after the rules have allowed a request.
    pub const fn external(&self) -> Option<&AuthorizerUse> {
        self.external.as_ref()
    }

    /// The line of the rules in the file.
    pub const fn line(&self) -> u32 {
        self.line
    }

    /// How many rules allow something.
    pub fn allow_count(&self) -> usize {
        self.allow.as_ref().map_or(0, Vec::len)
    }

    /// Decides. Allocates nothing for a plain request.
    #[inline]
    pub fn decide(&self, facts: &Facts<'_>) -> Decision<'_> {
        for rule in &self.deny {
            let found = rule.matches(facts, &self.trusted);
            if found != Truth::No {
                return Decision::Denied(Some(rule), found);
            }
        }
        match &self.allow {
            None => Decision::Allowed(None),
            Some(allow) => match allow.iter().find(|rule| rule.matches(facts, &self.trusted) == Truth::Yes) {
                Some(rule) => Decision::Allowed(Some(rule)),
                None => Decision::Denied(None, Truth::Yes),
            },
        }
    }
}

impl Decision<'_> {
    /// True if the request is allowed.
    pub const fn is_allowed(self) -> bool {
        matches!(self, Self::Allowed(_))
    }

    /// The rule's name; `None` if no rule decided.
    pub fn rule(&self) -> Option<&Name> {
        match self {
            Self::Allowed(rule) | Self::Denied(rule, _) => rule.map(|rule| &rule.name),
        }
    }
}

/// For the operator: the rule and its line.
impl std::fmt::Display for Decision<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Allowed(None) => f.write_str("no rule denies it"),
            Self::Allowed(Some(rule)) => write!(f, "allowed by rule `{}` (line {})", rule.name, rule.line),
            Self::Denied(None, _) => f.write_str("no rule of `allow` matches"),
            Self::Denied(Some(rule), Truth::Unsure) => write!(
                f,
                "denied by rule `{}` (line {}), which can't be told not to match",
                rule.name, rule.line
            ),
            Self::Denied(Some(rule), _) => write!(f, "denied by rule `{}` (line {})", rule.name, rule.line),
        }
    }
}
