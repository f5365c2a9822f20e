//! `attache wait-ready`: waits until the proxy beside it may be sent work.
//!
//! For what must not begin before the proxy: a `postStart` hook of Kubernetes (the next container starts when the hook has
//! ended), an init system, a script.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::http;
use crate::cli;

/// How often it asks.
const EVERY: Duration = Duration::from_millis(50);

pub(crate) fn wait(options: &cli::WaitReady) -> Result<(), Box<dyn std::error::Error>> {
    let end = Instant::now() + options.timeout;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        // Zero would be no bound.
        let patience = left.max(Duration::from_millis(100));
        let why = match http::send(&options.address, "GET", "/readyz", Some(patience)) {
            Ok(answer) if answer.status == 200 => return Ok(()),
            Ok(answer) => {
                let status = answer.status;
                format!("{status}: {}", answer.text().unwrap_or_default().trim().replace('\n', "; "))
            }
            Err(error) => error.to_string(),
        };
        if left.is_zero() {
            return Err(format!("not ready at {} after {:?}: {why}", options.address, options.timeout).into());
        }
        thread::sleep(EVERY.min(left));
    }
}
