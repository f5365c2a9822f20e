//! The state of one upstream that all workers share: made once, shared through atomics.

use std::sync::{Arc, OnceLock};

use attache_upstream::{SharedUpstream, circuit::Circuit, status::UpstreamStatus};
use tokio::time::Instant;

use crate::{budget::MinRetryRate, counters::Counters, latency::Latency, queue::UpstreamPermits};

/// The resilience state of one upstream. One for each upstream of a configuration, shared by every worker and every
/// route that leads to it.
#[derive(Debug)]
pub struct UpstreamState {
    /// Its endpoints and load counters.
    pub shared: Arc<SharedUpstream>,
    /// Counts of events, for metrics and the admin API.
    pub counters: Arc<Counters>,
    /// The failure breaker; `None` if it is off.
    pub breaker: Option<Arc<Circuit>>,
    /// Its permits; `None` if neither an adaptive limit nor a queue is on.
    pub gate: Option<Arc<UpstreamPermits>>,
    pub(crate) floor: MinRetryRate,
    /// Made if a route hedges by a percentile. Otherwise nothing is measured.
    latency: Arc<OnceLock<Latency>>,
}

impl UpstreamState {
    /// The state of an upstream without a history.
    pub fn new(shared: Arc<SharedUpstream>) -> Arc<Self> {
        let now = Instant::now();
        let breaker = shared.config.circuit_breaker.failures.clone();
        let breaker =
            breaker.map(|config| Arc::new(Circuit::new(config, shared.config.name.clone(), None, now)));
        let latency = Arc::default();
        let gate = UpstreamPermits::new(&shared.config, now).map(Arc::new);
        Arc::new(Self {
            shared,
            counters: Arc::default(),
            breaker,
            gate,
            floor: MinRetryRate::new(now),
            latency,
        })
    }

    /// The state of the same upstream under a new config: it keeps its counters and latencies, and also its breaker and
    /// its permits if their settings are the same.
    pub fn inherit_from(shared: Arc<SharedUpstream>, old: &Self) -> Arc<Self> {
        let failures = |shared: &SharedUpstream| shared.config.circuit_breaker.failures.clone();
        let same = failures(&shared) == failures(&old.shared);
        let same_gate = UpstreamPermits::is_same(&shared.config, &old.shared.config);
        let mut new = Self::new(shared);
        if let Some(new) = Arc::get_mut(&mut new) {
            new.counters = old.counters.clone();
            new.latency = old.latency.clone();
            if same {
                new.breaker.clone_from(&old.breaker);
            }
            // A learned limit stays valid as long as the settings are the same.
            if same_gate {
                new.gate.clone_from(&old.gate);
            }
        }
        new
    }

    pub(crate) fn latency(&self) -> &Latency {
        self.latency.get_or_init(|| Latency::new(Instant::now()))
    }

    /// Everything that is known about the upstream at this moment.
    pub fn snapshot(&self) -> UpstreamStatus {
        let now = Instant::now();
        let circuit = self.breaker.as_ref().map(|circuit| circuit.status(now));
        UpstreamStatus { circuit, ..self.shared.status(now) }
    }
}

#[cfg(test)]
mod tests {
    use attache_config::model::{AdaptiveConcurrency, FailureBreaker, Queue, Upstream, UpstreamProtocol};

    use super::*;
    use crate::testing::{state_of, upstream};

    fn config() -> Upstream {
        let mut config = upstream();
        config.circuit_breaker.failures = Some(FailureBreaker::default());
        config.queue = Some(Queue::default());
        config
    }

    /// What the state of a changed config inherits: the breaker, the permits.
    fn inherited(change: impl Fn(&mut Upstream)) -> [bool; 2] {
        let old = state_of(config());
        let mut config = config();
        change(&mut config);
        let new = UpstreamState::inherit_from(Arc::new(SharedUpstream::new(Arc::new(config))), &old);
        assert!(Arc::ptr_eq(&new.counters, &old.counters) && Arc::ptr_eq(&new.latency, &old.latency));
        let same_breaker =
            new.breaker.as_ref().zip(old.breaker.as_ref()).is_some_and(|(a, b)| Arc::ptr_eq(a, b));
        let same_gate = new.gate.as_ref().zip(old.gate.as_ref()).is_some_and(|(a, b)| Arc::ptr_eq(a, b));
        [same_breaker, same_gate]
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_keeps_breaker_and_permits_unless_their_own_settings_change() {
        assert_eq!(inherited(|_| ()), [true, true]);
        assert_eq!(inherited(|new| new.connect_timeout *= 2), [true, true]);
        assert_eq!(
            inherited(|new| new.circuit_breaker.failures.as_mut().unwrap().consecutive += 1),
            [false, true]
        );
        assert_eq!(inherited(|new| new.circuit_breaker.failures = None), [false, true]);
        assert_eq!(inherited(|new| new.queue.as_mut().unwrap().max += 1), [true, false]);
        assert_eq!(inherited(|new| new.queue = None), [true, false]);
        assert_eq!(
            inherited(|new| new.adaptive_concurrency = Some(AdaptiveConcurrency::default())),
            [true, false]
        );
        assert_eq!(inherited(|new| new.circuit_breaker.max_requests += 1), [true, false]);
        assert_eq!(inherited(|new| new.circuit_breaker.max_connections += 1), [true, false]);
        assert_eq!(inherited(|new| new.protocol = UpstreamProtocol::Http1), [true, false]);
    }
}
