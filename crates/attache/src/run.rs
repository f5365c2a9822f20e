//! `attache run`, `check` and `schema`.

use std::{
    cell::Cell,
    io::{self, IsTerminal, Write},
    path::Path,
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

use attache_config::{Diagnostics, model::Config};
use rustix::process::{
    Pid, Signal as RustixSignal, WaitOptions, getpid, kill_process, set_child_subreaper, wait,
};
use tokio::{
    runtime::LocalRuntime,
    signal::unix::{self, SignalKind},
    task::spawn_local,
    time::{Instant, sleep},
};

use crate::{
    app::{self, AppProcess},
    app_probes, check, cli,
    error::{AnyError, print_error},
    inherited::InheritedSockets,
    notify::Supervisor,
    process,
    proxy::{Proxy, ProxyControl, ProxySetup},
    reloads::ReloadTrigger,
    signals::Signals,
    upgrade::OwnCommand,
    upgrade_folder::{self, UpgradeFolder},
};

/// How often the process that serves is checked, in addition to the kernel's signal that a child has ended.
const FOLLOWING: Duration = Duration::from_secs(1);
/// If the same signal to end arrives twice within this time, it counts as one request.
const ONE_REQUEST: Duration = Duration::from_millis(200);

/// The config of a file, or the built-in forward proxy.
pub(crate) fn load(file: Option<&Path>) -> Result<Config, AnyError> {
    let env = |name: &str| std::env::var(name).ok();
    match file {
        Some(file) => attache_config::load(file, &env).map_err(|found| rendered(&found).into()),
        None => Ok(Config::forward_proxy()),
    }
}

/// The config of a file, if the files that it names can be used too.
fn load_to_serve(file: Option<&Path>) -> Result<Config, AnyError> {
    let config = load(file)?;
    let text = file.map(std::fs::read_to_string).transpose()?.unwrap_or_default();
    match check::files(&config, &text) {
        Some(found) => Err(rendered(&found).into()),
        None => Ok(config),
    }
}

fn rendered(found: &Diagnostics) -> String {
    format!("the config can't be used\n{}", found.display(check::coloured()))
}

/// Runs the proxy, and the app if one is named, until a signal or the app's end ends it.
pub(crate) fn run(options: &cli::RunArgs) -> Result<ExitCode, AnyError> {
    // This must come before there are threads, because it changes the environment.
    let mut handed = InheritedSockets::take()?;
    let myself = OwnCommand::new()?;
    let folder = options.upgrade_dir.as_deref().map(UpgradeFolder::new).transpose()?;
    let first = !handed.is_ours();
    if folder.is_some() && first {
        // Processes of later upgrades become children of this process when their own parents end.
        set_child_subreaper(Some(getpid())).map_err(io::Error::from)?;
    }
    let config = load_to_serve(options.config.as_deref())?;
    let log = attache_telemetry::init_logging(&options.log)?;
    for warning in &config.warnings {
        tracing::warn!("{}", warning.to_string().trim_end());
    }
    let wraps = !options.app.is_empty();
    // This must come before the workers accept, because waiting connections may use up every file descriptor. It must also come before a
    // user can see that attache runs and send SIGHUP, which would end it.
    let runtime = LocalRuntime::new()?;
    let further = if wraps { Signals::OF_AN_APP } else { &[] };
    let mut signals =
        runtime.block_on(async { Signals::new(Signals::OWN.iter().chain(further).copied()) })?;
    let mut children = runtime.block_on(async { unix::signal(SignalKind::child()) })?;
    let app_probes = runtime.block_on(async { app_probes::bind(&mut handed) }).map_err(io::Error::other)?;
    let others = app_probes.iter().filter_map(app_probes::ProbesSocket::hold).collect();
    let setup = ProxySetup { log: Some(log), supervisor: Supervisor::from_env(), handed, others };
    let proxy = Proxy::start(config, setup)?;
    if let Some(app_probes) = app_probes {
        let mut succeeded = proxy.control().process().succeeded.subscribe();
        let succeeded = async move { drop(succeeded.wait_for(|&succeeded| succeeded).await) };
        runtime.block_on(async { app_probes.serve(succeeded) });
    }
    announce(&proxy, options);
    let app = match wraps.then(|| AppProcess::start(&options.app)).transpose() {
        Ok(app) => app,
        Err(error) => {
            print_error(&error);
            proxy.stop();
            return Ok(ExitCode::from(error.code()));
        }
    };
    let process = proxy.control().process();
    if app.is_some() {
        process.wrapped.send_replace(process::AppState::Runs);
    }
    process.supervisor.ready("serving");
    if let Some(folder) = &folder {
        folder.announce();
    }
    let session = RunSession {
        proxy: &proxy,
        app,
        upgrades: Rc::new(RunUpgrades {
            myself,
            folder,
            first,
            successor: Cell::new(None),
            running: Cell::new(false),
        }),
        code: None,
        last: None,
        asked: 0,
        asked_first: None,
        came: RustixSignal::TERM,
        told: false,
    };
    runtime.block_on(session.serve(&mut signals, &mut children))
}

/// A running proxy, from the point of view of signals and its app.
struct RunSession<'a> {
    proxy: &'a Proxy,
    app: Option<AppProcess>,
    upgrades: Rc<RunUpgrades>,
    /// How the app, or the process that took over, ended.
    code: Option<ExitCode>,
    /// How the process that this one started ended; other processes may have taken over from it before.
    last: Option<ExitCode>,
    /// How often the end was requested.
    asked: u32,
    /// When it was first requested, and by which signal.
    asked_first: Option<(Instant, RustixSignal)>,
    /// The signal that requested the end.
    came: RustixSignal,
    /// The app was told to end.
    told: bool,
}

/// The data for the start of a new program.
struct RunUpgrades {
    myself: OwnCommand,
    folder: Option<UpgradeFolder>,
    /// No process handed over to this one.
    first: bool,
    /// The process that serves instead of this one.
    successor: Cell<Option<Pid>>,
    /// A new process is being started.
    running: Cell<bool>,
}

impl RunUpgrades {
    /// The process that serves, if this process stays as long as another one serves.
    fn stays(&self) -> Option<Pid> {
        self.successor.get().filter(|_| self.first && self.folder.is_some())
    }

    /// All later processes that still run: the one that serves, and those that finish their work.
    fn others(&self) -> Vec<Pid> {
        let all = self.folder.iter().flat_map(UpgradeFolder::running).map(|other| other.pid);
        all.filter(|pid| *pid != getpid()).collect()
    }
}

impl RunSession<'_> {
    /// Handles signals until the proxy has ended. Returns the exit code of the program.
    async fn serve(
        mut self,
        signals: &mut Signals,
        children: &mut unix::Signal,
    ) -> Result<ExitCode, AnyError> {
        let process = self.proxy.control().process();
        let mut ended = self.proxy.ended();
        let mut app = process.wrapped.subscribe();
        loop {
            tokio::select! {
                _ = ended.wait_for(|&ended| ended) => break,
                signal = signals.next() => self.heard(signal),
                _ = children.recv() => self.reap(),
                _ = app.wait_for(|app| *app == process::AppState::MayEnd), if !self.told => self.tell_app(),
                // Only the end of a child causes a signal, and the process that serves may be the child of a child.
                () = sleep(FOLLOWING), if self.upgrades.stays().is_some() => self.reap(),
            }
            if self.asked > 1 {
                if let Some(app) = &self.app {
                    app.signal(RustixSignal::KILL);
                }
                return Err("ended at once by a second signal; running requests were cut".into());
            }
            // No process serves now. The container must be restarted at once, not after this process has drained.
            if let Some(code) = self.code.filter(|_| self.asked == 0 && self.upgrades.stays().is_some()) {
                tracing::error!("the process that took over has ended by itself; this one ends too");
                return Ok(code);
            }
        }
        while self.upgrades.stays().is_some()
            && (self.code.is_none() || self.asked > 0 && !self.upgrades.others().is_empty())
        {
            tokio::select! {
                signal = signals.next() => self.heard(signal),
                _ = children.recv() => {}
                // A child that ended together with the proxy causes no second signal.
                () = sleep(FOLLOWING) => {}
            }
            self.reap();
        }
        match self.code {
            Some(code) => Ok(code),
            None if self.proxy.control().was_told_to_end() => Ok(ExitCode::SUCCESS),
            None => Err("the control thread ended unexpectedly; see the log".into()),
        }
    }

    /// One request to end can be two signals: `timeout` sends it to the process and again to its group, and so do some supervisors.
    fn ask(&mut self, signal: RustixSignal) {
        let now = Instant::now();
        let is_the_first_again = self
            .asked_first
            .is_some_and(|(at, first)| first == signal && now.duration_since(at) < ONE_REQUEST);
        if !is_the_first_again {
            self.asked_first.get_or_insert((now, signal));
            self.asked += 1;
        }
    }

    fn heard(&mut self, signal: RustixSignal) {
        let control = self.proxy.control();
        if let Some(successor) = self.upgrades.stays() {
            let mut to = self.upgrades.others();
            // Signals about running work are also sent to the processes that finish theirs; all other signals are sent only to the one that
            // serves.
            match signal {
                RustixSignal::TERM | RustixSignal::INT => {
                    control.drain();
                    self.ask(signal);
                }
                RustixSignal::USR1 => control.process().generation().access_log.reopen(),
                _ => to = vec![successor],
            }
            if to.is_empty() {
                to.push(successor);
            }
            for pid in to {
                if let Err(error) = kill_process(pid, signal) {
                    tracing::debug!(%error, ?signal, ?pid, "a signal did not reach a process of an upgrade");
                }
            }
            return;
        }
        match signal {
            RustixSignal::TERM | RustixSignal::INT => {
                control.drain();
                self.came = signal;
                self.ask(signal);
                return;
            }
            RustixSignal::HUP => {
                let control = control.clone();
                // The reload logs its result. Further signals are handled meanwhile.
                spawn_local(async move { control.reload(ReloadTrigger::Signal).await });
            }
            RustixSignal::USR1 => control.process().generation().access_log.reopen(),
            RustixSignal::USR2 if self.app.is_none() => {
                spawn_local(upgrade(control.clone(), Rc::clone(&self.upgrades)));
            }
            _ => {}
        }
        if let Some(app) = &self.app {
            app.signal(signal);
        }
    }

    /// The calls to the app have ended.
    fn tell_app(&mut self) {
        self.told = true;
        // A terminal sends SIGINT to all processes in the foreground, including the app.
        let heard = self.came == RustixSignal::INT && io::stdin().is_terminal();
        if let Some(app) = self.app.as_ref().filter(|_| !heard) {
            app.signal(self.came);
        }
    }

    /// Reaps the processes that have ended, and finds out which process serves now. If none does, this process ends too.
    fn follow(&mut self, successor: Pid) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == successor {
                self.last = Some(app::code_of(status));
            }
        }
        let last = self.upgrades.folder.as_ref().and_then(UpgradeFolder::last);
        let has_ended = match last.filter(|last| last.pid != getpid()) {
            Some(last) => {
                if last.pid != successor {
                    self.upgrades.successor.set(Some(last.pid));
                    self.last = None;
                }
                !last.runs()
            }
            // It may serve without having reported it, or it may be unable to report it.
            None => !upgrade_folder::runs(successor),
        };
        if has_ended {
            let unknown = if self.asked > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            self.code = Some(self.last.unwrap_or(unknown));
        }
    }

    fn reap(&mut self) {
        let Some(app) = &self.app else {
            // If a new process did not take over, the code that started it waits for it.
            if let Some(successor) = self.upgrades.stays() {
                self.follow(successor);
            } else if std::process::id() == 1 && !self.upgrades.running.get() {
                app::reap_orphans();
            }
            return;
        };
        let Some(code) = app.reap() else { return };
        tracing::info!("the app has ended");
        (self.code, self.app) = (Some(code), None);
        let control = self.proxy.control();
        control.process().wrapped.send_replace(process::AppState::Gone);
        control.drain();
    }
}

/// Hands over to a new process and begins to end, or logs why it doesn't.
async fn upgrade(control: ProxyControl, upgrades: Rc<RunUpgrades>) {
    if std::process::id() == 1 && upgrades.folder.is_none() {
        tracing::error!(
            "SIGUSR2: this is process 1, and the container would end with it; run it with --upgrade-dir, or roll out the workload again"
        );
        return;
    }
    if upgrades.running.replace(true) {
        tracing::warn!("SIGUSR2: a new process is already being started");
        return;
    }
    let program = upgrades.folder.as_ref().map_or(Ok(None), UpgradeFolder::program);
    let myself = program.map(|program| match program {
        Some(program) => upgrades.myself.clone().by(program),
        None => upgrades.myself.clone(),
    });
    let outcome = match myself {
        Ok(myself) => control.upgrade(myself).await,
        Err(why) => Err(why),
    };
    if let Some(folder) = &upgrades.folder {
        folder.note(&outcome);
    }
    match outcome {
        Ok(pid) => {
            tracing::info!(pid, "a new process has taken over; this one ends");
            upgrades.successor.set(i32::try_from(pid).ok().and_then(Pid::from_raw));
            control.retire();
        }
        Err(why) if control.was_told_to_end() => tracing::warn!("{why}"),
        Err(why) => tracing::error!("{why}; this process continues to serve"),
    }
    upgrades.running.set(false);
}

/// Prints one line that tells a person what to do next; the log has the rest.
fn announce(proxy: &Proxy, options: &cli::RunArgs) {
    for listener in &proxy.generation().config.listeners {
        let at: Vec<String> = listener.bind.iter().map(ToString::to_string).collect();
        tracing::info!(listener = %listener.name, "listening on {}", at.join(", "));
    }
    if options.config.is_none()
        && let Some(address) = proxy.address()
    {
        tracing::info!("no config: a forward proxy. Try: curl -x http://{address} http://example.com/");
    }
}

/// Prints the JSON schema of the config.
pub(crate) fn schema() -> Result<(), AnyError> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &attache_config::schema())?;
    writeln!(out)?;
    Ok(())
}
