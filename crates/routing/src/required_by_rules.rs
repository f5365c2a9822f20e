//! A quick check whether a request may belong to several routes: most don't, and need no further check.

use attache_authorization::Facts;
use attache_wire::RequestHead;
use http::HeaderName;

use crate::{CompiledRoute, conditions::RouteConditions};

/// The parts of requests that a listener's routes match, if some of these routes have their own rules.
#[derive(Debug)]
pub(crate) struct RequiredByRules {
    methods: bool,
    query: bool,
    headers: Vec<HeaderName>,
}

impl RequiredByRules {
    pub(crate) fn new(routes: &[CompiledRoute]) -> Self {
        let conditions = || routes.iter().map(|route| &route.conditions);
        let mut headers: Vec<HeaderName> =
            conditions().flat_map(RouteConditions::header_names).cloned().collect();
        headers.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        headers.dedup();
        Self {
            methods: conditions().any(RouteConditions::asks_methods),
            query: conditions().any(RouteConditions::asks_query),
            headers,
        }
    }

    /// True if another program may find another route by the method, the query or a header.
    pub(crate) fn may_differ(&self, request: &RequestHead, access: &Facts<'_>) -> bool {
        let is_usual = |byte: u8| byte.is_ascii_uppercase();
        let doubtful = |name: &HeaderName| {
            let mut lines = request.headers.get_all(name).map(attache_wire::ValueRef::as_bytes);
            lines.next().is_some_and(|first| first.contains(&b',') || lines.next().is_some())
        };
        (self.methods && (!request.method.as_str().bytes().all(is_usual) || access.names_another_method()))
            || (self.query && request.uri.query().is_some())
            || self.headers.iter().any(doubtful)
    }
}
