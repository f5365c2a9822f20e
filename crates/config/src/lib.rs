//! attache's configuration: YAML text becomes a checked [`model`], every diagnostic carries its place.
//!
//! The path of a text: `yaml` (events to a tree with places), `substitute` (variables and files), `check` (the tree
//! against the schema, every problem at once), `build` (references, and what one key says about another), [`model`].
//! Each section of the file is declared once, in [`model`], by `section!`. Texts with their own syntax are in `text`.

mod build;
mod check;
mod common_mistakes;
mod describe;
mod diagnostic;
mod effective;
mod file;
mod foreign;
mod index;
mod locate;
mod lookalikes;
pub mod model;
mod not_yaml;
mod patterns;
mod redaction;
mod relations;
mod schema;
mod section;
mod shapes;
mod substitute;
mod suggest;
mod text;
mod yaml;

use std::path::Path;

pub use build::is_framing;
use diagnostic::Problems;
pub use diagnostic::{Diagnostic, Diagnostics, Place, Severity};
pub use locate::{LocatedProblem, locate};
pub use redaction::names_a_credential;
pub use schema::{described, schema};
pub use suggest::nearest;
pub use text::has_requests;

use crate::model::Config;

/// The embedded default: a forward proxy on `127.0.0.1:15001`.
pub const FORWARD_PROXY: &str = include_str!("../../../config/forward-proxy.yaml");

/// A duration in the file's notation: `250ms`, `1m30s`.
///
/// # Errors
/// What is wrong with it, in one sentence.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    <text::Length as text::TextNotation>::parse(text)
        .map_err(|wrong| format!("{}; {}", wrong.message(&format!("`{text}`")), wrong.help))
}

/// Reads and checks a file. `env` looks up environment variables.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Diagnostics> {
    match file::read(path) {
        Ok(text) => parse(&text, Some(path), env),
        Err(problems) => Err(problems.finish("", Some(path)).into()),
    }
}

/// Checks a text. `file` is named in the diagnostics, and relative `!file` paths begin at its folder.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn parse(
    text: &str,
    file: Option<&Path>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Diagnostics> {
    let mut problems = Problems::default();
    let config = checked(text, file, env, &mut problems);
    let failed = problems.any_error();
    match config {
        Some(mut config) if !failed => {
            config.warnings = problems.finish(text, file);
            Ok(config)
        }
        _ => {
            if !failed {
                problems.error(
                    Place::default(),
                    "attache can't read this config and found no reason: this is a bug, please report it",
                );
            }
            Err(problems.only_errors().finish(text, file).into())
        }
    }
}

fn checked(
    text: &str,
    file: Option<&Path>,
    env: &dyn Fn(&str) -> Option<String>,
    problems: &mut Problems,
) -> Option<Config> {
    if let Some(line) = not_yaml::unfinished_merge(text) {
        let place = diagnostic::Place { line, column: 1, length: 7 };
        let help = "keep one of the two parts, and remove the lines of `<<<<<<<`, `=======` and `>>>>>>>`";
        problems.wrong(place, "here are the marks of an unfinished merge", help);
        return None;
    }
    if let Some((what, help)) = foreign::recognize(text) {
        problems.wrong(Place::default(), format!("{what}, not a config of attache"), help);
        return None;
    }
    let tree = yaml::parse(text, problems);
    let empty = tree.as_ref().is_none_or(yaml::YamlNode::is_nothing);
    if empty {
        if !problems.any_error() {
            problems.wrong(
                Place::default(),
                "the file is empty",
                "the smallest config is\n    upstreams:\n      orders: https://orders.internal:8443",
            );
        }
        return None;
    }
    let mut tree = tree?;
    let folder = file.and_then(Path::parent);
    let mut substitution = substitute::Substitution { env, folder, problems, files: Vec::new() };
    substitution.apply(&mut tree);
    let files = substitution.files;
    let value = check::Checker {
        root: schema::annotated(),
        problems,
        key: None,
        wrong: Vec::new(),
        keys: serde_json::Map::new(),
    }
    .check(&tree, schema::annotated())?;
    match serde_json::from_value::<section::ParsedSection<Config>>(value) {
        Ok(read) => Some(Config { files, ..build::build(read, &tree, file, env, problems) }),
        Err(error) => {
            if !problems.any_error() {
                let message = format!(
                    "this config passed every check and can't be read ({error}): this is a bug, please report it"
                );
                problems.error(Place::default(), message);
            }
            None
        }
    }
}

impl Config {
    /// The embedded default: a forward proxy on `127.0.0.1:15001` whose only upstream is the host that a request names.
    pub fn forward_proxy() -> Self {
        // A test parses the embedded file; if it were wrong in a build, the config would have no listener.
        parse(FORWARD_PROXY, None, &|_| None).unwrap_or_default()
    }
}
