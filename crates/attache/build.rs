//! The build information for `attache --version`: the commit, from `ATTACHE_COMMIT` or from git.

use std::{env, process::Command};

fn main() {
    println!("cargo:rerun-if-env-changed=ATTACHE_COMMIT");
    let given = env::var("ATTACHE_COMMIT").ok().filter(|commit| !commit.is_empty());
    // Without this check, a development build would be linked again after each commit.
    let release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = given.or_else(|| release.then(from_git).flatten());
    let from = commit.map_or_else(String::new, |commit| format!(" ({commit})"));
    println!("cargo:rustc-env=ATTACHE_BUILT_FROM={from}");
}

/// The short commit; `None` if there is no git or no repository.
fn from_git() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
    };
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo:rerun-if-changed={log}");
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}
