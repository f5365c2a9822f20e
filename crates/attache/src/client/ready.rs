//! `attache wait-ready`: waits until the proxy beside it is ready for traffic.
//!
//! It is for programs that must not start before the proxy: a `postStart` hook of Kubernetes (the next container starts when the hook has
//! ended), an init system, a script.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::http;
use crate::cli;

/// The time between two requests.
const EVERY: Duration = Duration::from_millis(50);

pub(crate) fn wait(options: &cli::WaitReady) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let began = Instant::now();
    let outcome = until_ready(options, began + options.timeout);
    if options.format.is_json() {
        let waited = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let because = outcome.as_ref().err().cloned().unwrap_or_default();
        let (address, ready) = (options.address.to_string(), outcome.is_ok());
        let said = json!({ "ready": ready, "address": address, "waited_ms": waited, "not_ready": because });
        writeln!(io::stdout(), "{said:#}")?;
        return Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    match outcome {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(why) => {
            let why = why.join("; ");
            Err(format!("not ready at {} after {:?}: {why}", options.address, options.timeout).into())
        }
    }
}

/// Asks until it is ready. The error is what the last answer said, one line for each reason.
fn until_ready(options: &cli::WaitReady, end: Instant) -> Result<(), Vec<String>> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        // Zero would mean no limit.
        let read_timeout = left.max(Duration::from_millis(100));
        let why = match http::send(&options.address, "GET", "/readyz", Some(read_timeout)) {
            Ok(answer) if answer.status == 200 => return Ok(()),
            Ok(answer) => {
                let status = answer.status;
                let text = answer.text().unwrap_or_default();
                match text.trim() {
                    "" => vec![format!("/readyz answers {status}")],
                    text => text.lines().map(ToOwned::to_owned).collect(),
                }
            }
            Err(error) => vec![error.to_string()],
        };
        if left.is_zero() {
            return Err(why);
        }
        thread::sleep(EVERY.min(left));
    }
}
