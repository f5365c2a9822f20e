//! Concurrency limits of one upstream, counted over all workers.
//!
//! Rule: what is taken is given back by `Drop`, so that no way out of a call, a cancelled future included, can leak a
//! count. The counters are the atomics of [`Shared`]; a limit may be overshot for an instant by as many workers as race
//! for its last unit, never for longer.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use attache_config::model::Algorithm;
use attache_telemetry::{Reason, WorkerMetrics, metrics};
use tokio::time::Instant;

use crate::{
    Endpoint, Shared,
    balance::{bias, ewma},
    outlier::{
        Outcome,
        circuits::{self, Admitted},
        rates,
    },
};

/// One unit of a counter, if the limit allows it.
fn take(counter: &AtomicU32, limit: u32) -> bool {
    if counter.fetch_add(1, Relaxed) < limit {
        return true;
    }
    counter.fetch_sub(1, Relaxed);
    false
}

/// One open connection (`circuit_breaker.max_connections`). It lives in the connection itself.
#[derive(Debug)]
pub struct ConnectionPermit {
    shared: Arc<Shared>,
    /// The connection was made, and is counted as open.
    opened: bool,
}

impl ConnectionPermit {
    /// Takes one, or says that the limit is reached.
    pub fn take(shared: &Arc<Shared>) -> Result<Self, Reason> {
        if take(&shared.connections, shared.config.circuit_breaker.max_connections) {
            Ok(Self { shared: Arc::clone(shared), opened: false })
        } else {
            Err(Reason::OverflowConnections)
        }
    }

    /// The connection is open and usable.
    pub(crate) fn opened(&mut self, metrics: &WorkerMetrics) {
        self.opened = true;
        metrics.upstream_connection(&self.shared.config.name, Ok(()));
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Relaxed);
        if self.opened {
            // Looked up, not kept: hyper wants a connection that can be upgraded to be `Send`. Once a connection.
            metrics().upstream_connection_closed(&self.shared.config.name);
        }
    }
}

/// One call that waits for a connection (`circuit_breaker.max_pending`).
#[derive(Debug)]
pub struct PendingPermit(Arc<Shared>);

impl PendingPermit {
    /// Takes one, or says that the queue is full.
    pub fn take(shared: &Arc<Shared>) -> Result<Self, Reason> {
        if take(&shared.pending, shared.config.circuit_breaker.max_pending) {
            Ok(Self(Arc::clone(shared)))
        } else {
            Err(Reason::OverflowPending)
        }
    }
}

impl Drop for PendingPermit {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Relaxed);
    }
}

/// One running call (`circuit_breaker.max_requests`), and its share of its endpoint's load. It lives until the
/// response's body, or the tunnel, has ended. For `peak-ewma` it also measures how long the endpoint takes.
#[derive(Debug)]
pub struct InFlight {
    shared: Arc<Shared>,
    endpoint: Option<Arc<Endpoint>>,
    /// Only where latency is wanted: reading the clock is not free.
    started: Option<Instant>,
    /// What the endpoint's breaker waits for.
    admitted: Option<Admitted>,
    /// How the try ended was told.
    told: bool,
    /// From here on a try that is dropped was too slow.
    blame_after: Option<Instant>,
}

impl InFlight {
    /// Takes one, or says that the limit is reached.
    pub fn take(shared: &Arc<Shared>) -> Result<Self, Reason> {
        if take(&shared.active_requests, shared.config.circuit_breaker.max_requests) {
            let shared = Arc::clone(shared);
            Ok(Self { shared, endpoint: None, started: None, admitted: None, told: false, blame_after: None })
        } else {
            Err(Reason::OverflowRequests)
        }
    }

    /// Counts it on this endpoint, and no longer on the one before. The endpoint's latency runs from here.
    pub fn moved_to(&mut self, endpoint: &Arc<Endpoint>) {
        if self.endpoint.as_ref().is_some_and(|old| Arc::ptr_eq(old, endpoint)) {
            return;
        }
        self.give_up();
        self.told = false;
        self.admitted = circuits::admit(&self.shared, endpoint).ok().flatten();
        self.begin(endpoint);
    }

    /// The same for an endpoint whose breaker was asked already.
    pub(crate) fn placed(
        &mut self,
        endpoint: &Arc<Endpoint>,
        admitted: Option<Admitted>,
        blame_after: Option<Instant>,
    ) {
        self.admitted = admitted;
        self.blame_after = blame_after;
        self.begin(endpoint);
    }

    fn begin(&mut self, endpoint: &Arc<Endpoint>) {
        endpoint.active.fetch_add(1, Relaxed);
        rates::begun(&self.shared, endpoint);
        if let Some(old) = self.endpoint.replace(Arc::clone(endpoint)) {
            old.active.fetch_sub(1, Relaxed);
        }
        let measured = self.shared.config.balance.algorithm == Algorithm::PeakEwma;
        self.started = measured.then(Instant::now);
    }

    /// Tells the balancer and the endpoint's breaker how the try ended: call it when the response's head is there, or the try
    /// has failed by the endpoint's doing. A second call does nothing. A call that is dropped without it (the client
    /// went away) says nothing of the endpoint, unless the time for it was over.
    pub fn responded(&mut self, success: bool) {
        let Some(endpoint) = self.endpoint.as_ref().filter(|_| !self.told) else { return };
        self.told = true;
        if let Some(started) = self.started.take() {
            let now = Instant::now();
            ewma::observe(endpoint, now.saturating_duration_since(started), success, now);
        }
        if self.shared.config.balance.algorithm == Algorithm::LeastRequest {
            bias::ended(endpoint, success);
        }
        if let Some(admitted) = self.admitted.take() {
            circuits::ended(&self.shared, endpoint, &admitted, success, Instant::now());
        }
    }

    fn give_up(&mut self) {
        if let Some(admitted) = self.admitted.take() {
            circuits::given_up(&admitted);
        }
    }

    /// The same, by what the end of a try says of its endpoint; nothing where the endpoint isn't to blame or to praise.
    pub(crate) fn ended(&mut self, outcome: Option<Outcome>) {
        if let Some(outcome) = outcome {
            self.responded(outcome == Outcome::Success);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.told && self.blame_after.is_some_and(|end| end <= Instant::now()) {
            self.responded(false);
        }
        self.give_up();
        self.shared.active_requests.fetch_sub(1, Relaxed);
        if let Some(endpoint) = &self.endpoint {
            endpoint.active.fetch_sub(1, Relaxed);
        }
    }
}
