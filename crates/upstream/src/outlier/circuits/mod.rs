//! A failure breaker for each endpoint (`circuit_breaker.endpoint_failures`).
//!
//! Ejection takes an endpoint out of service for a time, and only time brings it back. A breaker brings it back by
//! evidence: after its open time exactly `probes` requests go there, and the endpoint is in service again once all of
//! them have succeeded. If one fails, the breaker opens for twice as long. The state machine is [`Circuit`].
//!
//! **Together**, one rule: an endpoint gets requests while it is healthy *and* not ejected *and* its breaker allows it,
//! and each of these rules counts for itself. It comes back when no rule holds it out: after its ejection it still has
//! to pass its breaker's probes.
//!
//! **How many.** A breaker leaves `closed` only while at least `balance.panic_threshold` of all endpoints, and at least
//! one, stay in service without it. Otherwise it stays closed and keeps its count: it opens with the next failure when
//! enough other endpoints are in service. So breakers never cause the panic in which all endpoints are used. If health
//! checks cause it, the balancer uses all endpoints, whatever their breakers say.
//!
//! A call counts in the state that it began in. A call whose caller has left proves nothing: if it was a probe, its
//! permit goes to the next call. If breakers are off, a call only reads the config.

use std::sync::Arc;

use tokio::time::Instant;

use super::EjectionGuard;
use crate::{
    Endpoint, SharedUpstream,
    circuit::{AdmittedCall, Circuit, Ticket},
};

/// The endpoint's breaker holds the call back.
#[derive(Debug)]
pub(crate) struct BreakerOpen;

/// Asks the endpoint's breaker; `None` if it has none.
pub(crate) fn admit(
    shared: &SharedUpstream,
    endpoint: &Endpoint,
) -> Result<Option<AdmittedCall>, BreakerOpen> {
    if shared.config.circuit_breaker.endpoint_failures.is_none() {
        return Ok(None);
    }
    let Some(circuit) = endpoint.circuit.load_full() else { return Ok(None) };
    let Ok(admitted) = AdmittedCall::by(&circuit) else {
        // The balancer didn't know that the breaker is open.
        if !endpoint.tripped.is_up() {
            endpoint.circuit_changed();
        }
        return Err(BreakerOpen);
    };
    Ok(Some(admitted))
}

/// Counts how an admitted call ended.
pub(crate) fn ended(
    shared: &SharedUpstream,
    endpoint: &Endpoint,
    circuit: &Circuit,
    ticket: &Ticket,
    success: bool,
    now: Instant,
) {
    let before = circuit.phase();
    // Endpoints are taken out one at a time, so that two workers can't take out the last two at once.
    let turn = if success { None } else { EjectionGuard::take(&shared.ejections) };
    circuit.record_if(ticket, success, now, || turn.is_some() && spare(shared, endpoint));
    if circuit.phase() != before {
        endpoint.circuit_changed();
        shared.ejections.changed.notify_one();
    }
}

/// Whether enough other endpoints are in service.
fn spare(shared: &SharedUpstream, endpoint: &Endpoint) -> bool {
    let set = shared.endpoints.load();
    let others = set.endpoints.iter().filter(|other| !std::ptr::eq(Arc::as_ptr(other), endpoint));
    let serving = others.filter(|other| other.in_service()).count() as f64;
    let enough = shared.config.balance.panic_threshold * set.endpoints.len() as f64;
    // Half of 10 must be 5, even if 0.5 x 10 is inexact in binary.
    serving >= 1.0 && serving + 1e-9 >= enough
}

/// Half-opens the breakers whose open time has passed; returns when the next open time ends.
pub(super) fn half_open(shared: &SharedUpstream, now: Instant) -> Option<Instant> {
    shared.config.circuit_breaker.endpoint_failures.as_ref()?;
    let set = shared.endpoints.load();
    let tripped = set.endpoints.iter().filter(|endpoint| endpoint.tripped.is_up());
    let next = tripped.filter_map(|endpoint| {
        let circuit = endpoint.circuit.load_full()?;
        let before = circuit.phase();
        let next = circuit.half_open(now);
        if circuit.phase() != before {
            endpoint.circuit_changed();
        }
        next
    });
    next.min()
}

#[cfg(test)]
mod tests;
