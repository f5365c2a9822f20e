//! The image's build context contains what the build reads, and nothing that would make it large.
//!
//! The context is made as BuildKit makes it from `.dockerignore` (`moby/patternmatcher`): a path and its parent folders are compared with
//! each line in turn, and the last line that matches decides. No container engine is needed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use attache_tests::{
    manifests::{deploy, read, repository},
    text,
};

/// Whether a file is sent to the builder.
fn is_sent(ignore: &str, file: &str) -> bool {
    let lines = ignore.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut sent = true;
    for line in lines {
        let (again, pattern) = line.strip_prefix('!').map_or((false, line), |pattern| (true, pattern));
        let pattern: Vec<&str> = pattern.trim_matches('/').split('/').collect();
        let path: Vec<&str> = file.split('/').collect();
        let plain =
            |pattern: &str| !pattern.contains(['?', '[', '\\']) && (pattern == "*" || !pattern.contains('*'));
        assert!(pattern.iter().all(|part| plain(part)), "this test doesn't know the pattern `{line}`");
        let matches = path.len() >= pattern.len()
            && pattern.iter().zip(&path).all(|(pattern, part)| *pattern == "*" || pattern == part);
        if matches {
            sent = again;
        }
    }
    sent
}

/// The files under version control, and new files.
fn files() -> Vec<String> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(repository());
    let listed = text(&git.output().unwrap());
    let files = listed.split('\0').filter(|file| !file.is_empty() && repository().join(file).is_file());
    files.map(str::to_owned).collect()
}

/// The build context of the image, in a folder.
fn context() -> tempfile::TempDir {
    let ignore = read(repository().join(".dockerignore"));
    let folder = tempfile::tempdir().unwrap();
    for file in files().iter().filter(|file| is_sent(&ignore, file)) {
        let to = folder.path().join(file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(repository().join(file), to).unwrap();
    }
    folder
}

#[test]
fn the_image_s_context_is_a_complete_workspace() {
    let context = context();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--offline", "--locked", "--no-deps", "--format-version=1"]);
    let metadata = text(&cargo.current_dir(context.path()).output().unwrap());
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 10);
    let root = fs::canonicalize(context.path()).unwrap();
    for package in packages {
        for target in package["targets"].as_array().unwrap() {
            let source = PathBuf::from(target["src_path"].as_str().unwrap());
            assert!(source.starts_with(&root) && source.exists(), "{}", source.display());
        }
    }
}

/// Every file that the program's source includes with `include_str!`, `include_bytes!`, or as a module.
#[test]
fn the_image_s_context_has_every_file_that_a_source_includes() {
    let context = context();
    let mut included = 0;
    for file in files().iter().filter(|file| file.ends_with(".rs")) {
        let source = context.path().join(file);
        if !source.exists() {
            continue;
        }
        let text = read(&source);
        for start in ["include_str!(", "include_bytes!(", "include!(", "#[path = "] {
            for rest in text.split(start).skip(1) {
                let Some(name) = rest.strip_prefix('"').and_then(|rest| rest.split('"').next()) else {
                    continue;
                };
                let wanted = source.parent().unwrap().join(name);
                assert!(wanted.exists(), "{file} includes {name}, which .dockerignore keeps out");
                included += 1;
            }
        }
    }
    assert!(included > 5, "{included}");
}

#[test]
fn the_image_s_context_has_what_its_dockerfile_copies_and_runs_and_little_else() {
    let context = context();
    for needed in ["LICENSE", "Cargo.lock", "deploy/build-static.sh"] {
        assert!(context.path().join(needed).exists(), "{needed}");
    }
    let dockerfile = read(deploy("Dockerfile"));
    assert!(dockerfile.contains("COPY LICENSE") && dockerfile.contains("deploy/build-static.sh /out"));
    for left_out in [".git", "target", "docs", "benches/results", "tests/scripts"] {
        assert!(!context.path().join(left_out).exists(), "{left_out}");
    }
    // Compose builds from this same context.
    let compose = read(deploy("compose/compose.yaml"));
    assert!(compose.contains("context: ../..\n") && compose.contains("dockerfile: deploy/Dockerfile\n"));
}

#[test]
fn a_context_without_a_member_of_the_workspace_is_noticed() {
    let without = "*\n!Cargo.toml\n!Cargo.lock\n!crates\n";
    assert!(is_sent(without, "crates/config/src/lib.rs") && !is_sent(without, "benches/load/Cargo.toml"));
    assert!(!is_sent("*\n!crates\ncrates/*/tests\n", "crates/config/tests/a.rs"));
    assert!(is_sent("*\n!crates\ncrates/*/tests\n", "crates/config/src/tests.rs"));
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.dockerignore").exists());
}
