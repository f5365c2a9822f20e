//! The control thread: everything that is not a request. Discovery, health, probes, and the order of the end.

use std::{
    io,
    net::TcpListener,
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use attache_admin::AdminState;
use attache_telemetry::EndpointCounts;
use attache_upstream::{
    discovery::{self, OnDemand, OnDemandHosts, Resolver},
    health, outlier,
};
use tokio::{
    runtime::LocalRuntime,
    sync::{mpsc, watch},
    task::spawn_local,
    time::{interval, sleep, timeout},
};

use crate::{
    state::{Error, Sockets, State},
    tls, worker,
};

/// How long the first look-ups may delay the start; they go on behind it.
const DISCOVERY_PATIENCE: Duration = Duration::from_secs(5);
/// How long connections that were cut have to notice.
const CUT_PATIENCE: Duration = Duration::from_millis(500);
/// How often the endpoints' states are counted for the metrics.
const COUNT_EVERY: Duration = Duration::from_secs(1);

type Started = std::sync::mpsc::Sender<Result<(), Error>>;

/// Runs the thread until the proxy has ended.
pub(crate) fn run(
    state: &Arc<State>,
    sockets: Sockets,
    probes: Option<TcpListener>,
    stop: watch::Receiver<bool>,
    started: &Started,
    ended: watch::Sender<bool>,
) {
    let runtime = match LocalRuntime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = started.send(Err(Error::Thread(error)));
            return;
        }
    };
    state.metrics.worker().install();
    if let Err(error) = runtime.block_on(control(state, sockets, probes, stop, started)) {
        let _ = started.send(Err(error));
    }
    state.access_log.close(CUT_PATIENCE);
    ended.send_replace(true);
}

async fn control(
    state: &Arc<State>,
    sockets: Sockets,
    probes: Option<TcpListener>,
    mut stop: watch::Receiver<bool>,
    started: &Started,
) -> Result<(), Error> {
    if let Some(socket) = probes {
        let socket = tokio::net::TcpListener::from_std(socket).map_err(Error::Thread)?;
        let admin = AdminState { metrics: state.metrics.clone(), readiness: state.readiness.clone() };
        spawn_local(attache_admin::serve(socket, admin, std::future::pending()));
    }
    tls::follow(state);
    state.metrics.config_loaded(true);
    state.readiness.config_loaded();

    let resolver = Arc::new(Resolver::new(&state.config.dns).map_err(Error::Dns)?);
    let mut hosts: Vec<Option<OnDemand>> = Vec::new();
    let mut discoveries = Vec::new();
    state
        .readiness
        .discovering(state.config.upstreams.iter().map(|upstream| upstream.name.clone()), DISCOVERY_PATIENCE);
    for upstream in &state.upstreams {
        let shared = upstream.shared().clone();
        let name = shared.config.name.clone();
        if upstream.on_demand() {
            hosts.push(Some(OnDemand::start(shared.config.clone(), resolver.clone(), &state.config.dns)));
            state.readiness.discovered(&name);
        } else {
            hosts.push(None);
            let (checked, tls) = (shared.clone(), upstream.tls.clone());
            spawn_local(async move { health::run(&checked, tls.as_ref()).await });
            let discovery = discovery::start(shared.clone(), resolver.clone(), &state.config.dns);
            discoveries.push((name, discovery));
            spawn_local(async move { outlier::run(&shared).await });
        }
    }
    spawn_local(count_endpoints(state.clone()));
    let first_answers = async {
        for (name, discovery) in &discoveries {
            discovery.ready().await;
            state.readiness.discovered(name);
        }
    };
    if timeout(DISCOVERY_PATIENCE, first_answers).await.is_err() {
        tracing::warn!(
            "some names have no answer after {DISCOVERY_PATIENCE:?}; serving begins, look-ups go on"
        );
    }

    let (done, mut workers) = mpsc::channel::<()>(1);
    let count = sockets.len();
    let begin = Arc::new(Barrier::new(count));
    for (index, sockets) in sockets.into_iter().enumerate() {
        let hosts = hosts.iter().map(|host| host.as_ref().map(OnDemand::hosts)).collect();
        start_worker(index, state.clone(), sockets, hosts, begin.clone(), done.clone())
            .map_err(Error::Thread)?;
    }
    drop(done);
    state.readiness.listening();
    let _ = started.send(Ok(()));
    tracing::info!(workers = count, "ready");

    // A sender that is gone is a program that ends.
    let _ = stop.wait_for(|&stop| stop).await;
    state.readiness.draining();
    let shutdown = state.config.shutdown;
    sleep(shutdown.delay).await;
    tracing::info!("draining, for at most {:?}", shutdown.drain_timeout);
    state.drain.drain();
    // Each worker holds a sender until it has ended.
    if timeout(shutdown.drain_timeout, workers.recv()).await.is_err() {
        tracing::warn!("cutting what still runs after {:?}", shutdown.drain_timeout);
        state.drain.cut();
        let _ = timeout(CUT_PATIENCE, workers.recv()).await;
    }
    Ok(())
}

fn start_worker(
    index: usize,
    state: Arc<State>,
    sockets: Vec<Vec<attache_listener::Socket>>,
    hosts: Vec<Option<OnDemandHosts>>,
    begin: Arc<Barrier>,
    done: mpsc::Sender<()>,
) -> io::Result<()> {
    thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        worker::run(&state, sockets, hosts, &begin);
        drop(done);
    })?;
    Ok(())
}

/// Keeps the endpoint gauges true: discovery, health checks and ejections all change them.
async fn count_endpoints(state: Arc<State>) {
    let mut ticks = interval(COUNT_EVERY);
    loop {
        ticks.tick().await;
        for upstream in &state.upstreams {
            let mut counts = EndpointCounts::default();
            let shared = upstream.shared();
            for endpoint in &shared.endpoints.load().endpoints {
                use std::sync::atomic::Ordering::Relaxed;
                if !endpoint.healthy.load(Relaxed) {
                    counts.unhealthy += 1;
                } else if endpoint.ejected.load(Relaxed) {
                    counts.ejected += 1;
                } else {
                    counts.healthy += 1;
                }
            }
            state.metrics.set_endpoints(&shared.config.name, counts);
        }
    }
}
