//! `attache run`, `check` and `schema`.

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
    process::ExitCode,
};

use attache_config::{Diagnostics, model::Config};
use rustix::process::Signal as RustixSignal;
use tokio::{
    runtime::LocalRuntime,
    signal::unix::{self, SignalKind},
    task::spawn_local,
};

use crate::{
    app::{self, App},
    app_probes, check, cli,
    error::complain,
    handed::Handed,
    notify::Supervisor,
    process,
    proxy::{Control, Proxy, Setup},
    reloads::Trigger,
    signals::Signals,
    upgrade::Myself,
};

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
    let session =
        Session { proxy: &proxy, app, myself, code: None, asked: 0, came: RustixSignal::TERM, told: false };
    runtime.block_on(session.serve(&mut signals, &mut children))
}

/// A running proxy as signals and its app see it.
struct Session<'a> {
    proxy: &'a Proxy,
    app: Option<App>,
    myself: Myself,
    /// How the app ended.
    code: Option<ExitCode>,
    /// How often it was asked to end.
    asked: u32,
    /// The signal that asked.
    came: RustixSignal,
    /// The app was told to end.
    told: bool,
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
        match self.code {
            Some(code) => Ok(code),
            None if self.proxy.control().was_asked_to_end() => Ok(ExitCode::SUCCESS),
            None => Err("the control thread ended without being asked to; see the log".into()),
        }
    }

    fn heard(&mut self, signal: RustixSignal) {
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
                spawn_local(upgrade(control.clone(), self.myself.clone()));
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

    fn reap(&mut self) {
        let Some(app) = &self.app else {
            // A new process that did not take over is waited for by whoever started it.
            if std::process::id() == 1 {
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
async fn upgrade(control: Control, myself: Myself) {
    if std::process::id() == 1 {
        tracing::error!(
            "SIGUSR2: this is process 1, with whose end the container ends; roll the workload out anew instead"
        );
        return;
    }
    match control.upgrade(myself).await {
        Ok(pid) => {
            tracing::info!(pid, "a new process has taken over; this one ends");
            control.drain();
        }
        Err(why) => tracing::error!("{why}; this process serves on"),
    }
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
