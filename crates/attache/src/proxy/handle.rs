//! Handles that control a running proxy from any thread.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    process::ProcessState,
    reloads::{ReloadReport, ReloadTrigger},
    upgrade::OwnCommand,
};

/// An order for the [`Reloader`](super::reload::Reloader).
pub(crate) enum ReloaderOrder {
    /// Read the config again.
    Reload { trigger: ReloadTrigger, reply: oneshot::Sender<Result<ReloadReport, String>> },
    /// Hand over to a new process. The reply is its id.
    Upgrade { myself: OwnCommand, reply: oneshot::Sender<Result<u32, String>> },
}

/// Why the proxy ends, if it does. A later value in this order replaces an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProxyEnd {
    /// It does not end.
    No,
    /// Another process serves instead, and nothing waits for the end of this one.
    Succeeded,
    /// A signal, the admin API or the app's end requested it.
    Asked,
}

/// Controls a running proxy. It works from any thread and is cheap to clone.
#[derive(Clone)]
pub(crate) struct ProxyControl {
    pub(super) process: Arc<ProcessState>,
    pub(super) stop: watch::Sender<ProxyEnd>,
    pub(super) orders: mpsc::UnboundedSender<ReloaderOrder>,
}

impl ProxyControl {
    /// What the threads of the proxy share.
    pub(crate) fn process(&self) -> &Arc<ProcessState> {
        &self.process
    }

    /// Hands the listening sockets to a new process. This process ends when the new one serves; otherwise the error says why it doesn't.
    pub(crate) async fn upgrade(&self, myself: OwnCommand) -> Result<u32, String> {
        let (reply, answer) = oneshot::channel();
        let _ = self.orders.send(ReloaderOrder::Upgrade { myself, reply });
        answer.await.unwrap_or_else(|_| Err("the program is ending: it hands nothing over".to_owned()))
    }

    /// Begins to drain, for at most `shutdown.drain_timeout`; accepted work continues. A drain after a hand-over is shortened to that time.
    pub(crate) fn drain(&self) {
        self.ends(ProxyEnd::Asked);
    }

    /// Begins to drain because another process serves, for at most `reload.drain_timeout`.
    pub(crate) fn retire(&self) {
        self.ends(ProxyEnd::Succeeded);
    }

    fn ends(&self, end: ProxyEnd) {
        self.stop.send_if_modified(|now| {
            let is_later = *now < end;
            *now = end.max(*now);
            is_later
        });
    }

    /// Whether an orderly end was requested.
    pub(crate) fn was_told_to_end(&self) -> bool {
        *self.stop.borrow() != ProxyEnd::No
    }

    /// Reads the config's files again and uses the new config. If it can't, the error says why, and nothing has changed. It waits for
    /// reloads that were requested before.
    pub(crate) async fn reload(&self, trigger: ReloadTrigger) -> Result<ReloadReport, String> {
        let (reply, answer) = oneshot::channel();
        // If the queue was dropped, the order and its reply were dropped too.
        let _ = self.orders.send(ReloaderOrder::Reload { trigger, reply });
        answer.await.unwrap_or_else(|_| Err("the program is ending: it reloads nothing".to_owned()))
    }
}
