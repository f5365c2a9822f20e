//! Conditions on headers.
//!
//! A header may be there twice, as a list in one line, or again with underscores for its hyphens. CGI and similar
//! interfaces can't distinguish underscores from hyphens, and some can't distinguish dots and other characters from
//! hyphens either. attache can't know which of these the upstream reads. So all lines must agree; if they don't, the
//! condition is unsure.

use attache_config::model::HeaderCondition;
use attache_http::is_spelling_of;
use attache_wire::ValueRef;
use http::HeaderName;

use crate::{facts::HttpFacts, truth::Truth, value::matches};

/// A header, and the values of which it must have one.
#[derive(Debug)]
pub(crate) struct CompiledHeader(HeaderCondition);

impl CompiledHeader {
    pub(crate) fn new(condition: &HeaderCondition) -> Self {
        Self(condition.clone())
    }

    pub(crate) const fn name(&self) -> &HeaderName {
        &self.0.name
    }

    pub(crate) fn holds(&self, http: &HttpFacts<'_>) -> Truth {
        let mut lines = http.headers().get_all(&self.0.name).map(ValueRef::as_bytes);
        let found = match lines.next() {
            None => self.0.any.iter().any(|(_, not)| *not).into(),
            Some(first) => lines.fold(self.line(first), |found, line| found.agree(self.line(line))),
        };
        if http.headers().may_be_underscored() && self.is_spelled_twice(http) {
            found.agree(Truth::Unsure)
        } else {
            found
        }
    }

    fn line(&self, line: &[u8]) -> Truth {
        let whole = self.value(line);
        // A list in one line is the same as several lines.
        if whole == Truth::No && line.contains(&b',') {
            let items = line.split(|&b| b == b',').map(|item| self.value(item.trim_ascii()));
            return items.fold(whole, Truth::agree);
        }
        whole
    }

    fn value(&self, value: &[u8]) -> Truth {
        self.0.any.iter().fold(Truth::No, |found, (pattern, not)| {
            let holds = matches(pattern, value);
            found.or(if *not { holds.not() } else { holds })
        })
    }

    /// True if another header is the same one for an upstream that reads `_` as `-`.
    fn is_spelled_twice(&self, http: &HttpFacts<'_>) -> bool {
        let name = self.0.name.as_str();
        let is_other =
            |other: &[u8]| !other.eq_ignore_ascii_case(name.as_bytes()) && is_spelling_of(other, name);
        http.headers().keys().any(|other| is_other(other.as_bytes()))
    }
}
