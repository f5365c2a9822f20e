//! The levels of a directive: a location, its server, and `http`.

use super::{NginxImport, tokens::Directive};

/// A location with what it inherits: the innermost first.
pub(super) struct LocationScope<'d> {
    pub(super) chain: Vec<&'d Directive>,
}

impl LocationScope<'_> {
    pub(super) fn get(&self, name: &str, cx: &NginxImport) -> Option<Directive> {
        self.chain
            .iter()
            .find_map(|block| block.last(name))
            .cloned()
            .or_else(|| cx.http.iter().rev().find(|one| one.name() == name).cloned())
    }

    /// Directives that are inherited as a whole list, or not at all.
    pub(super) fn list(&self, name: &str, cx: &NginxImport) -> Vec<Directive> {
        for block in &self.chain {
            let own: Vec<_> = block.all(name).cloned().collect();
            if !own.is_empty() {
                return own;
            }
        }
        cx.http.iter().filter(|one| one.name() == name).cloned().collect()
    }
}
