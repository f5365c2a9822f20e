//! `docs/kubernetes.md` lists every setting, generated from [`SETTINGS`]. `UPDATE_DOCS=1` writes it.

use std::{fmt::Write, fs, path::Path};

use attache_kubernetes::inject::{InjectionSettings, SETTINGS};

const BEGIN: &str = "<!-- SETTINGS -->\n";
const END: &str = "<!-- END OF SETTINGS -->\n";

#[test]
fn the_documentation_lists_every_setting() {
    let mut table = "| setting | form | default | what |\n| --- | --- | --- | --- |\n".to_owned();
    let defaults = InjectionSettings::default().shown();
    for ((name, form, what), (shown, default)) in SETTINGS.iter().zip(&defaults) {
        assert_eq!(name, shown);
        let form = form.replace('|', " \\| ");
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        writeln!(table, "| `{name}` | {form} | {default} | {what} |").unwrap();
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/kubernetes.md");
    let text = fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let after = rest.split_once(END).map_or(rest, |(_, after)| after);
    let expected = format!("{before}{BEGIN}{table}{END}{after}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, &expected).unwrap();
    } else {
        assert!(
            text == expected,
            "docs/kubernetes.md is out of date: UPDATE_DOCS=1 cargo test -p attache-kubernetes --test reference"
        );
    }
}
