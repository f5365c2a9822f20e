//! Access rules in `explain`: the result of each, and the one that decides.

use attache_authorization::{AccessPolicy, Facts, Truth};
use attache_config::model::AuthorizerUse;
use serde::Serialize;

use crate::{CompiledRoute, RouteTable};

/// The result of the access rules of a listener or route.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AccessExplanation {
    /// `listener NAME` or `route NAME`.
    pub whose: String,
    /// The request may continue, or its refusal is only counted and logged (`dry_run`).
    pub allowed: bool,
    /// The decision, in a line.
    pub decision: String,
    /// The rules in the order in which they are checked, up to the one that decides.
    pub rules: Vec<String>,
}

/// The rules of the listener, then those of the route.
pub(crate) fn access(
    table: &RouteTable,
    route: Option<&CompiledRoute>,
    facts: &Facts<'_>,
) -> Vec<AccessExplanation> {
    let listener = table.authorization().map(|policy| (format!("listener {}", table.listener), policy));
    let route =
        route.and_then(|route| Some((format!("route {}", route.name), route.authorization.as_ref()?)));
    listener.into_iter().chain(route).map(|(whose, policy)| one(whose, policy, facts)).collect()
}

/// The result of another route's rules, if another reading of the request leads to that route.
pub(crate) fn in_doubt(
    table: &RouteTable,
    found: &CompiledRoute,
    other: &CompiledRoute,
    facts: &Facts<'_>,
) -> Option<AccessExplanation> {
    let whose = format!("route {} (another reading of the request leads there)", other.name);
    if table.asks_more(other, found) {
        let allowed = other.authorization.as_ref().is_some_and(AccessPolicy::is_dry_run);
        let decision = "it asks for a token, or an authorizer, that this route doesn't ask for".to_owned();
        return Some(AccessExplanation { whose, allowed, decision, rules: Vec::new() });
    }
    Some(one(whose, other.authorization.as_ref()?, facts))
}

fn one(whose: String, policy: &AccessPolicy, facts: &Facts<'_>) -> AccessExplanation {
    let decision = policy.decide(facts);
    let mut rules: Vec<String> = Vec::new();
    if let Some(wanted) = policy.jwt() {
        let must = if wanted.required { "must" } else { "may" };
        rules.push(format!("a token {must} be there; `explain` verifies none and knows no claims"));
    }
    match policy.external() {
        Some(AuthorizerUse::Ask { .. }) => {
            rules.push(
                "then an authorizer is asked (`external`), which may still deny it; `explain` asks none"
                    .into(),
            );
        }
        Some(AuthorizerUse::Off) => rules.push("no authorizer is asked here (`external: off`)".into()),
        None => {}
    }
    rules.extend(policy.explain(facts).into_iter().map(|rule| {
        let kind = if rule.denies { "deny" } else { "allow" };
        let fares = match rule.matches {
            Truth::Yes => "matches",
            Truth::No => "doesn't match",
            Truth::Unsure => "can't be told",
        };
        let why = if rule.why.is_empty() { String::new() } else { format!(": {}", rule.why) };
        let mark = if rule.decides { "> " } else { "  " };
        format!("{mark}{kind} {} (line {}) {fares}{why}", rule.name, rule.line)
    }));
    let dry = policy.is_dry_run() && !decision.is_allowed();
    AccessExplanation {
        whose,
        allowed: decision.is_allowed() || policy.is_dry_run(),
        decision: if dry {
            format!("{decision}, but `dry_run` lets it through")
        } else {
            decision.to_string()
        },
        rules,
    }
}
