//! Guards in front of rules: which requests pass, which are denied, and which are refused because the guard can't be expressed.
//!
//! A gate is a list of cases; the first case that holds decides. A gate in front of a rule makes one rule for each case, with
//! the conditions of the case and of the rule. If one rule can't express both conditions, the whole rule is refused: nothing
//! that the guard denied may pass.

use crate::access;
use crate::plan::{PlannedRule, RuleConditions};
use crate::tree::FileLine;
use crate::value::{ConfigValue, YamlMap};

/// What happens to the requests of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GateVerdict {
    /// They pass.
    Pass,
    /// They are answered with 403, as by the original.
    Deny,
    /// They pass if these keys of `authorization` allow them.
    With(YamlMap),
    /// They are refused: the guard can't be carried over, for this reason.
    Refuse(String),
}

/// A guard.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    pub(crate) at: FileLine,
    pub(crate) cases: Vec<(RuleConditions, GateVerdict)>,
    pub(crate) otherwise: GateVerdict,
    /// The body of the answer to a denied request.
    pub(crate) denied: &'static str,
}

impl Gate {
    /// A gate that refuses every request.
    pub(crate) fn closed(at: &FileLine, why: impl Into<String>) -> Self {
        Self { at: at.clone(), cases: Vec::new(), otherwise: GateVerdict::Refuse(why.into()), denied: "" }
    }

    /// The rules that a rule becomes if this gate stands in front of it.
    pub(crate) fn before(&self, rule: PlannedRule) -> Vec<PlannedRule> {
        if rule.settled {
            return vec![rule];
        }
        let mut out = Vec::new();
        for (when, verdict) in &self.cases {
            match both(&rule.when, when) {
                Some(None) => {}
                Some(Some(both)) => {
                    let all = both == rule.when;
                    let mut case = PlannedRule { when: both, ..rule.clone() };
                    case.name = rule.name.clone().filter(|_| all);
                    if !out.is_empty() {
                        case.remarks.0.clear();
                    }
                    self.judge(&mut case, verdict);
                    out.push(case);
                    if all {
                        return out;
                    }
                }
                None if *verdict == GateVerdict::Pass => {
                    let mut rest = rule.clone();
                    rest.remarks.point(&self.at, "the guard of this route allows some requests by a condition that attache can't express: these are refused, too.");
                    return vec![refused(
                        rest,
                        &self.at,
                        "attache can't combine a condition of its guard with the conditions of this route.",
                    )];
                }
                None => {
                    return vec![refused(
                        rule,
                        &self.at,
                        "attache can't combine a condition of the guard with the conditions of this route, so the route is refused. Write both as one condition.",
                    )];
                }
            }
        }
        let mut rest = rule;
        if !out.is_empty() {
            rest.remarks.0.clear();
        }
        self.judge(&mut rest, &self.otherwise);
        out.push(rest);
        out
    }

    fn judge(&self, rule: &mut PlannedRule, verdict: &GateVerdict) {
        match verdict {
            GateVerdict::Pass => {}
            GateVerdict::With(keys) => {
                let mut own = match rule.keys.get("authorization") {
                    Some(ConfigValue::Map(map)) => map.clone(),
                    _ => YamlMap::default(),
                };
                if access::merge(&mut own, keys) {
                    rule.keys.set("authorization", own);
                } else {
                    rule.refuse(
                        &self.at,
                        "two guards of one kind stood in front of this route, which `authorization` can't say as one. Make one of both; then replace the \
                         refusal.",
                    );
                }
            }
            GateVerdict::Deny => {
                // The guards before this one decide first.
                let before = rule.keys.get("authorization").cloned();
                rule.settled = true;
                rule.keys = YamlMap::default();
                rule.keys.put("authorization", before);
                rule.targets.clear();
                rule.name = None;
                let mut respond = YamlMap::default();
                respond.set("status", 403_u64);
                respond.set("body", self.denied);
                rule.keys.set("respond", respond);
            }
            GateVerdict::Refuse(why) => rule.refuse(&self.at, why.clone()),
        }
    }
}

fn refused(mut rule: PlannedRule, at: &FileLine, why: &str) -> PlannedRule {
    rule.refuse(at, why);
    rule
}

/// The conditions of both. `Some(None)`: no request meets both. `None`: one rule can't express both.
#[allow(clippy::option_option)]
pub(crate) fn both(a: &RuleConditions, b: &RuleConditions) -> Option<Option<RuleConditions>> {
    let Some(path) = a.path.both(&b.path)? else { return Some(None) };
    let mut when = RuleConditions { path, ..a.clone() };
    for (list, other) in [(&mut when.methods, &b.methods), (&mut when.identity, &b.identity)] {
        if list.is_empty() {
            list.clone_from(other);
        } else if !other.is_empty() {
            let exact = list.iter().chain(other).all(|item| !item.contains('*'));
            if list == other {
                continue;
            }
            if !exact {
                return None;
            }
            list.retain(|item| other.contains(item));
            if list.is_empty() {
                return Some(None);
            }
        }
    }
    for (list, other) in [(&mut when.headers, &b.headers), (&mut when.query, &b.query)] {
        for (name, pattern) in other {
            match list.iter().find(|(known, _)| known == name) {
                None => list.push((name.clone(), pattern.clone())),
                Some((_, known)) if known == pattern => {}
                Some(_) => return None,
            }
        }
    }
    Some(Some(when))
}
