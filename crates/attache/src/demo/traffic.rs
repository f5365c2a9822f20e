//! The app of the demo: it calls the proxy on localhost at a steady rate and counts what it sees.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use attache_http::Body;
use http::{Request, header};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    task::spawn_local,
    time::{Instant, MissedTickBehavior, interval},
};

/// Calls in flight at once, each on a connection of its own, as an app with a small pool has them.
const CALLERS: u32 = 16;

/// What the app saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) calls: u64,
    pub(super) failed: u64,
    /// Latency of every call, in microseconds.
    pub(super) latencies: Vec<u32>,
    /// The `x-attache-reason` or status of the last failed call.
    pub(super) last_failure: Option<String>,
}

/// Calls `proxy` `rate` times a second until the runtime ends.
pub(super) fn start(proxy: SocketAddr, rate: u32) -> Arc<Mutex<Seen>> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    for _ in 0..CALLERS {
        let seen = seen.clone();
        let mut ticks = interval(Duration::from_secs(1) * CALLERS / rate.max(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        spawn_local(async move {
            let mut connection = None;
            loop {
                ticks.tick().await;
                let began = Instant::now();
                let failure = call(proxy, &mut connection).await.err();
                let latency = began.elapsed().as_micros() as u32;
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.calls += 1;
                seen.latencies.push(latency);
                if failure.is_some() {
                    seen.failed += 1;
                    seen.last_failure = failure;
                }
            }
        });
    }
    seen
}

async fn call(proxy: SocketAddr, connection: &mut Option<SendRequest<Body>>) -> Result<(), String> {
    let mut sender = match connection.take().filter(|sender| !sender.is_closed()) {
        Some(sender) => sender,
        None => connect(proxy).await?,
    };
    let request = Request::get("/hello").header(header::HOST, "shop.internal").body(Body::empty());
    let request = request.map_err(|error| error.to_string())?;
    sender.ready().await.map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let reason = response.headers().get("x-attache-reason").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let mut body = response.into_body();
    while let Some(frame) =
        std::future::poll_fn(|cx| http_body::Body::poll_frame(std::pin::Pin::new(&mut body), cx)).await
    {
        frame.map_err(|error| error.to_string())?;
    }
    *connection = Some(sender);
    if status.is_success() { Ok(()) } else { Err(reason.unwrap_or_else(|| status.to_string())) }
}

async fn connect(proxy: SocketAddr) -> Result<SendRequest<Body>, String> {
    let stream = TcpStream::connect(proxy).await.map_err(|error| error.to_string())?;
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    spawn_local(driver);
    Ok(sender)
}
