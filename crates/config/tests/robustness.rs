//! No text causes a panic, and every diagnostic names a place in the text.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_raw_string_hashes,
    clippy::format_push_string,
    reason = "tests"
)]

use std::path::Path;

use proptest::prelude::*;

fn check(text: &str) {
    match attache_config::parse(text, Some(Path::new("attache.yaml")), &|_| Some("x".to_owned())) {
        Ok(config) => {
            for listener in &config.listeners {
                assert!(!listener.bind.is_empty() && !listener.routes.is_empty());
                for route in &listener.routes {
                    let attache_config::model::Action::Forward(forward) = &route.action else { continue };
                    assert!(!forward.to.is_empty());
                    assert!(forward.to.iter().all(|to| to.upstream.0 < config.upstreams.len()));
                    assert!(forward.to.iter().map(|to| u64::from(to.weight)).sum::<u64>() >= 1);
                    assert!(forward.mirrors.iter().all(|mirror| mirror.upstream.0 < config.upstreams.len()));
                }
            }
        }
        Err(found) => {
            assert!(found.count() > 0);
            let said = found.to_string();
            assert!(!said.contains("please report it"), "{said}");
            let lines = text.matches(['\n', '\r']).count() + 1;
            assert!(found.iter().all(|one| one.place.line as usize <= lines), "{said}");
        }
    }
}

fn examples() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

/// Pieces that mean something to YAML or to a syntax of ours.
const PIECES: &[&str] = &[
    ": ",
    "- ",
    "\n",
    "  ",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "!file ",
    "!!str ",
    "\"",
    "'",
    "|",
    ">",
    "#",
    "%",
    "~",
    "*",
    "!",
    "=",
    "$",
    "${",
    "${X}",
    "${X:-",
    "0",
    "-1",
    "99999999999999999999",
    "1e999",
    "5xx",
    "off",
    "null",
    "true",
    "<<: ",
    "? ",
    "---\n",
    "...\n",
    "\t",
    "\u{feff}",
    "\u{0}",
    "ü",
    "{id}",
    "{a...}",
    "/*",
    "~(",
    "://",
    "authority",
    "100%",
    "s",
    "\r",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        check(&text);
    }

    #[test]
    fn no_text_of_pieces_panics(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40)) {
        check(&pieces.concat());
    }

    #[test]
    fn no_damaged_config_panics(
        which in 0usize..8,
        damage in prop::collection::vec((0.0f64..1.0, 0usize..30, prop::sample::select(PIECES)), 1..6),
    ) {
        let examples = examples();
        let mut text: Vec<char> = examples[which % examples.len()].chars().collect();
        for (at, length, piece) in damage {
            let start = (text.len() as f64 * at) as usize;
            let end = (start + length).min(text.len());
            text.splice(start..end, piece.chars());
        }
        check(&text.into_iter().collect::<String>());
    }

    #[test]
    fn no_config_with_values_exchanged_panics(
        which in 0usize..8,
        from in 0.0f64..1.0,
        to in 0.0f64..1.0,
    ) {
        let examples = examples();
        let text = &examples[which % examples.len()];
        let words: Vec<&str> = text.split(' ').collect();
        let mut words: Vec<&str> = words.clone();
        let (a, b) = ((words.len() as f64 * from) as usize, (words.len() as f64 * to) as usize);
        words.swap(a, b);
        check(&words.join(" "));
    }
}
