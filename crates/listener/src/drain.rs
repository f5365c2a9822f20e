//! How a listener ends: the phases of its drain.
//!
//! The rule: *serve, then drain, then cut*, never back. Draining stops accepting, lets every accepted request
//! finish, asks the clients to leave (`Connection: close`, GOAWAY) and does not touch opaque connections. Cutting closes
//! what is still open. The caller of the trigger decides how much time passes between the two.

use std::sync::Arc;

use tokio::sync::watch;

/// Which phase of its end a listener is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Phase {
    /// Connections are accepted.
    #[default]
    Serve,
    /// No new connections; running requests finish.
    Drain,
    /// Whatever is still there is closed.
    Cut,
}

/// Tells listeners on all workers to end. One for each listener where a reload may end it alone. Dropping it signals nothing.
#[derive(Clone, Debug)]
pub struct DrainTrigger(Arc<watch::Sender<Phase>>);

/// A listener's side of a [`DrainTrigger`].
#[derive(Clone, Debug)]
pub struct Drain {
    phase: watch::Receiver<Phase>,
}

impl Default for DrainTrigger {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Phase::Serve)))
    }
}

impl DrainTrigger {
    /// A trigger that has not fired.
    pub fn new() -> Self {
        Self::default()
    }

    /// The side to give to [`serve`](crate::serve).
    pub fn subscribe(&self) -> Drain {
        Drain { phase: self.0.subscribe() }
    }

    /// Stops accepting, lets running work finish.
    pub fn drain(&self) {
        self.advance(Phase::Drain);
    }

    /// Closes what is still open; the deadline has come.
    pub fn cut(&self) {
        self.advance(Phase::Cut);
    }

    fn advance(&self, to: Phase) {
        self.0.send_if_modified(|phase| {
            let later = to > *phase;
            *phase = to.max(*phase);
            later
        });
    }
}

impl Drain {
    /// Waits for a phase at or after `phase`. A trigger that was dropped never fires.
    pub async fn reached(&mut self, phase: Phase) -> Phase {
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
    async fn an_ending_never_goes_back() {
        let trigger = DrainTrigger::new();
        let mut drain = trigger.subscribe();
        trigger.cut();
        trigger.drain();
        assert_eq!(drain.reached(Phase::Drain).await, Phase::Cut);
    }

    #[tokio::test]
    async fn a_dropped_trigger_ends_nothing() {
        let trigger = DrainTrigger::new();
        let mut drain = trigger.subscribe();
        drop(trigger);
        let waited =
            tokio::time::timeout(std::time::Duration::from_millis(1), drain.reached(Phase::Drain)).await;
        assert!(waited.is_err());
    }
}
