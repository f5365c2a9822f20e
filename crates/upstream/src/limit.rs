//! Concurrency limits of one upstream, counted over all workers.
//!
//! Rule: `Drop` releases every permit, so that no end of a call, not even a cancelled future, can leak a count. The
//! counters are the atomics of [`SharedUpstream`]; a limit is never exceeded, and a free permit is never refused.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use attache_config::model::OnUnhealthy;
use attache_telemetry::{Reason, WorkerMetrics, metrics};
use tokio::sync::watch;

use crate::{Endpoint, SharedUpstream, clients::ClientShare, take};

/// One open connection (`circuit_breaker.max_connections`). It lives in the connection itself.
#[derive(Debug)]
pub struct ConnectionPermit {
    shared: Arc<SharedUpstream>,
    /// The connection was made, and is counted as open.
    opened: bool,
}

impl ConnectionPermit {
    /// Takes a permit. The error says that the limit is reached.
    pub fn take(shared: &Arc<SharedUpstream>) -> Result<Self, Reason> {
        if take(&shared.connections, shared.config.circuit_breaker.max_connections).is_some() {
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
        self.shared.queue.freed();
        if self.opened {
            // The permit doesn't keep the metrics: this look-up happens once for each connection.
            metrics().upstream_connection_closed(&self.shared.config.name);
        }
    }
}

/// One call that waits for a connection (`circuit_breaker.max_pending`).
#[derive(Debug)]
pub struct PendingPermit(Arc<SharedUpstream>);

impl PendingPermit {
    /// Takes a permit. The error says that the queue is full.
    pub fn take(shared: &Arc<SharedUpstream>) -> Result<Self, Reason> {
        if take(&shared.pending, shared.config.circuit_breaker.max_pending).is_some() {
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

/// One running call (`circuit_breaker.max_requests`).
#[derive(Debug)]
pub struct RequestPermit {
    shared: Arc<SharedUpstream>,
    /// The limit counts this call.
    counted: bool,
    /// The client of the call, and the call's part in the count of that client.
    client: Option<IpAddr>,
    share: Option<ClientShare>,
}

impl RequestPermit {
    /// Takes a permit. The error says that the limit is reached.
    pub fn take(shared: &Arc<SharedUpstream>) -> Result<Self, Reason> {
        let mut permit = Self::ahead(shared, None);
        permit.count()?;
        Ok(permit)
    }

    /// A permit for a connection on which neither side has sent a byte: the limit doesn't count it yet.
    pub(crate) fn ahead(shared: &Arc<SharedUpstream>, client: Option<IpAddr>) -> Self {
        Self { shared: Arc::clone(shared), counted: false, client, share: None }
    }

    /// Counts it from now on. The error says that the limit is reached.
    pub(crate) fn count(&mut self) -> Result<(), Reason> {
        if self.counted {
            return Ok(());
        }
        if let (Some(clients), Some(client), None) = (&self.shared.clients, self.client, &self.share) {
            self.share = Some(clients.take(client).ok_or(Reason::OverflowClient)?);
        }
        let limit = self.shared.config.circuit_breaker.max_requests;
        self.counted = take(&self.shared.active_requests, limit).is_some();
        if self.counted { Ok(()) } else { Err(Reason::OverflowRequests) }
    }

    pub(crate) const fn shared(&self) -> &Arc<SharedUpstream> {
        &self.shared
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        if self.counted {
            self.shared.active_requests.fetch_sub(1, Relaxed);
        }
    }
}

/// The part of the counts that an attempt, or the tunnel that it became, holds: one running call, and one at its
/// endpoint.
#[derive(Debug)]
pub struct Charge {
    permit: RequestPermit,
    endpoint: Arc<Endpoint>,
}

impl Charge {
    pub(crate) fn new(permit: RequestPermit, endpoint: Arc<Endpoint>) -> Self {
        endpoint.active.fetch_add(1, Relaxed);
        Self { permit, endpoint }
    }

    pub(crate) const fn shared(&self) -> &Arc<SharedUpstream> {
        self.permit.shared()
    }

    /// Counts a connection that was made [ahead](RequestPermit::ahead) of its use from now on.
    pub(crate) fn count(&mut self) -> Result<(), Reason> {
        self.permit.count()
    }

    /// Learns when a tunnel to its endpoint is to be closed.
    pub fn closer(&self) -> UnhealthyNotice {
        let closes = self.shared().config.on_unhealthy == OnUnhealthy::Close;
        UnhealthyNotice(closes.then(|| self.endpoint.when_it_turns()))
    }

    /// The endpoint that it is counted at.
    pub const fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    pub(crate) fn moved_to(&mut self, endpoint: &Arc<Endpoint>) {
        endpoint.active.fetch_add(1, Relaxed);
        std::mem::replace(&mut self.endpoint, Arc::clone(endpoint)).active.fetch_sub(1, Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.endpoint.active.fetch_sub(1, Relaxed);
    }
}

/// Informs a tunnel that its endpoint has turned unhealthy, if `on_unhealthy: close` says that the tunnel must then be
/// closed. A tunnel that was opened to an unhealthy endpoint, because there was no better one, stays until the endpoint
/// turns unhealthy again.
#[derive(Debug, Default)]
pub struct UnhealthyNotice(Option<watch::Receiver<u32>>);

impl UnhealthyNotice {
    /// Waits until the tunnel must be closed; it may wait without an end.
    pub async fn closed(&mut self) {
        if let Some(turned) = &mut self.0
            && turned.changed().await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}
