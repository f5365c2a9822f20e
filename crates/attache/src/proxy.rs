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

use attache_config::model::Config;
use attache_telemetry::LogControl;
use tokio::sync::watch;

use crate::{control, cpus, error::Error, generation::Generation, prepare, process::Process};

/// A proxy that runs. Dropping it leaves it running; [`Proxy::stop`] ends it.
pub(crate) struct Proxy {
    process: Arc<Process>,
    address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
    control: JoinHandle<()>,
}

impl Proxy {
    /// Binds, starts every thread and returns when the workers accept.
    pub(crate) fn start(config: Config, log: Option<LogControl>) -> Result<Self, Error> {
        let process = Process::new(config.workers.unwrap_or_else(cpus::workers), log);
        let probes = config.metrics;
        let prepared = prepare::prepare(config, &process.generation(), &process)?;
        let mut sockets = prepared.sockets.iter().flat_map(|(_, sockets)| sockets);
        let address = sockets.find_map(attache_listener::Socket::local_addr);
        let probes = probes.map(bind_probes).transpose()?;

        let (stop, stopping) = watch::channel(false);
        let (ending, ended) = watch::channel(false);
        let (started, start) = std::sync::mpsc::channel();
        let control = {
            let process = process.clone();
            let run = move || control::run(&process, prepared, probes, stopping, &started, ending);
            thread::Builder::new().name("control".to_owned()).spawn(run).map_err(Error::Thread)?
        };
        // A control thread that died has dropped its end.
        start.recv().unwrap_or_else(|_| Err(Error::Thread(io::Error::other("the control thread ended"))))?;
        Ok(Self { process, address, stop, ended, control })
    }

    /// The first TCP address that is listened on.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// What serves now.
    pub(crate) fn generation(&self) -> Arc<Generation> {
        self.process.generation()
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

fn bind_probes(address: SocketAddr) -> Result<TcpListener, Error> {
    let bind = || {
        let socket = TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    bind().map_err(|source| Error::Probes { address, source })
}
