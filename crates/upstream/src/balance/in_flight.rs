//! A request that runs on an endpoint, counted while this lives.

use std::sync::{
    Arc,
    atomic::Ordering::{AcqRel, Relaxed},
};

use attache_config::model::Algorithm;
use tokio::time::Instant;

use super::ewma;
use crate::{Endpoint, Shared};

/// Counts one request on its endpoint from [`InFlight::start`] to the end of its response, whatever way it ends.
#[derive(Debug)]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    /// Only where latency is wanted: reading the clock is not free.
    started: Option<Instant>,
}

impl InFlight {
    /// Counts a request in.
    pub fn start(shared: &Shared, endpoint: Arc<Endpoint>) -> Self {
        endpoint.active.fetch_add(1, Relaxed);
        let measured = shared.config.balance.algorithm == Algorithm::PeakEwma;
        Self { endpoint, started: measured.then(Instant::now) }
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Takes the latency until now into the endpoint's estimate: call it when the response's head is there (or the try has
    /// failed), and drop the guard when the body has ended. A second call does nothing. A request that is dropped
    /// without it (the client went away) says nothing of the endpoint.
    pub fn responded(&mut self, success: bool) {
        if let Some(started) = self.started.take() {
            let now = Instant::now();
            ewma::observe(&self.endpoint, now.saturating_duration_since(started), success, now);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.active.fetch_sub(1, AcqRel);
    }
}
