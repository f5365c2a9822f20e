//! Finds the patterns that match a host name, the most specific first, without a look at the others.
//!
//! Rule: the exact name, then the longest suffix wildcard, then the longest prefix wildcard, then any host; within
//! each, a pattern with a port before one without. A look-up costs one hash for the name and one for each of its labels,
//! however many patterns there are.

use attache_config::model::{HostName, HostPattern};
use attache_http::CanonicalHost;
pub(crate) use attache_http::pattern::host_matches as matches;

use crate::text_map::TextMap;

/// Values by host pattern.
#[derive(Debug)]
pub(crate) struct HostIndex<T> {
    exact: TextMap<PortMap<T>>,
    suffix: TextMap<PortMap<T>>,
    prefix: TextMap<PortMap<T>>,
    any: PortMap<T>,
}

#[derive(Debug)]
struct PortMap<T> {
    /// A short list: a name rarely has more than a few ports, so a map isn't worth it.
    with: Vec<(u16, T)>,
    without: Option<T>,
}

impl<T> Default for HostIndex<T> {
    fn default() -> Self {
        Self {
            exact: TextMap::default(),
            suffix: TextMap::default(),
            prefix: TextMap::default(),
            any: PortMap::default(),
        }
    }
}

impl<T> Default for PortMap<T> {
    fn default() -> Self {
        Self { with: Vec::new(), without: None }
    }
}

impl<T: Default> HostIndex<T> {
    /// The value of a pattern; it is made if there is none.
    pub(crate) fn entry(&mut self, pattern: &HostPattern) -> &mut T {
        let ports = match &pattern.name {
            HostName::Any => &mut self.any,
            HostName::Exact(name) => self.exact.entry(canonical(name)).or_default(),
            HostName::Suffix(name) => self.suffix.entry((&**name).into()).or_default(),
            HostName::Prefix(name) => self.prefix.entry((&**name).into()).or_default(),
        };
        let Some(port) = pattern.port else { return ports.without.get_or_insert_default() };
        let at = match ports.with.binary_search_by_key(&port, |(port, _)| *port) {
            Ok(at) => at,
            Err(at) => {
                ports.with.insert(at, (port, T::default()));
                at
            }
        };
        &mut ports.with[at].1
    }
}

impl<T> HostIndex<T> {
    /// Offers the values whose patterns match, the most specific first, until one is taken.
    pub(crate) fn find<'t, R>(
        &'t self,
        host: Option<&CanonicalHost<'_>>,
        port: u16,
        mut take: impl FnMut(&'t T) -> Option<R>,
    ) -> Option<R> {
        let mut offer = |ports: &'t PortMap<T>| {
            let with = ports.with.binary_search_by_key(&port, |(port, _)| *port).ok();
            let with = with.and_then(|at| ports.with.get(at)).map(|(_, value)| value);
            with.and_then(&mut take).or_else(|| ports.without.as_ref().and_then(&mut take))
        };
        if let Some(host) = host {
            let name = host.as_str();
            if let Some(found) = self.exact.get(name).and_then(&mut offer) {
                return Some(found);
            }
            if !host.is_v6() {
                // From the left: the first dot begins the longest suffix. At least one label stands before it.
                if !self.suffix.is_empty() {
                    for (dot, _) in name.match_indices('.').filter(|(dot, _)| *dot > 0) {
                        if let Some(found) = self.suffix.get(&name[dot..]).and_then(&mut offer) {
                            return Some(found);
                        }
                    }
                }
                // From the right: the last dot ends the longest prefix, and a label follows it.
                if !self.prefix.is_empty() {
                    for (dot, _) in name.rmatch_indices('.').filter(|(dot, _)| dot + 1 < name.len()) {
                        if let Some(found) = self.prefix.get(&name[..=dot]).and_then(&mut offer) {
                            return Some(found);
                        }
                    }
                }
            }
        }
        offer(&self.any)
    }
}

/// A pattern's exact name in the form in which hosts are compared. A name that is longer than any host stays unchanged
/// and matches nothing.
fn canonical(name: &str) -> Box<str> {
    CanonicalHost::new(name).map_or_else(|| name.into(), |host| host.as_str().into())
}
