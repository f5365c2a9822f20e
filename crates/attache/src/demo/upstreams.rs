//! Three small servers as upstreams: a healthy one, a slow one, and one that fails now and then.

use std::{
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use attache_rpc::server::{RpcServer as HttpServer, ServerLimits};
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use tokio::{
    net::TcpListener,
    task::spawn_local,
    time::{Instant, sleep},
};

/// How a server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerBehaviour {
    /// Answers in a millisecond.
    Healthy,
    /// Answers in 20 ms, and every tenth time in 400 ms.
    Slow,
    /// Healthy for 4 s; then for 2 s every response is a 503 or a closed connection.
    Flaky,
}

/// The counts of one server.
#[derive(Debug)]
pub(super) struct DemoServer {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    pub(super) answered: AtomicU64,
    pub(super) failed: AtomicU64,
    /// The time spent answering, in microseconds.
    pub(super) busy: AtomicU64,
}

/// Starts one server on a free loopback port, on this thread's runtime.
pub(super) async fn start(name: &'static str, behaviour: ServerBehaviour) -> io::Result<Arc<DemoServer>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let server = Arc::new(DemoServer {
        name,
        address: listener.local_addr()?,
        answered: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        busy: AtomicU64::new(0),
    });
    spawn_local(serve(listener, server.clone(), behaviour));
    Ok(server)
}

async fn serve(listener: TcpListener, server: Arc<DemoServer>, behaviour: ServerBehaviour) {
    let (began, turn) = (Instant::now(), AtomicU64::new(0));
    // The proxy keeps connections open, as for any upstream.
    let limits = ServerLimits {
        keep_alive: true,
        head_time: Duration::from_mins(1),
        connection_time: None,
        ..ServerLimits::default()
    };
    let answer = move |_request, _permit| {
        let (server, n) = (server.clone(), turn.fetch_add(1, Relaxed));
        async move { answer(&server, behaviour, began.elapsed(), n).await }
    };
    HttpServer::new("demo", limits).run(listener, answer, pending()).await;
}

#[derive(Debug)]
struct ServerCrash;

impl std::fmt::Display for ServerCrash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("crashed on purpose")
    }
}

impl std::error::Error for ServerCrash {}

async fn answer(
    server: &DemoServer,
    behaviour: ServerBehaviour,
    age: Duration,
    n: u64,
) -> Result<Response<Full<Bytes>>, ServerCrash> {
    let began = Instant::now();
    let wait = match behaviour {
        ServerBehaviour::Slow if n.is_multiple_of(10) => Duration::from_millis(400),
        ServerBehaviour::Slow => Duration::from_millis(20),
        ServerBehaviour::Healthy | ServerBehaviour::Flaky => Duration::from_millis(1),
    };
    sleep(wait).await;
    let bad = behaviour == ServerBehaviour::Flaky && age.as_millis() % 6000 >= 4000;
    server.busy.fetch_add(began.elapsed().as_micros() as u64, Relaxed);
    if bad {
        server.failed.fetch_add(1, Relaxed);
        if n.is_multiple_of(2) {
            return Err(ServerCrash);
        }
    } else {
        server.answered.fetch_add(1, Relaxed);
    }
    let text = format!("hello from the {} server\n", server.name);
    let mut response = Response::new(Full::new(Bytes::from(text)));
    if bad {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}
