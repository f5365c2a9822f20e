//! Headers that a client sends twice.
//!
//! nginx reads the first field; newer versions join all fields into one text. In attache a negated condition holds if
//! no field has the value, so a client could send the wanted value as a second field. So a request that passes such a
//! condition must have the value in each field.

use crate::access::{self, AccessEffect, ImportedAccess};
use crate::path::PlannedPath;
use crate::plan::{PlannedRule, VirtualHost};
use crate::value::{ConfigValue, YamlMap};

/// Adds the guards of a site to the routes that stand behind them.
pub(super) fn guard(site: &mut VirtualHost) {
    let guards: Vec<(usize, String, PlannedRule)> = site
        .rules
        .iter()
        .enumerate()
        .filter(|(_, rule)| rule.keys.get("to").is_none())
        .flat_map(|(at, rule)| negated(rule).map(move |(name, _)| (at, name.clone(), rule.clone())))
        .collect();
    for (at, rule) in site.rules.iter_mut().enumerate().filter(|(_, rule)| rule.keys.get("to").is_some()) {
        for (_, name, guard) in guards.iter().filter(|(before, ..)| *before < at) {
            if !guard.when.path.overlaps(&rule.when.path) {
                continue;
            }
            let Some(keys) = denied(guard, &rule.when.path) else { continue };
            let mut own = match rule.keys.get("authorization") {
                Some(ConfigValue::Map(map)) => map.clone(),
                _ => YamlMap::default(),
            };
            if access::merge(&mut own, &keys) {
                rule.keys.set("authorization", own);
            } else {
                let at = guard.at.clone();
                rule.refuse(&at, format!("this location is refused: attache can't combine its condition on `{name}` with its other guards."));
            }
        }
    }
}

fn negated(rule: &PlannedRule) -> impl Iterator<Item = &(String, String)> {
    rule.when.headers.iter().filter(|(_, pattern)| pattern.starts_with('!') && pattern != "!*")
}

/// A rule that denies the requests of the guard in which a field has another value.
fn denied(guard: &PlannedRule, path: &PlannedPath) -> Option<YamlMap> {
    let mut all = access::everything();
    let whole = matches!(guard.when.path, PlannedPath::All | PlannedPath::Any) || guard.when.path == *path;
    if let Some(pattern) = guard.when.path.pattern(false).filter(|_| !whole) {
        all = access::both(&all, &vec![ImportedAccess::list("path", vec![pattern])])?;
    }
    if !guard.when.methods.is_empty() {
        all = access::both(&all, &vec![ImportedAccess::list("methods", guard.when.methods.clone())])?;
    }
    for (name, pattern) in &guard.when.headers {
        let one = match pattern.strip_prefix('!').filter(|_| pattern != "!*") {
            Some(wanted) => {
                let other =
                    access::not(&vec![ImportedAccess::named("headers", name, vec![wanted.to_owned()])])?;
                access::both(&vec![ImportedAccess::named("headers", name, vec!["*".to_owned()])], &other)?
            }
            None => vec![ImportedAccess::named("headers", name, vec![pattern.clone()])],
        };
        all = access::both(&all, &one)?;
    }
    let rules: Vec<(String, ImportedAccess)> =
        all.into_iter().map(|rule| ("several-values".to_owned(), rule)).collect();
    match access::deny(&rules) {
        AccessEffect::Keys(keys) => Some(keys),
        _ => None,
    }
}
