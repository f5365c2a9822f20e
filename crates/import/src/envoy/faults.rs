//! The fault filter: delays and answers in place of the upstream's, for requests that meet its conditions.

use crate::gate;
use crate::path::PlannedPath;
use crate::plan::{PlannedRule, RuleConditions};
use crate::remark::Remarks;
use crate::tree::Node;
use crate::value::YamlMap;

use super::{matcher, words};

/// Adds the fault of a filter, or of a route's settings. A fault with conditions becomes a rule of its own in front of each rule.
pub(super) fn inject(config: &Node, rules: Vec<PlannedRule>) -> Vec<PlannedRule> {
    rules.into_iter().flat_map(|rule| one(config, rule)).collect()
}

fn one(config: &Node, mut rule: PlannedRule) -> Vec<PlannedRule> {
    if rule.keys.get("to").is_none() {
        return vec![rule];
    }
    let Some(map) = fault(config, &mut rule.remarks) else { return vec![rule] };
    let said = condition(config).and_then(|when| gate::both(&rule.when, &when));
    match said {
        None => {
            rule.remarks.point(
                &config.at,
                "attache can't combine the condition of a fault with the conditions of this route, so it injects no fault. Write a separate route with `fault`.",
            );
            vec![rule]
        }
        Some(None) => vec![rule],
        Some(Some(when)) => {
            let mut first = PlannedRule { when, ..rule.clone() };
            first.keys.set("fault", map);
            if first.when == rule.when {
                return vec![first];
            }
            first.remarks.0.clear();
            rule.name = None;
            vec![first, rule]
        }
    }
}

/// The requests that the fault is for. `None` if attache can't express the condition.
fn condition(config: &Node) -> Option<RuleConditions> {
    let mut when = RuleConditions { path: PlannedPath::Any, ..RuleConditions::default() };
    if config.get("upstream_cluster").is_some() {
        return None;
    }
    for header in config.list("headers") {
        matcher::header(header, &mut when).ok()?;
    }
    let nodes: Vec<String> =
        config.list("downstream_nodes").iter().filter_map(Node::text).map(regex::escape).collect();
    if !nodes.is_empty() {
        when.headers.push(("x-envoy-downstream-service-node".to_owned(), format!("~{}", nodes.join("|"))));
    }
    Some(when)
}

/// `fault` in attache's keys. `None` if nothing is injected.
fn fault(config: &Node, remarks: &mut Remarks) -> Option<YamlMap> {
    let mut map = YamlMap::default();
    let share = |node: &Node| words::percent(node.get("percentage").and_then(words::share).unwrap_or(0.0));
    if let Some(delay) = config.get("delay") {
        match delay.get("fixed_delay").and_then(words::seconds) {
            Some(time) => {
                let mut own = YamlMap::default();
                own.set("time", words::duration(time));
                own.set("share", share(delay));
                map.set("delay", own);
            }
            None => remarks.soft(&delay.at, "a delay that the request chooses by a header is left out."),
        }
    }
    if let Some(abort) = config.get("abort") {
        match abort.number("http_status") {
            Some(status) => {
                let mut own = YamlMap::default();
                own.set("status", status as u64);
                own.set("share", share(abort));
                map.set("abort", own);
            }
            None => remarks.point(
                &abort.at,
                "an abort that the request chooses by a header, or with a gRPC status, is left out: these requests are forwarded.",
            ),
        }
    }
    if config.get("max_active_faults").is_some() {
        remarks.soft(
            &config.at,
            "`max_active_faults` is left out: attache doesn't limit the number of faults at once.",
        );
    }
    if config.get("response_rate_limit").is_some() {
        remarks.soft(&config.at, "the rate of responses is given by `fault.response_rate`.");
    }
    (!map.is_empty()).then_some(map)
}
