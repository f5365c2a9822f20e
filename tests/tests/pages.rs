//! All YAML in README and docs/ is valid, so that it can be copied; and the commands of the guides do what the guides say.

use std::{env, fs, path::Path, process::Command};

use attache_tests::{binary, script_alone};

/// Upstreams that incomplete configs refer to.
const UPSTREAMS: &str = "upstreams: { orders: 'http://a.test', orders-next: 'http://b.test', users: 'http://c.test', limits: 'h2c://d.test', \
                         everything-else: 'http://e.test' }\n";

/// The YAML blocks of a page, each with its line number.
fn blocks(page: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, usize, String)> = None;
    for (index, line) in page.lines().enumerate() {
        let content = line.trim_start();
        match &mut open {
            None if content.starts_with("```yaml") => {
                open = Some((index + 2, line.len() - content.len(), String::new()));
            }
            Some(_) if content.starts_with("```") => {
                found.extend(open.take().map(|(line, _, text)| (line, text)));
            }
            Some((_, indent, text)) => {
                text.push_str(line.get(*indent..).unwrap_or_default());
                text.push('\n');
            }
            None => {}
        }
    }
    found
}

/// Indents a text so that its first line begins at this column.
fn indented(text: &str, by: usize) -> String {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let now = first.len() - first.trim_start().len();
    text.lines().map(|line| format!("{}{}\n", " ".repeat(by), line.get(now..).unwrap_or_default())).collect()
}

fn check(config: &str) -> Result<(), String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), config).unwrap();
    let output = Command::new(binary())
        .args(["check", "--without-files"])
        .arg(file.path())
        .env("SESSION_KEY", "a-secret-of-32-characters-or-more")
        .env("COLLECTOR_KEY", "secret")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

#[test]
fn every_config_and_part_of_one_on_a_page_is_valid() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = vec![repository.join("README.md")];
    for folder in ["docs", "docs/guides"] {
        let entries = fs::read_dir(repository.join(folder)).unwrap();
        pages.extend(entries.map(|entry| entry.unwrap().path()));
    }
    pages.retain(|page| page.extension().is_some_and(|ending| ending == "md"));
    let (mut whole, mut parts, mut wrong) = (0, 0, Vec::new());
    for page in pages {
        for (line, block) in blocks(&fs::read_to_string(&page).unwrap()) {
            // Manifests and annotations of Kubernetes are left out.
            if block.contains("apiVersion:") || block.starts_with("attache.dev/") {
                continue;
            }
            let Err(said) = check(&block) else {
                whole += 1;
                continue;
            };
            let listener = "listeners:\n  outbound:\n    bind: 127.0.0.1:15001\n";
            let as_part = [
                format!("{listener}{}{UPSTREAMS}", indented(&block, 4)),
                format!("{listener}    routes:\n{}    to: orders\n{UPSTREAMS}", indented(&block, 6)),
                format!("{listener}    routes:\n      - name: one\n{}{UPSTREAMS}", indented(&block, 8)),
                format!("{listener}    routes:\n      - to: orders\n{}{UPSTREAMS}", indented(&block, 8)),
            ];
            match as_part.iter().any(|config| check(config).is_ok()) {
                true => parts += 1,
                false => wrong.push(format!("{}:{line}: {said}", page.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(whole >= 25 && parts >= 5, "{whole} configs and {parts} parts: are the blocks still found?");
}

#[test]
fn every_command_of_readme_and_of_every_guide_does_what_the_page_says() {
    let guides = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guides");
    let mut arguments = vec![binary().display().to_string()];
    arguments.extend(
        fs::read_dir(guides).unwrap().map(|entry| entry.unwrap().path().to_string_lossy().into_owned()),
    );
    arguments.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md").display().to_string());
    assert!(arguments.len() > 7, "{arguments:?}");
    // The guides use fixed ports.
    let output = script_alone("guides.py", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("every command of every page"), "{said}{failed}");
}
