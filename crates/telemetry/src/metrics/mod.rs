//! Metrics: counted by each worker for itself, added up when they are scraped.
//!
//! Why there is a handle per thread and not per layer: one worker is one thread, so "the metrics of this worker" and
//! "the metrics of this thread" are the same thing. [`WorkerMetrics::install`] makes a worker's handle that of
//! its thread, and [`metrics`] finds it from anywhere, so no layer has to pass it down.

mod cell;
mod counts;
pub(crate) mod descriptors;
mod durations;
mod exemplars;
mod expected;
mod histogram;
mod known;
mod names;
mod openmetrics;
mod outage;
mod page;
mod process;
mod render;
mod semantic;
mod sequence;
mod series;
mod stats;
#[cfg(test)]
mod tests;
mod worker;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use attache_config::model::Name;

pub use self::names::{Names, Proof};
pub(crate) use self::{
    counts::PATIENT,
    descriptors::Kind,
    histogram::BOUNDS,
    known::Known,
    page::{Page, Value},
    semantic::{BOUNDS as SEMANTIC_BOUNDS, CELLS as SEMANTIC_CELLS, SIZE_CELLS, SIZES},
    series::Sums,
    stats::Served,
};
use self::{expected::Expected, series::Family};
pub use self::{
    render::{METRICS_CONTENT_TYPE, OPENMETRICS_CONTENT_TYPE},
    stats::Stats,
    worker::{Admitted, DecisionCounter, WorkerMetrics},
};
use crate::Watch;

/// The metrics of the whole process: where workers' cells are registered and what a scrape reads.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Registry>);

#[derive(Debug, Default)]
pub(crate) struct Registry {
    exchanges: Arc<Family<6, { cell::ALL }>>,
    in_flight: Arc<Family<2, 1>>,
    exemplars: Arc<Family<5, { exemplars::CELLS }>>,
    connects: Arc<Family<2, { histogram::CELLS }>>,
    connections: Arc<Family<1, 2>>,
    connections_closed: Arc<Family<2, 1>>,
    upstream_connections: Arc<Family<1, 2>>,
    upstream_failures: Arc<Family<2, 1>>,
    pool_reused: Arc<Family<1, 1>>,
    retries: Arc<Family<2, 1>>,
    hedges: Arc<Family<2, 1>>,
    overflow: Arc<Family<2, 1>>,
    ejections: Arc<Family<2, 1>>,
    transitions: Arc<Family<3, 1>>,
    dns: Arc<Family<2, 1>>,
    endpoint_slices: Arc<Family<2, 1>>,
    tls_handshakes: Arc<Family<5, 1>>,
    tls_clients: Arc<Family<2, 1>>,
    log_dropped: Arc<Family<1, 1>>,
    spans_exported: Arc<Family<0, 1>>,
    spans_dropped: Arc<Family<1, 1>>,
    panics: Arc<Family<0, 1>>,
    /// By upstream and endpoint, while a client requests it; never on the page of metrics, because the number of
    /// endpoints has no limit.
    endpoints: Arc<Family<2, { cell::ENDPOINT }>>,
    watch: Watch,
    limit_service: Arc<Family<2, 1>>,
    mirrored: Arc<Family<2, 1>>,
    subset_fallbacks: Arc<Family<2, 1>>,
    authorization: Arc<Family<4, 1>>,
    authorizer: Arc<Family<2, 1>>,
    cors: Arc<Family<3, 1>>,
    compressed: Arc<Family<3, 1>>,
    jwt_keys: Arc<Family<2, 1>>,
    log_records: Arc<Family<1, 1>>,
    metric_exports: Arc<Family<1, 1>>,
    /// Somebody takes `semantics`.
    semantic: AtomicBool,
    semantics: semantic::Families,
    control: Control,
}

/// What only the control thread sets, so that locks and locked instructions are harmless.
#[derive(Debug, Default)]
struct Control {
    /// What stands on the page as 0 before it counts.
    expected: Mutex<Expected>,
    /// What the config says of listeners, routes and upstreams, for attributes by the semantic conventions.
    known: Mutex<Arc<Known>>,
    endpoints: Mutex<BTreeMap<Name, EndpointCounts>>,
    /// The state of each upstream's failure breaker.
    circuits: Mutex<BTreeMap<Name, &'static str>>,
    admissions: Mutex<BTreeMap<Name, AdmissionCounts>>,
    /// Retries that run and that may run.
    retry_budgets: Mutex<BTreeMap<Name, [u32; 2]>>,
    overload: Mutex<OverloadGauges>,
    /// By side and name; seconds since the Unix epoch.
    expiries: Mutex<BTreeMap<[Name; 2], u64>>,
    certificate_reloads: AtomicU64,
    certificate_failures: AtomicU64,
    certificates_failing: AtomicU64,
    credential_reloads: AtomicU64,
    credential_failures: AtomicU64,
    credentials_failing: AtomicU64,
    insecure: Mutex<Vec<Name>>,
    reloads_ok: AtomicU64,
    reloads_failed: AtomicU64,
    last_reload_failed: AtomicBool,
    /// Seconds since the Unix epoch; 0 before the first.
    last_loaded: AtomicU64,
}

/// Where attache shows a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// To clients of a listener.
    Listener,
    /// To the endpoints of an upstream.
    Upstream,
}

/// How many endpoints an upstream has, by what may be done with them. Each endpoint counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointCounts {
    /// Used for calls.
    pub healthy: usize,
    /// Fail their health check.
    pub unhealthy: usize,
    /// Ejected, and not already counted as unhealthy.
    pub ejected: usize,
    /// Left alone or probed by their own failure breaker, and not already counted.
    pub circuit_open: usize,
    /// No connection to them can be made.
    pub unreachable: usize,
}

/// What became of a hedge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hedge {
    /// Its answer was the first good one.
    Won,
    /// The other attempt's was, or all failed.
    Lost,
    /// The retry budget had none left for it.
    Refused,
}

/// Who may call an upstream, where an adaptive limit or a queue decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdmissionCounts {
    /// Calls at once.
    pub limit: u32,
    /// Calls that run.
    pub running: u32,
    /// Calls that wait.
    pub waiting: u32,
    /// Latency without load, where it is measured.
    pub min_rtt: Option<Duration>,
}

/// How much of what the process may use is used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OverloadGauges {
    /// By resource, 0 to 1.
    pub pressure: Vec<(&'static str, f64)>,
    /// By action, whether it is taken now.
    pub actions: Vec<(&'static str, bool)>,
}

impl Side {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Upstream => "upstream",
        }
    }
}

impl Metrics {
    /// Metrics without a series yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counters for the calling thread. They are added to those of all other threads.
    pub fn worker(&self) -> WorkerMetrics {
        WorkerMetrics::new(&self.0)
    }

    /// What is seen live of the same exchanges.
    pub fn watch(&self) -> &Watch {
        &self.0.watch
    }

    /// The endpoints of an upstream changed.
    pub fn set_endpoints(&self, upstream: &Name, counts: EndpointCounts) {
        let mut endpoints = self.0.control.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        endpoints.insert(Name::clone(upstream), counts);
    }

    /// The failure breaker of an upstream is in this state: `closed`, `open` or `half-open`. `None` where it has none.
    pub fn set_circuit(&self, upstream: &Name, state: Option<&'static str>) {
        let mut circuits = self.0.control.circuits.lock().unwrap_or_else(PoisonError::into_inner);
        match state {
            Some(state) => circuits.insert(Name::clone(upstream), state),
            None => circuits.remove(upstream),
        };
    }

    /// The limit of an upstream, and who runs and waits under it.
    pub fn set_admission(&self, upstream: &Name, counts: AdmissionCounts) {
        let mut admissions = self.0.control.admissions.lock().unwrap_or_else(PoisonError::into_inner);
        admissions.insert(Name::clone(upstream), counts);
    }

    /// How much of an upstream's retry budget is used, and how much there is. `None` where no route to it retries.
    pub fn set_retry_budget(&self, upstream: &Name, used_and_limit: Option<[u32; 2]>) {
        let mut budgets = self.0.control.retry_budgets.lock().unwrap_or_else(PoisonError::into_inner);
        match used_and_limit {
            Some(budget) => budgets.insert(Name::clone(upstream), budget),
            None => budgets.remove(upstream),
        };
    }

    /// What of the process's limits is used, and what is done about it.
    pub fn set_overload(&self, gauges: OverloadGauges) {
        *self.0.control.overload.lock().unwrap_or_else(PoisonError::into_inner) = gauges;
    }

    /// After a reload: the endpoints, breakers and budgets of upstreams that are gone are no longer reported.
    pub fn retain_upstreams(&self, keep: impl Fn(&Name) -> bool) {
        let mut circuits = self.0.control.circuits.lock().unwrap_or_else(PoisonError::into_inner);
        circuits.retain(|upstream, _| keep(upstream));
        let mut endpoints = self.0.control.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        endpoints.retain(|upstream, _| keep(upstream));
        let mut admissions = self.0.control.admissions.lock().unwrap_or_else(PoisonError::into_inner);
        admissions.retain(|upstream, _| keep(upstream));
        let mut budgets = self.0.control.retry_budgets.lock().unwrap_or_else(PoisonError::into_inner);
        budgets.retain(|upstream, _| keep(upstream));
    }

    /// The certificate that is shown by a listener, or to an upstream, expires then.
    pub fn set_certificate_expiry(&self, side: Side, name: &Name, at: SystemTime) {
        let mut expiries = self.0.control.expiries.lock().unwrap_or_else(PoisonError::into_inner);
        expiries.insert([side.as_str().into(), Name::clone(name)], unix_seconds(at));
    }

    /// After a reload: the certificates of listeners and upstreams that are gone are no longer reported.
    pub fn retain_certificates(&self, keep: impl Fn(Side, &Name) -> bool) {
        let mut expiries = self.0.control.expiries.lock().unwrap_or_else(PoisonError::into_inner);
        expiries.retain(|[side, name], _| {
            keep(if &**side == "listener" { Side::Listener } else { Side::Upstream }, name)
        });
    }

    /// How following TLS files went since the start, and how many listeners and upstreams serve an older state now.
    pub fn set_certificate_reloads(&self, reloads: u64, failures: u64, failing: u64) {
        let control = &self.0.control;
        if reloads > control.certificate_reloads.swap(reloads, Relaxed) {
            self.0.watch.own_event("certificates", "changed files were taken");
        }
        if failures > control.certificate_failures.swap(failures, Relaxed) {
            self.0.watch.own_event("certificates", "changed files can't be used; the older ones serve");
        }
        control.certificates_failing.store(failing, Relaxed);
    }

    /// How following secrets went since the start, and how many can't be used as they are now.
    pub fn set_credential_reloads(&self, reloads: u64, failures: u64, failing: u64) {
        let control = &self.0.control;
        control.credential_reloads.store(reloads, Relaxed);
        control.credential_failures.store(failures, Relaxed);
        control.credentials_failing.store(failing, Relaxed);
    }

    /// The upstreams whose certificates are not verified, in place of those that were named before.
    pub fn set_insecure_upstreams(&self, upstreams: Vec<Name>) {
        *self.0.control.insecure.lock().unwrap_or_else(PoisonError::into_inner) = upstreams;
    }

    /// A config was loaded (also the first one) or was refused.
    pub fn config_loaded(&self, ok: bool) {
        let control = &self.0.control;
        self.0.watch.own_event("config", if ok { "loaded" } else { "refused; the one before serves" });
        control.last_reload_failed.store(!ok, Relaxed);
        if ok {
            control.reloads_ok.fetch_add(1, Relaxed);
            control.last_loaded.store(unix_seconds(SystemTime::now()), Relaxed);
        } else {
            control.reloads_failed.fetch_add(1, Relaxed);
        }
    }
}

fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

thread_local! {
    /// Before `install` the counts go to cells that are never scraped, so the counters are safe to use in any test.
    static CURRENT: RefCell<WorkerMetrics> = RefCell::new(Metrics::new().worker());
}

impl WorkerMetrics {
    /// Makes these the counters of the calling thread: what [`metrics`] returns from now on.
    pub fn install(&self) {
        // A thread that is being torn down counts nothing any more.
        let _ = CURRENT.try_with(|current| current.replace(self.clone()));
    }
}

/// The counters of the calling thread. Always safe to use: before [`WorkerMetrics::install`] their counts are not
/// scraped.
pub fn metrics() -> WorkerMetrics {
    CURRENT.try_with(|current| current.borrow().clone()).unwrap_or_else(|_| Metrics::new().worker())
}
