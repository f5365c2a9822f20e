//! `attache reload`, `drain` and `quit`: one POST each.

use std::io::{self, Write as _};

use serde_json::json;

use super::http;
use crate::cli::{self, Output};

pub(crate) fn order(options: &cli::Order, path: &str) -> Result<(), Box<dyn std::error::Error>> {
    let said = http::fetch(&options.admin.admin, "POST", path)?;
    let mut out = io::stdout();
    match options.output {
        Output::Text => writeln!(out, "{}", said.trim_end()),
        Output::Json => {
            writeln!(out, "{:#}", json!({ "said": said.trim_end().lines().collect::<Vec<_>>() }))
        }
    }?;
    Ok(())
}
