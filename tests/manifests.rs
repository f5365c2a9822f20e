//! What stands in `deploy/`, and other people's judges of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{binary, python_with_packages, text};

/// The repository's folder.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file of `deploy/`.
pub fn deploy(file: &str) -> PathBuf {
    repository().join("deploy").join(file)
}

/// A file's text.
pub fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

/// Validates manifests by the Kubernetes schemas, and has attache check the configs in them; says how many configs.
pub fn validate(manifests: &[PathBuf]) -> usize {
    let configs = tempfile::tempdir().expect("a folder");
    let mut python = python_with_packages("manifests.py");
    let report = text(&python.arg(configs.path()).args(manifests).output().expect("python"));
    assert!(report.contains("are valid for 1.29"), "{report}");
    let configs: Vec<PathBuf> = fs::read_dir(configs.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    for config in &configs {
        let checked =
            Command::new(binary()).args(["check", "--without-files"]).arg(config).output().expect("attache");
        assert!(text(&checked).contains(": ok, "), "{}", config.display());
        assert_eq!(String::from_utf8_lossy(&checked.stderr), "", "no warnings: {}", config.display());
    }
    configs.len()
}
