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
    time::sleep,
};

use crate::{
    app::{self, App},
    app_probes, check, cli,
    error::complain,
    handed::Handed,
    in_place::Folder,
    notify::Supervisor,
    process,
    proxy::{Control, Proxy, Setup},
    reloads::Trigger,
    signals::Signals,
    upgrade::Myself,
};

/// How often the process that serves is looked at, beside the kernel's word that a child has ended.
const FOLLOWING: Duration = Duration::from_secs(1);

type AnyError = Box<dyn std::error::Error>;

/// The config of a file, or the embedded forward proxy.
pub(crate) fn load(file: Option<&Path>) -> Result<Config, AnyError> {
    let env = |name: &str| std::env::var(name).ok();
    match file {
        Some(file) => attache_config::load(file, &env).map_err(|found| rendered(&found).into()),
        None => Ok(Config::forward_proxy()),
    }
}

/// The config of a file whose own files can be used, too.
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
pub(crate) fn run(options: &cli::Run) -> Result<ExitCode, AnyError> {
    // Before there are threads: it changes the environment.
    let handed = Handed::take()?;
    let myself = Myself::new()?;
    let folder = options.upgrade_dir.as_deref().map(Folder::new).transpose()?;
    let first = !handed.is_ours();
    if folder.is_some() && first {
        // Processes of later upgrades become children of this one as their own parents end.
        set_child_subreaper(Some(getpid())).map_err(io::Error::from)?;
    }
    let config = load_to_serve(options.config.as_deref())?;
    let log = attache_telemetry::init_logging(&options.log)?;
    for warning in &config.warnings {
        tracing::warn!("{}", warning.to_string().trim_end());
    }
    let wraps = !options.app.is_empty();
    // Before the workers accept: connections that wait already may take every file descriptor that is left. And before anybody could
    // signal that it runs: SIGHUP would end it.
    let runtime = LocalRuntime::new()?;
    let further = if wraps { Signals::OF_AN_APP } else { &[] };
    let mut signals =
        runtime.block_on(async { Signals::new(Signals::OWN.iter().chain(further).copied()) })?;
    let mut children = runtime.block_on(async { unix::signal(SignalKind::child()) })?;
    runtime.block_on(async { app_probes::start() }).map_err(io::Error::other)?;
    let setup = Setup { log: Some(log), supervisor: Supervisor::from_env(), handed };
    let proxy = Proxy::start(config, setup)?;
    announce(&proxy, options);
    let app = match wraps.then(|| App::start(&options.app)).transpose() {
        Ok(app) => app,
        Err(error) => {
            complain(&error);
            proxy.stop();
            return Ok(ExitCode::from(error.code()));
        }
    };
    let process = proxy.control().process();
    if app.is_some() {
        process.wrapped.send_replace(process::Wrapped::Runs);
    }
    process.supervisor.ready("serving");
    if let Some(folder) = &folder {
        folder.announce();
    }
    let session = Session {
        proxy: &proxy,
        app,
        upgrades: Rc::new(Upgrades {
            myself,
            folder,
            first,
            successor: Cell::new(None),
            running: Cell::new(false),
        }),
        code: None,
        asked: 0,
        came: RustixSignal::TERM,
        told: false,
    };
    runtime.block_on(session.serve(&mut signals, &mut children))
}

/// A running proxy as signals and its app see it.
struct Session<'a> {
    proxy: &'a Proxy,
    app: Option<App>,
    upgrades: Rc<Upgrades>,
    /// How the app, or the process that took over, ended.
    code: Option<ExitCode>,
    /// How often it was asked to end.
    asked: u32,
    /// The signal that asked.
    came: RustixSignal,
    /// The app was told to end.
    told: bool,
}

/// What a later program is started by.
struct Upgrades {
    myself: Myself,
    folder: Option<Folder>,
    /// No process handed over to this one.
    first: bool,
    /// The process that serves in place of this one.
    successor: Cell<Option<Pid>>,
    /// One is being started.
    running: Cell<bool>,
}

impl Upgrades {
    /// This process stays for as long as another serves.
    fn stays(&self) -> Option<Pid> {
        self.successor.get().filter(|_| self.first && self.folder.is_some())
    }
}

impl Session<'_> {
    /// Does what signals say until the proxy has ended, and says what the program ends with.
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
                _ = app.wait_for(|app| *app == process::Wrapped::MayEnd), if !self.told => self.tell_app(),
            }
            if self.asked > 1 {
                if let Some(app) = &self.app {
                    app.signal(RustixSignal::KILL);
                }
                return Err("ended at once by a second signal; running requests were cut".into());
            }
        }
        while self.upgrades.stays().is_some() && self.code.is_none() {
            tokio::select! {
                signal = signals.next() => self.heard(signal),
                _ = children.recv() => {}
                // Whoever ended while the proxy did is not told again.
                () = sleep(FOLLOWING) => {}
            }
            self.reap();
        }
        match self.code {
            Some(code) => Ok(code),
            None if self.proxy.control().was_asked_to_end() => Ok(ExitCode::SUCCESS),
            None => Err("the control thread ended without being asked to; see the log".into()),
        }
    }

    fn heard(&mut self, signal: RustixSignal) {
        if let Some(successor) = self.upgrades.stays() {
            if let Err(error) = kill_process(successor, signal) {
                tracing::debug!(%error, ?signal, "a signal did not reach the process that serves");
            }
            return;
        }
        let control = self.proxy.control();
        match signal {
            RustixSignal::TERM | RustixSignal::INT => {
                (self.asked, self.came) = (self.asked + 1, signal);
                control.drain();
                return;
            }
            RustixSignal::HUP => {
                let control = control.clone();
                // Logged by whoever reloads; further signals are heard meanwhile.
                spawn_local(async move { control.reload(Trigger::Signal).await });
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
        // A terminal sends SIGINT to everything in the foreground, the app included.
        let heard = self.came == RustixSignal::INT && io::stdin().is_terminal();
        if let Some(app) = self.app.as_ref().filter(|_| !heard) {
            app.signal(self.came);
        }
    }

    /// Takes what has ended off the kernel's list; where the process that served is among it, another serves or this one ends, too.
    fn reap_successor(&mut self, successor: Pid) {
        let mut ended = None;
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == successor {
                ended = Some(app::code_of(status));
            }
        }
        let Some(code) = ended else { return };
        let active =
            self.upgrades.folder.as_ref().and_then(Folder::active).filter(|active| active.pid != successor);
        match active {
            Some(active) => self.upgrades.successor.set(Some(active.pid)),
            None => self.code = Some(code),
        }
    }

    fn reap(&mut self) {
        let Some(app) = &self.app else {
            // A new process that did not take over is waited for by whoever started it.
            if let Some(successor) = self.upgrades.stays() {
                self.reap_successor(successor);
            } else if std::process::id() == 1 && !self.upgrades.running.get() {
                app::reap_orphans();
            }
            return;
        };
        let Some(code) = app.reap() else { return };
        tracing::info!("the app has ended");
        (self.code, self.app) = (Some(code), None);
        let control = self.proxy.control();
        control.process().wrapped.send_replace(process::Wrapped::Gone);
        control.drain();
    }
}

/// Hands over to a new process and begins to end, or logs why not.
async fn upgrade(control: Control, upgrades: Rc<Upgrades>) {
    if std::process::id() == 1 && upgrades.folder.is_none() {
        tracing::error!(
            "SIGUSR2: this is process 1, with whose end the container ends; run it with --upgrade-dir, or roll the workload out anew"
        );
        return;
    }
    if upgrades.running.replace(true) {
        tracing::warn!("SIGUSR2: a new process is being started already");
        return;
    }
    let program = upgrades.folder.as_ref().map_or(Ok(None), Folder::program);
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
            control.drain();
        }
        Err(why) => tracing::error!("{why}; this process serves on"),
    }
    upgrades.running.set(false);
}

/// One line that tells a person what to do next; the log has the rest.
fn announce(proxy: &Proxy, options: &cli::Run) {
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
