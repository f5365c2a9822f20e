//! Which rule decides, and why the others don't: `attache explain`.

use std::fmt::Write as _;

use crate::{
    conditions::Condition,
    facts::Facts,
    policy::{AccessPolicy, PolicyRule},
    truth::Truth,
};

/// One rule that was considered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleResult {
    /// It denies what it matches.
    pub denies: bool,
    /// Its name.
    pub name: String,
    /// Its line in the file.
    pub line: u32,
    /// Whether it matches.
    pub matches: Truth,
    /// It is the one that decides.
    pub decides: bool,
    /// The first condition that isn't met, or can't be decided.
    pub why: String,
}

impl AccessPolicy {
    /// Every rule in the order in which they are considered, up to the one that decides.
    pub fn explain(&self, facts: &Facts<'_>) -> Vec<RuleResult> {
        let mut all = Vec::new();
        let rules = self.deny.iter().map(|rule| (rule, true));
        for (rule, denies) in rules.chain(self.allow.iter().flatten().map(|rule| (rule, false))) {
            let matches = rule.matches(facts, &self.trusted);
            let decides = if denies { matches != Truth::No } else { matches == Truth::Yes };
            let why = why(rule, facts, self);
            all.push(RuleResult {
                denies,
                name: rule.name.to_string(),
                line: rule.line,
                matches,
                decides,
                why,
            });
            if decides {
                break;
            }
        }
        all
    }
}

fn why(rule: &PolicyRule, facts: &Facts<'_>, policy: &AccessPolicy) -> String {
    let mut why = String::new();
    let mut say = |key: &str, what: &str| {
        if !why.is_empty() {
            why.push_str("; ");
        }
        // Writing to a String can't fail.
        let _ = write!(why, "{key} {what}");
    };
    for (condition, holds) in rule.when.each(facts, &policy.trusted) {
        match holds {
            Truth::Yes => {}
            Truth::No => say(&condition.key(), "doesn't match"),
            Truth::Unsure => say(&condition.key(), "can't be told"),
        }
    }
    for (condition, holds) in rule.unless.each(facts, &policy.trusted) {
        match holds {
            Truth::No => {}
            Truth::Yes => say(&condition.key(), "of `not` matches"),
            Truth::Unsure => say(&condition.key(), "of `not` can't be told"),
        }
    }
    why
}

impl Condition {
    fn key(&self) -> String {
        match self {
            Self::Ports(_) => "`port`".into(),
            Self::Methods(_) => "`methods`".into(),
            Self::Clients(_) => "`client`".into(),
            Self::Identities(_) => "`identity`".into(),
            Self::Paths(_) => "`path`".into(),
            Self::Header(header) => format!("header `{}`", header.name()),
            Self::Claim(claim, _) => format!("claim `{}`", claim.name),
            Self::Hosts(_) => "`host`".into(),
            Self::Sni(_) => "`sni`".into(),
            Self::ForwardedClients(_) => "`forwarded_client`".into(),
        }
    }
}
