//! An unknown word that may be a guard is never ignored: it is reported, or the config means the same without it.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{collections::HashMap, fs, path::Path};

use attache_import::{
    File, Grade, Imported, ProxyKind,
    tree::{self, Node},
};

fn import(kind: ProxyKind, text: &str) -> Option<Imported> {
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

/// Whether the import has a further remark, or fewer open routes.
fn is_told(with: Option<&Imported>, base: &Imported) -> bool {
    let remarks = |imported: &Imported| -> Vec<String> {
        imported.remarks.iter().map(|remark| remark.text.clone()).collect()
    };
    with.is_none_or(|with| {
        let before = remarks(base);
        let config = |imported: &Imported| -> Vec<String> {
            imported
                .text
                .lines()
                .filter(|line| !line.trim_start().starts_with('#'))
                .map(ToOwned::to_owned)
                .collect()
        };
        // The config contains a name that the user chose.
        opened(with) < opened(base)
            || config(with) != config(base)
            || remarks(with).iter().any(|remark| !before.contains(remark))
    })
}

/// The text with `more` behind each place where `at` ends.
fn insertions<'t>(text: &'t str, at: &'t str, more: &'t str) -> impl Iterator<Item = String> {
    text.match_indices(at).map(move |(place, _)| {
        let place = place + at.len();
        format!("{}{more}{}", &text[..place], &text[place..])
    })
}

/// Inserts unknown words into each text of the corpus: each of them must be reported.
fn all_told(folder: &str, kind: ProxyKind, places: &[(&str, &str)]) {
    let mut tried = 0;
    for (name, text) in corpus(folder) {
        let Some(base) = import(kind, &text) else { continue };
        // If the part is closed already, no further remark is needed. Objects for other workloads get no remarks.
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
        ProxyKind::Envoy,
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
            // In the `match` of routes only: `metadata_match` chooses endpoints and lets nothing pass.
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
        ProxyKind::Istio,
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
    all_told(
        "nginx",
        ProxyKind::Nginx,
        &[
            ("server {", " zz_unknown on;"),
            (" {\n", "  zz_unknown on;\n"),
            ("    listen ", "127.0.0.1:1 zz_unknown; listen "),
            ("server 127.0.0.1", ":1 zz_unknown; server 127.0.0.1"),
        ],
    );
}

#[test]
fn lines_that_are_not_known_are_told_for_haproxy() {
    all_told(
        "haproxy",
        ProxyKind::Haproxy,
        &[
            ("\nfrontend ", "zz\n  zz-unknown x\n  bind 127.0.0.1:1\nfrontend "),
            ("http-request ", "zz-unknown\n  http-request "),
            ("http-request deny if ", "zz-unknown "),
            ("bind ", "127.0.0.1:1 interface zz\n  bind "),
            ("tcp-request ", "connection zz-unknown\n  tcp-request "),
            ("\n    server ", "zz 127.0.0.1:9 zz-unknown\n    server "),
            ("\n    server ", "zz 127.0.0.1:9 verify-zz none\n    server "),
            ("\n    balance ", "roundrobin\n    default-server zz-unknown\n    balance "),
            ("\n    bind ", "127.0.0.1:1\n    option zz-unknown\n    bind "),
            ("\n    bind ", "127.0.0.1:1\n    timeout zz-unknown 1s\n    bind "),
        ],
    );
}

/// Every mapping of a tree, by the places of its entries and items from the root, with the keys on the way.
fn mappings(
    node: &Node,
    place: &mut Vec<usize>,
    keys: &mut Vec<String>,
    out: &mut Vec<(Vec<usize>, String)>,
) {
    match &node.kind {
        tree::NodeKind::Scalar(_) => {}
        tree::NodeKind::List(items) => {
            for (index, item) in items.iter().enumerate() {
                place.push(index);
                mappings(item, place, keys, out);
                place.pop();
            }
        }
        tree::NodeKind::Map(entries) => {
            out.push((place.clone(), keys.join(".")));
            for (index, (key, value)) in entries.iter().enumerate() {
                place.push(index);
                keys.push(key.clone());
                mappings(value, place, keys, out);
                keys.pop();
                place.pop();
            }
        }
    }
}

fn at<'n>(node: &'n mut Node, place: &[usize]) -> &'n mut Node {
    let Some((first, rest)) = place.split_first() else { return node };
    match &mut node.kind {
        tree::NodeKind::List(items) => at(&mut items[*first], rest),
        tree::NodeKind::Map(entries) => at(&mut entries[*first].1, rest),
        tree::NodeKind::Scalar(_) => unreachable!("a place in a scalar"),
    }
}

/// Objects whose every field is read or told.
const ISTIO: [&str; 9] = [
    "AuthorizationPolicy",
    "DestinationRule",
    "GRPCRoute",
    "HTTPRoute",
    "PeerAuthentication",
    "RequestAuthentication",
    "ServiceEntry",
    "Sidecar",
    "VirtualService",
];

/// A key that nobody knows, in every mapping of every config, is told of or closes something.
fn all_nested_told(folder: &str, kind: ProxyKind, exempt: &[&str]) {
    let (mut tried, mut silent) = (0, Vec::new());
    let mut known: HashMap<String, u32> = HashMap::new();
    for (name, text) in corpus(folder) {
        let Ok(roots) = tree::parse(&text, "given") else { continue };
        let json = |roots: &[Node]| roots.iter().map(tree::json).collect::<Vec<_>>().join("\n---\n");
        let Some(base) = import(kind, &json(&roots)) else { continue };
        // Some are closed; of others a part decides nothing, or is for somebody else.
        let elsewhere = ["of-an-edge", "otel", "zipkin", "a-gateway", "list"];
        if base.grade == Grade::Point || elsewhere.iter().any(|part| name.contains(&format!("{part}."))) {
            continue;
        }
        let said = |what: &str| base.remarks.iter().any(|remark| remark.text.contains(what));
        for index in 0..roots.len() {
            let mut places = Vec::new();
            mappings(&roots[index], &mut Vec::new(), &mut Vec::new(), &mut places);
            for (place, keys) in places {
                let object = roots[index].str("kind").is_some_and(|kind| !ISTIO.contains(&kind))
                    && kind == ProxyKind::Istio;
                let outside = keys.is_empty() && kind == ProxyKind::Istio;
                // Settings for a filter that isn't there have no meaning.
                let nobodys = keys.ends_with("per_filter_config");
                if object || outside || nobodys || exempt.iter().any(|part| keys.contains(part)) {
                    continue;
                }
                // Each kind of place is tried in two configs.
                let times = known.entry(keys.clone()).or_insert(0);
                *times += 1;
                if *times > 2 || said("is left out") {
                    continue;
                }
                let mut changed = roots.clone();
                let inner = at(&mut changed[index], &place);
                let value = inner.scalar("zz");
                inner.set("zz_unknown", value);
                tried += 1;
                if !is_told(import(kind, &json(&changed)).as_ref(), &base) {
                    silent.push(format!("{name}: {keys}"));
                }
            }
        }
    }
    silent.sort();
    silent.dedup();
    assert!(silent.is_empty(), "of {tried} tried {} were passed over:\n{}", silent.len(), silent.join("\n"));
    assert!(tried > 50, "{tried} tried");
}

#[test]
fn a_key_that_is_not_known_is_told_in_every_mapping_of_envoy() {
    all_nested_told("envoy", ProxyKind::Envoy, &["metadata", "node", "admin", "runtime", "decorator"]);
}

#[test]
fn a_key_that_is_not_known_is_told_in_every_mapping_of_istio() {
    all_nested_told(
        "istio",
        ProxyKind::Istio,
        &["metadata", "parentRefs", "selector", "labels", "matchLabels"],
    );
}
