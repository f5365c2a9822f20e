//! `attache run -- app …`: attache starts the app, and ends with it.
//!
//! The rules:
//! - The app is started when attache is ready, so its first call succeeds.
//! - SIGTERM and SIGINT begin attache's end ([`control`](crate::control)); the app gets SIGTERM (the signal that came) once the calls to it
//!   have ended, and can call out until it has ended itself. A second one kills the app.
//! - SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH and SIGQUIT are passed on to the app. SIGHUP reloads attache's config as well,
//!   and SIGUSR1 opens its access log again.
//! - When the app ends, attache drains and ends with its exit code; 128 and the signal's number where a signal ended
//!   the app, as shells have it.
//! - As process 1 of a container attache also reaps processes that the app has left behind.

use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};

/// A program that attache runs.
#[derive(Debug)]
pub(crate) struct App {
    pid: Pid,
}

/// The app can't be started.
#[derive(Debug)]
pub(crate) struct AppError {
    program: OsString,
    source: io::Error,
}

impl AppError {
    /// What shells end with: 127 where there is no such program, 126 where it can't be run.
    pub(crate) fn code(&self) -> u8 {
        if self.source.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
    }
}

impl std::fmt::Display for AppError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the app {} can't be started: {}", self.program.display(), self.source)
    }
}

impl std::error::Error for AppError {}

impl App {
    /// Starts it with attache's environment, input and output.
    pub(crate) fn start(words: &[OsString]) -> Result<Self, AppError> {
        let [program, arguments @ ..] = words else {
            let source = io::Error::other("no program is named behind `--`");
            return Err(AppError { program: OsString::new(), source });
        };
        let fail = |source| AppError { program: program.clone(), source };
        let child = Command::new(program).args(arguments).arg0(program).spawn().map_err(fail)?;
        // Reaped by `reap`, like every other child.
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| fail(io::Error::other("it has no process id")))?;
        tracing::info!(pid = pid.as_raw_nonzero().get(), "started {}", program.display());
        Ok(Self { pid })
    }

    /// Passes a signal on. An app that has ended gets none.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Err(error) = kill_process(self.pid, signal) {
            tracing::debug!(%error, ?signal, "a signal did not reach the app");
        }
    }

    /// Takes every process that has ended off the kernel's list; how the app ended, if it is among them.
    pub(crate) fn reap(&self) -> Option<ExitCode> {
        let mut ended = None;
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == self.pid {
                ended = Some(code_of(status));
            }
        }
        ended
    }
}

/// What a process ended with, as shells say it.
pub(crate) fn code_of(status: WaitStatus) -> ExitCode {
    let code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
    // An exit status has 8 bits.
    ExitCode::from(code.unwrap_or(1) as u8)
}

/// Takes every child that has ended off the kernel's list; for process 1, which gets those of others.
pub(crate) fn reap_orphans() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}
