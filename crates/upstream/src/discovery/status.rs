//! What the last look-up of each name said, for people, and whether the next one is wanted before its time. Written on the
//! control thread; workers read the last failure and ask for a look-up, both without a lock.

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
    /// When the last one that brought an answer ended.
    pub answered: Option<Instant>,
    /// Addresses in the last answer.
    pub answers: usize,
    /// Why the last one failed, and in the resolver's words.
    pub failure: Option<(Reason, String)>,
}

/// The last look-ups of one upstream's names.
#[derive(Debug, Default)]
pub struct Lookups {
    all: Mutex<Vec<LookupStatus>>,
    /// What the first of them that failed last said.
    failure: ArcSwapOption<String>,
    /// No endpoint can be reached: the addresses may be old ones.
    wanted: AtomicBool,
    on_wanted: Notify,
}

impl Lookups {
    /// All of them, in the order in which they were first made.
    pub fn all(&self) -> Vec<LookupStatus> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the last look-up failed with, in the resolver's words.
    pub(crate) fn failure(&self) -> Option<Arc<String>> {
        self.failure.load_full()
    }

    /// Asks for a look-up before its time: none of the endpoints can be reached.
    pub(crate) fn want(&self) {
        if !self.wanted.load(Relaxed) && !self.wanted.swap(true, Relaxed) {
            self.on_wanted.notify_waiters();
        }
    }

    /// Ends when a look-up is asked for after this call.
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
