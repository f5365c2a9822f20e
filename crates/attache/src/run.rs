//! `attache run`, `check` and `schema`.

use std::{
    io::{self, IsTerminal, Read, Write},
    path::Path,
    process::ExitCode,
};

use attache_config::{Diagnostics, model::Config};
use tokio::{runtime::LocalRuntime, task::spawn_local};

use crate::{
    app_probes, cli,
    proxy::Proxy,
    reload::Trigger,
    signals::{Signal, Signals},
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

fn rendered(found: &Diagnostics) -> String {
    found.display(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()).to_string()
}

/// Runs the proxy until a signal ends it.
pub(crate) fn run(options: &cli::Run) -> Result<(), AnyError> {
    let config = load(options.config.as_deref())?;
    let log = attache_telemetry::init_logging(&options.log)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    // Before the workers accept: connections that wait already may take every file descriptor that is left. And before anybody could
    // signal that it runs: SIGHUP would end it.
    let runtime = LocalRuntime::new()?;
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let proxy = Proxy::start(config, Some(log))?;
    announce(&proxy, options);
    runtime.block_on(async { app_probes::start() }).map_err(io::Error::other)?;
    let asked = runtime.block_on(serve(&proxy, &mut signals));
    match asked {
        // By the admin API.
        0 if proxy.control().was_asked_to_end() => Ok(()),
        0 => Err("the control thread ended without being asked to; see the log".into()),
        1 => Ok(()),
        _ => Err("ended at once by a second signal; running requests were cut".into()),
    }
}

/// Does what signals say until the proxy has ended; how often it was asked to end.
async fn serve(proxy: &Proxy, signals: &mut Signals) -> u32 {
    let control = proxy.control();
    let mut ended = proxy.ended();
    let mut asked = 0;
    loop {
        tokio::select! {
            _ = ended.wait_for(|&ended| ended) => return asked,
            signal = signals.next() => match signal {
                Signal::Stop => {
                    asked += 1;
                    if asked > 1 {
                        return asked;
                    }
                    control.drain();
                }
                Signal::Reload => {
                    let control = control.clone();
                    // Logged by whoever reloads; further signals are heard meanwhile.
                    spawn_local(async move { control.reload(Trigger::Signal).await });
                }
                Signal::Reopen => control.process().generation().access_log.reopen(),
            },
        }
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

/// Prints every problem of a file.
pub(crate) fn check(options: &cli::Check) -> ExitCode {
    let env = |name: &str| std::env::var(name).ok();
    let result = if options.file == Path::new("-") {
        let mut text = String::new();
        match io::stdin().read_to_string(&mut text) {
            Ok(_) => attache_config::parse(&text, None, &env),
            Err(error) => {
                complain(&error);
                return ExitCode::FAILURE;
            }
        }
    } else {
        attache_config::load(&options.file, &env)
    };
    match result {
        Ok(config) => {
            let mut err = io::stderr();
            for warning in &config.warnings {
                let _ = writeln!(err, "{warning}");
            }
            let mut out = io::stdout();
            let _ = writeln!(
                out,
                "{}: ok, {} and {}",
                options.file.display(),
                count(config.listeners.len(), "listener"),
                count(config.upstreams.len(), "upstream")
            );
            ExitCode::SUCCESS
        }
        Err(found) => {
            let _ = writeln!(io::stderr(), "{}", rendered(&found));
            ExitCode::FAILURE
        }
    }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Prints the JSON schema of the config.
pub(crate) fn schema() -> Result<(), AnyError> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &attache_config::schema())?;
    writeln!(out)?;
    Ok(())
}

/// Says on standard error what went wrong.
pub(crate) fn complain(error: &dyn std::error::Error) {
    let mut err = io::stderr();
    let _ = writeln!(err, "attache: {error}");
    let mut next = error.source();
    while let Some(source) = next {
        let _ = writeln!(err, "  because: {source}");
        next = source.source();
    }
}
