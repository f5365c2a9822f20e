//! Every shape of the corpus becomes a config that is accepted, with the grade of the table in docs/import.md.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{fs, path::Path, path::PathBuf};

use attache_import::{Grade, Imported};

fn shapes() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut all = Vec::new();
    for kind in ["envoy", "ghostunnel", "haproxy", "istio", "nginx", "stunnel"] {
        all.extend(fs::read_dir(folder.join(kind)).unwrap().map(|entry| entry.unwrap().path()));
    }
    all.sort();
    all
}

fn imported(path: &Path) -> Imported {
    let files = attache_import::read(&[path.to_owned()]).unwrap();
    let kind = attache_import::detect(&files).unwrap_or_else(|| panic!("{}: not known", path.display()));
    attache_import::import(kind, &files).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_shape_becomes_a_config_that_is_accepted() {
    for path in shapes() {
        let imported = imported(&path);
        if std::env::var("SHOW").is_ok_and(|name| path.display().to_string().contains(&name)) {
            eprintln!("{}:\n{}", path.display(), imported.text);
        }
        if let Err(wrong) = attache_config::parse(&imported.text, None, &|_| None) {
            panic!("{}:\n{}\n{wrong}", path.display(), imported.text);
        }
    }
}

#[test]
fn the_table_of_the_docs_has_the_grade_of_every_shape() {
    let table =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/import.md")).unwrap();
    for path in shapes() {
        let name = path.file_stem().unwrap().to_string_lossy();
        let kind = path.parent().unwrap().file_name().unwrap().to_string_lossy();
        let row = format!("| {kind}/{name} | {} |", imported(&path).grade);
        assert!(table.contains(&row), "docs/import.md lacks `{row}`");
    }
}

/// A guard that can't be carried over closes everything behind it. The number is how many routes to an upstream are
/// left.
#[test]
fn what_stood_behind_a_guard_is_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, open) in [
        ("envoy/lua.yaml", 0),
        ("envoy/unknown-filter.yaml", 0),
        ("envoy/rbac-forwarded.yaml", 0),
        ("envoy/rbac-cel.yaml", 0),
        ("envoy/ext-authz-metadata.yaml", 0),
        ("envoy/ext-authz-own-headers.yaml", 1),
        ("envoy/jwt-all.yaml", 0),
        ("envoy/internal-only.yaml", 1),
        ("envoy/guard-of-upgrades.yaml", 0),
        ("haproxy/changed-then-read.cfg", 0),
        ("envoy/upstream-filters.yaml", 1),
        ("envoy/split-own-rbac.yaml", 0),
        ("envoy/gateway-with-transformer.yaml", 0),
        ("envoy/csrf-and-cors.yaml", 0),
        ("envoy/fraction-of-refusals.yaml", 1),
        ("haproxy/acl-file.cfg", 0),
        ("haproxy/map-of-hosts.cfg", 0),
        ("nginx/try-files.conf", 0),
        ("haproxy/src-acl.cfg", 0),
        ("haproxy/auth.cfg", 0),
        ("nginx/guarded.conf", 2),
        ("envoy/changed-before-a-guard.yaml", 0),
        ("envoy/host-unsaid.yaml", 0),
        ("haproxy/answers-refused.cfg", 0),
        ("nginx/unknown-guard.conf", 0),
    ] {
        let imported = imported(&folder.join(name));
        assert_eq!(imported.grade, Grade::Point, "{name}");
        let routes = imported
            .text
            .lines()
            .filter(|line| line.trim_start().trim_start_matches("- ").starts_with("to:"))
            .count();
        assert_eq!(routes, open, "{name}:\n{}", imported.text);
    }
}

/// Plaintext requests never match the routes that were for TLS with a client certificate.
#[test]
fn plaintext_does_not_get_the_routes_of_mutual_tls() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let imported = imported(&folder.join("envoy/tls-and-plaintext.yaml"));
    assert!(!imported.text.contains("permissive"), "{}", imported.text);
    assert!(imported.text.contains("client_ca: /certs/ca.crt"), "{}", imported.text);
}

#[test]
fn what_is_not_a_config_is_said_with_its_place() {
    let file = |text: &str| attache_import::File { path: "envoy.yaml".into(), text: text.to_owned() };
    let error = attache_import::import(attache_import::ProxyKind::Envoy, &[file("a: [1\nb: {")]).unwrap_err();
    assert!(error.to_string().starts_with("envoy.yaml:"), "{error}");
    assert!(attache_import::import(attache_import::ProxyKind::Nginx, &[file("server {")]).is_err());
    assert!(attache_import::import(attache_import::ProxyKind::Haproxy, &[file("nothing here")]).is_err());
}
