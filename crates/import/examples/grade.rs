//! Grades and prints configs, or compares them with their originals:
//! `cargo run -p attache-import --example grade -- [--print] [--verify ORIGINAL ATTACHE] FILE…`.
#![allow(clippy::print_stdout, missing_docs)]

fn main() {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let print = args.first().is_some_and(|arg| arg == "--print");
    if print {
        args.remove(0);
    }
    let programs = args.first().is_some_and(|arg| arg == "--verify").then(|| {
        attache_import::verify::Programs { original: args[1].clone().into(), attache: args[2].clone().into() }
    });
    if programs.is_some() {
        args.drain(..3);
    }
    for path in args {
        let Ok(files) = attache_import::read(&[path.clone().into()]) else { continue };
        let Some(kind) = attache_import::detect(&files) else {
            println!("{path}: not known");
            continue;
        };
        match attache_import::import(kind, &files) {
            Ok(imported) => {
                println!(
                    "{path}: {} ({} -> {} lines)",
                    imported.grade,
                    files[0].text.lines().count(),
                    imported.text.lines().count()
                );
                if print {
                    println!("{}", imported.text);
                }
                for remark in imported.remarks.iter().filter(|remark| remark.text.contains("isn't known")) {
                    println!("  {}: {}", remark.at.line, remark.text);
                }
            }
            Err(error) => println!("{path}: {error}"),
        }
        if let Some(programs) = &programs {
            let folder = std::env::temp_dir().join(format!("grade-{}", std::process::id()));
            let _ = std::fs::create_dir_all(&folder);
            match attache_import::verify::verify(kind, &files, programs, &folder) {
                Ok(report) => println!("{}", report.text()),
                Err(error) => println!("  {error}"),
            }
        }
    }
}
