//! Configs with lost, doubled or moved lines, or with unexpected values: each is refused with the place of its mistake,
//! or the import prints a config that `check` accepts. No config makes the import panic.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{fs, path::Path};

use attache_import::{File, ProxyKind};
use proptest::prelude::*;

const KINDS: &[(&str, ProxyKind)] = &[
    ("envoy", ProxyKind::Envoy),
    ("ghostunnel", ProxyKind::Ghostunnel),
    ("haproxy", ProxyKind::Haproxy),
    ("istio", ProxyKind::Istio),
    ("nginx", ProxyKind::Nginx),
    ("stunnel", ProxyKind::Stunnel),
];

/// Values in places where others are expected.
const STRANGE: &[&str] = &[
    "''",
    "0",
    "-1",
    "99999999999",
    "1e9",
    "0s",
    "-5s",
    "x",
    "a b",
    "*",
    "%",
    "$",
    "${A}",
    "~(",
    "/",
    "//",
    "/a b",
    "{x}",
    "[]",
    "{}",
    "null",
    "true",
    "\"\\n\"",
    "é",
    "127.0.0.1",
    "::1",
    "::1/64",
    "10.1.2.3/8",
    "a.example:99999",
    "host",
    "content-length",
    ":path",
    "!x",
    "=x",
    "503",
];

#[derive(Clone, Debug)]
enum Mutation {
    Drop(prop::sample::Index),
    Double(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
    Word(prop::sample::Index, prop::sample::Index, &'static str),
    /// A line of another config of the same kind.
    Foreign(prop::sample::Index, prop::sample::Index),
}

fn change() -> impl Strategy<Value = Mutation> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        1 => index().prop_map(Mutation::Drop),
        1 => index().prop_map(Mutation::Double),
        1 => (index(), index()).prop_map(|(a, b)| Mutation::Swap(a, b)),
        4 => (index(), index(), prop::sample::select(STRANGE)).prop_map(|(line, word, text)| Mutation::Word(line, word, text)),
        1 => (index(), index()).prop_map(|(a, b)| Mutation::Foreign(a, b)),
    ]
}

fn corpus(folder: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(folder);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

fn changed(text: &str, other: &str, changes: &[Mutation]) -> String {
    let mut lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
    for change in changes {
        if lines.is_empty() {
            break;
        }
        match change {
            Mutation::Drop(at) => drop(lines.remove(at.index(lines.len()))),
            Mutation::Double(at) => {
                let at = at.index(lines.len());
                lines.insert(at, lines[at].clone());
            }
            Mutation::Swap(a, b) => {
                let (a, b) = (a.index(lines.len()), b.index(lines.len()));
                lines.swap(a, b);
            }
            Mutation::Word(line, word, text) => {
                let at = line.index(lines.len());
                let line = lines[at].clone();
                let parts: Vec<&str> =
                    line.split_inclusive([' ', ',', '{', '}', '[', ']', ';', ':', '/']).collect();
                if parts.is_empty() {
                    continue;
                }
                let word = word.index(parts.len());
                let end = parts[word].trim_end_matches(|c: char| !" ,{}[];:/".contains(c)).len();
                let kept = &parts[word][end.saturating_sub(1).min(parts[word].len())..];
                let kept = if kept.len() == 1 { kept } else { "" };
                lines[at] = parts
                    .iter()
                    .enumerate()
                    .map(
                        |(index, part)| {
                            if index == word { format!("{text}{kept}") } else { (*part).to_owned() }
                        },
                    )
                    .collect();
            }
            Mutation::Foreign(from, to) => {
                let others: Vec<&str> = other.lines().collect();
                if !others.is_empty() {
                    lines.insert(to.index(lines.len()), others[from.index(others.len())].to_owned());
                }
            }
        }
    }
    lines.join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn what_is_imported_of_any_text_is_accepted(
        kind in prop::sample::select(KINDS),
        file in any::<prop::sample::Index>(),
        other in any::<prop::sample::Index>(),
        changes in prop::collection::vec(change(), 1..6),
    ) {
        let all = corpus(kind.0);
        let text = changed(&all[file.index(all.len())], &all[other.index(all.len())], &changes);
        let given = File { path: "given".into(), text: text.clone() };
        if let Ok(imported) = attache_import::import(kind.1, &[given])
            && let Err(wrong) = attache_config::parse(&imported.text, None, &|_| None)
        {
            prop_assert!(false, "{text}\n----\n{}\n{wrong}", imported.text);
        }
    }
}
