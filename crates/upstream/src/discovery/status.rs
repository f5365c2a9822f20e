//! What the last look-up of each name said, for people. Written and read on the control thread.

use std::sync::{Mutex, PoisonError};

use attache_telemetry::Reason;
use tokio::time::Instant;

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
pub struct Lookups(Mutex<Vec<LookupStatus>>);

impl Lookups {
    /// All of them, in the order in which they were first made.
    pub fn all(&self) -> Vec<LookupStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes how one ended.
    pub(super) fn note(&self, name: String, next: Instant, outcome: Result<usize, (Reason, String)>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
    }
}
