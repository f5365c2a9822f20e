//! Grades many configs: `cargo run -p attache-import --example grade -- FILE…`.
#![allow(clippy::print_stdout, missing_docs)]

fn main() {
    for path in std::env::args().skip(1) {
        let Ok(files) = attache_import::read(&[path.clone().into()]) else { continue };
        let Some(kind) = attache_import::detect(&files) else {
            println!("{path}: not known");
            continue;
        };
        match attache_import::import(kind, &files) {
            Ok(imported) => {
                let checked = attache_config::parse(&imported.text, None, &|_| None);
                println!("{path}: {} ({} -> {} lines)", imported.grade, files[0].text.lines().count(), imported.text.lines().count());
                if let Err(wrong) = checked {
                    println!("  CHECK: {wrong}");
                }
                for remark in imported.remarks.iter().filter(|remark| remark.text.contains("isn't known")) {
                    println!("  {}: {}", remark.at.line, remark.text);
                }
            }
            Err(error) => println!("{path}: {error}"),
        }
    }
}
