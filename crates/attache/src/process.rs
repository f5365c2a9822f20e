//! What lives as long as the process: counters, readiness, and the order of the end. Everything that comes from the config is a
//! [`Generation`], and a reload replaces it as a whole.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use arc_swap::ArcSwap;
use attache_admin::{AppMetricsHandle, Readiness};
use attache_listener::{ConnectionsPerWorker, DrainTrigger, OverloadState, SocketHandle, WorkerSocket};
use attache_telemetry::{LogControl, Metrics};
use attache_tls::FileWatcher;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use crate::{
    generation::Generation,
    notify::Supervisor,
    proxy::sockets::{BindKey, BoundSockets},
    reloads::Reloads,
};

/// What all threads of a process share, independent of the config.
pub(crate) struct ProcessState {
    pub(crate) metrics: Metrics,
    pub(crate) readiness: Readiness,
    /// Ends the listeners that other machines can reach, on all workers.
    pub(crate) drain_inbound: DrainTrigger,
    /// The settings for the application on the metrics port.
    pub(crate) app: AppMetricsHandle,
    /// Ends all listeners, on all workers.
    pub(crate) drain: DrainTrigger,
    /// The reloads so far.
    pub(crate) reloads: Reloads,
    /// What overload protection tells all threads.
    pub(crate) overload: Arc<OverloadState>,
    /// What overload refuses now, as a text; `None` if every request is served. Only the control thread takes this lock.
    refusals: Mutex<Option<String>>,
    /// How many workers there are, and how many connections each has.
    pub(crate) workers: ConnectionsPerWorker,
    /// Follows the files of every certificate and trust store, of all generations.
    pub(crate) certificates: FileWatcher,
    /// Follows the files of every secret, of all generations.
    pub(crate) secrets: FileWatcher,
    /// Changes the log level; `None` if the program that contains this proxy has its own log.
    pub(crate) log: Option<LogControl>,
    /// The running exports to collectors: those of the present generation, and those of generations that end.
    exports: Mutex<Vec<JoinHandle<()>>>,
    /// An operator has told attache to accept no new work; the process stays.
    pub(crate) draining: AtomicBool,
    /// The supervisor that is notified.
    pub(crate) supervisor: Supervisor,
    /// The state of the app, if attache runs one.
    pub(crate) wrapped: watch::Sender<AppState>,
    /// Whether another process has taken over.
    pub(crate) succeeded: watch::Sender<bool>,
    /// Second handles of all listening sockets, for a process that takes over. Only the control thread takes this lock.
    held: Mutex<Vec<(BindKey, Vec<SocketHandle>)>>,
    current: ArcSwap<Generation>,
}

/// The state of the app that attache was told to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AppState {
    /// attache runs no app: it runs beside one.
    None,
    /// It runs.
    Runs,
    /// It should end: the calls to it have ended.
    MayEnd,
    /// It has ended.
    Gone,
}

impl ProcessState {
    /// A process that serves nothing yet.
    pub(crate) fn new(workers: usize, log: Option<LogControl>, supervisor: Supervisor) -> Arc<Self> {
        Arc::new(Self {
            metrics: Metrics::new(),
            readiness: Readiness::new(),
            drain_inbound: DrainTrigger::new(),
            app: AppMetricsHandle::default(),
            drain: DrainTrigger::new(),
            reloads: Reloads::default(),
            overload: Arc::default(),
            refusals: Mutex::default(),
            workers: ConnectionsPerWorker::new(workers),
            certificates: FileWatcher::default(),
            secrets: FileWatcher::default(),
            log,
            exports: Mutex::default(),
            draining: AtomicBool::new(false),
            supervisor,
            wrapped: watch::Sender::new(AppState::None),
            succeeded: watch::Sender::new(false),
            held: Mutex::default(),
            current: ArcSwap::default(),
        })
    }

    /// Notes what overload refuses from now on.
    pub(crate) fn note_refusals(&self, what: Option<String>) {
        *self.refusals.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// What overload refuses now.
    pub(crate) fn refusals(&self) -> Option<String> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps second handles of new listening sockets, for a process that takes over.
    pub(crate) fn hold(&self, sockets: &[BoundSockets]) {
        let mut held = self.held();
        for (place, sockets) in sockets {
            match sockets.iter().map(WorkerSocket::hold).collect::<Result<Vec<_>, _>>() {
                Ok(all) => held.push((place.clone(), all)),
                Err(error) => {
                    tracing::warn!(socket = place.key(), %error, "this socket can't be handed to a new process");
                }
            }
        }
    }

    /// The second handles of the listening sockets.
    pub(crate) fn held(&self) -> MutexGuard<'_, Vec<(BindKey, Vec<SocketHandle>)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present generation. Workers don't ask here: each has its own copy.
    pub(crate) fn generation(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// Notes a running export of traces; it ends by itself when its generation has ended.
    pub(crate) fn exports(&self, export: JoinHandle<()>) {
        let mut exports = self.exports.lock().unwrap_or_else(PoisonError::into_inner);
        exports.retain(|export| !export.is_finished());
        exports.push(export);
    }

    /// Sends the waiting traces and log records, and the metrics once more, for at most `within`.
    pub(crate) async fn last_exports(&self, within: Duration) {
        self.generation().exported.end();
        let exports = std::mem::take(&mut *self.exports.lock().unwrap_or_else(PoisonError::into_inner));
        let sent = async {
            for export in exports {
                let _ = export.await;
            }
        };
        if timeout(within, sent).await.is_err() {
            tracing::warn!("the last traces could not be exported within {within:?}");
        }
    }

    /// Notes which generation is used from now on.
    pub(crate) fn serves(&self, generation: Arc<Generation>) {
        self.app.set(&generation.config);
        self.current.store(generation);
    }
}
