//! Decides whether this process is ready for traffic.
//!
//! Rule: the process is ready when the config is loaded, the listeners are open, and every upstream was looked up once or the limited wait
//! for that has passed. One upstream whose name does not resolve must not stop the traffic of the others for ever. A later reload never
//! ends readiness; only draining does.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use attache_config::model::Name;
use tokio::time::Instant;

/// The one place that knows whether the process is ready. It is cheap to clone. Use it on the control thread, because it has a lock.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<ReadinessState>>);

#[derive(Debug, Default)]
struct ReadinessState {
    config_loaded: bool,
    listening: bool,
    discovery: DiscoveryProgress,
    draining: bool,
    last_reload_failed: Option<String>,
}

#[derive(Debug, Default)]
enum DiscoveryProgress {
    #[default]
    NotBegun,
    Waiting {
        names: BTreeSet<Name>,
        until: Instant,
    },
    Done,
}

impl Readiness {
    /// Not ready, with every possible reason.
    pub fn new() -> Self {
        Self::default()
    }

    /// The first config is loaded.
    pub fn config_loaded(&self) {
        self.state().config_loaded = true;
    }

    /// All listeners are open on all workers.
    pub fn listening(&self) {
        self.state().listening = true;
    }

    /// The first look-ups have begun: readiness waits for these upstreams, but not longer than `wait`.
    pub fn discovering(&self, upstreams: impl IntoIterator<Item = Name>, wait: Duration) {
        let names: BTreeSet<_> = upstreams.into_iter().collect();
        let mut state = self.state();
        state.discovery = match Instant::now().checked_add(wait) {
            Some(until) if !names.is_empty() => DiscoveryProgress::Waiting { names, until },
            _ => DiscoveryProgress::Done,
        };
    }

    /// An upstream has its first endpoints.
    pub fn discovered(&self, upstream: &Name) {
        let mut state = self.state();
        if let DiscoveryProgress::Waiting { names, .. } = &mut state.discovery {
            names.remove(upstream);
            if names.is_empty() {
                state.discovery = DiscoveryProgress::Done;
            }
        }
    }

    /// The process is ending: it is not ready from now on.
    pub fn draining(&self) {
        self.state().draining = true;
    }

    /// Why the last reload was refused; `None` if it was not. The process stays ready, because it serves with the last good config.
    pub fn last_reload_failed(&self, why: Option<String>) {
        self.state().last_reload_failed = why;
    }

    /// What an operator should know although the process is ready; empty if there is nothing.
    pub fn notes(&self) -> String {
        let state = self.state();
        state
            .last_reload_failed
            .as_ref()
            .map(|why| format!("last reload failed: {why}\n"))
            .unwrap_or_default()
    }

    /// Whether the process is ready for traffic.
    pub fn is_ready(&self) -> bool {
        self.reasons().is_empty()
    }

    /// Why it is not ready, one reason per line; empty if it is ready.
    pub fn reasons(&self) -> String {
        let mut state = self.state();
        let mut reasons = String::new();
        let mut say = |reason: &str| {
            let _ = writeln!(reasons, "{reason}");
        };
        if state.draining {
            say("draining: the process is ending");
        }
        if !state.config_loaded {
            say("no config is loaded yet");
        }
        if !state.listening {
            say("the listeners are not open yet");
        }
        match &state.discovery {
            DiscoveryProgress::NotBegun => say("the first look-ups have not begun"),
            DiscoveryProgress::Waiting { until, .. } if Instant::now() >= *until => {
                state.discovery = DiscoveryProgress::Done;
            }
            DiscoveryProgress::Waiting { names, .. } => {
                let names: Vec<_> = names.iter().map(|name| &**name).collect();
                say(&format!("no endpoints yet for: {}", names.join(", ")));
            }
            DiscoveryProgress::Done => {}
        }
        reasons
    }

    fn state(&self) -> MutexGuard<'_, ReadinessState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(10);

    fn started(readiness: &Readiness, upstreams: &[&str]) {
        readiness.config_loaded();
        readiness.listening();
        readiness.discovering(upstreams.iter().map(|name| Name::from(*name)), WAIT);
    }

    #[test]
    fn every_missing_step_is_named() {
        insta::assert_snapshot!(Readiness::new().reasons(), @r#"
    no config is loaded yet
    the listeners are not open yet
    the first look-ups have not begun
    "#);
    }

    #[tokio::test(start_paused = true)]
    async fn ready_once_every_upstream_was_looked_up() {
        let readiness = Readiness::new();
        started(&readiness, &["orders", "users"]);
        readiness.discovered(&"users".into());
        assert_eq!(readiness.reasons(), "no endpoints yet for: orders\n");
        readiness.discovered(&"orders".into());
        assert!(readiness.is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_does_not_resolve_delays_readiness_only_for_the_wait() {
        let readiness = Readiness::new();
        started(&readiness, &["orders"]);
        tokio::time::advance(Duration::from_millis(9_999)).await;
        assert!(!readiness.is_ready());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(readiness.is_ready());
    }

    #[test]
    fn without_an_upstream_nothing_is_waited_for() {
        let readiness = Readiness::new();
        started(&readiness, &[]);
        assert!(readiness.is_ready());
    }

    #[test]
    fn draining_ends_readiness_for_good() {
        let readiness = Readiness::new();
        started(&readiness, &[]);
        readiness.draining();
        readiness.listening();
        assert_eq!(readiness.reasons(), "draining: the process is ending\n");
    }
}
