//! What the listener gets, and what it passes on.

use std::{
    fmt,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use attache_config::model::{self, Listener};
use attache_http::{AcceptedTraffic, Body, Client, OnInformational};
use attache_telemetry::{Exchange, Reason};

use crate::{
    ClientHello, ClientStream, OnUpgrade, OverloadState, Protocol, handover::ConnectionCount,
    registry::OpenConnection,
};

/// One listener on one worker.
pub struct ListenerSettings {
    /// The checked config of the listener.
    pub listener: Arc<Listener>,
    /// Terminates TLS. It is present if and only if the listener's config has `tls`.
    pub tls: Option<attache_tls::Acceptor>,
    /// The listener's open connections, shared by all workers.
    pub connections: Arc<Connections>,
    /// What a client's connection may carry, according to the routes that could match it.
    pub takes: Rc<dyn Fn(&Client) -> AcceptedTraffic>,
    /// Whether some routes pass TLS through without terminating it; then the ClientHello is read before it is answered.
    pub passes_tls: bool,
    /// The process's state of overload.
    pub overload: Arc<OverloadState>,
    /// Called once for every finished exchange, and also for connections that were closed before there was a request (no PROXY header,
    /// failed handshake, over a limit).
    pub on_finish: Rc<dyn Fn(&Exchange)>,
    /// Called on the worker about once a second while connections free memory, so that the allocator can return it to the system.
    pub release_memory: fn(),
    /// How long open connections may take to finish if these settings replace others and the change concerns them.
    pub drain_timeout: Duration,
}

impl ListenerSettings {
    /// Whether connections that were opened under these settings may continue under `new` ones: no setting has changed that a connection
    /// reads only once. Settings that each request reads (routes, headers), and the limit of connections, don't matter.
    pub(crate) fn holds_for_open(&self, new: &Self) -> bool {
        let part = |listener: &Listener| {
            let mut listener = listener.clone();
            listener.routes = Vec::new();
            listener.bind = Vec::new();
            listener.line = 0;
            listener.max_connections = 0;
            listener.http = model::HttpServer {
                limits: listener.http.limits.clone(),
                header_timeout: listener.http.header_timeout,
                idle_timeout: listener.http.idle_timeout,
                write_timeout: listener.http.write_timeout,
                half_close: listener.http.half_close,
                target: listener.http.target,
                set_current_client_cert_details: std::mem::take(
                    &mut listener.http.set_current_client_cert_details,
                ),
                ..model::HttpServer::default()
            };
            listener
        };
        part(&self.listener) == part(&new.listener)
    }
}

impl fmt::Debug for ListenerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerSettings").field("listener", &self.listener.name).finish_non_exhaustive()
    }
}

/// How many connections one listener has open over all workers, and how many workers accept more.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicUsize,
    /// How many workers accept, or have not yet taken what the kernel's queue or other workers still hold for them.
    accepting: AtomicUsize,
}

impl Connections {
    /// How many connections are open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether no connection is open and none will come: every worker has stopped accepting and has opened what was queued.
    pub fn have_ended(&self) -> bool {
        // The order matters: a worker counts what it took from its queue before it stops.
        self.accepting.load(Ordering::Acquire) == 0 && self.open() == 0
    }

    /// Notes that one more worker accepts, until the returned value is dropped.
    pub(crate) fn accepts(self: &Arc<Self>) -> AcceptingCount {
        self.accepting.fetch_add(1, Ordering::Relaxed);
        AcceptingCount(self.clone())
    }

    /// Takes one of `max` permits; `None` if all are in use. Dropping the permit releases it.
    pub(crate) fn enter(self: &Arc<Self>, max: usize, load: ConnectionCount) -> Option<ListenerPermit> {
        // A refused connection is never counted: otherwise it could cause the refusal of another one while a permit is free.
        let one_more = |open: usize| (open < max).then(|| open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(ListenerPermit { connections: self.clone(), _load: load })
    }
}

/// One connection's permit of `max_connections`, and its part of its worker's count.
#[derive(Debug)]
pub(crate) struct ListenerPermit {
    connections: Arc<Connections>,
    _load: ConnectionCount,
}

impl Drop for ListenerPermit {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One worker that accepts connections of a listener.
#[derive(Debug)]
pub(crate) struct AcceptingCount(Arc<Connections>);

impl Drop for AcceptingCount {
    fn drop(&mut self) {
        self.0.accepting.fetch_sub(1, Ordering::Release);
    }
}

/// One HTTP request as the listener read it.
#[derive(Debug)]
pub struct HttpRequest {
    /// The request; its body is streamed.
    pub request: attache_wire::Request<Body>,
    /// The connection that it was received on.
    pub client: Rc<Client>,
    /// Its record. The listener writes method, host, path, received, sent and status, and reports the record at the end.
    pub exchange: Rc<Exchange>,
    /// Passes 1xx responses on; `None` if the client can't receive them (HTTP/1.0).
    pub on_informational: Option<OnInformational>,
    /// The request was refused and must be answered with this `reason`. `request` is then a stand-in that contains nothing of what the
    /// client sent. The connection is closed after the answer.
    pub refused: Option<attache_http::Refusal>,
    /// The client's side of the tunnel that a response to CONNECT or an upgrade opens; `None` if the request asks for neither.
    pub upgrade: Option<OnUpgrade>,
    /// HTTP/2 CONNECT only: as long as this exists, the connection isn't idle although the stream's response has been sent.
    pub hold: Option<IdleHold>,
}

/// Keeps a connection from counting as idle while one of its tunnels outlives its request.
#[derive(Debug)]
pub struct IdleHold(Rc<OpenConnection>);

impl IdleHold {
    pub(crate) fn new(live: Rc<OpenConnection>) -> Self {
        live.begin();
        Self(live)
    }
}

impl Drop for IdleHold {
    fn drop(&mut self) {
        self.0.end();
        self.0.wake();
    }
}

/// Why a request was refused before anything was done for it. It becomes an [`attache_http::Refusal`] later; this type is `Copy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EarlyRefusal {
    /// The reason; it also decides the status.
    pub(crate) reason: Reason,
    /// The rule that was broken, as a whole sentence for the answer's text.
    pub(crate) rule: &'static str,
    /// The byte that broke the rule, if a single byte did.
    pub(crate) at: Option<attache_wire::ForbiddenByte>,
}

impl EarlyRefusal {
    pub(crate) const fn new(reason: Reason, rule: &'static str) -> Self {
        Self { reason, rule, at: None }
    }
}

/// The refusal of a head that took longer than `http.header_timeout`.
pub(crate) const HEADER_TIMEOUT: EarlyRefusal =
    EarlyRefusal::new(Reason::HeaderTimeout, "The request's head did not arrive in time.");

impl From<EarlyRefusal> for attache_http::Refusal {
    fn from(refusal: EarlyRefusal) -> Self {
        let text = match refusal.at {
            None => refusal.rule.into(),
            Some(at) => format!("{} It is {at}.", refusal.rule).into(),
        };
        Self { reason: refusal.reason, text }
    }
}

impl fmt::Display for EarlyRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule)
    }
}

impl std::error::Error for EarlyRefusal {}

/// One connection whose bytes are passed on unchanged.
#[derive(Debug)]
pub struct OpaqueConnection {
    /// Its bytes; those that detection has read come first.
    pub io: ClientStream,
    /// The client of the connection. If TLS is passed through, its `sni` is that of the ClientHello.
    pub client: Rc<Client>,
    /// Its record. The listener reports it when the service's future ends; the service counts `received` and `sent`.
    pub exchange: Rc<Exchange>,
    /// [`Protocol::Tcp`] or [`Protocol::Tls`].
    pub protocol: Protocol,
    /// What the client offered, if TLS is passed through.
    pub hello: Option<ClientHello>,
    /// The client has sent nothing and could still send HTTP: the bytes are opaque only if the server sends first.
    pub silent: bool,
}

/// How an opaque connection ended.
#[derive(Debug)]
pub enum OpaqueOutcome {
    /// It ended.
    Ended,
    /// For [`OpaqueConnection::silent`]: no server sent before the client did, and nothing was carried. The stream goes back to detection.
    Silent(Box<ClientStream>),
}

impl From<()> for OpaqueOutcome {
    fn from((): ()) -> Self {
        Self::Ended
    }
}
