//! One running proxy: its start and its end.
//!
//! Order of the start: everything that can be wrong is checked first (a port in use, a certificate that can't be read). Then the control
//! thread starts discovery and waits a limited time for the first results. Only then do the workers accept. Connections that arrive
//! meanwhile wait in the kernel's queue, so the first request finds endpoints.

mod control;
mod gauges;
pub(crate) mod handle;
#[cfg(test)]
mod reference_tests;
mod reload;
pub(crate) mod sockets;
mod workers;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Instant, SystemTime},
};

use attache_config::model::Config;
use attache_telemetry::LogControl;
use tokio::sync::{mpsc, watch};

pub(crate) use self::handle::ProxyControl;
use self::{
    control::{ControlChannels, OperatorSockets},
    handle::ProxyEnd,
};
use crate::{
    admin, bind, cpus,
    error::Error,
    generation::Generation,
    inherited::{InheritedSockets, probes_key},
    notify::Supervisor,
    prepare,
    process::ProcessState,
    reloads::{ReloadReport, ReloadTrigger, TriedReload},
    upgrade::{KeyedSocket, Predecessor},
    watch as files,
};

/// What a proxy gets from the program around it. The default is nothing.
#[derive(Default)]
pub(crate) struct ProxySetup {
    /// Changes the level of the program's log.
    pub(crate) log: Option<LogControl>,
    /// The supervisor that is notified.
    pub(crate) supervisor: Supervisor,
    /// Sockets to use instead of new ones.
    pub(crate) handed: InheritedSockets,
    /// Sockets that the program itself serves. They are handed to a new process with the rest.
    pub(crate) others: Vec<KeyedSocket>,
}

/// A running proxy. Dropping this value does not end it; [`Proxy::stop`] does.
pub(crate) struct Proxy {
    control: ProxyControl,
    address: Option<SocketAddr>,
    ended: watch::Receiver<bool>,
    thread: JoinHandle<()>,
}

impl Proxy {
    /// Binds, starts every thread, and returns when the workers accept.
    pub(crate) fn start(config: Config, setup: ProxySetup) -> Result<Self, Error> {
        let (began, at) = (Instant::now(), SystemTime::now());
        let ProxySetup { log, supervisor, mut handed, others } = setup;
        let process = ProcessState::new(config.workers.unwrap_or_else(cpus::workers), log, supervisor);
        process.reloads.begins(files::digest(&files::files(&config)));
        let (probes, admin) = (config.metrics, config.admin.clone());
        let prepared = prepare::prepare(config, &process.generation(), &process, &mut handed)?;
        let mut sockets = prepared.sockets.iter().flat_map(|(_, sockets)| sockets);
        let address = sockets.find_map(attache_listener::WorkerSocket::local_addr);
        let probes = match probes.map(|address| bind_probes(address, &mut handed)).transpose() {
            // As with the admin API: at its default address it is left out, so that a second attache can be tried on one machine.
            Err(Error::Probes { address, source })
                if address == Config::METRICS && source.kind() == io::ErrorKind::AddrInUse =>
            {
                tracing::warn!(
                    "no probes and no metrics: {address} is taken ({source}); set `metrics:` to another address, or to `off`"
                );
                None
            }
            other => other?,
        };
        let operators = OperatorSockets { probes, admin: admin::bind(&admin, &mut handed)?, others };
        let predecessor = handed.settle();

        let (stop, stopping) = watch::channel(ProxyEnd::No);
        let (orders, ordered) = mpsc::unbounded_channel();
        let (ending, ended) = watch::channel(false);
        let (started, start) = std::sync::mpsc::channel();
        let control = ProxyControl { process, stop, orders };
        let thread = {
            let control = control.clone();
            let orders = ControlChannels { stop: stopping, others: ordered };
            let run = move || control::run(&control, prepared, operators, orders, &started, ending);
            thread::Builder::new().name("control".to_owned()).spawn(run).map_err(Error::Thread)?
        };
        // A control thread that died has dropped its sender.
        start.recv().unwrap_or_else(|_| Err(Error::Thread(io::Error::other("the control thread ended"))))?;
        let result = Ok(ReloadReport {
            generation: 1,
            changes: Vec::new(),
            needs_restart: Vec::new(),
            diff: String::new(),
            orphaned: Vec::new(),
        });
        let proxy = Self { control, address, ended, thread };
        if let Some(Err(source)) = predecessor.map(Predecessor::ready) {
            // The code that ended it did not know this proxy, and would find its addresses in use.
            proxy.stop();
            return Err(Error::Predecessor(source));
        }
        proxy.control.process.reloads.note(TriedReload {
            at,
            took: began.elapsed(),
            trigger: ReloadTrigger::Start,
            result,
        });
        Ok(proxy)
    }

    /// The first TCP address that it listens on.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The present generation.
    pub(crate) fn generation(&self) -> Arc<Generation> {
        self.control.process.generation()
    }

    /// The handle that controls it.
    pub(crate) fn control(&self) -> &ProxyControl {
        &self.control
    }

    /// Becomes true when the last request has ended, or when the drain timeout has passed.
    pub(crate) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.clone()
    }

    /// Drains and waits for the end.
    pub(crate) fn stop(self) {
        self.control.drain();
        if self.thread.join().is_err() {
            tracing::error!("the control thread panicked");
        }
    }
}

fn bind_probes(address: SocketAddr, handed: &mut InheritedSockets) -> Result<TcpListener, Error> {
    let both = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let given = handed.take_one(&probes_key(address)).or_else(|| {
        // An attache from before the change of the default listened on both families.
        let before = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
        both.then(|| handed.take_one(&probes_key(before))).flatten()
    });
    let bind = || match given {
        Some(given) => {
            let socket = TcpListener::from(given);
            socket.set_nonblocking(true)?;
            Ok(socket)
        }
        None if both => bind::any_family(address.port()),
        None => bind::listen(address),
    };
    bind().map_err(|source| Error::Probes { address, source })
}
