//! Checks what enters the dependency tree: cargo-deny, and its database of advisories.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{cargo, run, run_quiet};

/// Checks licences, duplicates and sources, which needs no network; and advisories, which needs the database. If the database can't be
/// reached, that is printed.
///
/// # Errors
/// The dependency tree contains something that is not allowed.
pub(crate) fn check() -> Result<(), String> {
    if Command::new("cargo-deny").arg("--version").output().is_err() {
        run(cargo().args(["install", "--locked", "--quiet", "cargo-deny"]))?;
    }
    run(cargo().args(["deny", "check", "bans", "licenses", "sources"]))?;
    if let Some(folder) = env::var_os("ATTACHE_ADVISORIES") {
        return advisories_of(Path::new(&folder));
    }
    if advisory_database().is_none() && !run_quiet(cargo().args(["deny", "fetch", "db"])) {
        println!("xtask: NOT CHECKED: advisories, because their database can't be reached from this machine");
        return Ok(());
    }
    run(cargo().args(["deny", "check", "advisories"]))
}

/// Checks advisories with a copy of the database, for a machine that can't fetch it.
fn advisories_of(folder: &Path) -> Result<(), String> {
    let root = crate::root();
    let folder =
        folder.canonicalize().map_err(|e| format!("ATTACHE_ADVISORIES: {}: {e}", folder.display()))?;
    let rules = fs::read_to_string(root.join("deny.toml")).map_err(|e| format!("deny.toml: {e}"))?;
    let config = root.join("target/deny-advisories.toml");
    let database = "https://github.com/RustSec/advisory-db";
    let text =
        format!("{rules}\n[advisories]\ndb-path = \"{}\"\ndb-urls = [\"{database}\"]\n", folder.display());
    fs::write(&config, text).map_err(|e| format!("{}: {e}", config.display()))?;
    run(cargo().args(["deny", "--offline", "--config"]).arg(config).args(["check", "advisories"]))
}

fn advisory_database() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))?;
    let path = home.join("advisory-dbs");
    // A failed fetch leaves a lock file there.
    path.read_dir().ok()?.flatten().any(|entry| entry.path().is_dir()).then_some(path)
}
