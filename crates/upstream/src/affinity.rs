//! Which endpoints of an upstream a call may go to, and which one it should go to.
//!
//! **Subset.** Only endpoints with the route's labels are chosen, even if they are all unhealthy: a panic, the last
//! choice and a retry also stay within the subset. If no endpoint has the labels, the call is refused (`empty-subset`),
//! or goes to any endpoint if the route says so (Envoy's `NO_FALLBACK` and `ANY_ENDPOINT`).
//!
//! **Session.** A cookie names an endpoint by a hash of its address, encrypted ([`SessionSeal`](crate::SessionSeal)).
//! attache looks for it among the upstream's own endpoints, so that no value leads anywhere else. If the endpoint can't
//! serve, the call goes to another one, or is refused if the route is strict (Envoy's stateful session).

use std::sync::{Arc, atomic::Ordering::Relaxed};

use attache_config::model::{Subset, SubsetFallback};
use attache_telemetry::{Exchange, Reason, metrics};

use crate::{Endpoint, SharedUpstream};

/// The endpoints that a call may go to, and the one that it prefers.
#[derive(Clone, Debug, Default)]
pub struct Affinity {
    /// Only these endpoints.
    pub subset: Option<Arc<Subset>>,
    /// The endpoint of its session, by its hash.
    pub session: Option<u64>,
    /// If that endpoint can't serve, the call is refused.
    pub strict: bool,
}

impl Affinity {
    /// The subset of these endpoints that the call must stay in; `None` is all of them.
    pub(crate) fn narrow<'s>(
        affinity: Option<&'s Self>,
        endpoints: &[Arc<Endpoint>],
    ) -> Result<Option<&'s Subset>, Reason> {
        let Some(subset) = affinity.and_then(|affinity| affinity.subset.as_deref()) else { return Ok(None) };
        if endpoints.is_empty() || endpoints.iter().any(|endpoint| subset.holds(&endpoint.labels)) {
            Ok(Some(subset))
        } else if subset.fallback == SubsetFallback::Any {
            Ok(None)
        } else {
            Err(Reason::EmptySubset)
        }
    }

    /// Counts an attempt that the subset's fallback sent to any endpoint. The log reports it once for each set of
    /// endpoints.
    pub(crate) fn note(&self, shared: &SharedUpstream, endpoint: &Endpoint, exchange: &Exchange) {
        let Some(subset) = self.subset.as_deref().filter(|subset| !subset.holds(&endpoint.labels)) else {
            return;
        };
        let (upstream, route) = (&shared.config.name, exchange.route.borrow());
        metrics().subset_fallback(upstream, route.as_ref());
        let generation = shared.endpoints.load().generation;
        if shared.empty_subset_said.swap(generation, Relaxed) != generation {
            let route = route.as_deref().unwrap_or_default();
            tracing::warn!(
                "upstream {upstream}: no endpoint has the labels {subset} that route {route} asks for: its requests go to any endpoint (`fallback: any`)"
            );
        }
    }

    /// The endpoint of the call's session, if it can serve the call. `None` leaves the choice to the balancer.
    pub(crate) fn endpoint(
        &self,
        endpoints: &[Arc<Endpoint>],
        subset: Option<&Subset>,
        tried: &[Arc<Endpoint>],
    ) -> Option<Result<Arc<Endpoint>, Reason>> {
        let session = self.session?;
        let is_it = |endpoint: &&Arc<Endpoint>| {
            endpoint.session == session && subset.is_none_or(|subset| subset.holds(&endpoint.labels))
        };
        let untried = |endpoint: &Arc<Endpoint>| !tried.iter().any(|tried| Arc::ptr_eq(tried, endpoint));
        let found = endpoints.iter().find(is_it).filter(|endpoint| endpoint.usable());
        match found {
            Some(endpoint) if self.strict || untried(endpoint) => Some(Ok(Arc::clone(endpoint))),
            _ if self.strict => Some(Err(Reason::NoHealthyEndpoint)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use attache_config::model::{Algorithm, Balance};
    use attache_telemetry::Metrics;

    use super::*;
    use crate::{
        Balancer, EndpointSpec, session_of,
        test_support::{context, shared, spec},
    };

    const ALGORITHMS: [Algorithm; 6] = [
        Algorithm::RoundRobin,
        Algorithm::LeastRequest,
        Algorithm::PeakEwma,
        Algorithm::Random,
        Algorithm::RingHash,
        Algorithm::Maglev,
    ];

    /// Six endpoints, the last two of version 2.
    fn upstream(algorithm: Algorithm) -> Arc<SharedUpstream> {
        let version = |n| if n > 4 { "v2" } else { "v1" };
        let specs = (1..=6)
            .map(|n| EndpointSpec { labels: [("version".into(), version(n).into())].into(), ..spec(n) })
            .collect();
        shared(Balance { algorithm, ..Balance::default() }, specs)
    }

    fn subset(version: &str, falls_back: bool) -> Affinity {
        let labels = vec![("version".into(), version.into())];
        Affinity {
            subset: Some(Arc::new(Subset {
                labels,
                fallback: if falls_back { SubsetFallback::Any } else { SubsetFallback::None },
            })),
            ..Affinity::default()
        }
    }

    fn is_v2(endpoint: &Endpoint) -> bool {
        endpoint.labels.iter().any(|(_, value)| &**value == "v2")
    }

    #[tokio::test]
    async fn a_subset_is_kept_by_every_algorithm_through_retries_and_panic() {
        for algorithm in ALGORITHMS {
            let shared = upstream(algorithm.clone());
            let mut balancer = Balancer::new(&shared.config.balance, 7);
            let v2 = subset("v2", false);
            let mut seen = std::collections::BTreeSet::new();
            for n in 0..400_u64 {
                let hash = n.is_multiple_of(2).then_some(n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                let first = balancer.pick_for(&shared, hash, &[], Some(&v2)).unwrap();
                assert!(is_v2(&first), "{algorithm:?}");
                seen.insert(first.label.clone());
                // Not each time: two endpoints would be tried in turn without an end.
                if n.is_multiple_of(3) {
                    let again =
                        balancer.pick_for(&shared, hash, std::slice::from_ref(&first), Some(&v2)).unwrap();
                    assert!(is_v2(&again) && !Arc::ptr_eq(&first, &again), "{algorithm:?}");
                }
            }
            assert_eq!(seen.len(), 2, "{algorithm:?}");
            // First one of the two is out, then both: endpoints outside of the subset are never used, and a panic stays
            // within it.
            let set = shared.endpoints.load_full();
            let ours: Vec<_> = set.endpoints.iter().filter(|endpoint| is_v2(endpoint)).collect();
            ours[0].set_healthy(false);
            for _ in 0..50 {
                assert!(Arc::ptr_eq(&balancer.pick_for(&shared, None, &[], Some(&v2)).unwrap(), ours[1]));
            }
            ours[1].set_healthy(false);
            for _ in 0..50 {
                assert!(balancer.pick_for(&shared, None, &[], Some(&v2)).is_ok_and(|found| is_v2(&found)));
            }
        }
    }

    #[tokio::test]
    async fn an_empty_subset_is_refused_or_every_endpoint_as_the_route_says() {
        let shared = upstream(Algorithm::LeastRequest);
        let mut balancer = Balancer::new(&shared.config.balance, 7);
        let refused = balancer.pick_for(&shared, None, &[], Some(&subset("v3", false)));
        assert_eq!(refused.unwrap_err(), Reason::EmptySubset);
        assert!(balancer.pick_for(&shared, None, &[], Some(&subset("v3", true))).is_ok());
        let none = crate::test_support::shared(Balance::default(), Vec::new());
        assert_eq!(
            balancer.pick_for(&none, None, &[], Some(&subset("v3", false))).unwrap_err(),
            Reason::NoEndpoint,
            "the reason for no endpoints goes before `empty-subset`"
        );
    }

    #[tokio::test]
    async fn a_fallback_is_counted_and_an_attempt_within_the_subset_is_not() {
        let metrics = Metrics::new();
        metrics.worker().install();
        let shared = upstream(Algorithm::LeastRequest);
        let context = context();
        *context.exchange.route.borrow_mut() = Some("canary".into());
        let mut balancer = Balancer::new(&shared.config.balance, 7);
        for (version, falls_back) in [("v2", true), ("v3", true), ("v3", true)] {
            let affinity = subset(version, falls_back);
            let picked = balancer.pick_for(&shared, None, &[], Some(&affinity)).unwrap();
            affinity.note(&shared, &picked, &context.exchange);
        }
        let page = metrics.render();
        let line = r#"attache_subset_fallbacks_total{upstream="test",route="canary"} 2"#;
        assert!(page.lines().any(|found| found == line), "{page}");
    }

    #[tokio::test]
    async fn a_session_stays_at_its_endpoint_while_that_can_serve() {
        let shared = upstream(Algorithm::RoundRobin);
        let mut balancer = Balancer::new(&shared.config.balance, 7);
        let set = shared.endpoints.load_full();
        let home = &set.endpoints[2];
        let session = |strict| Affinity { session: Some(session_of(&home.label)), strict, subset: None };
        for strict in [false, true] {
            for _ in 0..20 {
                let found = balancer.pick_for(&shared, None, &[], Some(&session(strict))).unwrap();
                assert!(Arc::ptr_eq(&found, home));
            }
        }
        // After a failed attempt there, another endpoint is used, unless the route is strict.
        let tried = [home.clone()];
        let elsewhere = balancer.pick_for(&shared, None, &tried, Some(&session(false))).unwrap();
        assert!(!Arc::ptr_eq(&elsewhere, home));
        assert!(Arc::ptr_eq(&balancer.pick_for(&shared, None, &tried, Some(&session(true))).unwrap(), home));
        home.set_ejected(true);
        let elsewhere = balancer.pick_for(&shared, None, &[], Some(&session(false))).unwrap();
        assert!(!Arc::ptr_eq(&elsewhere, home));
        let refused = balancer.pick_for(&shared, None, &[], Some(&session(true)));
        assert_eq!(refused.unwrap_err(), Reason::NoHealthyEndpoint);
        assert!(!home.removed.load(Relaxed));
    }

    #[tokio::test]
    async fn a_session_leads_to_no_endpoint_outside_of_the_subset_or_the_upstream() {
        let shared = upstream(Algorithm::RoundRobin);
        let mut balancer = Balancer::new(&shared.config.balance, 7);
        let v2 = subset("v2", false);
        for label in ["10.0.0.1:80", "169.254.169.254:80", ""] {
            let affinity = Affinity { session: Some(session_of(label)), ..v2.clone() };
            for _ in 0..20 {
                assert!(is_v2(&balancer.pick_for(&shared, None, &[], Some(&affinity)).unwrap()), "{label}");
            }
            let strict = Affinity { strict: true, ..affinity };
            let refused = balancer.pick_for(&shared, None, &[], Some(&strict));
            assert_eq!(refused.unwrap_err(), Reason::NoHealthyEndpoint, "{label}");
        }
    }
}
