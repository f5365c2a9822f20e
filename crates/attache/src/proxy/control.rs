//! The control thread does everything that is not a request: discovery, health, probes, reloads, and the order of the end.
//!
//! The order of the end, from SIGTERM on: attache is no longer ready. During [`shutdown.delay`] it serves everything, while others stop
//! sending. Then the listeners that other machines reach drain. When what they accepted has ended, the listeners of the app itself drain
//! too: a request that is being answered may need calls of the app. What still runs at the deadline is cut.
//!
//! After a hand-over all listeners drain at once, because the new process also accepts connections of the app. The deadline is that of a
//! reload, because nothing waits for the end of this process. A request to end makes the deadline earlier.
//!
//! [`shutdown.delay`]: attache_config::model::Shutdown

use std::{net::TcpListener, sync::Arc, time::Duration};

use attache_admin::AdminState;
use tokio::{
    runtime::LocalRuntime,
    sync::{mpsc, watch},
    task::spawn_local,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    gauges::count_endpoints,
    handle::{ProxyControl, ProxyEnd, ReloaderOrder},
    reload::Reloader,
    workers::WorkerThreads,
};
use crate::{
    admin,
    error::Error,
    inherited::{duplicate, probes_key},
    overload,
    prepare::PreparedGeneration,
    process::{AppState, ProcessState},
    resident, ticks, tls,
    upgrade::KeyedSocket,
    upkeep::Upkeep,
    watch as files,
};

/// How long connections have to notice that they were cut.
const CUT_TIMEOUT: Duration = Duration::from_millis(500);
/// How much time the last traces have to be exported.
const EXPORTS_TIMEOUT: Duration = Duration::from_secs(2);
/// How often attache checks whether the last inbound connection has ended.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// How long after the start attache releases the pages that only the start needed.
const SETTLED: Duration = Duration::from_secs(1);

type StartResultSender = std::sync::mpsc::Sender<Result<(), Error>>;

/// Starts the workers. The returned channel closes when all workers have ended.
pub(super) type StartWorkers = fn(&Arc<ProcessState>) -> Result<(WorkerThreads, mpsc::Receiver<()>), Error>;

/// The channels with orders for the thread.
pub(crate) struct ControlChannels {
    pub(crate) stop: watch::Receiver<ProxyEnd>,
    pub(crate) others: mpsc::UnboundedReceiver<ReloaderOrder>,
}

/// The ports for operators.
pub(crate) struct OperatorSockets {
    pub(crate) probes: Option<TcpListener>,
    pub(crate) admin: Option<admin::AdminSocket>,
    /// Sockets of other parts of this program. They are handed over with the rest.
    pub(crate) others: Vec<KeyedSocket>,
}

/// Runs the thread until the proxy has ended.
pub(crate) fn run(
    control: &ProxyControl,
    prepared: PreparedGeneration,
    operators: OperatorSockets,
    orders: ControlChannels,
    started: &StartResultSender,
    ended: watch::Sender<bool>,
) {
    let process = control.process();
    ticks::begin();
    let runtime = match LocalRuntime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = started.send(Err(Error::Thread(error)));
            return;
        }
    };
    process.metrics.worker().install();
    let serve = serve(control, prepared, operators, orders, started, WorkerThreads::start);
    if let Err(error) = runtime.block_on(serve) {
        let _ = started.send(Err(error));
    }
    process.generation().access_log.close(CUT_TIMEOUT);
    ended.send_replace(true);
}

/// Serves until the proxy has ended.
pub(super) async fn serve(
    control: &ProxyControl,
    mut prepared: PreparedGeneration,
    operators: OperatorSockets,
    orders: ControlChannels,
    started: &StartResultSender,
    start_workers: StartWorkers,
) -> Result<(), Error> {
    let process = control.process();
    let mut held = operators.others;
    if let Some(socket) = operators.probes {
        held.extend(socket.local_addr().ok().map(probes_key).zip(duplicate(&socket)));
        let socket = tokio::net::TcpListener::from_std(socket).map_err(Error::Thread)?;
        let admin = AdminState {
            metrics: process.metrics.clone(),
            readiness: process.readiness.clone(),
            app: process.app.clone(),
        };
        spawn_local(attache_admin::serve(socket, admin, succeeded(process)));
    }
    if let Some(bound) = operators.admin {
        held.extend(bound.hold());
        admin::serve(control, bound, succeeded(process))?;
    }
    process.metrics.config_loaded(true);
    process.readiness.config_loaded();

    let mut upkeep = Upkeep::default();
    let sockets = std::mem::take(&mut prepared.sockets);
    let generation = Arc::new(upkeep.next_generation(prepared, &process.generation(), process).await?);
    process.serves(generation.clone());
    tls::follow(process);
    spawn_local(count_endpoints(process.clone()));
    spawn_local(attache_telemetry::log_outages(process.metrics.clone()));
    spawn_local(attache_telemetry::log_client_errors(process.metrics.clone()));
    spawn_local(overload::OverloadWatch::begin(process.clone()).run());

    let (workers, ended) = start_workers(process)?;
    let count = workers.count();
    process.hold(&sockets);
    workers.switch(&generation, sockets).recv().await;
    process.readiness.listening();
    let reloader =
        Reloader { process: process.clone(), upkeep, workers, operators: held, stop: orders.stop.clone() };
    spawn_local(reloader.run(orders.others, process.drain_inbound.subscribe()));
    let alive = process.clone();
    spawn_local(async move { alive.supervisor.keep_alive().await });
    spawn_local(files::follow(control.clone()));
    let _ = started.send(Ok(()));
    tracing::info!(workers = count, "ready");
    spawn_local(async {
        // The first calls must not wait for this.
        sleep(SETTLED).await;
        if let Err(error) = resident::release_start_pages() {
            tracing::debug!(%error, "the program's mappings can't be read");
        }
    });

    // If the sender was dropped, the program ends.
    let mut stop = orders.stop;
    let _ = stop.wait_for(|&end| end != ProxyEnd::No).await;
    drain(process, stop, ended).await;
    // A process that was being started to replace this one has ended by then.
    control.orders.closed().await;
    Ok(())
}

/// Ends everything in order: calls to the app, then the app, then the app's calls. Cuts what still runs at the deadline. `ended` closes
/// when every worker has ended.
async fn drain(process: &Arc<ProcessState>, stop: watch::Receiver<ProxyEnd>, mut ended: mpsc::Receiver<()>) {
    process.readiness.draining();
    let mut app = process.wrapped.subscribe();
    let is_succeeded = *process.succeeded.borrow();
    if !is_succeeded {
        process.supervisor.stopping();
        let delay = process.generation().config.shutdown.delay;
        tokio::select! {
            () = sleep(delay) => {}
            // No upstream is left that could be called.
            _ = app.wait_for(|app| *app == AppState::Gone) => {}
        }
    }
    let mut deadline = DrainDeadline::begin(process, stop, is_succeeded);
    tracing::info!("draining, for at most {:?}", deadline.limit);
    // Otherwise the sockets would stay open, and connections would wait in them.
    process.held().clear();
    process.drain_inbound.drain();
    if is_succeeded {
        process.drain.drain();
    }
    tokio::select! {
        () = inbound_ended(process) => {}
        () = deadline.passes() => tracing::warn!("calls to the app still run after {:?}", deadline.limit),
    }
    process.wrapped.send_if_modified(|app| std::mem::replace(app, next(*app)) == AppState::Runs);
    let _ = app.wait_for(|app| matches!(app, AppState::None | AppState::Gone)).await;
    process.drain.drain();
    // The app may take longer to end than the deadline; then what it left behind ends.
    deadline.at = deadline.at.max(Instant::now() + CUT_TIMEOUT);
    tokio::select! {
        // Each worker holds a sender until it has ended.
        _ = ended.recv() => {}
        () = deadline.passes() => {
            tracing::warn!("cutting what still runs after {:?}", deadline.limit);
            process.drain.cut();
            let _ = timeout(CUT_TIMEOUT, ended.recv()).await;
        }
    }
    process.last_exports(EXPORTS_TIMEOUT).await;
}

/// The instant at which the rest is cut.
struct DrainDeadline {
    at: Instant,
    /// The time from the beginning of the drain, or from the moment when the end was requested.
    limit: Duration,
    /// The limit after the end is requested.
    asked: Duration,
    stop: watch::Receiver<ProxyEnd>,
}

impl DrainDeadline {
    fn begin(process: &ProcessState, stop: watch::Receiver<ProxyEnd>, is_succeeded: bool) -> Self {
        let config = &process.generation().config;
        let asked = config.shutdown.drain_timeout;
        let limit = if is_succeeded { config.reload.drain_timeout } else { asked };
        Self { at: after(limit), limit, asked, stop }
    }

    /// Waits for the deadline. The future may be dropped.
    async fn passes(&mut self) {
        let was_asked = *self.stop.borrow() == ProxyEnd::Asked;
        if !was_asked {
            tokio::select! {
                () = sleep_until(self.at) => return,
                _ = self.stop.wait_for(|&end| end == ProxyEnd::Asked) => {}
            }
            (self.at, self.limit) = (self.at.min(after(self.asked)), self.asked);
            tracing::info!("the end was requested: what still runs may take {:?} more", self.limit);
        }
        sleep_until(self.at).await;
    }
}

fn after(limit: Duration) -> Instant {
    Instant::now().checked_add(limit).unwrap_or_else(far)
}

/// The app may end now, if it runs.
fn next(app: AppState) -> AppState {
    if app == AppState::Runs { AppState::MayEnd } else { app }
}

/// Waits until another process has taken over.
fn succeeded(process: &ProcessState) -> impl Future<Output = ()> + 'static {
    let mut succeeded = process.succeeded.subscribe();
    async move {
        if succeeded.wait_for(|&succeeded| succeeded).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// An instant that never comes.
fn far() -> Instant {
    Instant::now() + Duration::from_hours(24 * 365)
}

/// Waits until no connection is open on any listener that other machines reach, and none waits to be accepted there.
async fn inbound_ended(process: &ProcessState) {
    let generation = process.generation();
    let inbound = || generation.listeners.iter().filter(|listener| listener.is_inbound());
    while inbound().any(|listener| !listener.connections.have_ended()) {
        sleep(CHECK_INTERVAL).await;
    }
}
