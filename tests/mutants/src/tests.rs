//! What is changed, what an error of the compiler is about, and the whole way on a crate of a few lines.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use quote::ToTokens;
use serde_json::json;
use syn::visit_mut::VisitMut;

use crate::{TestVerdict, change::Rewriter, checks::changes_of, report, tree::WorkingCopy};

/// The changes of a function's body as `line: what`, and the text with these changes.
fn changed(body: &str, left_out: &[usize]) -> (Vec<String>, String) {
    let left_out = left_out.iter().copied().collect();
    let mut parsed = syn::parse_file(&format!("fn f() -> Thing {{\n{body}\n}}")).expect("Rust");
    let mut rewriter = Rewriter::new(&left_out);
    rewriter.visit_file_mut(&mut parsed);
    let changes = rewriter.changes.iter().map(|change| format!("{}: {}", change.line - 1, change.what));
    (changes.collect(), parsed.into_token_stream().to_string())
}

fn changes(body: &str) -> Vec<String> {
    changed(body, &[]).0
}

#[test]
fn conditions_comparisons_and_statements_are_changed() {
    assert_eq!(changes("a < b"), ["1: <= for <", "1: > for <"]);
    assert_eq!(changes("a == b + 1"), ["1: - for +", "1: != for =="]);
    assert_eq!(changes("a && b"), ["1: operand of && left out"; 2]);
    assert_eq!(changes("if a {}\nif !b {}"), ["1: condition negated", "2: `!` left out"]);
    assert_eq!(changes("a.is_empty();"), ["1: answer negated", "1: statement left out"]);
    assert_eq!(
        changes("a.is_b()\n&& c.is_d()"),
        ["1: answer negated", "2: answer negated", "1: operand of && left out", "2: operand of && left out"]
    );
    assert_eq!(changes("while let Some(a) = b && c {}"), ["1: operand of && left out"]);
    assert_eq!(changes("a += 1;\nb = None;\nlet c = d;"), ["1: statement left out", "2: statement left out"]);
}

#[test]
fn an_arm_is_left_out_only_where_another_one_takes_its_values() {
    assert_eq!(
        changes("match a {\n1 => b,\n2 if c => d,\n_ => e }"),
        ["3: condition negated", "2: arm left out"]
    );
    assert_eq!(changes("match a { A => b, B => c }"), Vec::<String>::new());
}

#[test]
fn functions_return_at_once_where_a_value_is_known() {
    let of = |signature: &str| {
        let mut parsed = syn::parse_file(&format!("{signature} {{ x }}")).expect("Rust");
        let mut rewriter = Rewriter::new(const { &BTreeSet::new() });
        rewriter.visit_file_mut(&mut parsed);
        rewriter.changes.into_iter().map(|change| change.what).collect::<Vec<_>>()
    };
    assert_eq!(of("fn f() -> bool"), ["`f` only returns true", "`f` only returns false"]);
    assert_eq!(of("fn f() -> Result<(), E>"), ["`f` only returns Ok(())"]);
    assert_eq!(of("fn f()"), ["`f` only returns nothing"]);
    for same in ["fn f() -> Thing", "const fn f() -> bool", "#[test] fn f()", "#[cfg(test)] fn f()"] {
        assert_eq!(of(same), Vec::<String>::new(), "{same}");
    }
}

#[test]
fn what_must_be_known_while_it_is_compiled_stays() {
    for same in ["const A: usize = 1 + 2;", "static B: bool = 1 < 2;", "[0; 1 + 2]", "const { 1 < 2 }"] {
        assert_eq!(changes(same), Vec::<String>::new(), "{same}");
    }
}

/// The numbers of changes in a text, in their order.
fn numbers(text: &str) -> Vec<usize> {
    let behind = text.split("crate :: mutant (").skip(1);
    behind.map(|rest| rest.split("usize").next().expect("a number").parse().expect("a number")).collect()
}

#[test]
fn a_change_that_is_left_out_moves_no_other_one() {
    let body = "if !(a.is_b() && c < d) { e(); }\nmatch f { 1 if !g => h, 2 => i, _ => j }";
    let (whole, text) = changed(body, &[]);
    let every: BTreeSet<usize> = numbers(&text).into_iter().collect();
    assert_eq!(every, (0..whole.len()).collect());
    for one in 0..whole.len() {
        let (changes, text) = changed(body, &[one]);
        let mut rest = whole.clone();
        rest.remove(one);
        assert_eq!(changes, rest);
        assert_eq!(numbers(&text).into_iter().collect::<BTreeSet<_>>(), &every - &[one].into());
    }
}

#[test]
fn an_error_is_about_the_switch_that_it_shows_or_the_nearest_one() {
    let text =
        "if crate :: mutant (3usize) { a <= b } else { a < b } if ! crate :: mutant (4usize) { c ; } d";
    let span = |part: &str, is_primary: bool| {
        let start = text.find(part).expect("a part of the text");
        json!({ "file_name": "a.rs", "byte_start": start, "byte_end": start + part.len(), "is_primary": is_primary })
    };
    let of = |spans: &[serde_json::Value]| changes_of(&json!({ "spans": spans }), |_| Some(text.to_owned()));
    assert_eq!(of(&[span("a <= b", true)]), [3].into());
    assert_eq!(of(&[span("d", true), span("! crate :: mutant (4usize)", false)]), [4].into());
    assert_eq!(of(&[span("if ! crate :: mutant (4usize) { c ; }", true)]), [4].into());
    let mut in_a_macro =
        json!({ "file_name": "macros.rs", "byte_start": 1, "byte_end": 2, "is_primary": true });
    in_a_macro["expansion"] = json!({ "span": span("d", false) });
    assert_eq!(of(&[in_a_macro]), [4].into());
    assert_eq!(of(&[span("if", true)]), [3].into(), "the next one, if there is none before");
    assert_eq!(of(&[span("if", true), span("a < b", false)]), [4].into(), "behind the last place");
}

/// A repository of one crate. One change of it is seen, one is not, one is in a function that no test calls, one does not compile.
fn repository(root: &Path) {
    let write = |file: &str, text: &str| {
        let path = root.join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    };
    write("Cargo.toml", "[workspace]\nmembers = [\"crates/few\"]\nresolver = \"3\"\n");
    write("Cargo.lock", "version = 4\n\n[[package]]\nname = \"attache-few\"\nversion = \"0.0.0\"\n");
    write(
        "crates/few/Cargo.toml",
        "[package]\nname = \"attache-few\"\nversion = \"0.0.0\"\nedition = \"2024\"\n",
    );
    let source = "//! Few lines.\nmod other;\npub fn least(a: u8) -> i8 { if a < 3 { 1 } else { 2 } }\n\
                  #[cfg(test)]\nmod tests;\n";
    write("crates/few/src/lib.rs", source);
    let other = "pub fn unused(mut a: u8) -> u16 {\nlet b: u16;\nb = 2;\na += 1;\nb + u16::from(a)\n}\n";
    write("crates/few/src/other.rs", other);
    let test = "#[test]\nfn small_is_one() { assert_eq!((crate::least(2), crate::least(9)), (1, 2)); }\n";
    write("crates/few/src/tests.rs", test);
    for arguments in [&["init", "--quiet"][..], &["add", "."]] {
        assert!(Command::new("git").current_dir(root).args(arguments).status().expect("git").success());
    }
}

#[test]
fn each_change_of_a_crate_is_seen_or_named() {
    let root = tempfile::tempdir().expect("a folder");
    repository(root.path());
    let report = report(&WorkingCopy::new(root.path(), "few"), &[]).expect("a report");
    let found = report.verdicts.iter().map(|(change, verdict)| (change.what.as_str(), *verdict));
    assert_eq!(
        found.collect::<Vec<_>>(),
        [
            ("<= for <", TestVerdict::NotSeen),
            ("> for <", TestVerdict::Seen),
            ("statement left out", TestVerdict::NotReached),
            ("- for +", TestVerdict::NotReached),
            ("`unused` only returns 0", TestVerdict::NotReached),
        ]
    );
    assert_eq!(report.not_compiled, 1);
    // What was deleted or never known to Git is no part of the next run; what is new is.
    let (tree, few) = (WorkingCopy::new(root.path(), "few"), root.path().join("crates/few"));
    fs::create_dir_all(few.join("tests")).expect("a folder");
    fs::write(few.join("tests/new.rs"), "#[test]\nfn new() {}\n").expect("a file");
    fs::write(tree.copy.join("crates/few/src/stray.rs"), "no Rust").expect("a file");
    fs::remove_file(few.join("src/tests.rs")).expect("a file");
    tree.fill().expect("a copy");
    let there = ["tests/new.rs", "src/other.rs", "src/stray.rs", "src/tests.rs"];
    assert_eq!(
        there.map(|file| tree.copy.join("crates/few").join(file).exists()),
        [true, true, false, false]
    );
    let none = crate::report(&WorkingCopy::new(root.path(), "fewer"), &[]).map(|_| ());
    assert_eq!(none, Err("there is no crate attache-fewer".to_owned()));
}
