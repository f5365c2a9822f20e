//! Values that come from outside: `${VAR}`, `${VAR:-default}` and `!file PATH`.
//!
//! Both are put into the tree after the YAML is parsed, so that a value can't bring structure with it: a password with
//! a `: ` or a line break stays one text. A scalar that is one `${VAR}` and nothing else is typed by what it became:
//! `workers: ${WORKERS}` is a number. `$$` is one `$`; a `$` before anything else is itself.

use std::path::{Path, PathBuf};

use crate::{
    diagnostic::{Place, Problems},
    yaml::{Scalar, YamlKind, YamlNode},
};

/// Bytes that one `!file` may have.
const MAX_FILE_BYTES: u64 = 1 << 20;

pub(crate) struct Substitution<'a> {
    pub(crate) env: &'a dyn Fn(&str) -> Option<String>,
    /// Where relative paths of `!file` begin.
    pub(crate) folder: Option<&'a Path>,
    pub(crate) problems: &'a mut Problems,
    /// Every `!file` that was asked for.
    pub(crate) files: Vec<PathBuf>,
}

impl Substitution<'_> {
    pub(crate) fn apply(&mut self, node: &mut YamlNode) {
        match &mut node.kind {
            YamlKind::Scalar(scalar) => {
                let place = node.place;
                if self.variables(scalar, place).and_then(|()| self.file(scalar, place)).is_none() {
                    node.kind = YamlKind::Broken;
                }
            }
            YamlKind::Sequence(items) => items.iter_mut().for_each(|item| self.apply(item)),
            YamlKind::Mapping(entries) => entries.iter_mut().for_each(|entry| self.apply(&mut entry.value)),
            YamlKind::Broken => {}
        }
    }

    fn variables(&mut self, scalar: &mut Scalar, place: Place) -> Option<()> {
        if !scalar.text.contains('$') {
            return Some(());
        }
        let mut out = String::with_capacity(scalar.text.len());
        let mut rest = scalar.text.as_str();
        let mut whole = false;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some(after) = after.strip_prefix('{') {
                let Some((expression, after)) = after.split_once('}') else {
                    self.problems.wrong(
                        place,
                        "`${` without a `}`",
                        "close it behind the variable's name: `${NAME}`; `$${` writes the characters themselves",
                    );
                    return None;
                };
                out.push_str(&self.variable(expression, place)?);
                whole = scalar.text.starts_with("${") && scalar.text.len() == expression.len() + 3;
                rest = after;
            } else {
                out.push('$');
                rest = after;
            }
        }
        out.push_str(rest);
        scalar.plain = if whole { !out.is_empty() } else { scalar.plain && !out.is_empty() };
        scalar.text = out;
        Some(())
    }

    fn variable(&mut self, expression: &str, place: Place) -> Option<String> {
        let (name, default) =
            expression.split_once(":-").map_or((expression, None), |(name, default)| (name, Some(default)));
        let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !valid {
            self.problems.wrong(
                place,
                format!("`${{{expression}}}` doesn't name a variable"),
                "write `${NAME}` or `${NAME:-default}`, and `$${` for the characters themselves",
            );
            return None;
        }
        let value = (self.env)(name);
        match (value, default) {
            (Some(value), None) => Some(value),
            (Some(value), Some(_)) if !value.is_empty() => Some(value),
            (_, Some(default)) => Some(default.to_owned()),
            (None, None) => {
                self.problems.wrong(
                    place,
                    format!("the environment variable `{name}` isn't set"),
                    format!("set it, or give a default: `${{{name}:-…}}`"),
                );
                None
            }
        }
    }

    fn file(&mut self, scalar: &mut Scalar, place: Place) -> Option<()> {
        if !scalar.file {
            return Some(());
        }
        let path = self.folder.unwrap_or(Path::new("")).join(&scalar.text);
        self.files.push(path.clone());
        match read(&path) {
            Ok(text) => {
                text.trim().clone_into(&mut scalar.text);
                scalar.plain = !scalar.text.is_empty();
                scalar.secret = true;
                Some(())
            }
            Err(error) => {
                self.problems.wrong(
                    place,
                    format!("can't read `{}`: {error}", path.display()),
                    if path.is_absolute() && Path::new(&scalar.text).is_absolute() {
                        "name a file that is there, and that attache may read"
                    } else {
                        "a relative path begins at the config file's folder"
                    },
                );
                None
            }
        }
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    // A device or a pipe may have no end.
    let meta = std::fs::metadata(path)?;
    if !meta.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    if meta.len() > MAX_FILE_BYTES {
        return Err(std::io::Error::other(format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    std::fs::read_to_string(path)
}
