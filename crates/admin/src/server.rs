//! A small HTTP/1.1 server for operators' questions.
//!
//! Everything about a connection is bounded: how many there are, how long a request's head may take, and how long the connection
//! may live at all. Each carries one request, so an idle scraper holds no place that a probe needs. A connection
//! above the bound waits in the kernel's queue for one of those to end.

use std::{convert::Infallible, future::Future, io, sync::Arc, time::Duration};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, task::JoinSet, time};

use crate::answer::Answer;

/// Connections served at once.
const MAX_CONNECTIONS: usize = 64;
/// Time for a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole connection: a reader that takes longer for a page of metrics is gone.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// How long answers that were begun may take once the server ends.
const GRACE: Duration = Duration::from_secs(1);

/// Answers until `shutdown` is done, then lets what was begun finish for a moment.
pub(crate) async fn run<A, F>(socket: TcpListener, answer: A, shutdown: impl Future<Output = ()>)
where
    A: Fn(&Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let answer = Arc::new(answer);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = socket.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&answer)));
                }
                Err(error) => accept_failed(&error).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(socket);
    let finished = async { while connections.join_next().await.is_some() {} };
    // What isn't done by then is cut: dropping the set ends its tasks.
    let _ = time::timeout(GRACE, finished).await;
}

async fn connection<A, F>(stream: tokio::net::TcpStream, answer: Arc<A>)
where
    A: Fn(&Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let service = service_fn(|request| {
        let answer = answer(&request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match time::timeout(CONNECTION_TIMEOUT, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an admin connection failed"),
        Err(_) => tracing::debug!("an admin connection took too long and was cut"),
    }
}

/// Without a free file descriptor accept fails at once, again and again: wait a little instead of spinning.
async fn accept_failed(error: &io::Error) {
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tracing::warn!(%error, "an admin connection could not be accepted");
        time::sleep(Duration::from_millis(200)).await;
    }
}
