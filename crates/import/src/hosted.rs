//! A list of rules in which the host is one condition among others becomes virtual hosts.
//!
//! attache compares the host first. So each host that a rule names gets every rule that can match it, in the order of the list.

use crate::plan::{PlannedRule, VirtualHost};

/// A rule with its hosts. Without a host it matches every host.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostedRule {
    pub(crate) hosts: Vec<String>,
    pub(crate) rule: PlannedRule,
}

/// The virtual hosts of a list of rules.
pub(crate) fn sites(rules: &[HostedRule]) -> Vec<VirtualHost> {
    let mut hosts: Vec<String> = Vec::new();
    for host in rules.iter().flat_map(|rule| &rule.hosts) {
        if !hosts.contains(host) {
            hosts.push(host.clone());
        }
    }
    hosts.push("*".to_owned());
    let mut said: Vec<bool> = vec![false; rules.len()];
    let mut sites: Vec<VirtualHost> = Vec::new();
    for host in hosts {
        let mut own = Vec::new();
        for (index, hosted) in rules.iter().enumerate() {
            if hosted.hosts.is_empty() || hosted.hosts.iter().any(|pattern| takes(pattern, &host)) {
                // An earlier rule with the same conditions matches every such request.
                if own.iter().any(|earlier: &PlannedRule| earlier.when == hosted.rule.when) {
                    continue;
                }
                let mut rule = hosted.rule.clone();
                if said[index] {
                    rule.remarks.0.clear();
                    rule.name = None;
                }
                said[index] = true;
                own.push(rule);
            }
        }
        // Hosts with the same rules share one virtual host.
        let same = |site: &&mut VirtualHost| {
            host != "*"
                && site.rules.len() == own.len()
                && site.rules.iter().zip(&own).all(|(a, b)| a.when == b.when && a.keys == b.keys)
        };
        match sites.iter_mut().find(same) {
            Some(site) => site.hosts.push(host),
            None => sites.push(VirtualHost { hosts: vec![host], rules: own, ..VirtualHost::default() }),
        }
    }
    sites
}

/// Whether `pattern` matches every request for `host`.
fn takes(pattern: &str, host: &str) -> bool {
    if pattern == host || pattern == "*" {
        return true;
    }
    let (name, own) = (
        pattern.rsplit_once(':').map_or(pattern, |(name, _)| name),
        host.rsplit_once(':').map_or(host, |(name, _)| name),
    );
    let port = pattern.rsplit_once(':').map(|(_, port)| port);
    let other = host.rsplit_once(':').map(|(_, port)| port);
    if port.is_some() && port != other {
        return false;
    }
    match (name.strip_prefix('*'), name.strip_suffix('*')) {
        (Some(suffix), _) => own.trim_start_matches('*').ends_with(suffix),
        (_, Some(prefix)) => own.starts_with(prefix),
        _ => name == own,
    }
}

/// The hosts that both lists match. `None` if there is no such host.
pub(crate) fn both(a: &[String], b: &[String]) -> Option<Vec<String>> {
    if a.is_empty() {
        return Some(b.to_vec());
    }
    if b.is_empty() {
        return Some(a.to_vec());
    }
    let mut out: Vec<String> =
        a.iter().filter(|host| b.iter().any(|other| takes(other, host))).cloned().collect();
    out.extend(
        b.iter().filter(|host| !a.contains(host) && a.iter().any(|other| takes(other, host))).cloned(),
    );
    (!out.is_empty()).then_some(out)
}
