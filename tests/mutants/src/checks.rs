//! The crate's tests: built once, and run one by one.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::tree::WorkingCopy;

/// The interval at which the tool looks whether a test has ended.
const POLL: Duration = Duration::from_millis(2);
/// A test may take this many times as long as without a change, and this much longer.
const SLOWER: u32 = 10;
const LONGER: Duration = Duration::from_secs(5);
/// KiB of addresses that a test may have: a loop without an end must not take all memory.
const MAX_MEMORY_KIB: &str = "4000000";

/// Inputs of a property test: fewer than usual, because each of many changes is tried with all of them.
const INPUTS: &str = "32";

/// What a build came to.
pub(crate) enum BuildResult {
    /// The programs that run the tests.
    Programs(Vec<String>),
    /// The changes that do not compile, and what cargo says.
    Wrong(BTreeSet<usize>, String),
}

/// One test.
pub(crate) struct TestCommand {
    program: String,
    name: String,
    /// The changes in the code that it runs.
    pub(crate) reaches: BTreeSet<usize>,
    pub(crate) took: Duration,
}

/// Builds the tests, or finds the changes that do not compile.
pub(crate) fn build(tree: &WorkingCopy) -> Result<BuildResult, String> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--locked", "--no-run", "--lib", "--bins", "--tests", "--message-format", "json"]);
    cargo.args(["--package", &tree.package]).current_dir(&tree.copy);
    cargo.env("CARGO_TARGET_DIR", &tree.target);
    let done = cargo.output().map_err(|error| format!("{cargo:?}: {error}"))?;
    let text = String::from_utf8_lossy(&done.stdout);
    let messages: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if done.status.success() {
        let tests = messages.iter().filter(|message| message["profile"]["test"] == true);
        let programs = tests.filter_map(|message| message["executable"].as_str().map(str::to_owned));
        return Ok(BuildResult::Programs(programs.collect()));
    }
    let mut wrong = BTreeSet::new();
    for error in messages.iter().map(|message| &message["message"]) {
        if error["level"] == "error" && error["spans"].as_array().is_some_and(|spans| !spans.is_empty()) {
            let found = changes_of(error, |file| fs::read_to_string(tree.copy.join(file)).ok());
            if found.is_empty() {
                return Err(error["rendered"].as_str().unwrap_or("an error without a text").to_owned());
            }
            wrong.extend(found);
        }
    }
    Ok(BuildResult::Wrong(wrong, String::from_utf8_lossy(&done.stderr).into_owned()))
}

/// The changes that an error of the compiler is about: those whose switch it shows.
/// Otherwise the last ones in its places, or before them.
/// Where that is a wrong one, the next build has the same error, and the change before it is left out.
/// If there is none before them, it is the next one behind the last place: without a `return`, a loop may use a value
/// twice.
pub(crate) fn changes_of(error: &Value, read: impl Fn(&str) -> Option<String>) -> BTreeSet<usize> {
    let spans = error["spans"].as_array().map(Vec::as_slice).unwrap_or_default();
    let (mut shown, mut near, mut behind) = (BTreeSet::new(), BTreeSet::new(), None);
    for mut span in spans {
        let is_primary = span["is_primary"] == true;
        // In a macro the place is that of its call.
        while span["expansion"]["span"].is_object() {
            span = &span["expansion"]["span"];
        }
        let byte = |name: &str| span[name].as_u64().and_then(|byte| usize::try_from(byte).ok());
        let text = span["file_name"].as_str().and_then(&read);
        let (Some(text), Some(start), Some(end)) = (text, byte("byte_start"), byte("byte_end")) else {
            continue;
        };
        let part = text.get(start..end).unwrap_or_default();
        let is_switch = part.trim_start_matches(['!', ' ']).starts_with(SWITCH);
        if is_switch && part.matches(SWITCH).count() == 1 {
            shown.extend(last_in(part));
        } else if is_primary {
            near.extend(last_in(part).or_else(|| last_in(text.get(..start)?)));
        }
        let next = text.get(end..).and_then(|rest| number(rest.split_once(SWITCH)?.1));
        behind = behind.max(next);
    }
    match (shown.is_empty(), near.is_empty()) {
        (false, _) => shown,
        (_, false) => near,
        _ => behind.into_iter().collect(),
    }
}

const SWITCH: &str = "crate :: mutant (";

/// The number of the last change in a text.
fn last_in(text: &str) -> Option<usize> {
    number(text.rsplit_once(SWITCH)?.1)
}

/// The number at the begin of a text.
fn number(text: &str) -> Option<usize> {
    text.split_once("usize")?.0.trim().parse().ok()
}

/// The tests of these programs, each with its program.
pub(crate) fn list(tree: &WorkingCopy, programs: &[String]) -> Result<Vec<(String, String)>, String> {
    let mut names = Vec::new();
    for program in programs {
        let listed = command(tree, program).args(["--list", "--format", "terse"]).output();
        let listed = listed.map_err(|error| format!("{program}: {error}"))?;
        let text = String::from_utf8_lossy(&listed.stdout);
        let tests = text.lines().filter_map(|line| line.strip_suffix(": test"));
        names.extend(tests.map(|name| (program.clone(), name.to_owned())));
    }
    Ok(names)
}

/// Runs one test without a change, and notes which changes it reaches.
pub(crate) fn reach(tree: &WorkingCopy, program: &str, name: &str) -> Result<TestCommand, String> {
    let file = program.rsplit('/').next().unwrap_or_default();
    let notes = tree.target.join(format!("{file}.{}", name.replace("::", ".")));
    let _ = fs::remove_file(&notes);
    let began = Instant::now();
    let done = test(tree, program, name).env("ATTACHE_MUTANTS_REACHED", &notes).output();
    let done = done.map_err(|error| format!("{program}: {error}"))?;
    let took = began.elapsed();
    if !done.status.success() {
        let text = String::from_utf8_lossy(&done.stdout);
        return Err(format!("{name} fails without a change:\n{text}"));
    }
    let text = fs::read_to_string(&notes).unwrap_or_default();
    let _ = fs::remove_file(&notes);
    let reaches = text.lines().filter_map(|line| line.parse().ok()).collect();
    Ok(TestCommand { program: program.to_owned(), name: name.to_owned(), reaches, took })
}

/// Whether a test fails with this change. A test that does not end fails, too.
pub(crate) fn fails(tree: &WorkingCopy, check: &TestCommand, id: usize) -> bool {
    let mut command = test(tree, &check.program, &check.name);
    command.env("ATTACHE_MUTANT", id.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return true };
    let (began, limit) = (Instant::now(), check.took * SLOWER + LONGER);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return !status.success(),
            Ok(None) if began.elapsed() < limit => sleep(POLL),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return true;
            }
        }
    }
}

fn test(tree: &WorkingCopy, program: &str, name: &str) -> Command {
    let mut command = command(tree, program);
    command.args(["--exact", name]);
    command
}

fn command(tree: &WorkingCopy, program: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v \"$0\" && exec \"$@\"", MAX_MEMORY_KIB, program]);
    let folder = tree.copy.join(&tree.folder);
    command.current_dir(&folder).env("CARGO_MANIFEST_DIR", &folder).env("INSTA_UPDATE", "no");
    // A failing property test must neither leave a seed for later changes nor look for a smaller input.
    command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1").env("PROPTEST_MAX_SHRINK_ITERS", "0");
    command.env("PROPTEST_CASES", INPUTS);
    command.stdin(Stdio::null());
    command
}
