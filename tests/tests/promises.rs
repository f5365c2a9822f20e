//! Attacks on what the pages promise about the end, reloads, hand-overs and odd messages: `tests/promises`.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use attache_tests::binary;

#[test]
fn no_attack_breaks_a_promise() {
    let attacks = Path::new(env!("CARGO_MANIFEST_DIR")).join("promises");
    let mut command = Command::new("/usr/bin/python3");
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(attacks).arg(binary());
    let output = command.stderr(Stdio::inherit()).output().expect("python3");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success() && said.contains(" promises hold"), "{said}");
}
