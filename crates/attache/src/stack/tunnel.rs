//! Connections that have switched from HTTP to another protocol: WebSocket and other upgrades, and `CONNECT`.
//!
//! A tunnel outlives its request, so it takes the request's record with it and reports it at its own end. A drain waits for tunnels as it
//! waits for requests; the drain's deadline cuts them.

use std::{cell::Cell, rc::Rc, time::Duration};

use attache_http::Body;
use attache_listener::{Drain, DrainPhase, IdleHold, OnUpgrade};
use attache_telemetry::{Exchange, Reason};
use attache_upstream::{
    BareConnection,
    pool::upgraded,
    tunnel::{PollOnWake, TunnelError, TunnelRules, copy_both, copy_both_sockets},
};
use attache_wire::Response;

use tokio::{sync::Notify, task::spawn_local};

use crate::observe::OnFinish;

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

    /// Waits until no tunnel is open.
    pub(crate) async fn ended(&self) {
        while self.open.get() > 0 {
            self.closed.notified().await;
        }
    }

    /// Both sides have switched protocols. `upstream` is the response that said so, without its head.
    pub(super) fn upgraded(&self, client: OnUpgrade, mut upstream: Response<Body>, tunnel: TunnelContext) {
        let idle = tunnel.idle;
        self.run(tunnel, async move {
            let (client, upstream) = tokio::join!(client, upgraded(&mut upstream));
            match (client, upstream) {
                (Ok(client), Some(Ok(upstream))) => {
                    let closer = upstream.closer();
                    copy_both(client, upstream, idle, closer).await.map_err(Into::into)
                }
                (Err(error), _) => Err(EarlyTunnelEnd::new(Reason::ClientClosed, error.to_string())),
                (_, Some(Err(error))) => Err(EarlyTunnelEnd::new(error.reason, error.detail())),
                (_, None) => Err(EarlyTunnelEnd::new(
                    Reason::UpstreamProtocolError,
                    "the upstream switched protocols without a connection".to_owned(),
                )),
            }
        });
    }

    /// Connects the client's side of a CONNECT that was answered to a connection that is already open.
    pub(super) fn connected(&self, client: OnUpgrade, upstream: BareConnection, tunnel: TunnelContext) {
        let rules = TunnelRules { idle: tunnel.idle, answers: true };
        self.run(tunnel, async move {
            let BareConnection { io: upstream, mut guard } = upstream;
            match client.await {
                Ok(client) => {
                    copy_both_sockets(client, |_| None, upstream, &mut guard, rules).await.map_err(Into::into)
                }
                Err(error) => Err(EarlyTunnelEnd::new(Reason::ClientClosed, error.to_string())),
            }
        });
    }

    fn run(
        &self,
        tunnel: TunnelContext,
        copy: impl Future<Output = Result<(u64, u64), EarlyTunnelEnd>> + 'static,
    ) {
        // The listener follows an HTTP/1 connection to its end; for a stream of HTTP/2 it ends with the response.
        tunnel.exchange.handed_over.set(tunnel.hold.is_some());
        self.open.set(self.open.get() + 1);
        let end = TunnelGuard { tunnels: self.clone(), tunnel };
        let mut drain = self.drain.clone();
        spawn_local(async move {
            let result = tokio::select! {
                biased;
                result = copy => result,
                _ = PollOnWake::new(drain.reached(DrainPhase::Cut)) => {
                    Err(EarlyTunnelEnd::new(Reason::ShuttingDown, "the drain's deadline passed before the end".to_owned()))
                }
            };
            end.record(&result);
        });
    }
}

/// What a tunnel takes over from its request.
pub(super) struct TunnelContext {
    /// If no byte arrives in either direction for this long, the tunnel ends.
    pub(super) idle: Duration,
    pub(super) exchange: Rc<Exchange>,
    pub(super) hold: Option<IdleHold>,
    pub(super) on_finish: OnFinish,
}

/// Why a tunnel ended early.
struct EarlyTunnelEnd {
    reason: Reason,
    detail: String,
    copied: (u64, u64),
}

impl EarlyTunnelEnd {
    fn new(reason: Reason, detail: String) -> Self {
        Self { reason, detail, copied: (0, 0) }
    }
}

impl From<TunnelError> for EarlyTunnelEnd {
    fn from(error: TunnelError) -> Self {
        let detail = std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
        Self { reason: error.reason, detail, copied: error.copied }
    }
}

/// Records the end of a tunnel's task, in whatever way it ends.
struct TunnelGuard {
    tunnels: Tunnels,
    tunnel: TunnelContext,
}

impl TunnelGuard {
    fn record(&self, result: &Result<(u64, u64), EarlyTunnelEnd>) {
        let exchange = &self.tunnel.exchange;
        let (received, sent) = match result {
            Ok(copied) => *copied,
            Err(lost) => {
                exchange.fail(lost.reason, lost.detail.clone());
                lost.copied
            }
        };
        exchange.received.set(exchange.received.get() + received);
        exchange.sent.set(exchange.sent.get() + sent);
    }
}

impl Drop for TunnelGuard {
    fn drop(&mut self) {
        if self.tunnel.exchange.handed_over.get() {
            (self.tunnel.on_finish)(&self.tunnel.exchange);
        }
        self.tunnels.open.set(self.tunnels.open.get().saturating_sub(1));
        self.tunnels.closed.notify_one();
    }
}
