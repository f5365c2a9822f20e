//! `attache run -- app …`: attache starts the app, and ends with it.
//!
//! The rules:
//! - The app is started when attache is ready, so its first call succeeds.
//! - SIGTERM and SIGINT begin attache's end ([`control`](crate::control)). The app gets SIGTERM (or the signal that came) when the calls to
//!   it have ended. It can make calls until it has ended itself. A second signal kills the app.
//! - SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH and SIGQUIT are passed on to the app. In addition, SIGHUP reloads attache's config, and SIGUSR1
//!   opens its access log again.
//! - When the app ends, attache drains and ends with the app's exit code. If a signal ended the app, the code is 128 plus the signal's
//!   number, as in shells.
//! - As process 1 of a container, attache also reaps processes that the app has left behind.

use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};

/// A program that attache has started.
#[derive(Debug)]
pub(crate) struct AppProcess {
    pid: Pid,
}

/// Why the app can't be started.
#[derive(Debug)]
pub(crate) struct AppError {
    program: OsString,
    source: io::Error,
}

impl AppError {
    /// The exit code that shells use: 127 if there is no such program, 126 if it can't be run.
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

impl AppProcess {
    /// Starts the program with attache's environment, input and output.
    pub(crate) fn start(words: &[OsString]) -> Result<Self, AppError> {
        let [program, arguments @ ..] = words else {
            let source = io::Error::other("no program is named after `--`");
            return Err(AppError { program: OsString::new(), source });
        };
        let fail = |source| AppError { program: program.clone(), source };
        let child = Command::new(program).args(arguments).arg0(program).spawn().map_err(fail)?;
        // `reap` collects it, like every other child.
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| fail(io::Error::other("it has no process id")))?;
        tracing::info!(pid = pid.as_raw_nonzero().get(), "started {}", program.display());
        Ok(Self { pid })
    }

    /// Passes a signal on. If the app has ended, nothing is sent.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Err(error) = kill_process(self.pid, signal) {
            tracing::debug!(%error, ?signal, "a signal did not reach the app");
        }
    }

    /// Reaps every process that has ended. Returns how the app ended, if it is among them.
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

/// The exit code for the end of a process, as in shells.
pub(crate) fn code_of(status: WaitStatus) -> ExitCode {
    let code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
    // An exit status has 8 bits.
    ExitCode::from(code.unwrap_or(1) as u8)
}

/// Reaps every child that has ended. Process 1 also gets the children of other processes.
pub(crate) fn reap_orphans() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}
