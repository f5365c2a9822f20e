//! `attache reload`, `drain` and `quit`: one POST each.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use serde_json::json;

use super::http;
use crate::cli;

/// A reload of thousands of upstreams takes seconds, and waits 5 s for names that have no answer yet.
const TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) fn order(options: &cli::OrderArgs, path: &str) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let (status, said) = http::ask(&options.admin.admin, "POST", path, TIMEOUT)?;
    let (ok, said) = ((200..300).contains(&status), said.trim_end());
    let mut out = io::stdout();
    if options.format.is_json() {
        let lines: Vec<_> = said.lines().collect();
        writeln!(out, "{:#}", json!({ "ok": ok, "status": status, "said": lines }))?;
    } else if ok {
        writeln!(out, "{said}")?;
    } else {
        return Err(format!("{status}: {said}").into());
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
