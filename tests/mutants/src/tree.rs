//! A copy of the repository, in which one crate is changed.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use quote::ToTokens;
use syn::visit_mut::VisitMut;

use crate::change::Rewriter;

/// Modules that are no part of the program, beside those whose names end in `tests`.
const OF_TESTS: [&str; 4] = ["fuzzing", "model", "smuggling", "testing"];

/// The copy, and the crate that is changed in it.
pub(crate) struct WorkingCopy {
    original: PathBuf,
    pub(crate) copy: PathBuf,
    /// Where the changed crate is built: the program's own `target` would take it for the program's.
    pub(crate) target: PathBuf,
    /// `attache-wire`
    pub(crate) package: String,
    /// `crates/wire`
    pub(crate) folder: String,
}

impl WorkingCopy {
    pub(crate) fn new(root: &Path, name: &str) -> Self {
        let short = name.strip_prefix("attache-").unwrap_or(name);
        let mutants = root.join("target/mutants");
        Self {
            original: root.to_owned(),
            copy: mutants.join("tree"),
            target: mutants.join("build"),
            package: if short == "attache" { short.to_owned() } else { format!("attache-{short}") },
            folder: format!("crates/{short}"),
        }
    }

    /// Copies the files that Git knows or that are new, and removes all others from the copy.
    /// An equal file keeps its time, so that Cargo does not build it again.
    pub(crate) fn fill(&self) -> Result<(), String> {
        if !self.original.join(&self.folder).is_dir() {
            return Err(format!("there is no crate {}", self.package));
        }
        let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let known = Command::new("git").current_dir(&self.original).args(arguments).output();
        let known = known.map_err(|error| format!("git ls-files: {error}"))?;
        let mut copied = BTreeSet::new();
        for file in String::from_utf8_lossy(&known.stdout).split('\0').filter(|file| !file.is_empty()) {
            // A deleted file can still be in Git's index.
            if let Ok(bytes) = fs::read(self.original.join(file)) {
                let path = self.copy.join(file);
                write(&path, &bytes)?;
                copied.insert(path);
            }
        }
        // Cargo runs each file below `tests` as a test.
        remove_others(&self.copy, &copied)
    }

    /// The crate's source files with one of these words in their path, without its tests.
    pub(crate) fn sources(&self, words: &[String]) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        let mut folders = vec![format!("{}/src", self.folder)];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(self.original.join(&folder));
            for entry in entries.map_err(|error| format!("{folder}: {error}"))?.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = format!("{folder}/{name}");
                let file = entry.path();
                let stem = file.file_stem().unwrap_or_default().to_string_lossy();
                if stem.ends_with("tests") || OF_TESTS.contains(&&*stem) {
                    continue;
                }
                if file.is_dir() {
                    folders.push(path);
                } else if file.extension().is_some_and(|extension| extension == "rs")
                    && (words.is_empty() || words.iter().any(|word| path.contains(word)))
                {
                    found.push(path);
                }
            }
        }
        found.sort();
        if found.is_empty() { Err(format!("no file below {} matches", self.folder)) } else { Ok(found) }
    }

    /// Writes one file of the crate with its changes.
    pub(crate) fn rewrite(&self, file: &str, rewriter: &mut Rewriter<'_>) -> Result<(), String> {
        let text = fs::read_to_string(self.original.join(file));
        let text = text.map_err(|error| format!("{file}: {error}"))?;
        let mut parsed = syn::parse_file(&text).map_err(|error| format!("{file}: {error}"))?;
        file.clone_into(&mut rewriter.file);
        rewriter.visit_file_mut(&mut parsed);
        write(&self.copy.join(file), parsed.into_token_stream().to_string().as_bytes())
    }

    /// Adds the function that says whether a change is made: the one that `ATTACHE_MUTANT` names.
    /// The file that `ATTACHE_MUTANTS_REACHED` names gets the number of each change that was asked for.
    pub(crate) fn add_switch(&self, count: usize) -> Result<(), String> {
        let roots = ["lib.rs", "main.rs"].map(|root| self.copy.join(&self.folder).join("src").join(root));
        let root = roots.iter().find(|root| root.exists()).ok_or("the crate has no root")?;
        let text = fs::read_to_string(root).map_err(|error| format!("{}: {error}", root.display()))?;
        let text = text.split(SWITCH_BEGINS).next().unwrap_or_default();
        let switch = SWITCH.replace("COUNT", &count.to_string());
        write(root, format!("{text}{SWITCH_BEGINS}{switch}").as_bytes())
    }
}

const SWITCH_BEGINS: &str = "\n// The switch of the changes.\n";

const SWITCH: &str = r#"
#[allow(missing_docs, dead_code, clippy::all, clippy::pedantic)]
pub(crate) fn mutant(id: usize) -> bool {
    use std::sync::{LazyLock, atomic::{AtomicBool, Ordering::Relaxed}};
    static CHOSEN: LazyLock<Option<usize>> =
        LazyLock::new(|| std::env::var("ATTACHE_MUTANT").ok()?.parse().ok());
    static NOTES: LazyLock<Option<std::fs::File>> = LazyLock::new(|| {
        let path = std::env::var_os("ATTACHE_MUTANTS_REACHED")?;
        std::fs::OpenOptions::new().create(true).append(true).open(path).ok()
    });
    static REACHED: [AtomicBool; COUNT] = [const { AtomicBool::new(false) }; COUNT];
    if let Some(mut notes) = NOTES.as_ref() && !REACHED[id].swap(true, Relaxed) {
        let _ = std::io::Write::write_all(&mut notes, format!("{id}\n").as_bytes());
    }
    *CHOSEN == Some(id)
}
"#;

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(path);
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(path, bytes));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

/// Removes the files below `folder` that are not in `known`.
fn remove_others(folder: &Path, known: &BTreeSet<PathBuf>) -> Result<(), String> {
    let said = |error: io::Error| format!("{}: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(said)? {
        let entry = entry.map_err(said)?;
        if entry.file_type().map_err(said)?.is_dir() {
            remove_others(&entry.path(), known)?;
        } else if !known.contains(&entry.path()) {
            fs::remove_file(entry.path()).map_err(said)?;
        }
    }
    Ok(())
}
