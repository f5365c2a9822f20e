//! Endpoints that can't be connected to.
//!
//! **Out.** An endpoint to which a connection could not be made (refused, timed out, no TLS) gets no requests from then
//! on, after one failure, and independent of how many endpoints are out already: no call is lost, because it goes to
//! another endpoint. The last usable endpoint is never taken out: if no endpoint can be reached, calls continue to try
//! it. If there is an endpoint whose server answered and failed in TLS, it is that one, rather than one on which
//! nothing listens: `localhost` often leads to both.
//!
//! **Back.** Only a successful connection brings it back. The worker that took it out tries to connect after 250 ms,
//! then at growing intervals, up to 10 s ([`crate::service`]). Requests of callers are not used as probes. Only a call
//! that failed at every other endpoint may try it, and each endpoint is tried at most ten times a second, whatever the
//! number of callers.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use attache_telemetry::{Reason, metrics};
use tokio::time::Instant;

use super::EjectionGuard;
use crate::{Endpoint, SharedUpstream};

/// The shortest time between two calls that try an endpoint which is out.
const MIN_TRIAL_INTERVAL: Duration = Duration::from_millis(100);

/// A connection to the endpoint could not be made. True if the endpoint is out because of that, or was out before.
pub(crate) fn lost(shared: &SharedUpstream, endpoint: &Endpoint, reason: Reason) -> bool {
    if endpoint.unreachable.load(Relaxed) {
        return true;
    }
    // One worker at a time, so that two workers can't take out the last two endpoints at once.
    let Some(_turn) = EjectionGuard::take(&shared.ejections) else { return false };
    let set = shared.endpoints.load();
    let is_this = |other: &Arc<Endpoint>| std::ptr::eq(Arc::as_ptr(other), endpoint);
    let mut others = set.endpoints.iter().filter(|other| !is_this(other));
    if endpoint.removed.load(Relaxed) {
        return false;
    }
    if !others.clone().any(|other| other.usable()) {
        // If this was the last one, an endpoint that accepted a connection shows more of the cause than one on which
        // nothing listens.
        let connected = others.find(|other| !is_tls(reason.as_str()) && other.usable_but_for(is_tls));
        match connected {
            Some(other) => back(shared, other, "no other endpoint can be connected to"),
            None => return false,
        }
    }
    if endpoint.set_unreachable(true, reason.as_str()) {
        let label = Some(&*endpoint.label);
        metrics().transition(&shared.config.name, label, "connection", "unreachable", reason.as_str());
        tracing::warn!(upstream = %shared.config.name, endpoint = %endpoint.label, %reason, "endpoint out: it can't be connected to");
    }
    true
}

/// True if the connection was made, but TLS on it failed.
fn is_tls(reason: &str) -> bool {
    reason.starts_with("tls-")
}

/// A connection to the endpoint was made.
pub(crate) fn found(shared: &SharedUpstream, endpoint: &Endpoint) {
    back(shared, endpoint, "a connection was made");
}

fn back(shared: &SharedUpstream, endpoint: &Endpoint, why: &'static str) {
    if endpoint.unreachable.load(Relaxed) && endpoint.set_unreachable(false, why) {
        let label = Some(&*endpoint.label);
        metrics().transition(&shared.config.name, label, "connection", "back", why);
        tracing::info!(upstream = %shared.config.name, endpoint = %endpoint.label, "endpoint back: {why}");
    }
}

/// Whether a call whose other endpoints have all failed may try this one.
pub(crate) fn may_knock(endpoint: &Endpoint, now: Instant) -> bool {
    if !endpoint.unreachable.load(Relaxed) {
        return true;
    }
    let now = endpoint.since_added(now);
    let next = now.saturating_add(u64::try_from(MIN_TRIAL_INTERVAL.as_nanos()).unwrap_or(u64::MAX));
    let due = endpoint.knock_at.load(Relaxed);
    due <= now && endpoint.knock_at.compare_exchange(due, next, Relaxed, Relaxed).is_ok()
}
