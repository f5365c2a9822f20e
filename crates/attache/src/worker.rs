//! One worker: a thread, its runtime, and all listeners on it.
//!
//! It serves the last [`WorkerUpdate`] that was sent to it. Requests find their routes through a [`StackCell`]. So the next request on any connection
//! uses the new generation, while running requests finish with the generation that they began with. A listener is identified by its binds:
//! the socket, its queue and its connections survive every reload whose config still has that bind.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, Barrier},
    time::Duration,
};

use attache_config::model::Bind;
use attache_listener::{DrainPhase, DrainTrigger, ListenerSettings, WorkerSocket};
use attache_telemetry::{WorkerMetrics, metrics};
use tokio::{
    runtime::LocalRuntime,
    sync::{mpsc, watch},
    task::{JoinSet, spawn_local},
    time::{interval, sleep},
};

use crate::{
    generation::{Generation, ListenerParts},
    issuers,
    observe::{Observer, OnFinish, on_finish},
    process::ProcessState,
    proxy::sockets::{BindKey, bind_keys},
    stack::{HttpStack, ListenerStack, OwnAddresses, StackCell, TcpStack, Tunnels, Upstreams},
};

/// Longer than the default time to open a connection, so that one attempt has ended before the next begins.
const PRECONNECT_INTERVAL: Duration = Duration::from_secs(5);

/// A new generation for one worker.
pub(crate) struct WorkerUpdate {
    pub(crate) generation: Arc<Generation>,
    /// This worker's sockets for the new binds of this generation.
    pub(crate) sockets: Vec<(BindKey, WorkerSocket)>,
    /// Dropped when the generation is in use.
    pub(crate) taken: mpsc::Sender<()>,
}

/// Serves until the drain has ended every connection.
///
/// All workers pass `begin` together, when each has its runtime. So connections that one worker accepts can't use up the file descriptors
/// that another worker needs to start.
pub(crate) fn run(
    process: &Arc<ProcessState>,
    updates: mpsc::UnboundedReceiver<WorkerUpdate>,
    begin: &Barrier,
) {
    let runtime = LocalRuntime::new();
    begin.wait();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "a worker has no runtime; its share of the connections is not served");
            return;
        }
    };
    process.metrics.worker().install();
    runtime.block_on(serve(process, updates));
}

/// Serves within a runtime that exists already.
pub(crate) async fn serve(process: &Arc<ProcessState>, mut updates: mpsc::UnboundedReceiver<WorkerUpdate>) {
    let mut worker = WorkerState::new(process);
    spawn_local(keep_preconnected(worker.upstreams.clone()));
    spawn_local(attache_resilience::deadline::keep());
    spawn_local(release_under_pressure(worker.upstreams.clone(), process.overload.pressed()));
    let mut drain = process.drain.subscribe();
    let mut drain_inbound = process.drain_inbound.subscribe();
    let mut serving_all = true;
    loop {
        tokio::select! {
            biased;
            _ = drain.reached(DrainPhase::Drain) => break,
            _ = drain_inbound.reached(DrainPhase::Drain), if serving_all => {
                serving_all = false;
                worker.listening.iter().filter(|socket| socket.inbound).for_each(|socket| socket.drain.drain());
            }
            // If the sender of generations was dropped, the worker continues with the last one.
            Some(update) = updates.recv(), if serving_all => worker.take(update),
            Some(ended) = worker.running.join_next() => report(ended),
        }
    }
    worker.listening.iter().for_each(|socket| socket.drain.drain());
    let all_ended = async {
        while let Some(ended) = worker.running.join_next().await {
            report(ended);
        }
        worker.tunnels.ended().await;
    };
    let cut = async {
        drain.reached(DrainPhase::Cut).await;
        worker.listening.iter().for_each(|socket| socket.drain.cut());
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = all_ended => {}
        () = cut => {}
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a listener of this worker ended early");
    }
}

/// What one worker serves with.
struct WorkerState {
    process: Arc<ProcessState>,
    metrics: WorkerMetrics,
    listening: Vec<ListeningSocket>,
    /// The tasks of the listeners, including those that drain.
    running: JoinSet<()>,
    upstreams: Rc<RefCell<Rc<Upstreams>>>,
    /// The tasks that refresh the keys of issuers of tokens.
    keepers: JoinSet<()>,
    tunnels: Tunnels,
    observer: Rc<RefCell<Observer>>,
    on_finish: OnFinish,
}

/// One listening socket, and what serves it.
struct ListeningSocket {
    key: BindKey,
    /// The address that it really listens on; a port that was 0 is known only now.
    address: Option<SocketAddr>,
    settings: watch::Sender<Rc<ListenerSettings>>,
    slot: StackCell,
    /// Whether programs other than the app can reach it.
    inbound: bool,
    drain: DrainTrigger,
}

impl WorkerState {
    fn new(process: &Arc<ProcessState>) -> Self {
        let metrics = metrics();
        let generation = process.generation();
        let observer = Rc::new(RefCell::new(Observer::new(&generation, &metrics)));
        let on_finish = on_finish(metrics.clone(), observer.clone());
        Self {
            process: process.clone(),
            metrics,
            listening: Vec::new(),
            running: JoinSet::new(),
            upstreams: Rc::new(RefCell::new(Upstreams::none())),
            keepers: JoinSet::new(),
            tunnels: Tunnels::new(process.drain.subscribe()),
            observer,
            on_finish,
        }
    }

    /// Puts a generation into use. This happens in one turn of the runtime, so no request sees half of it.
    fn take(&mut self, update: WorkerUpdate) {
        let WorkerUpdate { generation, sockets, taken } = update;
        let observer = Observer::new(&generation, &self.metrics);
        *self.observer.borrow_mut() = observer.clone();
        let own = self.own_addresses(&generation, &sockets);
        let upstreams = Upstreams::new(&generation, &self.upstreams.borrow(), own);
        *self.upstreams.borrow_mut() = upstreams.clone();
        // The tasks of the previous generation end here.
        self.keepers = JoinSet::new();
        for issuer in &generation.issuers {
            self.keepers.spawn_local(issuers::keep(issuer.clone(), upstreams.clone()));
        }
        let mut new: HashMap<BindKey, Vec<WorkerSocket>> = HashMap::new();
        for (key, socket) in sockets {
            new.entry(key).or_default().push(socket);
        }
        let mut before = std::mem::take(&mut self.listening);
        for parts in &generation.listeners {
            let site = ListenerStack::new(
                parts.config.clone(),
                &parts.routes,
                upstreams.clone(),
                self.tunnels.clone(),
                observer.clone(),
                self.on_finish.clone(),
            )
            .under(self.process.overload.clone(), generation.config.overload.as_ref());
            let site = Rc::new(site);
            let settings = Rc::new(self.settings(parts, &site, &generation));
            for key in bind_keys(&parts.config) {
                if let Some(at) = before.iter().position(|socket| socket.key == key) {
                    let mut socket = before.swap_remove(at);
                    socket.inbound = parts.is_inbound();
                    socket.slot.put(site.clone());
                    socket.settings.send_replace(settings.clone());
                    self.listening.push(socket);
                } else if let Some(sockets) = new.remove(&key) {
                    self.open(
                        key,
                        sockets,
                        settings.clone(),
                        StackCell::new(site.clone()),
                        parts.is_inbound(),
                    );
                }
            }
        }
        let drain_timeout = generation.config.reload.drain_timeout;
        for socket in before {
            socket.drain.drain();
            let mut ending = self.process.drain.subscribe();
            spawn_local(async move {
                tokio::select! {
                    () = sleep(drain_timeout) => {}
                    _ = ending.reached(DrainPhase::Cut) => {}
                }
                socket.drain.cut();
            });
        }
        upstreams.preconnect();
        drop(taken);
    }

    fn settings(
        &self,
        parts: &ListenerParts,
        site: &Rc<ListenerStack>,
        generation: &Generation,
    ) -> ListenerSettings {
        let routes = site.clone();
        ListenerSettings {
            listener: parts.config.clone(),
            tls: parts.tls.clone(),
            connections: parts.connections.clone(),
            takes: Rc::new(move |client| routes.takes(client)),
            passes_tls: site.passes_tls(),
            overload: self.process.overload.clone(),
            on_finish: self.on_finish.clone(),
            release_memory: crate::allocator::release_memory,
            drain_timeout: generation.config.reload.drain_timeout,
        }
    }

    fn open(
        &mut self,
        key: BindKey,
        sockets: Vec<WorkerSocket>,
        settings: Rc<ListenerSettings>,
        slot: StackCell,
        inbound: bool,
    ) {
        let address = sockets.iter().find_map(WorkerSocket::local_addr);
        let (settings, following) = watch::channel(settings);
        let drain = DrainTrigger::new();
        self.running.spawn_local(attache_listener::serve(
            following,
            sockets,
            HttpStack(slot.clone()),
            TcpStack(slot.clone()),
            drain.subscribe(),
        ));
        self.listening.push(ListeningSocket { key, address, settings, slot, inbound, drain });
    }

    fn own_addresses(&self, generation: &Generation, sockets: &[(BindKey, WorkerSocket)]) -> OwnAddresses {
        let tcp = |bind: &Bind| match bind {
            Bind::Tcp(address) => Some(*address),
            Bind::Unix { .. } => None,
        };
        let configured = generation.listeners.iter().flat_map(|parts| &parts.config.bind).filter_map(tcp);
        let known = self.listening.iter().filter_map(|socket| socket.address);
        let open = sockets.iter().filter_map(|(_, socket)| socket.local_addr());
        let config = &generation.config;
        let control = config.admin.bind.as_ref().and_then(tcp).into_iter().chain(config.metrics);
        let control = control.chain(crate::app_probes::served_at());
        OwnAddresses { listeners: configured.chain(known).chain(open).collect(), control: control.collect() }
    }
}

/// Endpoints change, and connections that were opened ahead are used up. This opens the missing ones again.
async fn keep_preconnected(upstreams: Rc<RefCell<Rc<Upstreams>>>) {
    let mut ticks = interval(PRECONNECT_INTERVAL);
    loop {
        ticks.tick().await;
        let upstreams = upstreams.borrow().clone();
        upstreams.preconnect();
    }
}

/// While the process is short of something, connections that are kept for reuse are closed.
async fn release_under_pressure(upstreams: Rc<RefCell<Rc<Upstreams>>>, mut pressed: watch::Receiver<()>) {
    while pressed.changed().await.is_ok() {
        let upstreams = upstreams.borrow().clone();
        upstreams.close_idle();
        attache_resilience::deadline::press();
    }
}
