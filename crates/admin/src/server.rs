//! A small HTTP/1.1 server for operators' questions.
//!
//! Everything about a connection is bounded: how many there are, how long a request's head may take, and how long the connection
//! may live at all (a stream that somebody follows lives as long as it is followed, and of those there are few). Each
//! carries one request, so an idle scraper holds no place that a probe needs. When all places are taken, a new connection takes that
//! of a silent or slow one ([`crate::places`]).

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Frame;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    task::JoinSet,
    time,
};

use crate::{
    AdminPermit, AdminPermits,
    answer::{self, Answer},
    tap::{self, Lines},
};

/// Connections served at once.
const MAX_CONNECTIONS: usize = 256;
/// Time for a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole connection: a reader that takes longer for a page of metrics is gone.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// How long running answers may take after the server has ended.
const GRACE: Duration = Duration::from_secs(1);

/// Where operators ask.
#[derive(Debug)]
pub enum Socket {
    /// An address.
    Tcp(TcpListener),
    /// A file of this machine, whose permissions say who may ask.
    Unix(UnixListener),
}

impl From<TcpListener> for Socket {
    fn from(socket: TcpListener) -> Self {
        Self::Tcp(socket)
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Socket {
    pub(crate) fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Self::Tcp(socket) => socket.local_addr().map(Some),
            Self::Unix(_) => Ok(None),
        }
    }

    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Option<IpAddr>)> {
        Ok(match self {
            Self::Tcp(socket) => {
                let (stream, client) = socket.accept().await?;
                (Box::new(stream), Some(client.ip()))
            }
            Self::Unix(socket) => (Box::new(socket.accept().await?.0), None),
        })
    }
}

/// What is answered.
pub(crate) enum Reply {
    /// This.
    Whole(Answer),
    /// What comes of this.
    Later(Pin<Box<dyn Future<Output = Answer> + Send>>),
    /// Lines, for as long as the client reads them.
    Stream(Lines),
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self::Whole(answer)
    }
}

/// The body of an answer.
enum Outgoing {
    Whole(Bytes),
    Stream(Lines),
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(lines) => lines.poll(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Whole(bytes) => http_body::SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => http_body::SizeHint::default(),
        }
    }
}

/// Answers until `shutdown` completes, then gives running answers a moment to finish.
pub(crate) async fn run<A>(socket: impl Into<Socket>, answer: A, shutdown: impl Future<Output = ()>)
where
    A: Fn(&Request<Incoming>) -> Reply + Send + Sync + 'static,
{
    let socket = socket.into();
    let answer = Arc::new(answer);
    let places = AdminPermits::new(MAX_CONNECTIONS, 0);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let next = async {
            let (stream, client) = socket.accept().await?;
            Ok::<_, io::Error>((stream, places.take(client).await))
        };
        // Only the end may interrupt it: a connection that was accepted must get its place.
        tokio::select! {
            () = &mut shutdown => break,
            next = next => match next {
                Ok((stream, place)) => {
                    connections.spawn(connection(stream, Arc::new(place), Arc::clone(&answer)));
                }
                Err(error) => accept_failed(&error).await,
            },
        }
        while connections.try_join_next().is_some() {}
    }
    drop(socket);
    let finished = async { while connections.join_next().await.is_some() {} };
    // What isn't done by then is cut: dropping the set ends its tasks.
    let _ = time::timeout(GRACE, finished).await;
}

async fn connection<A>(stream: Box<dyn Stream>, place: Arc<AdminPermit>, answer: Arc<A>)
where
    A: Fn(&Request<Incoming>) -> Reply + Send + Sync + 'static,
{
    let followed = Arc::new(AtomicBool::new(false));
    let follow = followed.clone();
    let mine = place.clone();
    let service = service_fn(move |request| {
        let reply = answer(&request);
        if matches!(reply, Reply::Stream(_)) {
            follow.store(true, Relaxed);
            mine.lasts();
        } else {
            mine.answers();
        }
        async move { Ok::<_, Infallible>(outgoing(reply).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    let served = async {
        match time::timeout(CONNECTION_TIMEOUT, serving.as_mut()).await {
            Err(_) if followed.load(Relaxed) => Ok(serving.await),
            result => result,
        }
    };
    tokio::select! {
        result = served => match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "an admin connection failed"),
            Err(_) => tracing::debug!("an admin connection took too long and was cut"),
        },
        () = place.is_cut() => tracing::debug!("an admin connection was cut, because others needed its place"),
    }
}

async fn outgoing(reply: Reply) -> Response<Outgoing> {
    match reply {
        Reply::Whole(answer) => answer.map(|text| Outgoing::Whole(text.into())),
        Reply::Later(answer) => answer.await.map(|text| Outgoing::Whole(text.into())),
        Reply::Stream(lines) => {
            let head = answer::with_type(StatusCode::OK, tap::CONTENT_TYPE, String::new());
            let mut response = head.map(|_| Outgoing::Stream(lines));
            // For proxies that would gather it.
            response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}

/// Without a free file descriptor accept fails at once, again and again: wait a little instead of spinning.
async fn accept_failed(error: &io::Error) {
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tracing::warn!(%error, "an admin connection could not be accepted");
        time::sleep(Duration::from_millis(200)).await;
    }
}
