//! The state of one route that all workers share.

use std::sync::Arc;

use attache_config::model::{Fault, Forward};

use crate::rate_limit::Limiter;

/// The shared state of one route.
#[derive(Debug, Default)]
pub struct RouteState {
    /// Its rate limit.
    pub limiter: Option<Limiter>,
    /// Its faults.
    pub fault: Option<Fault>,
}

impl RouteState {
    /// The state of one route, made once for all workers.
    pub fn new(route: &Forward) -> Arc<Self> {
        Arc::new(Self { limiter: route.rate_limit.clone().map(Limiter::new), fault: route.fault.clone() })
    }
}
