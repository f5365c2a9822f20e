//! The state of an upstream and its endpoints at one moment, as plain values: for the admin API and for people.
//!
//! Nothing here is on a request's path. Times are ages, so that they mean the same on any clock.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use attache_config::model::Name;
use attache_telemetry::Reason;
use tokio::time::Instant;

pub use crate::change::StateAge;
use crate::{Endpoint, SharedUpstream, balance::ewma, circuit::CircuitStatus};

/// One endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointStatus {
    /// Its address as text: the label of logs.
    pub address: Name,
    /// The DNS name it was found by.
    pub host: Option<Name>,
    /// Its zone.
    pub zone: Option<Name>,
    /// Relative weight, at least 1.
    pub weight: u32,
    /// 0 is used first.
    pub priority: u8,
    /// Whether it gets requests, in one word.
    pub state: EndpointState,
    /// How long it has been in that state, and why.
    pub standing: StateAge,
    /// Time since discovery named it.
    pub age: Duration,
    /// Requests running on it, over all workers.
    pub active_requests: u32,
    /// Its latency as `peak-ewma` estimates it; `None` if it isn't measured, or not yet.
    pub latency: Option<Duration>,
    /// The state of active health checks.
    pub health: HealthStatus,
    /// The state of ejection.
    pub ejection: EjectionStatus,
    /// The state of its failure breaker; `None` if it has none.
    pub circuit: Option<CircuitStatus>,
}

/// Whether an endpoint gets requests. If several causes exclude it, the first in this order is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// Fails its health checks.
    Unhealthy,
    /// Ejected as an outlier.
    Ejected,
    /// No connection to it can be made.
    Unreachable,
    /// Its failure breaker is open, or probes it.
    CircuitOpen,
    /// Gets requests.
    Healthy,
}

impl EndpointState {
    /// The word for it, as in the label `state` of `attache_upstream_endpoints`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
            Self::Unreachable => "unreachable",
            Self::CircuitOpen => "circuit-open",
            Self::Healthy => "healthy",
        }
    }
}

impl fmt::Display for EndpointState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The state of an endpoint's active health checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthStatus {
    /// True also if there is no check.
    pub healthy: bool,
    /// Since when, and why.
    pub standing: StateAge,
    /// Probes that passed.
    pub passed: u64,
    /// Probes that failed.
    pub failed: u64,
    /// Why the last probe failed; `None` where it passed.
    pub last_failure: Option<Arc<String>>,
}

/// The state of an endpoint's ejection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EjectionStatus {
    /// It is ejected.
    pub ejected: bool,
    /// Since when, and why.
    pub standing: StateAge,
    /// Time until it comes back, if it is ejected.
    pub remaining: Option<Duration>,
    /// Ejections since discovery named it.
    pub ejections: u64,
    /// Failures in a row.
    pub consecutive_5xx: u32,
    /// Failures in a row without an answer.
    pub consecutive_local: u32,
}

/// One upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamStatus {
    /// Its name in the config.
    pub name: Name,
    /// Its endpoints, sorted by address.
    pub endpoints: Vec<EndpointStatus>,
    /// Why there is no endpoint, or why the last look-up failed while these still serve.
    pub discovery_failure: Option<Reason>,
    /// Requests running, over all workers.
    pub active_requests: u32,
    /// Connections open.
    pub connections: u32,
    /// Requests waiting for a connection.
    pub pending: u32,
    /// Retries and hedges running.
    pub retries: u32,
    /// Its failure breaker; `None` where it is off. `attache_resilience::UpstreamState::snapshot` fills it in.
    pub circuit: Option<CircuitStatus>,
}

impl Endpoint {
    /// Whether it gets requests.
    pub fn state(&self) -> EndpointState {
        if !self.healthy.load(Relaxed) {
            EndpointState::Unhealthy
        } else if self.ejected.load(Relaxed) {
            EndpointState::Ejected
        } else if self.unreachable.load(Relaxed) {
            EndpointState::Unreachable
        } else if self.tripped.is_up() {
            EndpointState::CircuitOpen
        } else {
            EndpointState::Healthy
        }
    }

    /// Everything that is known about it.
    pub fn status(&self, now: Instant) -> EndpointStatus {
        let health = HealthStatus {
            healthy: self.healthy.load(Relaxed),
            standing: self.health_change.standing(self.added, now),
            passed: self.checks.passed(),
            failed: self.checks.failed(),
            last_failure: self.checks.failure(),
        };
        let ejection = self.passive.status(self, now);
        let circuit = self.circuit.load().as_ref().map(|circuit| circuit.status(now));
        let state = self.state();
        let of_circuit = circuit.as_ref().map(|circuit| &circuit.standing);
        let standing = match state {
            EndpointState::Unhealthy => health.standing.clone(),
            EndpointState::Ejected => ejection.standing.clone(),
            EndpointState::Unreachable => self.reach_change.standing(self.added, now),
            EndpointState::CircuitOpen => of_circuit.unwrap_or(&health.standing).clone(),
            // The cause that ended last.
            EndpointState::Healthy => {
                let reach = self.reach_change.standing(self.added, now);
                let standings = [&health.standing, &ejection.standing, &reach].into_iter().chain(of_circuit);
                let last = standings.min_by_key(|standing| standing.age);
                last.cloned().unwrap_or(StateAge { age: Duration::ZERO, why: None })
            }
        };
        EndpointStatus {
            address: self.label.clone(),
            host: self.host.clone(),
            zone: self.zone.clone(),
            weight: self.weight(),
            priority: self.priority(),
            state,
            standing,
            age: now.saturating_duration_since(self.added),
            active_requests: self.active.load(Relaxed),
            latency: ewma::estimate(self, now),
            health,
            ejection,
            circuit,
        }
    }
}

impl SharedUpstream {
    /// Everything that is known about the upstream, except its breaker.
    pub fn status(&self, now: Instant) -> UpstreamStatus {
        let set = self.endpoints.load();
        UpstreamStatus {
            name: self.config.name.clone(),
            endpoints: set.endpoints.iter().map(|endpoint| endpoint.status(now)).collect(),
            discovery_failure: set.failure,
            active_requests: self.active_requests.load(Relaxed),
            connections: self.connections.load(Relaxed),
            pending: self.pending.load(Relaxed),
            retries: self.retries.load(Relaxed),
            circuit: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use attache_config::model::Balance;
    use http::StatusCode;

    use super::*;
    use crate::{
        EndpointFailure, Outcome, outlier,
        test_support::{shared, spec},
    };

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_status_of_an_endpoint_shows_since_when_it_is_out_and_why() {
        let shared = shared(Balance::default(), (1..=3).map(spec).collect());
        let endpoint = shared.endpoints.load().endpoints[0].clone();
        tokio::time::advance(10 * SECOND).await;
        let fresh = endpoint.status(Instant::now());
        assert_eq!(fresh.state, EndpointState::Healthy);
        assert_eq!(fresh.standing, StateAge { age: 10 * SECOND, why: None });

        let failed = Outcome::Failed(EndpointFailure::Answer(StatusCode::BAD_GATEWAY));
        for _ in 0..5 {
            outlier::report(&shared, &endpoint, failed, Instant::now());
        }
        tokio::time::advance(4 * SECOND).await;
        let status = endpoint.status(Instant::now());
        assert_eq!((status.state, status.standing.age), (EndpointState::Ejected, 4 * SECOND));
        assert_eq!(status.standing.why.as_deref(), Some("5 failures in a row, the last: 502"));
        assert_eq!(status.ejection.remaining, Some(26 * SECOND));
        assert_eq!((status.ejection.ejections, status.ejection.consecutive_5xx), (1, 5));

        tokio::time::advance(26 * SECOND).await;
        outlier::recover(&shared, Instant::now());
        tokio::time::advance(SECOND).await;
        let status = endpoint.status(Instant::now());
        assert_eq!((status.state, status.standing.age), (EndpointState::Healthy, SECOND));
        assert_eq!(status.standing.why.as_deref(), Some("its ejection of 30s is over"));
        assert_eq!(status.ejection.remaining, None);
    }

    #[tokio::test(start_paused = true)]
    async fn ill_health_is_named_before_an_ejection() {
        let shared = shared(Balance::default(), (1..=3).map(spec).collect());
        let endpoint = shared.endpoints.load().endpoints[0].clone();
        endpoint.set_ejected_because(true, "test");
        endpoint.set_healthy_because(false, "3 probes in a row failed: status 500");
        let status = endpoint.status(Instant::now());
        assert_eq!(status.state, EndpointState::Unhealthy);
        assert_eq!(status.standing.why.as_deref(), Some("3 probes in a row failed: status 500"));
        assert!(status.ejection.ejected);
        let upstream = shared.status(Instant::now());
        assert_eq!((upstream.endpoints.len(), upstream.circuit), (3, None));
    }
}
