//! HTTP filters at a route: the rules that a rule becomes behind them.

use crate::gate::Gate;
use crate::plan::PlannedRule;
use crate::remark::Remarks;
use crate::tree::Node;
use crate::value::{ConfigValue, YamlMap};

use super::{
    EnvoyImport, authorizers, browsers, changes, faults,
    filters::{Filter, FilterEffect, largest},
    limits,
    overrides::RouteSettings,
    rbac::{self, ClientTraits},
    sessions,
    tokens::Tokens,
};

/// The rules that a rule becomes behind these filters. `levels` are the route, its virtual host and its route configuration.
pub(crate) fn apply(
    rule: PlannedRule,
    filters: &[Filter],
    levels: &[&Node],
    clients: &ClientTraits,
    cx: &mut EnvoyImport,
) -> Vec<PlannedRule> {
    let mut rules = vec![rule];
    // Claims are known only behind the filter that verifies tokens, and only if it is on.
    let before = ClientTraits { payload: None, ..clients.clone() };
    let mut known = &before;
    for filter in filters {
        let own = match RouteSettings::of(&filter.name, &filter.kind, levels) {
            RouteSettings::Off => continue,
            RouteSettings::Unset if filter.disabled => continue,
            RouteSettings::Unset => None,
            RouteSettings::On(config) => config,
        };
        match &filter.effect {
            FilterEffect::Nothing => {
                if let Some(own) =
                    own.filter(|_| matches!(filter.kind.as_str(), "local_ratelimit" | "stateful_session"))
                {
                    keyed(&filter.kind, own, &mut rules);
                }
                if filter.kind == "rbac" {
                    rules = gated(own, known, rules);
                }
            }
            FilterEffect::Gate(_) if filter.kind == "rbac" && own.is_some() => {
                rules = gated(own, known, rules);
            }
            FilterEffect::Gate(gate) => rules = behind(gate, rules),
            FilterEffect::Authorizer(gate) => {
                let gate = match own {
                    Some(own) => authorizers::of_route(gate, own),
                    None => Some(gate.clone()),
                };
                if let Some(gate) = gate {
                    rules = behind(&gate, rules);
                }
            }
            FilterEffect::Tokens(tokens, gate) => {
                known = clients;
                rules = verified(tokens, gate, own, rules, cx);
            }
            FilterEffect::Cors => cors(own, levels, &mut rules),
            FilterEffect::Key("compression", ConfigValue::Map(map)) if own.is_none() => {
                compression(map, &mut rules);
            }
            FilterEffect::Key("compression", _) => {
                for rule in rules.iter_mut().filter(|_| own.is_some_and(|own| own.get("overrides").is_some()))
                {
                    rule.remarks.soft(
                        &rule.at,
                        "settings of a route for compression other than `disabled` are left out.",
                    );
                }
            }
            FilterEffect::Key(key, value) => match own {
                Some(own) => keyed(&filter.kind, own, &mut rules),
                None => forwarding(&mut rules).for_each(|rule| rule.keys.set(key, value.clone())),
            },
            FilterEffect::Fault(config) => rules = faults::inject(own.unwrap_or(config), rules),
            FilterEffect::Global(config) => limits::global(config, own, levels, &mut rules, cx),
            FilterEffect::Headers(config) => {
                let own = own.map(|own| match filter.kind.as_str() {
                    "header_to_metadata" => changes::removals(own),
                    _ => own.clone(),
                });
                changes::mutated(own.as_ref().unwrap_or(config), &mut rules);
            }
        }
    }
    rules
}

/// The rules that go to an upstream.
fn forwarding(rules: &mut [PlannedRule]) -> impl Iterator<Item = &mut PlannedRule> {
    rules.iter_mut().filter(|rule| rule.keys.get("to").is_some())
}

/// The rules that rules become behind a gate.
fn behind(gate: &Gate, rules: Vec<PlannedRule>) -> Vec<PlannedRule> {
    rules.into_iter().flat_map(|rule| gate.before(rule)).collect()
}

/// Puts the gate of the tokens in front of the rules, and removes from requests the headers that only the filter may
/// set.
fn verified(
    tokens: &Tokens,
    gate: &Gate,
    own: Option<&Node>,
    mut rules: Vec<PlannedRule>,
    cx: &mut EnvoyImport,
) -> Vec<PlannedRule> {
    let mut remarks = Remarks::default();
    let routes = own.map(|own| tokens.of_route(own, &mut remarks, cx));
    let gate = routes.as_ref().unwrap_or(gate);
    for rule in forwarding(&mut rules) {
        rule.remarks.0.extend(remarks.0.iter().cloned());
        for header in &tokens.told {
            rule.keys.child("headers").child("request").push("remove", header);
        }
    }
    behind(gate, rules)
}

/// The policy of the route, else of its virtual host.
fn cors(own: Option<&Node>, levels: &[&Node], rules: &mut [PlannedRule]) {
    let legacy = levels.first().and_then(|route| route.down(&["route"]).get("cors"));
    let legacy = legacy.or_else(|| levels.get(1).and_then(|host| host.get("cors")));
    if let Some(policy) = own.or(legacy).filter(|own| !own.is_empty()) {
        let mut remarks = Remarks::default();
        let map = browsers::cors(policy, &mut remarks);
        for rule in rules {
            rule.remarks.0.extend(remarks.0.iter().cloned());
            rule.keys.put("cors", map.clone());
        }
    }
}

/// Adds a compressor to those before it.
fn compression(map: &YamlMap, rules: &mut [PlannedRule]) {
    for rule in forwarding(rules) {
        match rule.keys.get("compression") {
            Some(ConfigValue::Map(known)) => {
                let mut known = known.clone();
                if !browsers::also(&mut known, map) {
                    rule.remarks.soft(
                        &rule.at,
                        "answers are compressed by the first of several compressors: they have different types or sizes.",
                    );
                }
                rule.keys.set("compression", known);
            }
            _ => rule.keys.set("compression", map.clone()),
        }
    }
}

/// Applies a route's own RBAC.
fn gated(own: Option<&Node>, clients: &ClientTraits, mut rules: Vec<PlannedRule>) -> Vec<PlannedRule> {
    let Some(own) = own else { return rules };
    let mut remarks = Remarks::default();
    let gate = rbac::http(rbac::of_route(own), &own.at, clients, &mut remarks);
    if let Some(rule) = rules.first_mut() {
        rule.remarks.0.extend(remarks.0);
    }
    if let Some(gate) = gate {
        rules = behind(&gate, rules);
    }
    rules
}

fn keyed(kind: &str, own: &Node, rules: &mut [PlannedRule]) {
    for rule in forwarding(rules) {
        let found = match kind {
            "stateful_session" => sessions::stateful(own.down(&["stateful_session"]), &mut rule.remarks)
                .map(|map| ("session_cookie", map)),
            "local_ratelimit" => limits::local_limit(own, &mut rule.remarks).map(|map| ("rate_limit", map)),
            _ => None,
        };
        if let Some((key, map)) = found {
            rule.keys.set(key, map);
        }
        if kind == "buffer" {
            let size = largest(own.down(&["buffer"]), &mut rule.remarks);
            rule.keys.put("body_size", size);
        }
    }
}
