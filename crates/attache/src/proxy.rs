//! One running proxy: how it starts and how it ends.
//!
//! Order of the start: everything that can be wrong is found first (a port in use, a certificate that can't be read); then the control
//! thread begins discovery and waits a bounded time for its first answers; only then do the workers accept. Connections that
//! come meanwhile wait in the kernel's queue, so the first request finds endpoints.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
};

use attache_admin::Readiness;
use attache_config::model::{Action, Config};
use attache_listener::{DrainTrigger, Workers};
use attache_resilience::{RouteState, UpstreamState};
use attache_telemetry::{AccessLog, Metrics};
use attache_upstream::{Shared, connect::Tls};
use tokio::sync::watch;

use crate::{
    control, cpus,
    state::{Error, ListenerParts, Sockets, State, UpstreamParts},
    tls,
};

/// A proxy that runs. Dropping it leaves it running; [`Proxy::stop`] ends it.
pub(crate) struct Proxy {
    state: Arc<State>,
    address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
    control: JoinHandle<()>,
}

impl Proxy {
    /// Binds, starts every thread and returns when the workers accept.
    pub(crate) fn start(config: Config) -> Result<Self, Error> {
        let workers = config.workers.unwrap_or_else(cpus::workers).max(1);
        let (sockets, address) = bind(&config, &Workers::new(workers))?;
        let probes = config.metrics.map(bind_probes).transpose()?;
        let state = Arc::new(assemble(config)?);

        let (stop, stopping) = watch::channel(false);
        let (ending, ended) = watch::channel(false);
        let (started, start) = std::sync::mpsc::channel();
        let control = {
            let state = state.clone();
            let run = move || control::run(&state, sockets, probes, stopping, &started, ending);
            thread::Builder::new().name("control".to_owned()).spawn(run).map_err(Error::Thread)?
        };
        // A control thread that died has dropped its end.
        start.recv().unwrap_or_else(|_| Err(Error::Thread(io::Error::other("the control thread ended"))))?;
        Ok(Self { state, address, stop, ended, control })
    }

    /// The first TCP address that is listened on.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// What all threads share.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Begins to drain; work that was accepted goes on.
    pub(crate) fn drain(&self) {
        self.stop.send_replace(true);
    }

    /// Becomes true when the last request has ended, or the drain timeout has come.
    pub(crate) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.clone()
    }

    /// Drains and waits for the end.
    pub(crate) fn stop(self) {
        self.drain();
        if self.control.join().is_err() {
            tracing::error!("the control thread panicked");
        }
    }
}

fn bind(config: &Config, workers: &Workers) -> Result<(Sockets, Option<SocketAddr>), Error> {
    let mut by_worker: Sockets = (0..workers.count()).map(|_| Vec::new()).collect();
    let mut address = None;
    for listener in &config.listeners {
        for worker in &mut by_worker {
            worker.push(Vec::new());
        }
        for bind in &listener.bind {
            let fail = |source| Error::Bind { listener: listener.name.clone(), source };
            let sockets = attache_listener::bind(bind, workers).map_err(fail)?;
            for (worker, socket) in by_worker.iter_mut().zip(sockets) {
                address = address.or_else(|| socket.local_addr());
                if let Some(of_listener) = worker.last_mut() {
                    of_listener.push(socket);
                }
            }
        }
    }
    Ok((by_worker, address))
}

fn bind_probes(address: SocketAddr) -> Result<TcpListener, Error> {
    let bind = || {
        let socket = TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    bind().map_err(|source| Error::Probes { address, source })
}

/// Reads whatever the config names; the control thread and the workers then share it.
fn assemble(config: Config) -> Result<State, Error> {
    let workload = tls::workload(&config)?;
    let upstreams = config.upstreams.iter().map(|upstream| {
        let shared = Arc::new(Shared::new(Arc::new(upstream.clone())));
        let tls = Tls::with_workload(upstream, workload.as_ref()).map_err(|source| Error::Tls {
            what: "upstream",
            name: upstream.name.clone(),
            source,
        })?;
        Ok(UpstreamParts { resilience: UpstreamState::new(shared), tls, hosts: Arc::default() })
    });
    let upstreams = upstreams.collect::<Result<_, Error>>()?;
    let listeners = config.listeners.iter().map(|listener| {
        let acceptor =
            |tls| attache_tls::Acceptor::with_workload(tls, &[b"h2", b"http/1.1"], workload.as_ref());
        let tls = listener.tls.as_ref().map(acceptor).transpose().map_err(|source| Error::Tls {
            what: "listener",
            name: listener.name.clone(),
            source,
        })?;
        let routes = listener.routes.iter().map(|route| match &route.action {
            Action::Forward(forward) => RouteState::new(forward),
            Action::Redirect(_) | Action::Respond(_) => Arc::default(),
        });
        let routes = routes.collect();
        Ok(ListenerParts { config: Arc::new(listener.clone()), tls, connections: Arc::default(), routes })
    });
    let listeners = listeners.collect::<Result<_, Error>>()?;
    let metrics = Metrics::new();
    let access_log = AccessLog::start(&config.access_log, &metrics).map_err(Error::AccessLog)?;
    Ok(State {
        config,
        upstreams,
        listeners,
        metrics,
        access_log,
        workload,
        readiness: Readiness::new(),
        drain: DrainTrigger::new(),
    })
}
