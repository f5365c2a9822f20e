//! Faults under load, and what must hold afterwards: the short form of `cargo xtask chaos`.

#![allow(clippy::expect_used, reason = "the lint does not see that these are helpers of tests")]

use std::{
    path::Path,
    process::{Command, Output},
};

use attache_tests::{binary, text};

/// Runs Python in the folder of the harness.
fn python(arguments: &[&str]) -> Output {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("chaos");
    let mut command = Command::new("/usr/bin/python3");
    command.current_dir(folder).env("PYTHONDONTWRITEBYTECODE", "1").args(arguments);
    command.output().expect("python3 (run `cargo xtask setup`)")
}

#[test]
fn after_each_fast_fault_gauges_counters_memory_and_reasons_are_correct() {
    let attache = binary().canonicalize().expect("the program");
    let output = python(&[".", &attache.display().to_string(), "--fast", "--seconds", "2", "--jobs", "2"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn each_check_of_the_harness_fails_if_its_subject_is_broken() {
    text(&python(&["-m", "unittest", "test_checks"]));
}
