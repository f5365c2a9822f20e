//! The HTTP client of attache's own calls.
//!
//! The caller opens the connection (address, TLS, identity) and names the protocol; this module speaks it. Everything is limited by
//! [`CallLimits`]: the time until the connection is ready, the time until the response is complete, the bytes of the response's head and of its
//! body. The tasks of a connection end when its last user is dropped.

mod error;
mod paced;
mod response;
#[cfg(test)]
mod tests;

use std::{
    error::Error as StdError,
    future::Future,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use paced::PacedIo;

pub use error::Error;
pub use response::{CollectedResponse, ResponseStream};

use crate::Io;

/// Why a connection could not be opened.
pub type DialError = Box<dyn StdError + Send + Sync>;

/// The most headers of a response; it is hyper's own default for HTTP/1.
const HEADERS: usize = 100;
/// Like [`HEADERS`], for [`CallProtocol::Http1AsGo`]: Go limits only the bytes.
const HEADERS_AS_GO: usize = 1000;
/// The smallest buffer for a head that hyper accepts, in bytes.
const MIN_HEAD_BYTES: usize = 8 << 10;
/// How many bytes of a body an HTTP/2 peer may send before they are read.
const WINDOW: u32 = 64 << 10;

/// The limits of one call.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// The time until the connection can carry a request: its dial, with TLS.
    pub connect: Duration,
    /// The time for the whole call, including its connection: for [`call`] until the end of the body, for [`stream`] until the end of the
    /// head.
    pub total: Duration,
    /// The most bytes of the response's head; at least 8 KiB are allowed.
    pub head: usize,
    /// The most bytes of the response's body.
    pub body: usize,
}

impl Default for CallLimits {
    /// 5 s, 10 s, 64 KiB and 64 KiB.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            total: Duration::from_secs(10),
            head: 64 << 10,
            body: 64 << 10,
        }
    }
}

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/1.1 as Go's client speaks it: it sends names in title case, and it accepts responses with folded lines, whitespace before a
    /// colon, and up to 1000 headers. Only for probes that must judge as the kubelet does.
    Http1AsGo,
    /// HTTP/2, with prior knowledge or by ALPN.
    Http2,
}

/// An open connection.
pub struct OpenedConnection {
    /// Its bytes.
    pub io: Box<dyn Io>,
    /// The protocol that is spoken on it.
    pub protocol: CallProtocol,
}

impl OpenedConnection {
    /// A connection that speaks `protocol`.
    pub fn new(io: impl Io + 'static, protocol: CallProtocol) -> Self {
        Self { io: Box::new(io), protocol }
    }
}

impl std::fmt::Debug for OpenedConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenedConnection({:?})", self.protocol)
    }
}

/// One call on a connection of its own, which ends with the call.
///
/// # Errors
/// There was no connection or no complete response, or a limit was exceeded.
pub async fn call(
    dial: impl Future<Output = Result<OpenedConnection, DialError>>,
    request: Request<Full<Bytes>>,
    bounds: CallLimits,
) -> Result<CollectedResponse, Error> {
    let deadline = Instant::now() + bounds.total;
    let response = until(deadline, bounds, dial, request).await?;
    let collected = timeout_at(deadline, response.collect()).await;
    collected.unwrap_or(Err(Error::Timeout(bounds.total)))
}

/// Like [`call`], but returns when the head of the response has arrived. The body has no timeout: the caller decides how long it may take.
///
/// # Errors
/// There was no connection, no head of a response arrived in time, or a limit was exceeded.
pub async fn stream(
    dial: impl Future<Output = Result<OpenedConnection, DialError>>,
    request: Request<Full<Bytes>>,
    bounds: CallLimits,
) -> Result<ResponseStream, Error> {
    until(Instant::now() + bounds.total, bounds, dial, request).await
}

async fn until(
    deadline: Instant,
    bounds: CallLimits,
    dial: impl Future<Output = Result<OpenedConnection, DialError>>,
    request: Request<Full<Bytes>>,
) -> Result<ResponseStream, Error> {
    let answered =
        timeout_at(deadline, async { RpcConnection::connect(dial, bounds).await?.head(request).await });
    answered.await.unwrap_or(Err(Error::Timeout(bounds.total)))
}

/// A connection that is kept for several calls, one at a time.
#[derive(Debug)]
pub struct RpcConnection {
    sender: Sender,
    bounds: CallLimits,
    tasks: ConnectionTasks,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl RpcConnection {
    /// Opens a connection.
    ///
    /// # Errors
    /// The dial failed, or took longer than [`CallLimits::connect`].
    pub async fn connect(
        dial: impl Future<Output = Result<OpenedConnection, DialError>>,
        bounds: CallLimits,
    ) -> Result<Self, Error> {
        let connected = tokio::time::timeout(bounds.connect, async {
            let dialled = dial.await.map_err(Error::Connect)?;
            Self::handshake(dialled, bounds).await.map_err(Error::Http)
        });
        connected.await.unwrap_or(Err(Error::ConnectTimeout(bounds.connect)))
    }

    async fn handshake(dialled: OpenedConnection, bounds: CallLimits) -> Result<Self, hyper::Error> {
        let io = TokioIo::new(PacedIo::new(dialled.io));
        let tasks = ConnectionTasks::default();
        let head = bounds.head.max(MIN_HEAD_BYTES);
        let sender = match dialled.protocol {
            CallProtocol::Http2 => {
                let (sender, running) = http2::Builder::new(tasks.executor())
                    .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
                    .initial_stream_window_size(WINDOW)
                    .initial_connection_window_size(WINDOW)
                    .handshake(io)
                    .await?;
                tasks.spawn(async { drop(running.await) });
                Sender::Http2(sender)
            }
            protocol => {
                let mut builder = http1::Builder::new();
                builder.max_buf_size(head).max_headers(HEADERS);
                if protocol == CallProtocol::Http1AsGo {
                    builder
                        .title_case_headers(true)
                        .max_headers(HEADERS_AS_GO)
                        .allow_obsolete_multiline_headers_in_responses(true)
                        .allow_spaces_after_header_name_in_responses(true);
                }
                let (sender, running) = builder.handshake(io).await?;
                tasks.spawn(async { drop(running.await) });
                Sender::Http1(sender)
            }
        };
        Ok(Self { sender, bounds, tasks })
    }

    /// One call on this connection. The time of [`CallLimits::total`] begins here. After an error the connection must not be used again.
    ///
    /// # Errors
    /// The connection has ended, there was no complete response, or a limit was exceeded.
    pub async fn call(&mut self, request: Request<Full<Bytes>>) -> Result<CollectedResponse, Error> {
        let total = self.bounds.total;
        let called = async { self.head(request).await?.collect().await };
        tokio::time::timeout(total, called).await.unwrap_or(Err(Error::Timeout(total)))
    }

    /// Whether the connection accepts no further request.
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }

    async fn head(&mut self, request: Request<Full<Bytes>>) -> Result<ResponseStream, Error> {
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        Ok(ResponseStream::new(response, self.bounds.body, self.tasks.clone()))
    }
}

/// The tasks of one connection: aborted when the last clone is dropped.
#[derive(Clone, Debug, Default)]
struct ConnectionTasks(Arc<Mutex<JoinSet<()>>>);

impl ConnectionTasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // This removes finished tasks: on a kept connection, each request body has one.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    fn executor(&self) -> Executor {
        Executor(Arc::downgrade(&self.0))
    }
}

/// Adds hyper's tasks to [`ConnectionTasks`]. The reference is weak, because a task must not keep its own set alive.
#[derive(Clone)]
struct Executor(Weak<Mutex<JoinSet<()>>>);

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
{
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            ConnectionTasks(tasks).spawn(async { drop(task.await) });
        }
    }
}
