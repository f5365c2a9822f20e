//! Connections that became something else than HTTP: WebSocket and other upgrades, `CONNECT`.
//!
//! A tunnel outlives the request that made it, so it takes the request's record with it and reports it at its own end. A drain
//! waits for tunnels as it waits for requests; the drain's deadline cuts them.

use std::{cell::Cell, rc::Rc, time::Duration};

use attache_listener::{Drain, Phase};
use attache_telemetry::{Exchange, Reason};
use attache_upstream::{
    Guard,
    connect::Connection,
    tunnel::{TunnelError, copy_both},
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{sync::Notify, task::spawn_local};

use super::OnFinish;

/// The tunnels of one worker.
#[derive(Clone)]
pub(crate) struct Tunnels {
    open: Rc<Cell<usize>>,
    closed: Rc<Notify>,
    drain: Drain,
}

impl Tunnels {
    pub(crate) fn new(drain: Drain) -> Self {
        Self { open: Rc::default(), closed: Rc::default(), drain }
    }

    /// Waits until none is open.
    pub(crate) async fn ended(&self) {
        while self.open.get() > 0 {
            self.closed.notified().await;
        }
    }

    /// Both sides switched protocols.
    pub(super) fn upgraded(
        &self,
        client: OnUpgrade,
        upstream: OnUpgrade,
        idle: Duration,
        exchange: Rc<Exchange>,
        on_finish: OnFinish,
    ) {
        self.run(exchange, on_finish, async move {
            let (client, upstream) = tokio::join!(client, upstream);
            match (client, upstream) {
                (Ok(client), Ok(upstream)) => {
                    copy_both(TokioIo::new(client), TokioIo::new(upstream), idle).await.map_err(Into::into)
                }
                (Err(error), _) => Err(Lost::new(Reason::ClientClosed, &error)),
                (_, Err(error)) => Err(Lost::new(Reason::UpstreamReset, &error)),
            }
        });
    }

    /// The client's side of a CONNECT, once it was answered, and a connection that is there already.
    pub(super) fn connected(
        &self,
        client: OnUpgrade,
        upstream: Connection,
        guard: Guard,
        idle: Duration,
        exchange: Rc<Exchange>,
        on_finish: OnFinish,
    ) {
        self.run(exchange, on_finish, async move {
            let _charged = guard;
            match client.await {
                Ok(client) => copy_both(TokioIo::new(client), upstream, idle).await.map_err(Into::into),
                Err(error) => Err(Lost::new(Reason::ClientClosed, &error)),
            }
        });
    }

    fn run(
        &self,
        exchange: Rc<Exchange>,
        on_finish: OnFinish,
        tunnel: impl Future<Output = Result<(u64, u64), Lost>> + 'static,
    ) {
        exchange.handed_over.set(true);
        let end = End { tunnels: self.clone(), exchange, on_finish };
        self.open.set(self.open.get() + 1);
        let mut drain = self.drain.clone();
        spawn_local(async move {
            let result = tokio::select! {
                result = tunnel => result,
                _ = drain.reached(Phase::Cut) => Err(Lost {
                    reason: Reason::ShuttingDown,
                    detail: "the drain's deadline came before the end".to_owned(),
                    copied: (0, 0),
                }),
            };
            end.record(&result);
        });
    }
}

/// Why a tunnel ended early.
struct Lost {
    reason: Reason,
    detail: String,
    copied: (u64, u64),
}

impl Lost {
    fn new(reason: Reason, error: &dyn std::error::Error) -> Self {
        Self { reason, detail: error.to_string(), copied: (0, 0) }
    }
}

impl From<TunnelError> for Lost {
    fn from(error: TunnelError) -> Self {
        let detail = std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
        Self { reason: error.reason, detail, copied: error.copied }
    }
}


/// Reports the exchange when the tunnel's task ends, whatever way.
struct End {
    tunnels: Tunnels,
    exchange: Rc<Exchange>,
    on_finish: OnFinish,
}

impl End {
    fn record(&self, result: &Result<(u64, u64), Lost>) {
        let (received, sent) = match result {
            Ok(copied) => *copied,
            Err(lost) => {
                self.exchange.fail(lost.reason, lost.detail.clone());
                lost.copied
            }
        };
        self.exchange.received.set(self.exchange.received.get() + received);
        self.exchange.sent.set(self.exchange.sent.get() + sent);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        (self.on_finish)(&self.exchange);
        self.tunnels.open.set(self.tunnels.open.get().saturating_sub(1));
        self.tunnels.closed.notify_one();
    }
}
