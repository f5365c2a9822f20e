//! The results of an endpoint's health checks.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use arc_swap::ArcSwapOption;

/// The results of one endpoint's health checks.
#[derive(Debug, Default)]
pub struct CheckResults {
    pub(super) passed: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) failure: ArcSwapOption<String>,
}

impl CheckResults {
    /// Probes that passed.
    pub fn passed(&self) -> u64 {
        self.passed.load(Relaxed)
    }

    /// Probes that failed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// Why the last probe failed; `None` where it passed.
    pub fn failure(&self) -> Option<Arc<String>> {
        self.failure.load_full()
    }
}
