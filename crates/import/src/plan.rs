//! The result of every importer: upstreams, and listeners with rules in the order of the original.
//!
//! The first matching rule wins, as in the original proxies. [`crate::order`] makes routes of the rules, of which the most
//! specific wins, so that each request still gets the same rule.

use crate::path::PlannedPath;
use crate::remark::{Impact, Remarks};
use crate::tree::FileLine;
use crate::value::{ConfigValue, YamlMap};

/// A whole config.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Remarks about the config as a whole.
    pub remarks: Remarks,
    /// Keys at the top level, beside listeners and upstreams.
    pub top: YamlMap,
    /// Listeners.
    pub listeners: Vec<PlannedListener>,
    /// Upstreams.
    pub upstreams: Vec<PlannedUpstream>,
}

/// A listener.
#[derive(Clone, Debug, Default)]
pub struct PlannedListener {
    /// Its name.
    pub name: String,
    /// Remarks about it.
    pub remarks: Remarks,
    /// Its keys, except `routes` and `to`.
    pub keys: YamlMap,
    /// The filter chains. A connection belongs to the first chain whose conditions hold.
    pub chains: Vec<FilterChain>,
    /// It carries opaque bytes only.
    pub opaque: bool,
    /// It terminates TLS: its scheme is https, and its default port 443.
    pub secure: bool,
}

/// A filter chain: what happens to connections that meet its conditions.
#[derive(Clone, Debug, Default)]
pub struct FilterChain {
    /// TLS server names; the connection must have one of them. Empty: any.
    pub sni: Vec<String>,
    /// Original destinations; the connection must have one of them. Empty: any.
    pub destination: Vec<String>,
    /// Remarks about it.
    pub remarks: Remarks,
    /// Virtual hosts. A request belongs to the one with the most specific matching host.
    pub sites: Vec<VirtualHost>,
    /// Where opaque bytes go. If it is set, `sites` is empty.
    pub opaque: Option<PlannedRule>,
    /// The chain can't be carried over, and its connections are refused.
    pub closed: bool,
    /// Application protocols (ALPN); the connection must have one of them. Empty: any.
    pub protocols: Vec<String>,
}

/// A virtual host.
#[derive(Clone, Debug, Default)]
pub struct VirtualHost {
    /// Its hosts in attache's notation; `*` is every host.
    pub hosts: Vec<String>,
    /// Remarks about it.
    pub remarks: Remarks,
    /// Its rules, in their order.
    pub rules: Vec<PlannedRule>,
}

/// A rule.
#[derive(Clone, Debug, Default)]
pub struct PlannedRule {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Remarks about it.
    pub remarks: Remarks,
    /// Its conditions, except the host.
    pub when: RuleConditions,
    /// `to`, `redirect` or `respond`, and the policies, in attache's keys.
    pub keys: YamlMap,
    /// Upstreams that may answer, for the probes of `--verify`.
    pub targets: Vec<String>,
    /// Its place in the original.
    pub at: FileLine,
    /// A guard has answered already: later guards are not asked.
    pub settled: bool,
    /// Its number among the rules of the plan, from 1; given when the plan is complete.
    pub number: usize,
}

/// Conditions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleConditions {
    /// The path.
    pub path: PlannedPath,
    /// Methods of which one must match. Empty: any.
    pub methods: Vec<String>,
    /// All of these headers, each with attache's pattern.
    pub headers: Vec<(String, String)>,
    /// All of these query parameters, each with attache's pattern.
    pub query: Vec<(String, String)>,
    /// Identities of which one must match. Empty: any.
    pub identity: Vec<String>,
}

/// An upstream.
#[derive(Clone, Debug, Default)]
pub struct PlannedUpstream {
    /// Its name.
    pub name: String,
    /// Remarks about it.
    pub remarks: Remarks,
    /// Its keys.
    pub keys: YamlMap,
}

impl PlannedRule {
    /// A rule that refuses, with this reason as a comment.
    pub(crate) fn refusal(at: &FileLine, why: impl Into<String>) -> Self {
        let mut rule = Self { at: at.clone(), ..Self::default() };
        rule.refuse(at, why);
        rule
    }

    /// Replaces its action by a refusal with 503, with this reason as a comment.
    pub fn refuse(&mut self, at: &FileLine, why: impl Into<String>) {
        let why = why.into();
        self.remarks.point(at, why);
        self.settled = true;
        self.keys = YamlMap::default();
        self.targets.clear();
        let mut respond = YamlMap::default();
        respond.set("status", 503_u64);
        respond.set("body", "closed: the original had a rule here that could not be carried over\n");
        self.keys.set("respond", respond);
    }

    /// Replaces its action by an answer with this status.
    pub fn answer(&mut self, status: u64) {
        self.keys.set("respond", status);
    }
}

impl Plan {
    /// All rules of a listener, in their order.
    pub(crate) fn rules_of(listener: &mut PlannedListener) -> impl Iterator<Item = &mut PlannedRule> {
        listener.chains.iter_mut().flat_map(|chain| {
            chain.opaque.iter_mut().chain(chain.sites.iter_mut().flat_map(|site| &mut site.rules))
        })
    }

    /// Calls `visit` for all remarks.
    pub fn each_remark(&self, visit: &mut dyn FnMut(&crate::remark::Remark)) {
        let mut all = |remarks: &Remarks| remarks.0.iter().for_each(&mut *visit);
        all(&self.remarks);
        for listener in &self.listeners {
            all(&listener.remarks);
            for chain in &listener.chains {
                all(&chain.remarks);
                if let Some(rule) = &chain.opaque {
                    all(&rule.remarks);
                }
                for site in &chain.sites {
                    all(&site.remarks);
                    site.rules.iter().for_each(|rule| all(&rule.remarks));
                }
            }
        }
        self.upstreams.iter().for_each(|upstream| all(&upstream.remarks));
    }

    /// The places of all remarks about lost requests.
    pub(crate) fn causes(&self) -> Vec<FileLine> {
        let mut causes = Vec::new();
        self.each_remark(&mut |remark| {
            if remark.weight == Impact::Point {
                causes.push(remark.at.clone());
            }
        });
        causes
    }
}

/// The demand for clients' certificates, in rising strictness.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ClientCertDemand {
    Nothing,
    Optional,
    Required,
}

/// A name that attache accepts: letters, digits, `-`, `_`, `.` and `/`, at most 90 characters.
pub fn name(text: &str) -> String {
    let mut out: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_./".contains(c) { c } else { '-' })
        .take(90)
        .collect();
    while out.contains("--") {
        out = out.replace("--", "-");
    }
    let out = out.trim_start_matches(['-', '_', '.', '/']).trim_end_matches('-').to_owned();
    if out.is_empty() { "unnamed".to_owned() } else { out }
}

/// Maps the names of the original to unique names of attache.
#[derive(Clone, Debug, Default)]
pub struct UniqueNames(Vec<(String, String)>);

impl UniqueNames {
    /// attache's name for this name of the original. The same name gets the same answer.
    pub fn of(&mut self, original: &str) -> String {
        if let Some((_, name)) = self.0.iter().find(|(known, _)| known == original) {
            return name.clone();
        }
        let base = name(original);
        let mut free = base.clone();
        let mut n = 2;
        while self.0.iter().any(|(_, taken)| *taken == free) {
            free = format!("{base}-{n}");
            n += 1;
        }
        self.0.push((original.to_owned(), free.clone()));
        free
    }
}

/// `to` of a split: one upstream alone, or each with its weight.
pub fn split(parts: &[(String, u64)]) -> Option<ConfigValue> {
    let parts: Vec<_> = parts.iter().filter(|(_, weight)| *weight > 0).collect();
    match parts.as_slice() {
        [] => None,
        [(only, _)] => Some(ConfigValue::Text(only.clone())),
        _ => {
            let mut map = YamlMap::default();
            for (name, weight) in parts {
                let old = match map.get(name) {
                    Some(ConfigValue::Raw(text)) => text.parse().unwrap_or(0),
                    _ => 0,
                };
                map.set(name, old + weight);
            }
            if let [(only, _)] = map.0.as_slice() {
                return Some(ConfigValue::Text(only.clone()));
            }
            Some(ConfigValue::Map(map))
        }
    }
}
