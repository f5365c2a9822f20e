//! Outlier ejection: an endpoint that fails real requests gets none for a while.
//!
//! **Trip.** `consecutive_5xx` failures in a row (5xx answers, or no answer: connections refused, reset, timed out), or
//! `consecutive_local` in a row of those that attache saw itself. A success ends both rows, a 5xx ends only the second
//! one.
//!
//! Beside it, an endpoint that can't be connected to is out at once, and comes back with the first connection: see
//! `reach`. Off by default, an endpoint may have a failure breaker: see `circuits`.
//!
//! Endpoints that fail sometimes, but never in a row, are ejected by their rates: see [`rates`].
//!
//! **For how long.** `base` × n for the n-th ejection, at most `max`. n falls by one for every `base` that the endpoint
//! serves afterwards, so that a long incident is forgotten more slowly than a short one.
//!
//! **How many.** At most `max_percent` of the endpoints at once, but always one if there are two or more; never the
//! last usable one. An endpoint that may not be ejected keeps its row, and is ejected when it fails again and the
//! limits allow it.
//!
//! **Recovery.** By time alone ([`run`] on the control thread, [`recover`] for the instant itself). Ejection and active
//! health checks are independent, and an endpoint is used only if neither excludes it ([`Endpoint::usable`]): a probe
//! that passes doesn't end an ejection (Envoy's does, by default), since a working health page proves nothing about
//! failing requests.
//!
//! **Source.** Envoy's outlier detection. Differences: `consecutive_local` counts beside `consecutive_5xx`, as with
//! `split_external_local_origin_errors` but without taking local failures out of the other; trips are acted on at
//! once, and ends too (Envoy: ends at the next `interval`); multipliers fall by served time; refused streams and lost
//! close races are no failures, and a caller's own short deadline isn't one either.
//!
//! A success costs one load of a flag that is not written while no endpoint fails ([`failing`]). Ejections are rare.
//! Only one worker at a time ejects, and no worker waits for another: if another one is ejecting, a worker leaves its
//! own ejection to the next failure.

pub(crate) mod circuits;
mod passive;
pub mod rates;
pub(crate) mod unreachable;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use attache_telemetry::{Reason, metrics};
pub use passive::{Ejections, Passive};
use tokio::time::Instant;

use crate::{
    Endpoint, SharedUpstream,
    attempt::{EndpointFailure, Outcome},
    status::EjectionStatus,
};

impl Passive {
    pub(crate) fn status(&self, endpoint: &Endpoint, now: Instant) -> EjectionStatus {
        let ejected = endpoint.ejected.load(Relaxed);
        let until = endpoint.added + Duration::from_nanos(self.until.load(Relaxed));
        EjectionStatus {
            ejected,
            standing: endpoint.ejection_change.standing(endpoint.added, now),
            remaining: ejected.then(|| until.saturating_duration_since(now)),
            ejections: self.ejections(),
            consecutive_5xx: self.consecutive_5xx.load(Relaxed),
            consecutive_local: self.consecutive_local.load(Relaxed),
        }
    }

    /// Failures are rare, so two stores to a shared cache line are acceptable.
    fn note(&self, endpoint: &Endpoint, reason: Option<Reason>, now: Instant) {
        let Some(index) = reason.and_then(|reason| Reason::ALL.iter().position(|other| *other == reason))
        else {
            return;
        };
        let seconds = now.saturating_duration_since(endpoint.added).as_secs().min((1 << 48) - 1);
        self.last.store((index as u64 + 1) << 48 | seconds, Relaxed);
        self.failures.fetch_add(1, Relaxed);
    }
}

/// Whether some endpoint has failures in a row: only then does a success matter.
pub fn failing(shared: &SharedUpstream) -> bool {
    shared.ejections.failing.is_up()
}

/// Counts the end of a request or a connection to an endpoint, and ejects the endpoint if it has too many failures.
/// True if this ejected it.
pub fn report(shared: &SharedUpstream, endpoint: &Endpoint, outcome: Outcome, now: Instant) -> bool {
    let config = &shared.config.outlier_ejection;
    let passive = &endpoint.passive;
    let tripped = match outcome {
        Outcome::Success => {
            reset(&passive.consecutive_5xx);
            reset(&passive.consecutive_local);
            settle(shared);
            return false;
        }
        Outcome::CallerGaveUp | Outcome::Inconclusive => return false,
        Outcome::Failed(EndpointFailure::Answer(_)) => {
            rates::failed(shared, endpoint);
            reset(&passive.consecutive_local);
            add(&passive.consecutive_5xx, config.consecutive_5xx)
        }
        Outcome::Failed(EndpointFailure::NoAnswer(_)) | Outcome::Overdue(_) => {
            rates::failed(shared, endpoint);
            let local = add(&passive.consecutive_local, config.consecutive_local);
            add(&passive.consecutive_5xx, config.consecutive_5xx) || local
        }
    };
    passive.note(endpoint, outcome.reason(), now);
    // The row was written before, as the flag requires.
    shared.ejections.failing.raise();
    tripped && eject(shared, endpoint, outcome.reason(), &FailureRow { passive, outcome }, now)
}

/// For the log.
struct FailureRow<'a> {
    passive: &'a Passive,
    outcome: Outcome,
}

impl fmt::Display for FailureRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row =
            self.passive.consecutive_5xx.load(Relaxed).max(self.passive.consecutive_local.load(Relaxed));
        write!(f, "{row} failures in a row, the last: {}", self.outcome)
    }
}

/// Lowers the flag once no endpoint has a row.
fn settle(shared: &SharedUpstream) {
    let in_a_row = || {
        shared.endpoints.load().endpoints.iter().any(|endpoint| {
            let passive = &endpoint.passive;
            passive.consecutive_5xx.load(Relaxed) != 0 || passive.consecutive_local.load(Relaxed) != 0
        })
    };
    shared.ejections.failing.lower_unless(in_a_row);
}

/// A counter that is already zero isn't written, so that its cache line stays shared by all workers.
fn reset(counter: &AtomicU32) {
    if counter.load(Relaxed) != 0 {
        counter.store(0, Relaxed);
    }
}

fn add(counter: &AtomicU32, threshold: u32) -> bool {
    threshold > 0 && counter.fetch_add(1, Relaxed).saturating_add(1) >= threshold
}

fn eject(
    shared: &SharedUpstream,
    endpoint: &Endpoint,
    counted: Option<Reason>,
    why: &dyn fmt::Display,
    now: Instant,
) -> bool {
    let Some(_turn) = EjectionGuard::take(&shared.ejections) else {
        return false;
    };
    let set = shared.endpoints.load();
    let member = set.endpoints.iter().any(|other| std::ptr::eq(Arc::as_ptr(other), endpoint));
    let ejected = set.endpoints.iter().filter(|other| other.ejected.load(Relaxed)).count();
    let another =
        set.endpoints.iter().any(|other| !std::ptr::eq(Arc::as_ptr(other), endpoint) && other.usable());
    let config = &shared.config.outlier_ejection;
    if !member
        || endpoint.ejected.load(Relaxed)
        || ejected >= allowed(set.endpoints.len(), config.max_percent)
        || !another
    {
        return false;
    }

    let passive = &endpoint.passive;
    let now = since(endpoint, now);
    let served = Duration::from_nanos(now.saturating_sub(passive.until.load(Relaxed)));
    let forgotten = served.as_nanos().checked_div(config.base.as_nanos()).unwrap_or(u128::MAX);
    let multiplier = passive
        .multiplier
        .load(Relaxed)
        .saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
        .saturating_add(1);
    let time = config.base.saturating_mul(multiplier).min(config.max);
    passive.multiplier.store(multiplier, Relaxed);
    passive.until.store(now.saturating_add(nanos(time)), Relaxed);
    passive.time.store(nanos(time), Relaxed);
    passive.total.fetch_add(1, Relaxed);
    let because = why.to_string();
    endpoint.set_ejected_because(true, &because);
    shared.ejections.changed.notify_one();
    if let Some(reason) = counted {
        // The metrics are looked up and not kept: workers share this state, and ejections are rare.
        metrics().ejected(&shared.config.name, reason);
    }
    metrics().transition(&shared.config.name, Some(&endpoint.label), "ejection", "ejected", &because);
    tracing::warn!(
        upstream = %shared.config.name,
        endpoint = %endpoint.label,
        reason = because,
        seconds = time.as_secs_f64(),
        "endpoint ejected"
    );
    true
}

/// How many of `endpoints` may be ejected at the same time.
fn allowed(endpoints: usize, max_percent: f64) -> usize {
    if endpoints < 2 {
        return 0;
    }
    // 10 % of 30 must be 3, even if 0.1 × 30 is inexact in binary.
    ((endpoints as f64 * max_percent + 1e-9) as usize).max(1)
}

/// Ends the ejections whose time has passed, half-opens the breakers whose time has passed, and returns when the next
/// one is due.
pub fn recover(shared: &SharedUpstream, now: Instant) -> Option<Instant> {
    let mut next: Option<Instant> = None;
    for endpoint in &shared.endpoints.load().endpoints {
        if !endpoint.ejected.load(Relaxed) {
            continue;
        }
        let until = endpoint.added + Duration::from_nanos(endpoint.passive.until.load(Relaxed));
        if until > now {
            next = Some(next.map_or(until, |next| next.min(until)));
            continue;
        }
        reset(&endpoint.passive.consecutive_5xx);
        reset(&endpoint.passive.consecutive_local);
        let served = Duration::from_nanos(endpoint.passive.time.load(Relaxed));
        let because = format!("its ejection of {served:?} is over");
        endpoint.set_ejected_because(false, &because);
        metrics().transition(&shared.config.name, Some(&endpoint.label), "ejection", "back", &because);
        tracing::info!(upstream = %shared.config.name, endpoint = %endpoint.label, "endpoint back after ejection");
    }
    next.into_iter().chain(circuits::half_open(shared, now)).min()
}

/// Ends ejections on time and checks rates, for as long as it is polled. One for each upstream, on the control thread.
pub async fn run(shared: &SharedUpstream) {
    tokio::join!(recoveries(shared), rates::run(shared));
}

async fn recoveries(shared: &SharedUpstream) {
    loop {
        let changed = shared.ejections.changed.notified();
        match recover(shared, Instant::now()) {
            Some(next) => {
                // Either ends the wait: an ejection with an earlier end, or this end.
                let _ = tokio::time::timeout_at(next, changed).await;
            }
            None => changed.await,
        }
    }
}

fn since(endpoint: &Endpoint, now: Instant) -> u64 {
    nanos(now.saturating_duration_since(endpoint.added))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2)
}

struct EjectionGuard<'a>(&'a AtomicBool);

impl<'a> EjectionGuard<'a> {
    fn take(ejections: &'a Ejections) -> Option<Self> {
        let free = ejections
            .busy
            .compare_exchange(false, true, std::sync::atomic::Ordering::Acquire, Relaxed)
            .is_ok();
        // Made only if the turn was free, because dropping a guard releases the turn.
        free.then(|| Self(&ejections.busy))
    }
}

impl Drop for EjectionGuard<'_> {
    fn drop(&mut self) {
        self.0.store(false, std::sync::atomic::Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
