//! The HTTP/1.1 server for attache's own pages: for operators, for the kubelet, for Kubernetes' API server.
//!
//! Everything about a connection is limited by [`ServerLimits`]: the number of connections, the time for a TLS handshake and for a request's
//! head, the bytes of that head, and how long the connection may live. When all permits are in use, a new connection evicts an idle or slow
//! one ([`ConnectionPermits`]). [`read_body`] limits a request's body. At the end the server accepts no more connections, finishes the
//! answers that it is making, and closes the rest after [`ServerLimits::grace`].

mod body;
mod permits;
#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

pub use body::{ReadBodyError, read_body};
/// The body of a request.
pub use hyper::body::Incoming;
pub use permits::{ConnectionPermits, ServerConnectionPermit};

use crate::Io;

/// The wait after a failed accept: without a free file descriptor, accepting would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The limits for clients.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// The most connections at once.
    pub connections: usize,
    /// The most bytes of request bodies that are read at once, over all connections.
    pub bodies: usize,
    /// The time for a TLS handshake.
    pub handshake: Duration,
    /// The time for a request's head. On a connection that is kept, it is also the time until the next request.
    pub head_time: Duration,
    /// The most bytes of a request's head; at least 8 KiB.
    pub head: usize,
    /// The time for a whole connection, except for long-lived answers ([`ServerConnectionPermit::long_lived`]); `None` means no limit.
    pub connection_time: Option<Duration>,
    /// Whether a connection carries several requests. If not, an idle client holds no permit.
    pub keep_alive: bool,
    /// The time for running answers at the end; `None` waits for all of them.
    pub grace: Option<Duration>,
}

impl Default for ServerLimits {
    /// 256 connections without bodies; 5 s and 16 KiB for a head; one request and 15 s for a connection; 1 s at the end.
    fn default() -> Self {
        Self {
            connections: 256,
            bodies: 0,
            handshake: Duration::from_secs(5),
            head_time: Duration::from_secs(5),
            head: 16 << 10,
            connection_time: Some(Duration::from_secs(15)),
            keep_alive: false,
            grace: Some(Duration::from_secs(1)),
        }
    }
}

/// Where a server listens.
#[derive(Debug)]
pub enum ServerSocket {
    /// An address.
    Tcp(TcpListener),
    /// A file on this machine, whose permissions decide who may connect.
    Unix(UnixListener),
}

impl From<TcpListener> for ServerSocket {
    fn from(socket: TcpListener) -> Self {
        Self::Tcp(socket)
    }
}

impl ServerSocket {
    /// The address; `None` for a file.
    ///
    /// # Errors
    /// As [`TcpListener::local_addr`].
    pub fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Self::Tcp(socket) => socket.local_addr().map(Some),
            Self::Unix(_) => Ok(None),
        }
    }

    async fn accept(&self) -> io::Result<(Box<dyn Io>, Option<IpAddr>)> {
        Ok(match self {
            Self::Tcp(socket) => {
                let (stream, client) = socket.accept().await?;
                (Box::new(stream), Some(client.ip()))
            }
            Self::Unix(socket) => (Box::new(socket.accept().await?.0), None),
        })
    }
}

/// What happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// It was accepted.
    Opened,
    /// Its handshake failed, or took too long.
    HandshakeFailed,
    /// Another connection needed its permit or its memory.
    Evicted,
    /// It took longer than [`ServerLimits::connection_time`].
    TooSlow,
    /// It has ended in another way.
    Closed,
}

type HandshakeFuture = Pin<Box<dyn Future<Output = Result<Box<dyn Io>, String>> + Send>>;
type HandshakeFn = dyn Fn(Box<dyn Io>) -> HandshakeFuture + Send + Sync;

/// A server before it runs.
pub struct RpcServer {
    name: &'static str,
    limits: ServerLimits,
    handshake: Option<Arc<HandshakeFn>>,
    observer: Arc<dyn Fn(ConnectionEvent) + Send + Sync>,
}

impl fmt::Debug for RpcServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcServer")
            .field("name", &self.name)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl RpcServer {
    /// `name` appears in the log.
    pub fn new(name: &'static str, limits: ServerLimits) -> Self {
        Self { name, limits, handshake: None, observer: Arc::new(|_| {}) }
    }

    /// Sets the handshake that each connection performs first, for TLS.
    #[must_use]
    pub fn with_handshake<F>(mut self, handshake: impl Fn(Box<dyn Io>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Box<dyn Io>, String>> + Send + 'static,
    {
        self.handshake = Some(Arc::new(move |io| Box::pin(handshake(io))));
        self
    }

    /// Sets a function that is called for each event of a connection, for metrics.
    #[must_use]
    pub fn with_observer(mut self, observer: impl Fn(ConnectionEvent) + Send + Sync + 'static) -> Self {
        self.observer = Arc::new(observer);
        self
    }

    /// Answers until `end` completes, then finishes the answers that it is making. An error of `answer` closes the connection without an
    /// answer.
    pub async fn run<A, F, B, E>(
        self,
        socket: impl Into<ServerSocket>,
        answer: A,
        end: impl Future<Output = ()>,
    ) where
        A: Fn(Request<Incoming>, Arc<ServerConnectionPermit>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Response<B>, E>> + Send + 'static,
        B: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let socket = socket.into();
        let permits = ConnectionPermits::new(self.limits.connections, self.limits.bodies);
        let grace = self.limits.grace;
        let (server, answer) = (Arc::new(self), Arc::new(answer));
        let (stop, stopping) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut end = pin!(end);
        let mut failing = false;
        loop {
            let next = async {
                let (stream, client) = socket.accept().await?;
                Ok::<_, io::Error>((stream, permits.acquire(client).await))
            };
            // Only the end may interrupt this: a connection that was accepted must get its permit.
            tokio::select! {
                () = &mut end => break,
                next = next => match next {
                    Ok((stream, permit)) => {
                        if std::mem::take(&mut failing) {
                            tracing::info!(server = server.name, "connections are accepted again");
                        }
                        let (server, answer) = (server.clone(), answer.clone());
                        connections.spawn(server.connection(stream, permit, answer, stopping.clone()));
                    }
                    Err(error) => server.accept_failed(&error, &mut failing).await,
                },
            }
            while connections.try_join_next().is_some() {}
        }
        drop(socket);
        stop.send_replace(true);
        let finished = async { while connections.join_next().await.is_some() {} };
        match grace {
            // What hasn't finished by then is closed: dropping the set ends its tasks.
            Some(grace) => drop(timeout(grace, finished).await),
            None => finished.await,
        }
    }

    async fn connection<A, F, B, E>(
        self: Arc<Self>,
        stream: Box<dyn Io>,
        permit: ServerConnectionPermit,
        answer: Arc<A>,
        stopping: watch::Receiver<bool>,
    ) where
        A: Fn(Request<Incoming>, Arc<ServerConnectionPermit>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Response<B>, E>> + Send + 'static,
        B: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let permit = Arc::new(permit);
        (self.observer)(ConnectionEvent::Opened);
        let _closed = CloseGuard(&*self.observer);
        tokio::select! {
            () = self.served(stream, &permit, answer, stopping) => {}
            () = permit.evicted() => {
                (self.observer)(ConnectionEvent::Evicted);
                tracing::debug!(server = self.name, "a connection was closed, because others needed its permit or its memory");
            }
        }
    }

    async fn served<A, F, B, E>(
        &self,
        stream: Box<dyn Io>,
        permit: &Arc<ServerConnectionPermit>,
        answer: Arc<A>,
        mut stopping: watch::Receiver<bool>,
    ) where
        A: Fn(Request<Incoming>, Arc<ServerConnectionPermit>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Response<B>, E>> + Send + 'static,
        B: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let Some(stream) = self.secured(stream).await else { return };
        let ending = stopping.clone();
        let service = service_fn(move |request| {
            permit.answering();
            let (answered, permit, ending) =
                (answer(request, permit.clone()), permit.clone(), ending.clone());
            async move {
                let mut response = answered.await?;
                if *ending.borrow() {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                if self.limits.keep_alive && !permit.is_long_lived() {
                    // The next request may not come for a long time.
                    permit.waiting();
                }
                Ok::<_, E>(response)
            }
        });
        let mut serving = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.limits.head_time)
                .max_buf_size(self.limits.head.max(8 << 10))
                .keep_alive(self.limits.keep_alive)
                .serve_connection(TokioIo::new(stream), service)
        );
        let served = async {
            tokio::select! {
                result = &mut serving => result,
                // `wait_for` returns a guard that must not live through the next wait.
                () = async { drop(stopping.wait_for(|stopping| *stopping).await) } => {
                    serving.as_mut().graceful_shutdown();
                    serving.await
                }
            }
        };
        let too_slow = async {
            match self.limits.connection_time {
                Some(time) => sleep(time).await,
                None => std::future::pending().await,
            }
            if permit.is_long_lived() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            result = served => if let Err(error) = result {
                tracing::debug!(server = self.name, %error, "a connection failed");
            },
            () = too_slow => {
                (self.observer)(ConnectionEvent::TooSlow);
                tracing::debug!(server = self.name, "a connection took too long and was closed");
            }
        }
    }

    async fn secured(&self, stream: Box<dyn Io>) -> Option<Box<dyn Io>> {
        let Some(handshake) = &self.handshake else { return Some(stream) };
        let result = timeout(self.limits.handshake, handshake(stream)).await;
        match result.unwrap_or_else(|_| Err(format!("not complete within {:?}", self.limits.handshake))) {
            Ok(stream) => Some(stream),
            Err(error) => {
                (self.observer)(ConnectionEvent::HandshakeFailed);
                tracing::debug!(server = self.name, "a handshake failed: {error}");
                None
            }
        }
    }

    /// `failing`: the accept before this one failed too. One log line marks the beginning of the failures, and one the end.
    async fn accept_failed(&self, error: &io::Error, failing: &mut bool) {
        if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
            if !std::mem::replace(failing, true) {
                tracing::warn!(server = self.name, %error, "a connection could not be accepted; no connection is accepted until this works again");
            }
            sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// Reports that a connection is closed, in whatever way its task ends.
struct CloseGuard<'a>(&'a (dyn Fn(ConnectionEvent) + Send + Sync));

impl Drop for CloseGuard<'_> {
    fn drop(&mut self) {
        (self.0)(ConnectionEvent::Closed);
    }
}
