//! What an import doesn't know is never passed over where it may keep somebody out: it is said, or the config means the same without it.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{fs, path::Path};

use attache_import::{File, Grade, Imported, Kind};

fn import(kind: Kind, text: &str) -> Option<Imported> {
    attache_import::import(kind, &[File { path: "given".into(), text: text.to_owned() }]).ok()
}

fn corpus(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(folder);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| (file.display().to_string(), fs::read_to_string(&file).unwrap())).collect()
}

/// The lines that send requests to an upstream.
fn opened(imported: &Imported) -> usize {
    let lines = imported.text.lines().map(|line| line.trim_start().trim_start_matches("- "));
    lines.filter(|line| line.starts_with("to:") || line.contains("{ to: ")).count()
}

/// Something is said that wasn't, or less is open.
fn is_told(with: Option<&Imported>, base: &Imported) -> bool {
    let remarks = |imported: &Imported| -> Vec<String> {
        imported.remarks.iter().map(|remark| remark.text.clone()).collect()
    };
    with.is_none_or(|with| {
        let before = remarks(base);
        opened(with) < opened(base) || remarks(with).iter().any(|remark| !before.contains(remark))
    })
}

/// The text with `more` behind each place where `at` ends.
fn insertions<'t>(text: &'t str, at: &'t str, more: &'t str) -> impl Iterator<Item = String> {
    text.match_indices(at).map(move |(place, _)| {
        let place = place + at.len();
        format!("{}{more}{}", &text[..place], &text[place..])
    })
}

/// Each text of the corpus with something unknown in it must be told of.
fn all_told(folder: &str, kind: Kind, places: &[(&str, &str)]) {
    let mut tried = 0;
    for (name, text) in corpus(folder) {
        let Some(base) = import(kind, &text) else { continue };
        // Where something is closed already, nothing more may be to be said.
        // Of objects for other workloads nothing is.
        if opened(&base) == 0 || base.grade == Grade::Point || name.ends_with("istio/list.yaml") {
            continue;
        }
        for (at, more) in places {
            for changed in insertions(&text, at, more) {
                let with = import(kind, &changed);
                tried += 1;
                assert!(is_told(with.as_ref(), &base), "{name}: `{more}` behind `{at}`:\n{changed}");
            }
        }
    }
    assert!(tried > 20, "{tried} tried");
}

#[test]
fn filters_and_keys_of_guards_that_are_not_known_are_told_for_envoy() {
    all_told(
        "envoy",
        Kind::Envoy,
        &[
            (
                "http_filters: [",
                "{name: zz.unknown, typed_config: {'@type': type.googleapis.com/zz.Unknown}}, ",
            ),
            ("http_filters:\n          - ", "name: zz.unknown\n          - "),
            ("filters: [{", "name: zz.unknown}, {"),
            ("rules: {action", "_zz: 1, action"),
            ("permissions: [{", "zz_unknown: 1, "),
            ("principals: [{", "zz_unknown: 1, "),
            ("permissions: [", "{zz_unknown: {}}, "),
            ("string_match: {", "zz_unknown: 1, "),
            ("string_match: { ", "zz_unknown: 1, "),
            ("requires: {", "zz_unknown: 1, "),
            // Of routes: `metadata_match` chooses endpoints and lets nothing through.
            ("- match: {", "zz_unknown: {a: b}, "),
            ("match: { ", "zz_unknown: {a: b}, "),
            ("headers: [{", "zz_unknown: {a: b}, "),
        ],
    );
}

#[test]
fn conditions_of_policies_that_are_not_known_are_told_for_istio() {
    all_told(
        "istio",
        Kind::Istio,
        &[
            ("from: [{source: {", "zzUnknown: [a], "),
            ("operation: {", "zzUnknown: [a], "),
            ("rules: [{", "zzUnknown: [a], "),
            ("mtls: {", "zzUnknown: a, "),
            ("action: DENY", ", zzUnknown: a"),
            ("match: [{", "zzUnknown: {exact: a}, "),
            ("uri: {", "zzUnknown: a, "),
            ("matches: [{", "zzUnknown: a, "),
            ("path: {type: ", "zzUnknown, zz: "),
        ],
    );
}

#[test]
fn directives_that_are_not_known_are_told_for_nginx() {
    all_told("nginx", Kind::Nginx, &[("server {", " zz_unknown on;"), (" {\n", "  zz_unknown on;\n")]);
}

#[test]
fn lines_that_are_not_known_are_told_for_haproxy() {
    all_told(
        "haproxy",
        Kind::Haproxy,
        &[
            ("\nfrontend ", "zz\n  zz-unknown x\n  bind 127.0.0.1:1\nfrontend "),
            ("http-request ", "zz-unknown\n  http-request "),
            ("http-request deny if ", "zz-unknown "),
            ("bind ", "127.0.0.1:1 interface zz\n  bind "),
            ("tcp-request ", "connection zz-unknown\n  tcp-request "),
        ],
    );
}
