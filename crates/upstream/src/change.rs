//! When a state last changed, and why: for the admin API and the log.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

/// The last change of one state. Written where it changes, which is rare; read by the admin API.
#[derive(Debug, Default)]
pub(crate) struct LastChange(ArcSwapOption<(Instant, Arc<str>)>);

/// How long a state has lasted, and what caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateAge {
    /// Time since its last change, or since its owner began.
    pub age: Duration,
    /// The cause in words for people; `None` if it never changed.
    pub why: Option<Arc<str>>,
}

impl LastChange {
    pub(crate) fn note(&self, now: Instant, why: impl Into<Arc<str>>) {
        self.0.store(Some(Arc::new((now, why.into()))));
    }

    /// `began`: when the owner of the state began.
    pub(crate) fn standing(&self, began: Instant, now: Instant) -> StateAge {
        let last = self.0.load();
        let since = last.as_ref().map_or(began, |last| last.0);
        StateAge {
            age: now.saturating_duration_since(since),
            why: last.as_ref().map(|last| Arc::clone(&last.1)),
        }
    }
}
