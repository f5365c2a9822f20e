//! When a name is looked up again.
//!
//! After a good answer: at its TTL, but not before `min_ttl` and not after `max_ttl`, and up to a tenth of that earlier
//! at random, so that many sidecars that started together don't ask together. After a failure: `retry_interval`,
//! doubled with every further failure, at most 5 s or `retry_interval`: after an outage of DNS, attache must recover
//! soon. An answer with gaps is good, but is repeated in the same way, with at most `max_ttl` in between, because an
//! address family may stay without an answer.
//!
//! If no endpoint can be reached any more, the addresses may be outdated: then the name is looked up without a wait, at
//! most once per `retry_interval`.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use attache_config::model;
use attache_telemetry::metrics;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    lookup::{Lookup, LookupAnswer, LookupError},
    merge::{Merge, ResultChange},
};

/// The largest part of a wait that jitter removes.
const JITTER: f64 = 0.1;
/// Longest wait after a failure, unless `retry_interval` is longer.
const MAX_RETRY_WAIT: Duration = Duration::from_secs(5);

/// Turns the results of one name's look-ups into waits.
#[derive(Clone, Debug)]
pub struct Schedule {
    min: Duration,
    max: Duration,
    retry: Duration,
    failures: u32,
    jitter: f64,
}

impl Schedule {
    /// A schedule with the config's limits.
    pub fn new(dns: &model::Dns) -> Self {
        // With a minimum of zero, look-ups would follow each other without a wait.
        let min = dns.min_ttl.max(Duration::from_millis(100));
        let retry = dns.retry_interval.max(Duration::from_millis(100));
        Self { min, max: dns.max_ttl.max(min), retry, failures: 0, jitter: JITTER }
    }

    /// The same without jitter: exact instants.
    pub fn exact(self) -> Self {
        Self { jitter: 0.0, ..self }
    }

    /// How long to wait after `result`.
    pub fn next(&mut self, result: &Result<LookupAnswer, LookupError>) -> Duration {
        let ttl = |answer: &LookupAnswer| answer.ttl.clamp(self.min, self.max);
        let wait = match result {
            Ok(answer) if answer.gaps.is_empty() => {
                self.failures = 0;
                ttl(answer)
            }
            Ok(answer) => ttl(answer).min(self.back_off(self.max)),
            Err(_) => self.back_off(MAX_RETRY_WAIT.max(self.retry).min(self.max)),
        };
        let earlier = wait.mul_f64(self.jitter * fastrand::f64());
        wait.saturating_sub(earlier).max(self.min.min(wait))
    }

    fn back_off(&mut self, longest: Duration) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = (self.failures + 1).min(31);
        self.retry.saturating_mul(factor).min(longest)
    }
}

/// The refresh of one source.
pub(super) struct RefreshTask {
    pub(super) merge: Arc<Mutex<Merge>>,
    pub(super) source: usize,
    pub(super) untried: watch::Sender<usize>,
}

impl RefreshTask {
    pub(super) async fn run(self, lookup: Arc<impl Lookup>, mut schedule: Schedule) {
        let Some(target) = lock(&self.merge).target(self.source) else { return };
        let mut first = true;
        let shared = Arc::clone(lock(&self.merge).shared());
        loop {
            let result = lookup.lookup(&target).await;
            let wait = schedule.next(&result);
            self.take(&target, result, wait);
            if std::mem::take(&mut first) {
                self.untried.send_modify(|untried| *untried = untried.saturating_sub(1));
            }
            let ended = Instant::now();
            let soonest = ended + schedule.retry;
            let due = tokio::select! {
                () = shared.lookups.wanted() => soonest.min(ended + wait),
                () = sleep_until(ended + wait) => continue,
            };
            sleep_until(due).await;
        }
    }

    fn take(
        &self,
        target: &model::EndpointTarget,
        result: Result<LookupAnswer, LookupError>,
        wait: Duration,
    ) {
        let detail = result.as_ref().err().map(|failure| failure.detail.clone());
        let mut merge = lock(&self.merge);
        // Looked up, not kept: the task must be `Send`, and look-ups are rare.
        let outcome = result.as_ref().map(|_| ()).map_err(|failure| failure.reason);
        metrics().dns_lookup(&merge.shared().config.name, outcome);
        let noted = result.as_ref().map(|answer| answer.found.len());
        let noted = noted.map_err(|failure| (failure.reason, detail.clone().unwrap_or_default()));
        merge.shared().lookups.note(describe(target), Instant::now() + wait, noted);
        let turn = merge.take(self.source, result);
        let upstream = &merge.shared().config.name;
        let serving = merge.shared().endpoints.load().endpoints.len();
        let name = describe(target);
        // A forward proxy's clients choose the names, not the operator: a failure is no warning.
        let on_demand = matches!(merge.shared().config.address, model::Address::Authority { .. });
        match turn {
            ResultChange::Same => {}
            ResultChange::Failed(reason) if on_demand => {
                tracing::debug!(%upstream, name, %reason, detail, "name look-up failed");
            }
            ResultChange::Failed(reason) if serving == 0 => tracing::warn!(
                %upstream, name, %reason, detail,
                "name look-up failed, and no address is known: calls fail until it succeeds; next attempt in {wait:?}"
            ),
            ResultChange::Failed(reason) => tracing::warn!(
                %upstream, name, %reason, detail, endpoints = serving,
                "name look-up failed; the endpoints of the last good answer keep serving; next attempt in {wait:?}"
            ),
            ResultChange::Recovered => {
                tracing::info!(%upstream, name, endpoints = serving, "name look-up works again");
            }
        }
    }
}

fn describe(target: &model::EndpointTarget) -> String {
    match target {
        model::EndpointTarget::Dns { host, port } => format!("{host}:{port}"),
        model::EndpointTarget::Srv { name } => format!("srv:{name}"),
        model::EndpointTarget::Kubernetes(service) => service.to_string(),
        model::EndpointTarget::Ip(address) => address.to_string(),
        model::EndpointTarget::Unix(path) => path.display().to_string(),
    }
}

/// Only the control thread takes this lock, and a panic elsewhere leaves the state valid.
pub(super) fn lock(merge: &Mutex<Merge>) -> MutexGuard<'_, Merge> {
    merge.lock().unwrap_or_else(PoisonError::into_inner)
}
