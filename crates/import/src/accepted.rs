//! Makes sure that every import prints a config that `attache check` accepts, whatever the original contained.
//!
//! The check of configs reads the text before it is printed. Each part that the check doesn't accept is closed, never
//! opened:
//!
//! | the check finds a mistake in | the import prints instead |
//! | --- | --- |
//! | a route's action or policies | a refusal with the same conditions |
//! | a route's conditions | a refusal of all requests for the route's host that no earlier route takes |
//! | a route's host, or a listener | the listener refuses everything |
//! | an address to listen on | nothing: the listener is left out |
//! | an upstream, an issuer, an authorizer | nothing: the check then finds the parts that name it |
//!
//! Each step closes more than the one before it, so the steps end. If a mistake is left even then, the import prints
//! only one listener, which refuses everything. Each mistake that is found here is a gap of an importer, which should
//! have reported the loss more exactly.

use attache_config::Diagnostic;

use crate::path::PlannedPath;
use crate::plan::{FilterChain, Plan, PlannedListener, PlannedRule, RuleConditions, VirtualHost};
use crate::tree::FileLine;
use crate::value::YamlMap;
use crate::write::{self, PlanPart};

/// Closes what the check of the config doesn't accept.
pub(crate) fn make(plan: &mut Plan) {
    number(plan);
    plan.listeners.iter_mut().for_each(keep_parameters);
    // A part is closed in at most three steps.
    let rules: usize = plan.listeners.iter_mut().map(|listener| Plan::rules_of(listener).count()).sum();
    let most = 3 * (rules + plan.listeners.len()) + plan.upstreams.len() + plan.top.0.len();
    for _ in 0..=most {
        let page = write::config(plan, &[]);
        let Err(wrong) = attache_config::parse(&page.text, None, &|_| None) else { return };
        let found: Vec<(PlanPart, &Diagnostic)> = wrong
            .iter()
            .filter_map(|one| page.part(one.place.line).map(|part| (part.clone(), one)))
            .collect();
        if found.is_empty() {
            return nothing_of_it(plan, &wrong.to_string());
        }
        let mut done: Vec<PlanPart> = Vec::new();
        // From the end: an item that is removed from a list does not move the items before it.
        for (part, one) in found.into_iter().rev() {
            if !done.contains(&part) {
                close(plan, &part, one);
                done.push(part);
            }
        }
    }
    let left = attache_config::parse(&write::config(plan, &[]).text, None, &|_| None);
    if let Err(wrong) = left {
        nothing_of_it(plan, &wrong.to_string());
    }
}

/// `/a;x` is a different path from `/a` in every proxy that configs are imported from. attache ignores `;x` by default.
///
/// A route for `/a` alone would let `/a;x` through, which the original refused.
fn keep_parameters(listener: &mut PlannedListener) {
    let chosen =
        Plan::rules_of(listener).any(|rule| !matches!(rule.when.path, PlannedPath::All | PlannedPath::Any));
    if chosen && !listener.opaque {
        listener.keys.child("http").child("path").set("parameters", "keep");
    }
}

fn number(plan: &mut Plan) {
    let rules = plan.listeners.iter_mut().flat_map(Plan::rules_of);
    rules.enumerate().for_each(|(index, rule)| rule.number = index + 1);
}

fn close(plan: &mut Plan, part: &PlanPart, wrong: &Diagnostic) {
    let nowhere = FileLine::default();
    let message = &wrong.message;
    match part {
        PlanPart::Top(key) => {
            plan.top.0.retain(|(name, _)| name != key);
            plan.remarks.point(&nowhere, left_out(&format!("`{key}`"), message));
        }
        PlanPart::Upstream(index) => {
            let upstream = plan.upstreams.remove(*index);
            plan.remarks.0.extend(upstream.remarks.0);
            plan.remarks.point(&nowhere, left_out(&format!("upstream `{}`", upstream.name), message));
        }
        PlanPart::Route(listener, number) => {
            let Some(listener) = plan.listeners.get_mut(*listener) else { return };
            let rule = Plan::rules_of(listener).find(|rule| rule.number == *number && *number > 0);
            let closed = rule.is_some_and(|rule| {
                let already = is_closed(rule);
                let widest = rule.when == everything();
                rule.close(message);
                if already {
                    rule.when = everything();
                }
                !already || !widest
            });
            if !closed {
                close_listener(listener, message);
            }
        }
        PlanPart::Listener(index) => {
            let Some(listener) = plan.listeners.get_mut(*index) else { return };
            if listener_is_closed(listener) {
                let listener = plan.listeners.remove(*index);
                plan.remarks.0.extend(listener.remarks.0);
                plan.remarks.point(&nowhere, left_out(&format!("listener `{}`", listener.name), message));
            } else {
                close_listener(listener, message);
            }
        }
    }
}

fn left_out(what: &str, message: &str) -> String {
    format!(
        "{what} is left out, because attache would not accept its translation ({message}). Write it by hand."
    )
}

/// Conditions that match every request.
fn everything() -> RuleConditions {
    RuleConditions { path: PlannedPath::All, ..RuleConditions::default() }
}

fn is_closed(rule: &PlannedRule) -> bool {
    matches!(rule.keys.0.as_slice(), [(only, _)] if only == "respond")
        && rule.targets.is_empty()
        && rule.settled
}

impl PlannedRule {
    fn close(&mut self, message: &str) {
        let at = self.at.clone();
        self.name = None;
        self.refuse(
            &at,
            format!(
                "these requests are refused, because attache would not accept the translation of the original's rule ({message}). Write the rule by hand."
            ),
        );
    }
}

fn listener_is_closed(listener: &PlannedListener) -> bool {
    let only_bind = matches!(listener.keys.0.as_slice(), [] | [_]);
    only_bind
        && matches!(listener.chains.as_slice(), [FilterChain { sites, .. }] if matches!(sites.as_slice(), [VirtualHost { rules, .. }] if matches!(rules.as_slice(), [rule] if is_closed(rule) && rule.number == 0)))
}

fn close_listener(listener: &mut PlannedListener, message: &str) {
    for chain in std::mem::take(&mut listener.chains) {
        listener.remarks.0.extend(chain.remarks.0);
    }
    let bind = listener.keys.get("bind").cloned();
    listener.keys = YamlMap::default();
    listener.keys.put("bind", bind);
    listener.opaque = false;
    let mut rule = PlannedRule { when: everything(), ..PlannedRule::default() };
    rule.close(message);
    let site = VirtualHost { hosts: vec!["*".to_owned()], rules: vec![rule], ..VirtualHost::default() };
    listener.chains = vec![FilterChain { sites: vec![site], ..FilterChain::default() }];
}

/// Replaces the plan by one listener that refuses everything.
fn nothing_of_it(plan: &mut Plan, wrong: &str) {
    let mut remarks = std::mem::take(&mut plan.remarks);
    remarks.point(
        &FileLine::default(),
        format!("attache would not accept the translation of this config, so the import refuses everything. Please report it: {wrong}"),
    );
    *plan = Plan { remarks, ..Plan::default() };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::PlannedUpstream;

    fn rule(path: PlannedPath, key: &str, value: &str) -> PlannedRule {
        let mut rule = PlannedRule {
            when: RuleConditions { path, ..RuleConditions::default() },
            ..PlannedRule::default()
        };
        rule.keys.set(key, value);
        rule
    }

    fn plan(rules: Vec<PlannedRule>) -> Plan {
        let mut bind = YamlMap::default();
        bind.set("bind", "127.0.0.1:8080");
        let site = VirtualHost { hosts: vec!["*".to_owned()], rules, ..VirtualHost::default() };
        let mut address = YamlMap::default();
        address.set("address", "http://app.internal:80");
        Plan {
            listeners: vec![PlannedListener {
                name: "in".to_owned(),
                keys: bind,
                chains: vec![FilterChain { sites: vec![site], ..FilterChain::default() }],
                ..PlannedListener::default()
            }],
            upstreams: vec![PlannedUpstream {
                name: "app".to_owned(),
                keys: address,
                ..PlannedUpstream::default()
            }],
            ..Plan::default()
        }
    }

    fn routes(plan: &Plan) -> Vec<(PlannedPath, bool)> {
        let rules = &plan.listeners[0].chains[0].sites[0].rules;
        rules.iter().map(|rule| (rule.when.path.clone(), is_closed(rule))).collect()
    }

    fn exact(path: &str) -> PlannedPath {
        PlannedPath::Exact(path.to_owned())
    }

    #[test]
    fn a_route_whose_action_is_not_accepted_is_refused_where_it_stands() {
        let mut plan = plan(vec![rule(exact("/a"), "to", "nowhere"), rule(PlannedPath::All, "to", "app")]);
        make(&mut plan);
        assert_eq!(routes(&plan), [(exact("/a"), true), (PlannedPath::All, false)]);
    }

    #[test]
    fn a_route_whose_conditions_are_not_accepted_refuses_whatever_comes_to_it() {
        let mut wrong = rule(exact("/a"), "to", "app");
        wrong.when.headers.push(("no header".to_owned(), "x".to_owned()));
        let mut plan =
            plan(vec![rule(exact("/open"), "to", "app"), wrong, rule(exact("/behind"), "to", "app")]);
        make(&mut plan);
        assert_eq!(
            routes(&plan),
            [(exact("/open"), false), (PlannedPath::All, true), (exact("/behind"), false)]
        );
        // The rule that followed it still comes after the refusal: an exact path would come first, an expression comes
        // last.
        let text = write::config(&plan, &[]).text;
        let (refusal, behind) = (text.find("path: /*"), text.find("~/behind"));
        assert!(refusal.is_some() && refusal < behind, "{text}");
    }

    #[test]
    fn a_host_that_is_not_accepted_closes_its_listener() {
        let mut plan = plan(vec![rule(PlannedPath::All, "to", "app")]);
        plan.listeners[0].chains[0].sites[0].hosts = vec!["no host".to_owned()];
        make(&mut plan);
        assert_eq!(routes(&plan), [(PlannedPath::All, true)]);
    }

    #[test]
    fn an_upstream_that_is_not_accepted_is_refused_by_all_who_name_it() {
        let mut plan = plan(vec![rule(exact("/a"), "to", "app"), rule(PlannedPath::All, "respond", "ok")]);
        plan.upstreams[0].keys.set("address", "http://no host");
        make(&mut plan);
        assert!(plan.upstreams.is_empty());
        assert_eq!(routes(&plan).first(), Some(&(exact("/a"), true)));
    }

    #[test]
    fn an_address_that_is_not_accepted_is_not_listened_on() {
        let mut plan = plan(vec![rule(PlannedPath::All, "to", "app")]);
        plan.listeners[0].keys.set("bind", "nowhere");
        make(&mut plan);
        assert!(plan.listeners.is_empty());
        assert!(write::config(&plan, &[]).text.contains("refuses everything"));
    }
}
