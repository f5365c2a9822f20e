//! Concurrency limits of one upstream, counted over all workers.
//!
//! Rule: what is taken is given back by `Drop`, so that no way out of a call, a cancelled future included, can leak a
//! count. The counters are the atomics of [`Shared`]; a limit may be overshot for an instant by as many workers as race
//! for its last unit, never for longer.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use attache_telemetry::Reason;

use crate::{Endpoint, Shared};

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
pub struct ConnectionPermit(Arc<Shared>);

impl ConnectionPermit {
    /// Takes one, or says that the limit is reached.
    pub fn take(shared: &Arc<Shared>) -> Result<Self, Reason> {
        if take(&shared.connections, shared.config.circuit_breaker.max_connections) {
            Ok(Self(Arc::clone(shared)))
        } else {
            Err(Reason::OverflowConnections)
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
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
/// response's body, or the tunnel, has ended.
#[derive(Debug)]
pub struct InFlight {
    shared: Arc<Shared>,
    endpoint: Option<Arc<Endpoint>>,
}

impl InFlight {
    /// Takes one, or says that the limit is reached.
    pub fn take(shared: &Arc<Shared>) -> Result<Self, Reason> {
        if take(&shared.active_requests, shared.config.circuit_breaker.max_requests) {
            Ok(Self { shared: Arc::clone(shared), endpoint: None })
        } else {
            Err(Reason::OverflowRequests)
        }
    }

    /// Counts it on this endpoint, and no longer on the one before.
    pub fn moved_to(&mut self, endpoint: &Arc<Endpoint>) {
        if self.endpoint.as_ref().is_some_and(|old| Arc::ptr_eq(old, endpoint)) {
            return;
        }
        endpoint.active.fetch_add(1, Relaxed);
        if let Some(old) = self.endpoint.replace(Arc::clone(endpoint)) {
            old.active.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.shared.active_requests.fetch_sub(1, Relaxed);
        if let Some(endpoint) = &self.endpoint {
            endpoint.active.fetch_sub(1, Relaxed);
        }
    }
}
