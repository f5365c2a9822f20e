//! Three small servers to put a proxy in front of: one healthy, one slow, one that fails now and then.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{Response, StatusCode};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    task::spawn_local,
    time::{Instant, sleep},
};

/// How a server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Answers in a millisecond.
    Healthy,
    /// Answers in 20 ms, and every tenth time in 400 ms.
    Slow,
    /// Healthy for 4 s, then for 2 s every answer is a 503 or a closed connection.
    Flaky,
}

/// What one server did so far.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    pub(super) answered: AtomicU64,
    pub(super) failed: AtomicU64,
    /// Time spent answering, in microseconds.
    pub(super) busy: AtomicU64,
}

/// Starts one server on a free loopback port, on this thread's runtime.
pub(super) async fn start(name: &'static str, behaviour: Behaviour) -> io::Result<Arc<Server>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let server = Arc::new(Server {
        name,
        address: listener.local_addr()?,
        answered: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        busy: AtomicU64::new(0),
    });
    spawn_local(accept(listener, server.clone(), behaviour));
    Ok(server)
}

async fn accept(listener: TcpListener, server: Arc<Server>, behaviour: Behaviour) {
    let began = Instant::now();
    let turn = Rc::new(std::cell::Cell::new(0_u64));
    while let Ok((stream, _)) = listener.accept().await {
        let (server, turn) = (server.clone(), turn.clone());
        spawn_local(async move {
            let service = service_fn(move |_request: http::Request<Incoming>| {
                let (server, n) = (server.clone(), turn.get());
                turn.set(n + 1);
                async move { answer(&server, behaviour, began.elapsed(), n).await }
            });
            // A cut connection is what the flaky server is for.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

#[derive(Debug)]
struct Crash;

impl std::fmt::Display for Crash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("crashed on purpose")
    }
}

impl std::error::Error for Crash {}

async fn answer(
    server: &Server,
    behaviour: Behaviour,
    age: Duration,
    n: u64,
) -> Result<Response<String>, Crash> {
    let began = Instant::now();
    let wait = match behaviour {
        Behaviour::Slow if n.is_multiple_of(10) => Duration::from_millis(400),
        Behaviour::Slow => Duration::from_millis(20),
        Behaviour::Healthy | Behaviour::Flaky => Duration::from_millis(1),
    };
    sleep(wait).await;
    let bad = behaviour == Behaviour::Flaky && age.as_millis() % 6000 >= 4000;
    server.busy.fetch_add(began.elapsed().as_micros() as u64, Relaxed);
    if bad {
        server.failed.fetch_add(1, Relaxed);
        if n.is_multiple_of(2) {
            return Err(Crash);
        }
    } else {
        server.answered.fetch_add(1, Relaxed);
    }
    let mut response = Response::new(format!("hello from the {} server\n", server.name));
    if bad {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}
