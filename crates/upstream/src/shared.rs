//! One upstream as all workers see it: a snapshot of its endpoints that is swapped whole, and counters.
//!
//! Only the control thread writes the snapshot; it also builds what balancing needs of it
//! ([`BalanceIndex`](crate::balance::BalanceIndex)), once for all workers, so that no pick has to build a table for all endpoints.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64},
    },
};

use arc_swap::ArcSwap;
use attache_config::model;
use attache_telemetry::Reason;
use tokio::time::Instant;

use crate::{
    Id,
    balance::BalanceIndex,
    circuit::Circuit,
    clients::ClientCounts,
    endpoint::{Endpoint, EndpointSpec},
};

/// The endpoints of one upstream at one moment.
#[derive(Debug, Default)]
pub struct EndpointSet {
    /// All of them, sorted by address, so that hash tables move as few keys as they can.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Rises with every change of members, weights or priorities, so that workers know when to rebuild tables and
    /// sweep pools. Not with health.
    pub generation: u64,
    /// Why there is none, or why the last refresh failed while these still serve.
    pub failure: Option<Reason>,
    pub(crate) index: Arc<BalanceIndex>,
}

impl EndpointSet {
    /// The number of endpoints that may get new requests.
    pub fn usable(&self) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.usable()).count()
    }
}

/// One upstream as all workers see it.
#[derive(Debug)]
pub struct SharedUpstream {
    /// The key of data about the upstream that is kept elsewhere.
    pub id: Id,
    /// Its part of the config.
    pub config: Arc<model::Upstream>,
    /// Its endpoints.
    pub endpoints: ArcSwap<EndpointSet>,
    /// Requests running, over all workers (`circuit_breaker.max_requests`).
    pub active_requests: AtomicU32,
    /// The same by client (`circuit_breaker.max_requests_per_client`).
    pub(crate) clients: Option<ClientCounts>,
    /// Connections open, over all workers.
    pub connections: AtomicU32,
    /// Calls that wait where `max_connections` is reached, over all workers.
    pub(crate) queue: crate::pool::queue::PermitQueue,
    /// Requests waiting for a connection, over all workers.
    pub pending: AtomicU32,
    /// Retries running, over all workers.
    pub retries: AtomicU32,
    /// The state that the ejections of its endpoints share (owned by `outlier`).
    pub ejections: crate::outlier::Ejections,
    /// The last results of the look-ups of its names.
    pub lookups: crate::discovery::Lookups,
    /// The generation for which the log last reported an empty subset; 0 is none.
    pub(crate) empty_subset_said: AtomicU64,
    health_epoch: Arc<AtomicU64>,
}

impl SharedUpstream {
    /// An upstream without endpoints: [`discovery::start`](crate::discovery::start) fills it.
    pub fn new(config: Arc<model::Upstream>) -> Self {
        Self {
            id: Id::next(),
            clients: config.circuit_breaker.max_requests_per_client.map(ClientCounts::new),
            config,
            endpoints: ArcSwap::default(),
            active_requests: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            queue: crate::pool::queue::PermitQueue::default(),
            pending: AtomicU32::new(0),
            retries: AtomicU32::new(0),
            ejections: crate::outlier::Ejections::default(),
            lookups: crate::discovery::Lookups::default(),
            empty_subset_said: AtomicU64::new(0),
            health_epoch: Arc::default(),
        }
    }

    /// The same upstream under a new config: it begins with the endpoints of `old`, their health and their load, if
    /// both configs name the same addresses. So a reload loses no state.
    pub fn inherit_from(config: Arc<model::Upstream>, old: &Self) -> Self {
        let mut new = Self::new(config);
        if new.config.address == old.config.address {
            let set = old.endpoints.load();
            new.health_epoch = old.health_epoch.clone();
            if new.config.circuit_breaker.endpoint_failures != old.config.circuit_breaker.endpoint_failures {
                set.endpoints.iter().for_each(|endpoint| new.give_circuit(endpoint));
            }
            new.endpoints.store(Arc::new(EndpointSet {
                index: Arc::new(BalanceIndex::build(&set.endpoints, &new.config.balance)),
                endpoints: set.endpoints.clone(),
                generation: set.generation,
                failure: set.failure,
            }));
        }
        new
    }

    /// Sets the endpoints to `specs`, and the state of the last look-up to `failure`. An endpoint whose address, name
    /// and zone are still in `specs` stays the same `Arc`; any other is marked `removed`. True if a new generation
    /// began.
    ///
    /// Of two specs with one address the first wins. Call it from one thread only: of two calls at once, one could be
    /// lost.
    pub fn replace_endpoints(&self, mut specs: Vec<EndpointSpec>, failure: Option<Reason>) -> bool {
        specs.sort_by(|a, b| a.address.cmp(&b.address));
        specs.dedup_by(|b, a| a.address == b.address);
        let old = self.endpoints.load_full();
        let known: HashMap<_, _> = old.endpoints.iter().map(|e| (&e.address, e)).collect();

        let mut changed = specs.len() != old.endpoints.len();
        let endpoints: Vec<_> = specs
            .into_iter()
            .map(|spec| match known.get(&spec.address) {
                Some(endpoint) if endpoint.is(&spec) => {
                    changed |= endpoint.update(&spec);
                    Arc::clone(endpoint)
                }
                _ => {
                    changed = true;
                    let endpoint = Endpoint::with_epoch(spec, self.health_epoch.clone());
                    self.give_circuit(&endpoint);
                    Arc::new(endpoint)
                }
            })
            .collect();

        if !changed && old.failure == failure {
            return false;
        }
        if changed {
            let index = Arc::new(BalanceIndex::build(&endpoints, &self.config.balance));
            let set = EndpointSet { endpoints, generation: old.generation + 1, failure, index };
            let kept: std::collections::HashSet<_> = set.endpoints.iter().map(Arc::as_ptr).collect();
            let gone: Vec<_> = old.endpoints.iter().filter(|e| !kept.contains(&Arc::as_ptr(e))).collect();
            self.endpoints.store(Arc::new(set));
            // Only now, so that a worker that still has the old set can find another endpoint in the new one.
            for endpoint in gone {
                endpoint.remove();
            }
        } else {
            let (generation, index) = (old.generation, old.index.clone());
            self.endpoints.store(Arc::new(EndpointSet { endpoints, generation, failure, index }));
        }
        changed
    }

    pub(crate) fn give_circuit(&self, endpoint: &Endpoint) {
        let config = self.config.circuit_breaker.endpoint_failures.clone();
        let (name, label) = (self.config.name.clone(), endpoint.label.clone());
        endpoint.set_circuit(config.map(|config| Circuit::new(config, name, Some(label), Instant::now())));
    }

    /// Rises with every change of an endpoint's health.
    pub(crate) fn health_epoch(&self) -> u64 {
        self.health_epoch.load(std::sync::atomic::Ordering::Acquire)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::{
        EndpointAddress,
        test_support::{spec, upstream},
    };

    fn shared() -> SharedUpstream {
        SharedUpstream::new(Arc::new(upstream("orders")))
    }

    #[tokio::test]
    async fn an_endpoint_keeps_its_counters_through_a_refresh_that_names_it_again() {
        let shared = shared();
        assert!(shared.replace_endpoints(vec![spec(2), spec(1)], None));
        let before = shared.endpoints.load_full();
        before.endpoints[0].active.store(7, Relaxed);
        assert!(shared.replace_endpoints(vec![spec(1), spec(3)], None));
        let after = shared.endpoints.load_full();
        assert!(Arc::ptr_eq(&before.endpoints[0], &after.endpoints[0]));
        assert_eq!(after.endpoints[0].active.load(Relaxed), 7);
        assert!(before.endpoints[1].removed.load(Relaxed), "2 is gone");
        assert!(!after.endpoints[0].removed.load(Relaxed));
    }

    #[tokio::test]
    async fn a_weight_changes_in_place_and_begins_a_generation() {
        let shared = shared();
        shared.replace_endpoints(vec![spec(1)], None);
        let before = shared.endpoints.load_full();
        assert!(shared.replace_endpoints(vec![EndpointSpec { weight: 5, ..spec(1) }], None));
        let after = shared.endpoints.load_full();
        assert!(Arc::ptr_eq(&before.endpoints[0], &after.endpoints[0]));
        assert_eq!((after.endpoints[0].weight(), after.generation), (5, before.generation + 1));
    }

    #[tokio::test]
    async fn a_refresh_without_a_change_or_with_only_a_failure_begins_no_generation() {
        let shared = shared();
        shared.replace_endpoints(vec![spec(1), spec(2)], None);
        let generation = shared.endpoints.load().generation;
        assert!(!shared.replace_endpoints(vec![spec(2), spec(1), spec(1)], None));
        assert!(!shared.replace_endpoints(vec![spec(2), spec(1)], Some(Reason::DnsTimeout)));
        let set = shared.endpoints.load();
        assert_eq!((set.generation, set.failure), (generation, Some(Reason::DnsTimeout)));
        assert_eq!(set.usable(), 2);
    }

    #[tokio::test]
    async fn another_name_for_the_same_address_is_another_endpoint() {
        let shared = shared();
        shared.replace_endpoints(vec![spec(1)], None);
        let before = shared.endpoints.load_full();
        shared.replace_endpoints(vec![EndpointSpec { host: Some("other".into()), ..spec(1) }], None);
        assert!(before.endpoints[0].removed.load(Relaxed));
        assert!(!shared.endpoints.load().endpoints[0].removed.load(Relaxed));
    }

    #[tokio::test]
    async fn a_reload_keeps_endpoints_and_their_health() {
        let old = shared();
        old.replace_endpoints(vec![spec(1), spec(2)], None);
        old.endpoints.load().endpoints[0].set_healthy(false);
        let new = SharedUpstream::inherit_from(Arc::new(upstream("orders")), &old);
        assert_eq!((new.endpoints.load().endpoints.len(), new.endpoints.load().usable()), (2, 1));
        assert!(matches!(new.endpoints.load().endpoints[0].address, EndpointAddress::Tcp(_)));
    }
}
