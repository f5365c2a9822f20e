//! Finds modules of a crate that need each other: a child and its parent may, others must not.
//!
//! It reads the text of each file: `use` lines, and paths that begin with `crate`, `self` or `super`. A name that a module re-exports (`pub
//! use`) counts for the module that it comes from. Tests are left out: they may use everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

/// A module's path inside its crate; that of the crate's root is empty.
type Module = Vec<String>;

/// Reports each cycle of modules, and the paths that cause it.
pub(crate) fn check(crates: &Path) -> Result<(), String> {
    let mut wrong = Vec::new();
    let mut folders: Vec<PathBuf> =
        list(crates).map_err(|e| format!("{}: {e}", crates.display()))?.into_iter().collect();
    folders.sort();
    for folder in folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for knot in knots(&read(&folder.join("src")).map_err(|e| format!("{}: {e}", folder.display()))?) {
            wrong.push(format!("crates/{name}: {} need each other:", knot.modules.join(", ")));
            wrong.extend(knot.arrows.iter().map(|arrow| format!("  {arrow}")));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{}\nsee {}", wrong.join("\n"), file!())) }
}

/// Modules that need each other, and why.
struct ModuleCycle {
    modules: Vec<String>,
    arrows: Vec<String>,
}

fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

/// Every module of a crate with its text, without tests and comments.
fn read(source: &Path) -> io::Result<BTreeMap<Module, String>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![(source.to_owned(), Module::new())]);
    while let Some((folder, module)) = folders.pop() {
        for path in list(&folder)? {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if matches!(name.as_str(), "tests" | "testing" | "test_support") {
                continue;
            }
            let mut inside = module.clone();
            if path.is_dir() {
                inside.push(name);
                folders.push((path, inside));
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                if !matches!(name.as_str(), "mod" | "lib" | "main") {
                    inside.push(name);
                }
                found.insert(inside, stripped(&fs::read_to_string(&path)?));
            }
        }
    }
    Ok(found)
}

/// A text without its comments, up to its first test module.
fn stripped(text: &str) -> String {
    let mut out = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]"
            && lines.peek().is_some_and(|next| next.trim_start().starts_with("mod "))
        {
            if lines.peek().is_some_and(|next| next.trim_end().ends_with(';')) {
                lines.next();
                continue;
            }
            break;
        }
        out.push_str(line.split_once("//").map_or(line, |(code, _)| code));
        out.push('\n');
    }
    out
}

/// The names of a `use` tree, each as a path: `a::{b, c::D}` is `a::b` and `a::c::D`.
fn paths(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let Some((head, inside)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree);
        return vec![
            path.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect(),
        ];
    };
    let head: Vec<String> =
        head.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect();
    let inside = inside.trim_end().strip_suffix('}').unwrap_or(inside);
    let (mut depth, mut from, mut found) = (0, 0, Vec::new());
    let mut parts = Vec::new();
    for (at, letter) in inside.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inside[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inside[from..]);
    for part in parts.into_iter().filter(|part| !part.trim().is_empty()) {
        for path in paths(part) {
            found.push(head.iter().cloned().chain(path).collect());
        }
    }
    found
}

/// The `use` lines of a text: whether each re-exports its names, and its tree.
fn uses(text: &str) -> Vec<String> {
    let starts = text.match_indices("use ").filter(|(at, _)| {
        text[..*at].chars().next_back().is_none_or(|before| before.is_whitespace() || before == ')')
    });
    starts.filter_map(|(at, _)| text[at + 4..].split_once(';').map(|(tree, _)| tree.to_owned())).collect()
}

/// Paths in the code that begin at a place in the crate.
fn inline(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for begin in ["crate::", "super::", "self::"] {
        for (at, _) in text.match_indices(begin) {
            if text[..at]
                .chars()
                .next_back()
                .is_some_and(|before| before.is_alphanumeric() || before == '_' || before == ':')
            {
                continue;
            }
            let rest = &text[at..];
            let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_' && letter != ':');
            let path = &rest[..end.unwrap_or(rest.len())];
            found.push(path.split("::").map(str::to_owned).filter(|part| !part.is_empty()).collect());
        }
    }
    found
}

/// Converts a path as it is written in module `here` to one from the crate's root; `None` for other crates.
fn absolute(here: &[String], path: &[String], modules: &BTreeMap<Module, String>) -> Option<Vec<String>> {
    let (first, mut rest) = path.split_first()?;
    let mut base = here.to_vec();
    match first.as_str() {
        "crate" => base.clear(),
        "self" => {}
        "super" => {
            base.pop()?;
            while let Some((next, later)) = rest.split_first()
                && next == "super"
            {
                base.pop()?;
                rest = later;
            }
        }
        name => {
            base.push(name.to_owned());
            modules.contains_key(&base).then_some(())?;
        }
    }
    base.extend(rest.iter().cloned());
    Some(base)
}

/// The module that a path leads to, through re-exports of modules.
fn target(path: &[String], modules: &BTreeMap<Module, String>, depth: u8) -> Option<Module> {
    let known = (0..=path.len()).rev().find(|n| modules.contains_key(&path[..*n]))?;
    let (module, rest) = path.split_at(known);
    // `use m::*` needs `m`, whatever names are used.
    let (Some(name), true) = (rest.first().filter(|name| *name != "*"), depth > 0) else {
        return Some(module.to_vec());
    };
    for tree in uses(&modules[module]) {
        for given in paths(&tree).into_iter().filter(|given| given.last() == Some(name)) {
            if let Some(further) = absolute(module, &given, modules).filter(|further| further != path) {
                return target(&further, modules, depth - 1);
            }
        }
    }
    Some(module.to_vec())
}

fn knots(modules: &BTreeMap<Module, String>) -> Vec<ModuleCycle> {
    let mut needs: BTreeMap<&Module, BTreeSet<Module>> = BTreeMap::new();
    for (here, text) in modules {
        let written = uses(text).iter().flat_map(|tree| paths(tree)).chain(inline(text)).collect::<Vec<_>>();
        let there = written.iter().filter_map(|path| target(&absolute(here, path, modules)?, modules, 4));
        let foreign = there.filter(|there| !there.starts_with(here) && !here.starts_with(there));
        needs.insert(here, foreign.collect());
    }
    let reached = |from: &Module| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = next.pop() {
            for there in needs.get(&module).into_iter().flatten() {
                if seen.insert(there.clone()) {
                    next.push(there.clone());
                }
            }
        }
        seen
    };
    let reach: BTreeMap<_, _> = needs.keys().map(|module| (*module, reached(module))).collect();
    let mut left: BTreeSet<_> =
        reach.iter().filter(|(module, all)| all.contains(**module)).map(|(m, _)| *m).collect();
    let mut found = Vec::new();
    while let Some(first) = left.pop_first() {
        let together: Vec<_> = std::iter::once(first)
            .chain(
                left.iter()
                    .copied()
                    .filter(|other| reach[first].contains(*other) && reach[*other].contains(first)),
            )
            .collect();
        left.retain(|module| !together.contains(module));
        let arrows = together.iter().flat_map(|from| {
            let there = needs[*from].iter().filter(|to| together.contains(to));
            there.map(|to| format!("{} -> {}", from.join("::"), to.join("::")))
        });
        found.push(ModuleCycle {
            arrows: arrows.collect(),
            modules: together.iter().map(|module| module.join("::")).collect(),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let module =
            |path: &str| path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let modules = files.iter().map(|(path, text)| (module(path), stripped(text))).collect();
        knots(&modules).into_iter().map(|knot| knot.modules).collect()
    }

    #[test]
    fn siblings_that_need_each_other_are_found_in_every_spelling() {
        for (there, back) in [
            ("use crate::b::B;", "use crate::a::A;"),
            ("use super::b::{B, C};", "fn f() { super::a::g() }"),
            // Through names that the parent re-exports.
            ("use crate::B;", "use super::A as Other;"),
            ("use crate::{b::{self, B}, other};", "fn f() -> crate::a::A {}"),
        ] {
            let root = "mod a; mod b; pub use a::A; pub(crate) use self::b::{B, C};";
            assert_eq!(found(&[("", root), ("a", there), ("b", back)]), [["a", "b"]], "{there} {back}");
        }
    }

    #[test]
    fn parents_and_children_may_and_so_may_tests_and_comments() {
        let parent = "mod child; use child::Child; struct Parent;";
        assert!(found(&[("", parent), ("child", "use super::Parent; pub struct Child;")]).is_empty());
        let tested = "#[cfg(test)]\nmod tests {\n    use crate::b::B;\n}\n";
        for a in [tested, "// use crate::b::B;", "//! See [`crate::b`]."] {
            assert!(found(&[("", ""), ("a", a), ("b", "use crate::a::A;")]).is_empty(), "{a}");
        }
    }
}
