//! Counters of the decisions of access rules that allow.
//!
//! On a listener with rules, the same few rules allow almost every request. So the counter of a rule is looked up once, when the rule
//! allows for the first time, and then kept. Only denials look up their counter each time.

use std::cell::OnceCell;

use attache_authorization::{AccessPolicy, PolicyRule};
use attache_routing::{CompiledRoute, RouteTable};
use attache_telemetry::{DecisionCounter, WorkerMetrics};

/// The counters of a listener's rules and of those of its routes.
#[derive(Debug)]
pub(super) struct AllowedCounters {
    listener: Vec<OnceCell<DecisionCounter>>,
    routes: Vec<Vec<OnceCell<DecisionCounter>>>,
}

impl AllowedCounters {
    pub(super) fn new(table: &RouteTable) -> Self {
        // One counter for each rule, and one for requests that needed no rule.
        let counters = |policy: Option<&AccessPolicy>| {
            let count = policy.map_or(0, |policy| policy.allow_count() + 1);
            (0..count).map(|_| OnceCell::new()).collect()
        };
        Self {
            listener: counters(table.authorization()),
            routes: table.routes().iter().map(|route| counters(route.authorization())).collect(),
        }
    }

    /// Counts one allowed request: by the rules of the listener, or of this route.
    #[inline]
    pub(super) fn count(
        &self,
        table: &RouteTable,
        route: Option<&CompiledRoute>,
        rule: Option<&PolicyRule>,
        metrics: &WorkerMetrics,
    ) {
        let counters = match route {
            None => Some(&self.listener),
            Some(route) => self.routes.get(route.id.0),
        };
        let counter = counters.and_then(|counters| counters.get(rule.map_or(0, |rule| rule.place + 1)));
        let Some(counter) = counter else { return };
        let counter = counter.get_or_init(|| {
            let (route, rule) = (route.map(|route| &route.name), rule.map(|rule| &rule.name));
            metrics.authorizations(table.listener(), route, rule, "allowed")
        });
        counter.count();
    }
}
