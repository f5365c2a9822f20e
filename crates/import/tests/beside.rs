//! Compares the shapes of the corpus with their originals:
//! `ATTACHE=PATH ENVOY=PATH cargo test -p attache-import --test beside -- --ignored --nocapture`. Prints the rows of
//! the table in docs/import.md. `SHAPES=envoy/jwt` takes those that begin so.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::{collections::BTreeMap, env, fs, path::Path, path::PathBuf};

use attache_import::verify;

#[test]
#[ignore = "needs attache, Envoy, HAProxy and nginx"]
fn the_corpus_beside_its_originals() {
    let attache = PathBuf::from(env::var("ATTACHE").unwrap());
    let envoy = env::var("ENVOY").unwrap_or_else(|_| "envoy".to_owned());
    let wanted = env::var("SHAPES").unwrap_or_default();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut totals: BTreeMap<u8, (String, usize, [usize; 4])> = BTreeMap::new();
    for (folder, program) in [
        ("envoy", envoy.as_str()),
        ("haproxy", "/usr/sbin/haproxy"),
        ("nginx", "/usr/sbin/nginx"),
        // Compared with the interpreter of its objects.
        ("istio", ""),
    ] {
        let mut files: Vec<_> =
            fs::read_dir(corpus.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for path in files {
            let name = format!("{folder}/{}", path.file_stem().unwrap().to_string_lossy());
            if !name.starts_with(&wanted) {
                continue;
            }
            let files = attache_import::read(&[path]).unwrap();
            let kind = attache_import::detect(&files).unwrap();
            let grade = attache_import::import(kind, &files).unwrap().grade;
            let scratch = env::temp_dir().join(format!("attache-beside-{}", std::process::id()));
            fs::create_dir_all(&scratch).unwrap();
            let programs = verify::Programs { original: program.into(), attache: attache.clone() };
            match verify::verify(kind, &files, &programs, &scratch) {
                Ok(report) if report.asked > 0 => {
                    let numbers = [report.asked, report.equal, report.closed, report.differences.len()];
                    let row = numbers.map(|n| n.to_string()).join(" | ");
                    println!("| {name} | {grade} | {row} |");
                    if !report.differences.is_empty() {
                        println!("{}", report.text());
                    }
                    let total =
                        totals.entry(grade.exit_code()).or_insert_with(|| (grade.to_string(), 0, [0; 4]));
                    total.1 += 1;
                    total.2.iter_mut().zip(numbers).for_each(|(sum, n)| *sum += n);
                }
                Ok(report) => println!("| {name} | {grade} | – | – | – | – | {:?}", report.left_out),
                Err(error) => println!("| {name} | {grade} | – | – | – | – | {error}"),
            }
            fs::remove_dir_all(&scratch).unwrap();
        }
    }
    for (grade, shapes, numbers) in totals.values() {
        println!("| {grade} | {shapes} | {} |", numbers.map(|n| n.to_string()).join(" | "));
    }
    // Of the shapes without a loss, at least 95 % of the requests get equal answers.
    if let Some((_, _, [asked, equal, ..])) = totals.get(&0) {
        assert!(equal * 100 >= asked * 95, "{equal} of {asked}");
    }
}
