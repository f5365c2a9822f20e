//! The control thread: everything that is not a request. Discovery, health, probes, and the order of the end.

use std::{
    net::TcpListener,
    sync::{Arc, Barrier, atomic::Ordering::Relaxed},
    thread,
    time::Duration,
};

use attache_admin::AdminState;
use attache_telemetry::EndpointCounts;
use tokio::{
    runtime::LocalRuntime,
    sync::{mpsc, watch},
    task::spawn_local,
    time::{interval, sleep, timeout},
};

use crate::{
    error::Error,
    generation::Generation,
    prepare::{Bound, Prepared},
    process::Process,
    tls,
    upkeep::Upkeep,
    worker::{self, Update},
};

/// How long connections that were cut have to notice.
const CUT_PATIENCE: Duration = Duration::from_millis(500);
/// How often the endpoints' states are counted for the metrics.
const COUNT_EVERY: Duration = Duration::from_secs(1);

type Started = std::sync::mpsc::Sender<Result<(), Error>>;

/// Runs the thread until the proxy has ended.
pub(crate) fn run(
    process: &Arc<Process>,
    prepared: Prepared,
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
    process.metrics.worker().install();
    if let Err(error) = runtime.block_on(control(process, prepared, probes, stop, started)) {
        let _ = started.send(Err(error));
    }
    process.generation().access_log.close(CUT_PATIENCE);
    ended.send_replace(true);
}

async fn control(
    process: &Arc<Process>,
    mut prepared: Prepared,
    probes: Option<TcpListener>,
    mut stop: watch::Receiver<bool>,
    started: &Started,
) -> Result<(), Error> {
    if let Some(socket) = probes {
        let socket = tokio::net::TcpListener::from_std(socket).map_err(Error::Thread)?;
        let admin = AdminState { metrics: process.metrics.clone(), readiness: process.readiness.clone() };
        spawn_local(attache_admin::serve(socket, admin, std::future::pending()));
    }
    process.metrics.config_loaded(true);
    process.readiness.config_loaded();

    let mut upkeep = Upkeep::default();
    let sockets = std::mem::take(&mut prepared.sockets);
    let generation = Arc::new(upkeep.succeed(prepared, &process.generation(), process).await?);
    process.serves(generation.clone());
    tls::follow(process);
    spawn_local(count_endpoints(process.clone()));

    let mut workers = Workers::start(process)?;
    workers.switch(&generation, sockets).recv().await;
    upkeep.retain(&generation);
    process.readiness.listening();
    let _ = started.send(Ok(()));
    tracing::info!(workers = workers.updates.len(), "ready");

    // A sender that is gone is a program that ends.
    let _ = stop.wait_for(|&stop| stop).await;
    process.readiness.draining();
    let shutdown = process.generation().config.shutdown;
    sleep(shutdown.delay).await;
    tracing::info!("draining, for at most {:?}", shutdown.drain_timeout);
    process.drain.drain();
    // Each worker holds a sender until it has ended.
    if timeout(shutdown.drain_timeout, workers.ended.recv()).await.is_err() {
        tracing::warn!("cutting what still runs after {:?}", shutdown.drain_timeout);
        process.drain.cut();
        let _ = timeout(CUT_PATIENCE, workers.ended.recv()).await;
    }
    Ok(())
}

/// The workers as the control thread knows them.
struct Workers {
    updates: Vec<mpsc::UnboundedSender<Update>>,
    /// Closed when all of them have ended.
    ended: mpsc::Receiver<()>,
}

impl Workers {
    fn start(process: &Arc<Process>) -> Result<Self, Error> {
        let (done, ended) = mpsc::channel::<()>(1);
        let count = process.workers.count();
        let begin = Arc::new(Barrier::new(count));
        let mut updates = Vec::new();
        for index in 0..count {
            let (sender, receiver) = mpsc::unbounded_channel();
            updates.push(sender);
            let (process, begin, done) = (process.clone(), begin.clone(), done.clone());
            let run = move || {
                worker::run(&process, receiver, &begin);
                drop(done);
            };
            thread::Builder::new().name(format!("worker-{index}")).spawn(run).map_err(Error::Thread)?;
        }
        Ok(Self { updates, ended })
    }

    /// Hands every worker the generation, and its socket of each bind. Ends of the returned channel close as they have taken it.
    fn switch(&self, generation: &Arc<Generation>, sockets: Vec<Bound>) -> mpsc::Receiver<()> {
        let (taken, all_taken) = mpsc::channel(1);
        let mut by_worker: Vec<Vec<_>> = self.updates.iter().map(|_| Vec::new()).collect();
        for (place, sockets) in sockets {
            for (worker, socket) in by_worker.iter_mut().zip(sockets) {
                worker.push((place.clone(), socket));
            }
        }
        for (updates, sockets) in self.updates.iter().zip(by_worker) {
            let update = Update { generation: generation.clone(), sockets, taken: taken.clone() };
            if updates.send(update).is_err() {
                tracing::error!("a worker has ended early; its share of the connections is not served");
            }
        }
        all_taken
    }
}

/// Keeps the endpoint gauges true: discovery, health checks and ejections all change them.
async fn count_endpoints(process: Arc<Process>) {
    let mut ticks = interval(COUNT_EVERY);
    loop {
        ticks.tick().await;
        for upstream in &process.generation().upstreams {
            let mut counts = EndpointCounts::default();
            let shared = upstream.shared();
            for endpoint in &shared.endpoints.load().endpoints {
                if !endpoint.healthy.load(Relaxed) {
                    counts.unhealthy += 1;
                } else if endpoint.ejected.load(Relaxed) {
                    counts.ejected += 1;
                } else {
                    counts.healthy += 1;
                }
            }
            process.metrics.set_endpoints(&shared.config.name, counts);
        }
    }
}
