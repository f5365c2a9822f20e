//! What tells a running proxy what to do, from any thread.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    process::Process,
    reloads::{Report, Trigger},
    upgrade::OwnCommand,
};

/// What is asked of the [`Reloader`](super::reload::Reloader).
pub(crate) enum Order {
    /// Read the config again.
    Reload { trigger: Trigger, reply: oneshot::Sender<Result<Report, String>> },
    /// Hand over to a new process; its id.
    Upgrade { myself: OwnCommand, reply: oneshot::Sender<Result<u32, String>> },
}

/// Why the proxy ends, if it does. The later one in this order replaces an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// It serves.
    No,
    /// Another process serves in its place, and nothing waits for the end of this one.
    Succeeded,
    /// A signal, the admin API or the app's end asked for it.
    Asked,
}

/// Tells a running proxy what to do. Works from any thread, cheap to clone.
#[derive(Clone)]
pub(crate) struct Control {
    pub(super) process: Arc<Process>,
    pub(super) stop: watch::Sender<End>,
    pub(super) orders: mpsc::UnboundedSender<Order>,
}

impl Control {
    /// What the proxy's threads share.
    pub(crate) fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// Hands the listening sockets to a new process and ends when that serves, or says why it doesn't.
    pub(crate) async fn upgrade(&self, myself: OwnCommand) -> Result<u32, String> {
        let (reply, answer) = oneshot::channel();
        let _ = self.orders.send(Order::Upgrade { myself, reply });
        answer
            .await
            .unwrap_or_else(|_| Err("the program is ending: nothing is handed over any more".to_owned()))
    }

    /// Begins to drain, for at most `shutdown.drain_timeout`; accepted work continues. A drain after a hand-over is
    /// shortened to that.
    pub(crate) fn drain(&self) {
        self.ends(End::Asked);
    }

    /// Begins to drain since another process serves, for at most `reload.drain_timeout`.
    pub(crate) fn retire(&self) {
        self.ends(End::Succeeded);
    }

    fn ends(&self, end: End) {
        self.stop.send_if_modified(|now| {
            let is_later = *now < end;
            *now = end.max(*now);
            is_later
        });
    }

    /// It ends in an orderly way.
    pub(crate) fn was_told_to_end(&self) -> bool {
        *self.stop.borrow() != End::No
    }

    /// Reads the config's files again and switches over, or says why not; then nothing has changed. Waits for reloads that were
    /// asked for before.
    pub(crate) async fn reload(&self, trigger: Trigger) -> Result<Report, String> {
        let (reply, answer) = oneshot::channel();
        // If the queue was dropped, so are the order and its reply.
        let _ = self.orders.send(Order::Reload { trigger, reply });
        answer.await.unwrap_or_else(|_| Err("the program is ending: nothing is reloaded any more".to_owned()))
    }
}
