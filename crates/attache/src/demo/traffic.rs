//! The app of the demo: it calls the proxy on localhost at a steady rate and counts the results.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use attache_rpc::client::{self, CallLimits, CallProtocol, DialError, OpenedConnection, RpcConnection};
use http::{Request, header};
use http_body_util::Full;
use tokio::{
    net::TcpStream,
    task::spawn_local,
    time::{Instant, MissedTickBehavior, interval},
};

/// How many calls run at once, each on its own connection, as in an app with a small pool.
const CALLERS: u32 = 16;

/// The calls as the app sees them.
#[derive(Debug, Default)]
pub(super) struct AppStatistics {
    pub(super) calls: u64,
    pub(super) failed: u64,
    /// The latency of every call, in microseconds.
    pub(super) latencies: Vec<u32>,
    /// The `x-attache-reason`, or else the status, of the last failed call.
    pub(super) last_failure: Option<String>,
}

/// Calls `proxy` `rate` times a second, until the runtime ends.
pub(super) fn start(proxy: SocketAddr, rate: u32) -> Arc<Mutex<AppStatistics>> {
    let seen = Arc::new(Mutex::new(AppStatistics::default()));
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

async fn call(proxy: SocketAddr, connection: &mut Option<RpcConnection>) -> Result<(), String> {
    let mut client = match connection.take().filter(|client| !client.is_closed()) {
        Some(client) => client,
        None => connect(proxy).await.map_err(|error| error.to_string())?,
    };
    let request = Request::get("/hello").header(header::HOST, "shop.internal").body(Full::default());
    let request = request.map_err(|error| error.to_string())?;
    let answer = client.call(request).await.map_err(|error| error.to_string())?;
    *connection = Some(client);
    if answer.status.is_success() {
        return Ok(());
    }
    let reason = answer.headers.get("x-attache-reason").and_then(|value| value.to_str().ok());
    Err(reason.map_or_else(|| answer.status.to_string(), str::to_owned))
}

async fn connect(proxy: SocketAddr) -> Result<RpcConnection, client::Error> {
    let dial = async {
        let stream = TcpStream::connect(proxy).await?;
        Ok::<_, DialError>(OpenedConnection::new(stream, CallProtocol::Http1))
    };
    RpcConnection::connect(dial, CallLimits::default()).await
}
