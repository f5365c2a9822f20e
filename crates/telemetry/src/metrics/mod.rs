//! Metrics: each worker counts for itself, and a scrape adds up the counts.
//!
//! There is one handle per thread and not per layer, because one worker is one thread: "the metrics of this worker" and "the metrics of
//! this thread" are the same thing. [`WorkerMetrics::install`] makes a handle that of its thread, and [`metrics`] returns it anywhere, so
//! no layer has to pass it on.

mod cell;
mod client_errors;
mod control;
mod counts;
mod descriptor;
mod durations;
mod exemplars;
mod expected;
mod histogram;
mod known;
mod names;
mod openmetrics;
mod outage;
mod page;
mod point;
mod process;
mod render;
mod scrape;
mod semantic;
mod sequence;
mod series;
mod shared;
mod stats;
pub(crate) mod table;
#[cfg(test)]
mod tests;
mod worker;

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use attache_config::model::Name;

pub use self::names::{IdentityProof, NamingScheme};
use self::{client_errors::ClientErrors, control::ControlValues, series::Label};
pub use self::{
    client_errors::log_client_errors,
    render::{METRICS_CONTENT_TYPE, OPENMETRICS_CONTENT_TYPE},
    stats::Stats,
    worker::DecisionCounter,
};
pub(crate) use self::{
    counts::MIN_CLIENT_WAIT,
    descriptor::{MetricDescriptor, MetricKind},
    histogram::BOUNDS,
    known::ConfiguredParts,
    page::{FamilyPage, SeriesValue},
    semantic::{BOUNDS as SEMANTIC_BOUNDS, CELLS as SEMANTIC_CELLS, SIZE_CELLS, SIZES},
    series::Sums,
    stats::ServedCalls,
};
use crate::{Watch, watch::WorkerWatch};

/// The metrics of the whole process. Workers register their cells here, and a scrape reads them.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<MetricsRegistry>);

#[derive(Debug, Default)]
pub(crate) struct MetricsRegistry {
    counters: table::Families,
    shared: shared::Families,
    watch: Watch,
    client_errors: ClientErrors,
    /// Whether `semantics` is used.
    semantic: AtomicBool,
    semantics: semantic::Families,
    control: ControlValues,
}

/// The counters of one worker. They are cheap to clone and never shared between threads, so they count without a lock.
#[derive(Clone, Debug)]
pub struct WorkerMetrics(Rc<Tables>);

#[derive(Debug)]
struct Tables {
    counters: table::Tables,
    shared: shared::Tables,
    semantic: semantic::Tables,
    watcher: WorkerWatch,
    registry: Arc<MetricsRegistry>,
}

/// Where attache presents a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateSide {
    /// To clients of a listener.
    Listener,
    /// To the endpoints of an upstream.
    Upstream,
}

/// How many endpoints of an upstream are in each state. Each endpoint counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointCounts {
    /// Used for calls.
    pub healthy: usize,
    /// They fail their health check.
    pub unhealthy: usize,
    /// They are ejected, and not already counted as unhealthy.
    pub ejected: usize,
    /// Their own failure breaker is open or half-open, and they are not already counted.
    pub circuit_open: usize,
    /// No connection to them can be made.
    pub unreachable: usize,
}

/// How a hedge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeEnd {
    /// Its response was the first good one.
    Won,
    /// The other attempt's response was the first good one, or all attempts failed.
    Lost,
    /// The retry budget did not allow it.
    Refused,
}

/// How the check of a TLS client's identity ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityCheckResult {
    /// The client proved an identity, and it is allowed.
    Allowed,
    /// The client proved an identity that is not allowed, or it proved none although one is required.
    Denied,
    /// The client proved no identity, and is allowed without one.
    Anonymous,
}

/// The calls of an upstream that has an adaptive limit or a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdmissionCounts {
    /// How many calls may run at once.
    pub limit: u32,
    /// How many calls run.
    pub running: u32,
    /// How many calls wait.
    pub waiting: u32,
    /// The latency without load, if it is measured.
    pub min_rtt: Option<Duration>,
}

/// How much of its limits the process uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OverloadGauges {
    /// By resource, from 0 to 1.
    pub pressure: Vec<(&'static str, f64)>,
    /// By action, whether it is taken now.
    pub actions: Vec<(&'static str, bool)>,
}

impl CertificateSide {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Upstream => "upstream",
        }
    }
}

impl From<CertificateSide> for Label<'_> {
    fn from(side: CertificateSide) -> Self {
        Self::Word(side.as_str())
    }
}

impl From<HedgeEnd> for Label<'_> {
    fn from(outcome: HedgeEnd) -> Self {
        Self::Word(match outcome {
            HedgeEnd::Won => "won",
            HedgeEnd::Lost => "lost",
            HedgeEnd::Refused => "refused",
        })
    }
}

impl From<IdentityCheckResult> for Label<'_> {
    fn from(outcome: IdentityCheckResult) -> Self {
        Self::Word(match outcome {
            IdentityCheckResult::Allowed => "allowed",
            IdentityCheckResult::Denied => "denied",
            IdentityCheckResult::Anonymous => "anonymous",
        })
    }
}

impl Metrics {
    /// Metrics without a series yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counters for the calling thread. They are added to those of all other threads.
    pub fn worker(&self) -> WorkerMetrics {
        let registry = &self.0;
        WorkerMetrics(Rc::new(Tables {
            counters: table::Tables::new(&registry.counters),
            shared: shared::Tables::new(&registry.shared),
            semantic: semantic::Tables::new(&registry.semantics),
            watcher: WorkerWatch::new(&registry.watch),
            registry: Arc::clone(registry),
        }))
    }

    /// The live view of the same exchanges.
    pub fn watch(&self) -> &Watch {
        &self.0.watch
    }

    /// The upstreams that answer every call with a 4xx now: how many such responses there were, and since when.
    pub(crate) fn client_errors(&self, served: &ServedCalls) -> HashMap<Name, (u64, Duration)> {
        self.0.client_errors.look(served, &self.0.watch)
    }
}

thread_local! {
    /// Before `install`, counts go to cells that are never scraped, so the counters are safe to use in any test.
    static CURRENT: RefCell<WorkerMetrics> = RefCell::new(Metrics::new().worker());
}

impl WorkerMetrics {
    /// Makes these the counters of the calling thread: [`metrics`] returns them from now on.
    pub fn install(&self) {
        // A thread that is ending has no handle: it counts nothing.
        let _ = CURRENT.try_with(|current| current.replace(self.clone()));
    }
}

/// The counters of the calling thread. Always safe to use: before [`WorkerMetrics::install`] their counts are not
/// scraped.
pub fn metrics() -> WorkerMetrics {
    CURRENT.try_with(|current| current.borrow().clone()).unwrap_or_else(|_| Metrics::new().worker())
}
