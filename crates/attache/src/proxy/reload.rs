//! Puts a new config into use while the old one serves: it is read, checked and prepared as a whole, and then used at once.
//!
//! The rule: nothing changes before everything that can fail has succeeded. If a config can't be read, a certificate is broken or a port is
//! in use, the running generation stays. This is logged with its place, counted, and shown by the probes and the admin API until a reload
//! succeeds. One reload runs at a time. After the process has begun to drain, there are no reloads.

use std::{
    collections::HashSet,
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use attache_config::model::{Bind, Config};
use attache_listener::{Drain, DrainPhase, SocketHandle};
use attache_telemetry::CertificateSide;
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::timeout,
};

use super::{
    handle::{ProxyEnd, ReloaderOrder},
    sockets::bind_keys,
    workers::WorkerThreads,
};
use crate::{
    check, diff,
    error::{Error, whole},
    generation::Generation,
    inherited::{InheritedSockets, duplicate},
    prepare::{PreparedGeneration, prepare},
    process::ProcessState,
    reloads::{ReloadReport, ReloadTrigger, TriedReload},
    upgrade::{self, OwnCommand},
    upkeep::Upkeep,
    watch as files,
};

/// How long attache waits for the workers before it logs that one of them hangs.
const TAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How much time there is to write the remaining lines of an access log that is replaced.
const LOG_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the config again and puts it into use.
pub(crate) struct Reloader {
    pub(crate) process: Arc<ProcessState>,
    pub(crate) upkeep: Upkeep,
    pub(crate) workers: WorkerThreads,
    /// The sockets of the operators' ports with their keys, for a process that takes over.
    pub(crate) operators: Vec<(String, OwnedFd)>,
    /// Whether the program was told to end.
    pub(crate) stop: watch::Receiver<ProxyEnd>,
}

impl Reloader {
    /// Accepts orders until the process drains. As long as it is polled, it also runs the tasks of the last generation.
    pub(crate) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<ReloaderOrder>, mut drain: Drain) {
        let drained = drain.reached(DrainPhase::Drain);
        tokio::pin!(drained);
        loop {
            tokio::select! {
                biased;
                _ = &mut drained => break,
                Some(order) = orders.recv() => match order {
                    ReloaderOrder::Reload { trigger, reply } => tokio::select! {
                        biased;
                        _ = &mut drained => break,
                        result = self.reload(trigger) => drop(reply.send(result)),
                    },
                    // The drain does not drop this: the new process must have ended before this one.
                    ReloaderOrder::Upgrade { myself, reply } => drop(reply.send(self.upgrade(myself).await)),
                },
                else => break,
            }
        }
        // Otherwise the sockets would stay open, and connections would wait in them.
        self.process.held().clear();
        // Later orders get an error: their reply channel is dropped together with the queue.
        drop(orders);
        std::future::pending::<()>().await;
    }

    async fn upgrade(&mut self, myself: OwnCommand) -> Result<u32, String> {
        let asked = "attache was told to end: no new process takes over";
        let was_asked = *self.stop.borrow() == ProxyEnd::Asked;
        if was_asked {
            return Err(asked.to_owned());
        }
        let mut sockets: Vec<(String, Vec<OwnedFd>)> = Vec::new();
        for (place, held) in &*self.process.held() {
            sockets.push((place.key(), held.iter().filter_map(duplicate).collect()));
        }
        for (key, socket) in &self.operators {
            sockets.push((key.clone(), duplicate(socket).into_iter().collect()));
        }
        let (line, give_up) = upgrade::UpgradeLine::new()?;
        // A separate thread, because it waits until the new process serves.
        let mut handed = spawn_blocking(move || {
            let sockets: Vec<_> = sockets
                .iter()
                .map(|(key, sockets)| (key.clone(), sockets.iter().map(AsFd::as_fd).collect()))
                .collect();
            upgrade::hand_over(line, &myself, &sockets)
        });
        let handed = tokio::select! {
            biased;
            _ = self.stop.wait_for(|&end| end == ProxyEnd::Asked) => {
                give_up.now();
                if let Ok(Ok(pid)) = handed.await {
                    // The new process served before the hand-over could be cancelled.
                    upgrade::end(pid);
                }
                return Err(asked.to_owned());
            }
            handed = &mut handed => handed,
        };
        let pid = handed.map_err(|error| error.to_string())??;
        self.process.held().iter().flat_map(|(_, held)| held).for_each(SocketHandle::handed_on);
        self.operators.clear();
        self.process.supervisor.succeeded_by(pid);
        self.process.succeeded.send_replace(true);
        Ok(pid)
    }

    async fn reload(&mut self, trigger: ReloadTrigger) -> Result<ReloadReport, String> {
        let (began, at) = (Instant::now(), SystemTime::now());
        self.process.supervisor.reloading();
        let result = self.attempt().await;
        let process = &self.process;
        process.supervisor.ready(match &result {
            Ok(_) => "serving",
            Err(_) => "serving the previous config; the last one was refused, see the log",
        });
        process.metrics.config_loaded(result.is_ok());
        match &result {
            Ok(report) if report.changes.is_empty() && report.needs_restart.is_empty() => {
                tracing::info!(trigger = trigger.as_str(), "the config has not changed");
            }
            Ok(report) => {
                for line in report.needs_restart.iter().chain(&report.orphaned) {
                    tracing::warn!("{line}");
                }
                let (generation, changes) = (report.generation, report.changes.join("; "));
                tracing::info!(trigger = trigger.as_str(), generation, changes, "config reloaded");
            }
            Err(why) => {
                tracing::error!(
                    trigger = trigger.as_str(),
                    "the new config was refused, and the previous one stays in use:\n{}",
                    why.trim_end()
                );
            }
        }
        let failed = result.as_ref().err().map(|why| why.lines().next().unwrap_or_default().to_owned());
        process.readiness.last_reload_failed(failed);
        process.reloads.note(TriedReload { at, took: began.elapsed(), trigger, result: result.clone() });
        result
    }

    async fn attempt(&mut self) -> Result<ReloadReport, String> {
        let before = self.process.generation();
        let Some(file) = before.config.file.clone() else {
            return Err("there is no config file to read again: attache runs as the built-in forward proxy"
                .to_owned());
        };
        let (process, known) = (self.process.clone(), before.clone());
        let read = spawn_blocking(move || read(&file, &known, &process)).await;
        let ReadConfig { prepared, changes, needs_restart, diff } =
            read.map_err(|error| error.to_string())??;
        let generation = before.number;
        let Some(prepared) = prepared else {
            let orphaned = Vec::new();
            return Ok(ReloadReport { generation, changes, needs_restart, diff, orphaned });
        };
        let orphaned = orphaned(&before.config, &prepared.config);
        self.switch(*prepared, &before).await.map_err(|error| whole(&error))?;
        Ok(ReloadReport { generation: generation + 1, changes, needs_restart, diff, orphaned })
    }

    /// Everything from here to the workers' answers happens, or nothing does.
    async fn switch(
        &mut self,
        mut prepared: PreparedGeneration,
        before: &Arc<Generation>,
    ) -> Result<(), Error> {
        let sockets = std::mem::take(&mut prepared.sockets);
        let process = &self.process;
        let new = Arc::new(self.upkeep.next_generation(prepared, before, process).await?);
        set_modes(&before.config, &new.config);
        process.serves(new.clone());
        let bind_keys: HashSet<_> = new.config.listeners.iter().flat_map(bind_keys).collect();
        process.held().retain(|(place, _)| bind_keys.contains(place));
        process.hold(&sockets);
        let mut taken = self.workers.switch(&new, sockets);
        if timeout(TAKE_TIMEOUT, taken.recv()).await.is_err() {
            tracing::error!(
                "a worker does not use the new config after {TAKE_TIMEOUT:?}; it still uses the old one"
            );
        }
        self.upkeep.retain(&new);
        let upstreams = new.by_name();
        process.metrics.retain_upstreams(|name| upstreams.contains_key(&**name));
        process.metrics.retain_certificates(|side, name| match side {
            CertificateSide::Listener => new.listener(name).is_some_and(|listener| listener.tls.is_some()),
            CertificateSide::Upstream => {
                upstreams.get(&**name).is_some_and(|upstream| upstream.tls.is_some())
            }
        });
        if new.config.access_log != before.config.access_log {
            let old = before.access_log.clone();
            spawn_blocking(move || old.close(LOG_TIMEOUT));
        }
        Ok(())
    }
}

/// The result of reading the config; it is not used yet.
struct ReadConfig {
    /// `None` if nothing has changed.
    prepared: Option<Box<PreparedGeneration>>,
    changes: Vec<String>,
    needs_restart: Vec<String>,
    diff: String,
}

/// Reads, checks and prepares. If nothing has changed, nothing is prepared. It blocks.
fn read(file: &Path, before: &Generation, process: &ProcessState) -> Result<ReadConfig, String> {
    process.reloads.begins(files::digest(&files::files(&before.config)));
    let env = |name: &str| std::env::var(name).ok();
    let mut config = attache_config::load(file, &env).map_err(|found| found.to_string())?;
    if config.files != before.config.files {
        process.reloads.begins(files::digest(&files::files(&config)));
    }
    let text = std::fs::read_to_string(file).unwrap_or_default();
    if let Some(found) = check::files(&config, &text) {
        return Err(found.to_string());
    }
    for warning in &config.warnings {
        tracing::warn!("{}", warning.to_string().trim_end());
    }
    let needs_restart = diff::keep_fixed(&before.config, &mut config);
    let changes = diff::changes(&before.config, &config);
    if changes.is_empty() && config.files == before.config.files {
        return Ok(ReadConfig { prepared: None, changes, needs_restart, diff: String::new() });
    }
    let diff = diff::text(&before.config, &config);
    let prepared =
        prepare(config, before, process, &mut InheritedSockets::default()).map_err(|error| whole(&error))?;
    Ok(ReadConfig { prepared: Some(Box::new(prepared)), changes, needs_restart, diff })
}

/// Requests that matched a route before and match none now, on listeners that both configs have.
fn orphaned(before: &Config, now: &Config) -> Vec<String> {
    let pairs = now.listeners.iter().filter_map(|listener| {
        let old = before.listeners.iter().find(|old| old.name == listener.name)?;
        Some(attache_routing::orphaned(old, listener))
    });
    pairs.flatten().collect()
}

/// Sets the mode of a Unix socket that is kept, if it has changed.
fn set_modes(old: &Config, new: &Config) {
    let modes = |config: &Config| -> Vec<(PathBuf, u32)> {
        let binds = config.listeners.iter().flat_map(|listener| &listener.bind);
        binds
            .filter_map(|bind| match bind {
                Bind::Unix { path, mode } => Some((path.clone(), *mode)),
                Bind::Tcp(_) => None,
            })
            .collect()
    };
    let old = modes(old);
    for (path, mode) in modes(new) {
        if old.iter().any(|(known, was)| *known == path && *was != mode)
            && let Err(error) = fs::set_permissions(&path, fs::Permissions::from_mode(mode))
        {
            tracing::error!(path = %path.display(), %error, "the mode of a Unix socket can't be changed");
        }
    }
}
