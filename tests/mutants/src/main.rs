//! Finds small changes of a crate that its own tests do not see: `attache-mutants CRATE [WORD...]`.
//!
//! The tool copies the repository to `target/mutants/tree` and rewrites the crate there, so that every change is
//! compiled in behind a switch ([`change`]).
//! So the tests are built once, and not once for each change.
//! It runs each test alone, and notes which changes the test reaches.
//! Then it runs these tests for each change, until one fails.
//! Words choose the files of the crate by their paths.
//! The number behind a change makes it by hand: `ATTACHE_MUTANT=7 target/mutants/build/debug/deps/attache_wire-… TEST`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod change;
mod checks;
mod tree;

use std::{
    collections::BTreeSet,
    env,
    panic::resume_unwind,
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};

use self::{
    change::{Rewriter, SourceChange},
    checks::{BuildResult, TestCommand},
    tree::WorkingCopy,
};

/// Builds after which the tool must know every change that does not compile.
const MAX_BUILDS: usize = 20;

/// What the tests say about one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TestVerdict {
    /// A test fails, crashes or does not end.
    Seen,
    /// All tests pass.
    NotSeen,
    /// No test runs this code.
    NotReached,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [name, words @ ..] = arguments.as_slice() else {
        eprintln!("attache-mutants CRATE [WORD...]");
        return ExitCode::FAILURE;
    };
    let tree = WorkingCopy::new(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), name);
    match report(&tree, words) {
        Ok(Report { verdicts, not_compiled }) => {
            let count = |wanted| verdicts.iter().filter(|(_, verdict)| *verdict == wanted).count();
            println!(
                "{}: {} changes: {} seen, {} not seen, {} not reached; {not_compiled} more do not compile",
                tree.package,
                verdicts.len(),
                count(TestVerdict::Seen),
                count(TestVerdict::NotSeen),
                count(TestVerdict::NotReached),
            );
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("attache-mutants: {message}");
            ExitCode::FAILURE
        }
    }
}

struct Report {
    verdicts: Vec<(SourceChange, TestVerdict)>,
    /// How many changes the compiler refused.
    not_compiled: usize,
}

/// Judges each change, and prints those that no test sees.
fn report(tree: &WorkingCopy, words: &[String]) -> Result<Report, String> {
    let (programs, changes, not_compiled) = build(tree, words)?;
    let names = checks::list(tree, &programs)?;
    println!("{} changes, {} tests", changes.len(), names.len());
    let found = on_all_cores(&names, |(program, name)| checks::reach(tree, program, name));
    let mut checks = found.into_iter().collect::<Result<Vec<TestCommand>, String>>()?;
    // Most changes are seen by a quick test.
    checks.sort_by_key(|check| check.took);
    let verdicts = on_all_cores(&changes, |change| {
        let verdict = judge(tree, &checks, change.id);
        if verdict != TestVerdict::Seen {
            let how = if verdict == TestVerdict::NotSeen { "not seen" } else { "not reached" };
            println!("{how}: {}:{}: {} ({})", change.file, change.line, change.what, change.id);
        }
        verdict
    });
    Ok(Report { verdicts: changes.into_iter().zip(verdicts).collect(), not_compiled })
}

fn judge(tree: &WorkingCopy, checks: &[TestCommand], id: usize) -> TestVerdict {
    let mut reaching = checks.iter().filter(|check| check.reaches.contains(&id)).peekable();
    if reaching.peek().is_none() {
        TestVerdict::NotReached
    } else if reaching.any(|check| checks::fails(tree, check, id)) {
        TestVerdict::Seen
    } else {
        TestVerdict::NotSeen
    }
}

/// Builds the tests with all changes that compile: the programs, the changes, and how many do not compile.
fn build(tree: &WorkingCopy, words: &[String]) -> Result<(Vec<String>, Vec<SourceChange>, usize), String> {
    tree.fill()?;
    let files = tree.sources(words)?;
    let mut left_out = BTreeSet::new();
    for _ in 0..MAX_BUILDS {
        let mut rewriter = Rewriter::new(&left_out);
        for file in &files {
            tree.rewrite(file, &mut rewriter)?;
        }
        let changes = rewriter.changes;
        tree.add_switch(changes.len() + left_out.len())?;
        match checks::build(tree)? {
            BuildResult::Programs(programs) => return Ok((programs, changes, left_out.len())),
            BuildResult::Wrong(wrong, said) if wrong.is_subset(&left_out) => return Err(said),
            BuildResult::Wrong(wrong, _) => left_out.extend(wrong),
        }
    }
    Err(format!("after {MAX_BUILDS} builds the changed crate still does not compile"))
}

/// The results of `work` for each item, in the order of the items.
fn on_all_cores<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Relaxed);
            match items.get(at) {
                Some(item) => done.push((at, work(item))),
                None => return done,
            }
        }
    };
    let mut done: Vec<(usize, R)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        // A lost result would give the others to the wrong changes.
        let results =
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        results.flatten().collect()
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests;
