//! Rules of which the first match wins become routes of which the most specific match wins.
//!
//! Within one host attache compares the path first: exact paths, prefixes, regular expressions in the file's order,
//! then routes without a path. So a rule keeps its plain form if, of two rules that overlap, the more specific one is
//! also the earlier one. If a later rule would come before an earlier one, its path is written as a regular expression:
//! regular expressions come after every exact path and prefix, and in the file's order among themselves. So rules in
//! any order can be written; only the spelling of their paths changes.
//!
//! A virtual host is closed: a request that none of its rules matches gets 404, even if a rule for every host would match it.

use std::cmp::Reverse;

use crate::path::PlannedPath;
use crate::plan::{FilterChain, PlannedListener, PlannedRule, VirtualHost};
use crate::remark::Remarks;
use crate::value::YamlMap;

/// A route as it is written.
#[derive(Clone, Debug)]
pub(crate) struct OrderedRoute {
    pub(crate) hosts: Vec<String>,
    pub(crate) sni: Vec<String>,
    pub(crate) destination: Vec<String>,
    pub(crate) rule: PlannedRule,
    pub(crate) regex: bool,
    /// Remarks that are printed before it.
    pub(crate) before: Remarks,
}

/// The routes of a listener.
pub(crate) fn routes(listener: &PlannedListener) -> Vec<OrderedRoute> {
    let mut routes = Vec::new();
    let chains: Vec<&FilterChain> = listener.chains.iter().collect();
    let plain = matches!(chains.as_slice(), [only] if only.sni.is_empty() && only.destination.is_empty());
    if plain || listener.opaque {
        for chain in &chains {
            one_chain(chain, &mut routes);
        }
        return routes;
    }
    many_chains(&chains, &mut routes);
    routes
}

/// No host belongs to two sites, and attache chooses the most specific host, as the original does.
fn one_chain(chain: &FilterChain, routes: &mut Vec<OrderedRoute>) {
    let mut before = chain.remarks.clone();
    for site in &chain.sites {
        before.0.extend(site.remarks.0.iter().cloned());
        let mut rules = site.rules.clone();
        let wider = chain
            .sites
            .iter()
            .any(|other| other.hosts != site.hosts && other.hosts.iter().any(|host| host.contains('*')));
        if !any_host(&site.hosts) && wider && !ends_with_everything(&rules) {
            rules.push(closing());
        }
        let hosts = if any_host(&site.hosts) { Vec::new() } else { site.hosts.clone() };
        bucket(&hosts, rules.into_iter().map(|rule| (Vec::new(), Vec::new(), rule)), &mut before, routes);
    }
    if let Some(rule) = &chain.opaque {
        routes.push(OrderedRoute {
            hosts: Vec::new(),
            sni: chain.sni.clone(),
            destination: chain.destination.clone(),
            rule: rule.clone(),
            regex: false,
            before,
        });
    }
}

/// attache compares the host before the server name and the destination, the original after them. So each host has the rules of every
/// chain, one chain after the other, each closed.
fn many_chains(chains: &[&FilterChain], routes: &mut Vec<OrderedRoute>) {
    let mut hosts: Vec<String> = Vec::new();
    for site in chains.iter().flat_map(|chain| &chain.sites) {
        for host in &site.hosts {
            if host != "*" && !hosts.contains(host) {
                hosts.push(host.clone());
            }
        }
    }
    hosts.push("*".to_owned());
    let mut before = Remarks::default();
    for chain in chains {
        before.0.extend(chain.remarks.0.iter().cloned());
        for site in &chain.sites {
            before.0.extend(site.remarks.0.iter().cloned());
        }
        if let Some(rule) = &chain.opaque {
            routes.push(OrderedRoute {
                hosts: Vec::new(),
                sni: chain.sni.clone(),
                destination: chain.destination.clone(),
                rule: rule.clone(),
                regex: false,
                before: std::mem::take(&mut before),
            });
        }
    }
    for host in &hosts {
        let mut rules = Vec::new();
        for (index, chain) in chains.iter().enumerate().filter(|(_, chain)| chain.opaque.is_none()) {
            let conditions = (chain.sni.clone(), chain.destination.clone());
            let mut own = site_for(&chain.sites, host).map_or_else(Vec::new, |site| site.rules.clone());
            let last = index + 1 == chains.len();
            // The last chain for any host needs no closing route: a request that no route matches gets 404.
            let ended = last && host == "*";
            if !ended && !ends_with_everything(&own) {
                own.push(closing());
            }
            rules.extend(own.into_iter().map(|rule| (conditions.0.clone(), conditions.1.clone(), rule)));
        }
        let hosts = if host == "*" { Vec::new() } else { vec![host.clone()] };
        bucket(&hosts, rules.into_iter(), &mut before, routes);
    }
}

/// The site of a host, or the most specific that covers it.
fn site_for<'s>(sites: &'s [VirtualHost], host: &str) -> Option<&'s VirtualHost> {
    if let Some(site) = sites.iter().find(|site| site.hosts.iter().any(|own| own == host)) {
        return Some(site);
    }
    let best = |site: &VirtualHost| site.hosts.iter().filter(|own| covers(own, host)).map(String::len).max();
    sites
        .iter()
        .filter_map(|site| best(site).map(|length| (length, site)))
        .max_by_key(|(length, _)| *length)
        .map(|(_, site)| site)
}

fn covers(pattern: &str, host: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(suffix), _) => host.ends_with(suffix),
        (_, Some(prefix)) => host.starts_with(prefix),
        _ => false,
    }
}

fn any_host(hosts: &[String]) -> bool {
    hosts.is_empty() || hosts.iter().any(|host| host == "*")
}

fn ends_with_everything(rules: &[PlannedRule]) -> bool {
    rules.iter().any(|rule| {
        let when = &rule.when;
        matches!(when.path, PlannedPath::All | PlannedPath::Any)
            && when.methods.is_empty()
            && when.headers.is_empty()
            && when.query.is_empty()
            && when.identity.is_empty()
    })
}

fn closing() -> PlannedRule {
    let mut keys = YamlMap::default();
    keys.set("respond", 404_u64);
    PlannedRule { keys, ..PlannedRule::default() }
}

/// The rules of one host, so that attache tries them in this order.
fn bucket(
    hosts: &[String],
    rules: impl Iterator<Item = (Vec<String>, Vec<String>, PlannedRule)>,
    before: &mut Remarks,
    routes: &mut Vec<OrderedRoute>,
) {
    let mut own: Vec<OrderedRoute> = rules
        .map(|(sni, destination, rule)| OrderedRoute {
            hosts: hosts.to_vec(),
            sni,
            destination,
            regex: false,
            rule,
            before: Remarks::default(),
        })
        .collect();
    for later in 1..own.len() {
        let wrong = (0..later).any(|earlier| {
            let (a, b) = (&own[earlier], &own[later]);
            overlap(&a.rule, &b.rule) && rank(b) < rank(a)
        });
        // An earlier rule without a path would come after every other.
        own[later].regex |= wrong;
    }
    for earlier in 0..own.len() {
        if own[earlier].rule.when.path == PlannedPath::Any && own.len() > earlier + 1 {
            own[earlier].regex = true;
        }
    }
    // A rule that became an expression may now come after a plain rule that follows it in the list. So this repeats
    // until nothing changes.
    loop {
        let mut changed = false;
        for later in 1..own.len() {
            if own[later].regex {
                continue;
            }
            let wrong = (0..later).any(|earlier| {
                let (a, b) = (&own[earlier], &own[later]);
                overlap(&a.rule, &b.rule) && rank(b) < rank(a)
            });
            if wrong {
                own[later].regex = true;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    if let Some(first) = own.first_mut() {
        first.before = std::mem::take(before);
    }
    routes.append(&mut own);
}

type RuleRank = ((u8, Reverse<usize>), bool, Reverse<usize>, Reverse<usize>, bool, u8, bool);

/// The sort key of attache's order, without the position in the file; see docs/routing.md.
fn rank(route: &OrderedRoute) -> RuleRank {
    let when = &route.rule.when;
    let path = when.path.rank(route.regex);
    if path.0 == 3 {
        // The earlier of two expressions comes first, whatever other conditions they have.
        return (path, false, Reverse(0), Reverse(0), false, 0, false);
    }
    let sni = match route.sni.first() {
        None => 2,
        Some(name) if name.contains('*') => 1,
        Some(_) => 0,
    };
    (
        path,
        when.methods.is_empty(),
        Reverse(when.headers.len()),
        Reverse(when.query.len()),
        when.identity.is_empty(),
        sni,
        route.destination.is_empty(),
    )
}

fn overlap(a: &PlannedRule, b: &PlannedRule) -> bool {
    let (a, b) = (&a.when, &b.when);
    let methods =
        a.methods.is_empty() || b.methods.is_empty() || a.methods.iter().any(|m| b.methods.contains(m));
    methods && a.path.overlaps(&b.path)
}

#[cfg(test)]
mod tests;

/// How many routes a listener has.
pub fn route_count(listener: &PlannedListener) -> usize {
    routes(listener).len()
}
