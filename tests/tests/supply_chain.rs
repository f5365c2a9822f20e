//! The parts of attache: the bill of materials, and the review of the dependencies.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository")
}

fn output(command: &mut Command) -> String {
    let output = command.current_dir(root()).stderr(Stdio::inherit()).output().expect("the command");
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Packages as `name@version`.
type PackageNames = BTreeSet<String>;

/// The packages that the compiler was called for when the program was built: this is certain, whatever Cargo's metadata says.
fn compiled() -> PackageNames {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // The variables of a test would make it another build.
    for (name, _) in std::env::vars()
        .filter(|(name, _)| name.starts_with("CARGO_PKG") || name.starts_with("CARGO_MANIFEST"))
    {
        build.env_remove(name);
    }
    build.args(["build", "--locked", "--quiet", "--package", "attache", "--message-format", "json"]);
    let messages = output(&mut build);
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let artifacts = messages.filter(|message| message["reason"] == "compiler-artifact");
    artifacts.map(|message| named(text(&message, "package_id"))).collect()
}

/// The name and version of a package id: `registry+…#name@1.2.3`, or `path+file:///…/name#1.2.3` and `…/folder#name@1.2.3`.
fn named(id: &str) -> String {
    let (path, last) = id.rsplit_once('#').expect("a package id");
    if last.contains('@') {
        last.to_owned()
    } else {
        format!("{}@{last}", path.rsplit('/').next().unwrap_or_default())
    }
}

#[test]
fn the_bill_of_materials_names_every_compiled_crate_and_everything_else() {
    let bill: Value =
        serde_json::from_str(&output(&mut Command::new(root().join("deploy/sbom.py")))).expect("JSON");
    assert_eq!((text(&bill, "bomFormat"), text(&bill, "specVersion")), ("CycloneDX", "1.5"));
    let components = bill["components"].as_array().expect("components");
    let crates = |scope: Option<&str>| -> PackageNames {
        components
            .iter()
            .filter(|one| text(one, "purl").starts_with("pkg:cargo/"))
            .filter(|one| scope.is_none_or(|scope| text(one, "scope") == scope))
            .map(|one| format!("{}@{}", text(one, "name"), text(one, "version")))
            .collect()
    };
    let compiled = compiled();
    assert!(compiled.len() > 200, "{compiled:?}");
    let every = crates(None);
    let missing: Vec<_> = compiled.difference(&every).collect();
    assert!(missing.is_empty(), "the bill does not name {missing:?}");
    let linked = crates(Some("required"));
    let not_there: Vec<_> = linked.difference(&compiled).collect();
    assert!(not_there.is_empty(), "the bill names packages that are not compiled: {not_there:?}");
    for name in ["aws-lc", "mimalloc", "zstd", "rust-std", "dashboard.js"] {
        assert!(components.iter().any(|one| text(one, "name") == name), "the bill does not name {name}");
    }
    // A reader of the bill needs its licences and checksums.
    for one in components.iter().filter(|one| text(one, "purl").starts_with("pkg:cargo/")) {
        assert!(one["licenses"][0]["expression"].is_string(), "{one}");
        let own = text(one, "description").contains("attache itself");
        assert!(own || text(&one["hashes"][0], "content").len() == 64, "{one}");
    }
}

#[test]
fn every_direct_dependency_is_in_the_review() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--locked", "--no-deps", "--format-version", "1"];
    let metadata: Value = serde_json::from_str(&output(Command::new(cargo).args(arguments))).expect("JSON");
    let page = fs::read_to_string(root().join("docs/dependencies.md")).expect("docs/dependencies.md");
    let (_, review) = page.split_once("## Review").expect("the review");
    let reviewed: BTreeSet<&str> =
        review.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()).collect();
    let packages = metadata["packages"].as_array().expect("packages");
    let needed: BTreeSet<&str> = packages
        .iter()
        .flat_map(|package| package["dependencies"].as_array().expect("dependencies"))
        .filter(|dependency| dependency["path"].is_null())
        .map(|dependency| text(dependency, "name"))
        .collect();
    let missing: Vec<_> = needed.difference(&reviewed).collect();
    assert!(missing.is_empty(), "review these, and say so in docs/dependencies.md: {missing:?}");
}

/// The packages of a lock file as `name@version`.
fn locked(file: &str) -> PackageNames {
    let text = fs::read_to_string(root().join(file)).expect("a lock file");
    let packages = text.split("[[package]]").skip(1);
    let named = packages.map(|package| {
        let value =
            |key: &str| package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
        let text = |key: &str| value(key).unwrap_or_default().trim_end_matches('"').to_owned();
        format!("{}@{}", text("name"), text("version"))
    });
    named.collect()
}

/// `fuzz/` is a workspace of its own, with its own lock file.
#[test]
fn the_fuzz_targets_use_the_same_versions_as_the_program() {
    let (program, fuzz) = (locked("Cargo.lock"), locked("fuzz/Cargo.lock"));
    assert!(fuzz.len() > 100, "{fuzz:?}");
    // Packages that only fuzzing needs: the targets' own package, and libFuzzer.
    let only = ["attache-fuzz@", "libfuzzer-sys@", "arbitrary@"];
    let others = fuzz.difference(&program).filter(|name| !only.iter().any(|known| name.starts_with(known)));
    let others: Vec<_> = others.collect();
    assert!(
        others.is_empty(),
        "fuzz/Cargo.lock has other versions than Cargo.lock: {others:?}; copy Cargo.lock there, and run `cargo metadata` in fuzz/"
    );
}

/// Otherwise Cargo would change them when it is next called there, and a build with `--locked` fails.
#[test]
fn the_lock_files_of_the_other_workspaces_are_up_to_date() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    for workspace in ["fuzz", "tests/judges/tonic", "tests/loom"] {
        let manifest = root().join(workspace).join("Cargo.toml");
        let mut metadata = Command::new(&cargo);
        metadata.args(["metadata", "--locked", "--quiet", "--format-version", "1", "--manifest-path"]);
        let said = metadata.arg(&manifest).output().expect("cargo");
        let why = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success(), "`cargo metadata` in {workspace}/ writes its Cargo.lock anew: {why}");
    }
}
