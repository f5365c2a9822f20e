//! `attache reload`, `drain` and `quit`: one POST each.

use std::io::{self, Write as _};

use super::http;
use crate::cli;

pub(crate) fn order(options: &cli::Admin, path: &str) -> Result<(), Box<dyn std::error::Error>> {
    let said = http::fetch(&options.admin, "POST", path)?;
    let mut out = io::stdout();
    writeln!(out, "{}", said.trim_end())?;
    Ok(())
}
