//! The result of the last look-up of each name, for people, and whether the next one is requested before its time. The
//! control thread writes it; workers read the last failure and request a look-up, both without a lock.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use arc_swap::ArcSwapOption;
use attache_telemetry::Reason;
use tokio::{sync::Notify, time::Instant};

/// The last look-up of one name.
#[derive(Clone, Debug)]
pub struct LookupStatus {
    /// The name with its port, or `srv:NAME`.
    pub name: String,
    /// When it ended.
    pub at: Instant,
    /// When the next one begins.
    pub next: Instant,
    /// When the last successful one ended.
    pub answered: Option<Instant>,
    /// Addresses in the last answer.
    pub answers: usize,
    /// Why the last one failed: the reason, and the resolver's message.
    pub failure: Option<(Reason, String)>,
}

/// The last look-ups of one upstream's names.
#[derive(Debug, Default)]
pub struct Lookups {
    all: Mutex<Vec<LookupStatus>>,
    /// The message of the first name whose last look-up failed.
    failure: ArcSwapOption<String>,
    /// A look-up is requested: no endpoint can be reached, so the addresses may be old.
    wanted: AtomicBool,
    on_wanted: Notify,
}

impl Lookups {
    /// All of them, in the order in which they were first made.
    pub fn all(&self) -> Vec<LookupStatus> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The resolver's message about the last failed look-up.
    pub(crate) fn failure(&self) -> Option<Arc<String>> {
        self.failure.load_full()
    }

    /// Requests a look-up before its time, because none of the endpoints can be reached.
    pub(crate) fn want(&self) {
        if !self.wanted.load(Relaxed) && !self.wanted.swap(true, Relaxed) {
            self.on_wanted.notify_waiters();
        }
    }

    /// Ends when a look-up is requested after this call.
    pub(super) async fn wanted(&self) {
        let notified = self.on_wanted.notified();
        self.wanted.store(false, Relaxed);
        notified.await;
    }

    /// Notes how one ended.
    pub(super) fn note(&self, name: String, next: Instant, outcome: Result<usize, (Reason, String)>) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Instant::now();
        let old = all.iter().position(|status| status.name == name);
        let (answered, answers) = match (&outcome, old.and_then(|index| all.get(index))) {
            (Ok(answers), _) => (Some(at), *answers),
            (Err(_), Some(old)) => (old.answered, old.answers),
            (Err(_), None) => (None, 0),
        };
        let status = LookupStatus { name, at, next, answered, answers, failure: outcome.err() };
        match old.and_then(|index| all.get_mut(index)) {
            Some(old) => *old = status,
            None => all.push(status),
        }
        let failed = all.iter().find_map(|status| status.failure.as_ref());
        self.failure.store(failed.map(|(_, detail)| Arc::new(detail.clone())));
    }
}
