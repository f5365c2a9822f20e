//! What every importer makes: listeners with rules in the order of the original, and upstreams.
//!
//! Rules are tried from the first to the last here, as in the proxies that configs come from. [`crate::order`] makes
//! routes of them, of which the most specific wins, without changing what any request meets.

use crate::path::Path;
use crate::remark::Remarks;
use crate::tree::At;
use crate::value::{Map, Value};

/// A whole config.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// What is said of the config as a whole.
    pub remarks: Remarks,
    /// Keys at the top level, beside listeners and upstreams.
    pub top: Map,
    /// Listeners.
    pub listeners: Vec<Listener>,
    /// Upstreams.
    pub upstreams: Vec<Upstream>,
}

/// A listener.
#[derive(Clone, Debug, Default)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// What is said of it.
    pub remarks: Remarks,
    /// Its keys, but for `routes` and `to`.
    pub keys: Map,
    /// What connections and requests meet. The first chain whose conditions hold has them.
    pub chains: Vec<Chain>,
    /// Takes opaque bytes only.
    pub opaque: bool,
    /// Terminates TLS: its scheme is https, and its default port 443.
    pub secure: bool,
}

/// What a connection meets, by what is known before any request.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// TLS server names, one of which it must have.
    pub sni: Vec<String>,
    /// Original destinations, one of which it must have.
    pub destination: Vec<String>,
    /// What is said of it.
    pub remarks: Remarks,
    /// Virtual hosts: the one with the most specific host has a request, and no other.
    pub sites: Vec<Site>,
    /// Where opaque bytes go; then there are no sites.
    pub opaque: Option<Rule>,
    /// It is left out, and what it took is refused.
    pub closed: bool,
    /// Application protocols, one of which was agreed on.
    pub protocols: Vec<String>,
}

/// A virtual host.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// Its hosts in attache's notation; `*` is any.
    pub hosts: Vec<String>,
    /// What is said of it.
    pub remarks: Remarks,
    /// Its rules, in their order.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// What is said of it.
    pub remarks: Remarks,
    /// Its conditions beside the host.
    pub when: When,
    /// `to`, `redirect` or `respond`, and the policies, in attache's keys.
    pub keys: Map,
    /// Upstreams that may answer; for the probes.
    pub targets: Vec<String>,
    /// Where it stands.
    pub at: At,
    /// A guard has answered: those behind it are not asked.
    pub settled: bool,
    /// Its number among the rules of the plan, from 1; given when the plan is complete.
    pub number: usize,
}

/// Conditions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct When {
    /// The path.
    pub path: Path,
    /// One of these methods; any if empty.
    pub methods: Vec<String>,
    /// All of these headers, each with attache's pattern.
    pub headers: Vec<(String, String)>,
    /// All of these query parameters, each with attache's pattern.
    pub query: Vec<(String, String)>,
    /// One of these identities; any if empty.
    pub identity: Vec<String>,
}

/// An upstream.
#[derive(Clone, Debug, Default)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// What is said of it.
    pub remarks: Remarks,
    /// Its keys.
    pub keys: Map,
}

impl Rule {
    /// Makes a refusal of it: nothing that stood behind a guard that can't be carried over is let through.
    pub fn refuse(&mut self, at: &At, why: impl Into<String>) {
        let why = why.into();
        self.remarks.point(at, why);
        self.settled = true;
        self.keys = Map::default();
        self.targets.clear();
        let mut respond = Map::default();
        respond.set("status", 503_u64);
        respond.set("body", "closed: the original had a rule here that could not be carried over\n");
        self.keys.set("respond", respond);
    }

    /// It answers by itself with a status.
    pub fn answer(&mut self, status: u64) {
        self.keys.set("respond", status);
    }
}

impl Plan {
    /// All rules of a listener, in their order.
    pub(crate) fn rules_of(listener: &mut Listener) -> impl Iterator<Item = &mut Rule> {
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
}

/// A name that attache takes: letters, digits, `-`, `_`, `.` and `/`, at most 100.
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

/// The names of an original become names of attache, each its own.
#[derive(Clone, Debug, Default)]
pub struct Names(Vec<(String, String)>);

impl Names {
    /// The name of an original's name; the same each time.
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
pub fn split(parts: &[(String, u64)]) -> Option<Value> {
    let parts: Vec<_> = parts.iter().filter(|(_, weight)| *weight > 0).collect();
    match parts.as_slice() {
        [] => None,
        [(only, _)] => Some(Value::Text(only.clone())),
        _ => {
            let mut map = Map::default();
            for (name, weight) in parts {
                let old = match map.get(name) {
                    Some(Value::Raw(text)) => text.parse().unwrap_or(0),
                    _ => 0,
                };
                map.set(name, old + weight);
            }
            if let [(only, _)] = map.0.as_slice() {
                return Some(Value::Text(only.clone()));
            }
            Some(Value::Map(map))
        }
    }
}
