//! The last reloads, and what each of them did.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

/// How many reloads are kept.
const REMEMBERED: usize = 32;

/// What started the reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReloadTrigger {
    /// The start of the program; it is not a reload, but the first entry of the list.
    Start,
    /// SIGHUP.
    Signal,
    /// The files changed.
    File,
    /// The admin API.
    Admin,
}

impl ReloadTrigger {
    /// Its name.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Signal => "signal",
            Self::File => "file",
            Self::Admin => "admin",
        }
    }
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReloadReport {
    /// The generation that is used now.
    pub(crate) generation: u64,
    /// What changed, one line each; empty if nothing did.
    pub(crate) changes: Vec<String>,
    /// Changes in the new config that need a restart.
    pub(crate) needs_restart: Vec<String>,
    /// The differences between the effective configs, as a unified diff; secrets are hidden in it. Empty if there are none.
    pub(crate) diff: String,
    /// Requests that matched a route before and match none now.
    pub(crate) orphaned: Vec<String>,
}

/// One attempted reload.
#[derive(Clone, Debug)]
pub(crate) struct TriedReload {
    pub(crate) at: SystemTime,
    pub(crate) took: Duration,
    pub(crate) trigger: ReloadTrigger,
    /// What it did, or the diagnostics that say why it did nothing.
    pub(crate) result: Result<ReloadReport, String>,
}

/// The last reloads, newest last. Use it on the control thread, because it has a lock.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    list: Mutex<VecDeque<TriedReload>>,
    tried: AtomicU64,
}

impl Reloads {
    pub(crate) fn note(&self, reload: TriedReload) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() == REMEMBERED {
            list.pop_front();
        }
        list.push_back(reload);
    }

    /// The reloads, newest last.
    pub(crate) fn list(&self) -> Vec<TriedReload> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// The digest of the files when they were last read.
    pub(crate) fn tried(&self) -> u64 {
        self.tried.load(Relaxed)
    }

    pub(crate) fn begins(&self, digest: u64) {
        self.tried.store(digest, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_reloads_is_bounded_and_the_newest_stays() {
        let reloads = Reloads::default();
        for generation in 0..40 {
            let result = Ok(ReloadReport {
                generation,
                changes: Vec::new(),
                needs_restart: Vec::new(),
                diff: String::new(),
                orphaned: Vec::new(),
            });
            let (at, took) = (SystemTime::now(), Duration::ZERO);
            reloads.note(TriedReload { at, took, trigger: ReloadTrigger::Admin, result });
        }
        let list = reloads.list();
        assert_eq!(list.len(), REMEMBERED);
        assert_eq!(list.last().and_then(|last| last.result.clone().ok()).map(|r| r.generation), Some(39));
    }
}
