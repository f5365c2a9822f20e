//! How a listener ends: the phases of its drain.
//!
//! The rule: *serve, then drain, then cut*, and never back. Draining stops accepting, lets every accepted request finish, asks the clients
//! to leave (`Connection: close`, GOAWAY) and does not touch opaque connections. Cutting closes what is still open. The owner of the
//! trigger decides how much time passes between the two.

use std::sync::Arc;

use tokio::sync::watch;

/// Which phase of its end a listener is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum DrainPhase {
    /// Connections are accepted.
    #[default]
    Serve,
    /// No new connections; running requests finish.
    Drain,
    /// Everything that is still open is closed.
    Cut,
}

/// Tells a listener on all workers to end. Each listener that a reload may end alone has its own trigger. Dropping a trigger signals
/// nothing.
#[derive(Clone, Debug)]
pub struct DrainTrigger(Arc<watch::Sender<DrainPhase>>);

/// A listener's side of a [`DrainTrigger`].
#[derive(Clone, Debug)]
pub struct Drain {
    phase: watch::Receiver<DrainPhase>,
}

impl Default for DrainTrigger {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(DrainPhase::Serve)))
    }
}

impl DrainTrigger {
    /// A trigger that has not fired.
    pub fn new() -> Self {
        Self::default()
    }

    /// The listener's side, for [`serve`](crate::serve).
    pub fn subscribe(&self) -> Drain {
        Drain { phase: self.0.subscribe() }
    }

    /// Stops accepting and lets running work finish.
    pub fn drain(&self) {
        self.advance(DrainPhase::Drain);
    }

    /// Closes what is still open, because the deadline has passed.
    pub fn cut(&self) {
        self.advance(DrainPhase::Cut);
    }

    fn advance(&self, to: DrainPhase) {
        self.0.send_if_modified(|phase| {
            let later = to > *phase;
            *phase = to.max(*phase);
            later
        });
    }
}

impl Drain {
    /// Waits until the phase is `phase` or a later one. After its trigger was dropped, this never happens.
    pub async fn reached(&mut self, phase: DrainPhase) -> DrainPhase {
        match self.phase.wait_for(|now| *now >= phase).await {
            Ok(now) => *now,
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_phase_never_goes_back() {
        let trigger = DrainTrigger::new();
        let mut drain = trigger.subscribe();
        trigger.cut();
        trigger.drain();
        assert_eq!(drain.reached(DrainPhase::Drain).await, DrainPhase::Cut);
    }

    #[tokio::test]
    async fn a_dropped_trigger_ends_nothing() {
        let trigger = DrainTrigger::new();
        let mut drain = trigger.subscribe();
        drop(trigger);
        let waited =
            tokio::time::timeout(std::time::Duration::from_millis(1), drain.reached(DrainPhase::Drain)).await;
        assert!(waited.is_err());
    }
}
