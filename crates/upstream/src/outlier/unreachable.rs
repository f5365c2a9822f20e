//! Endpoints that can't be connected to.
//!
//! **Out.** An endpoint to which a connection could not be made (refused, timed out, no TLS) gets no requests from then on, after one
//! failure, and independent of how many endpoints are out already: no call is lost, because it goes to another endpoint. The last usable
//! endpoint is never taken out: if no endpoint can be reached, calls continue to try. It is one whose server answered and failed in TLS,
//! if there is one, rather than one on which nothing listens: `localhost` is often both.
//!
//! **Back.** Only a connection that succeeds brings it back. The worker that took it out tries one after 250 ms, then at growing
//! intervals, up to 10 s ([`crate::service`]). No caller's request is a probe. Only a call that failed at every other endpoint may try
//! it, and each endpoint is tried at most ten times a second, however many callers there are.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use attache_telemetry::{Reason, metrics};
use tokio::time::Instant;

use super::EjectionGuard;
use crate::{Endpoint, Shared};

/// Between two knocks at an endpoint that is out.
const KNOCK: Duration = Duration::from_millis(100);

/// A connection to the endpoint could not be made. True if it is out because of that, or was before.
pub(crate) fn lost(shared: &Shared, endpoint: &Endpoint, reason: Reason) -> bool {
    if endpoint.unreachable.load(Relaxed) {
        return true;
    }
    // One worker at a time, so that two don't both take the last but one.
    let Some(_turn) = EjectionGuard::take(&shared.ejections) else { return false };
    let set = shared.endpoints.load();
    let is_this = |other: &Arc<Endpoint>| std::ptr::eq(Arc::as_ptr(other), endpoint);
    let mut others = set.endpoints.iter().filter(|other| !is_this(other));
    if endpoint.removed.load(Relaxed) {
        return false;
    }
    if !others.clone().any(|other| other.usable()) {
        // Where none is left, one that was connected to says more of the cause than one that nothing listens on.
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

/// A connection was made, and TLS on it was not.
fn is_tls(reason: &str) -> bool {
    reason.starts_with("tls-")
}

/// A connection to the endpoint was made.
pub(crate) fn found(shared: &Shared, endpoint: &Endpoint) {
    back(shared, endpoint, "a connection was made");
}

fn back(shared: &Shared, endpoint: &Endpoint, why: &'static str) {
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
    let next = now.saturating_add(u64::try_from(KNOCK.as_nanos()).unwrap_or(u64::MAX));
    let due = endpoint.knock_at.load(Relaxed);
    due <= now && endpoint.knock_at.compare_exchange(due, next, Relaxed, Relaxed).is_ok()
}
