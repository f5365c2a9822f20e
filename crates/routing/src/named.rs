//! The names that a listener's routes match, for the answer to a client that asks for another name.
//!
//! They are gathered once, when the routes are compiled, because clients decide how often they ask for an unknown name.

use std::collections::HashSet;

use attache_config::model::{HostName, HostPattern, Route};

use crate::words::show_host;

/// A longer list doesn't help the reader.
const MAX_SHOWN: usize = 20;

/// Names that routes ask for: of requests (`host`), or of TLS (`sni`).
#[derive(Debug, Default)]
pub(crate) struct KnownHosts {
    shown: Vec<String>,
    /// The number of names that are not shown.
    more: usize,
    /// Some route matches every name.
    any: bool,
}

impl KnownHosts {
    pub(crate) fn by<'r>(
        routes: impl IntoIterator<Item = &'r Route>,
        names: impl Fn(&'r Route) -> &'r [HostPattern],
    ) -> Self {
        let mut gathered = Self::default();
        let mut known = HashSet::new();
        for route in routes {
            let names = names(route);
            gathered.any |= names.is_empty();
            for name in names {
                gathered.any |= name.name == HostName::Any;
                if !known.insert(name) {
                    continue;
                }
                if gathered.shown.len() < MAX_SHOWN {
                    gathered.shown.push(show_host(name));
                } else {
                    gathered.more += 1;
                }
            }
        }
        gathered
    }

    /// The names, if no route matches other names.
    pub(crate) fn only(&self) -> Option<String> {
        if self.any { None } else { self.all() }
    }

    /// The names, also if a route matches other names.
    pub(crate) fn all(&self) -> Option<String> {
        let more = if self.more > 0 { format!(" and {} more", self.more) } else { String::new() };
        (!self.shown.is_empty()).then(|| format!("{}{more}", self.shown.join(", ")))
    }
}
