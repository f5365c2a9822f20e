//! The diagnostics that a user reads after a mistake.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_raw_string_hashes,
    clippy::format_push_string,
    reason = "tests"
)]

mod keys;
mod routes;
mod security;
mod yaml;

use std::path::Path;

fn found(text: &str) -> String {
    match attache_config::parse(text, Some(Path::new("attache.yaml")), &|_| None) {
        Ok(config) => config.warnings.iter().map(ToString::to_string).collect(),
        Err(found) => found.to_string(),
    }
}
