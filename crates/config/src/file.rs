//! The config's file: its text, or why there is none and what to do about it.

use std::{
    io::{Error, ErrorKind},
    path::Path,
};

use crate::{
    diagnostic::{Place, Problems},
    suggest::nearest,
};

/// A file larger than this isn't a config.
const MAX_FILE_BYTES: u64 = 8 << 20;
/// Files of a folder that are compared with the given name.
const MAX_NAMES: usize = 1000;

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<String, Problems> {
    let mut problems = Problems::default();
    let whole = Place::default();
    let large = std::fs::metadata(path).is_ok_and(|meta| meta.len() > MAX_FILE_BYTES);
    if large {
        let message = format!("the file is larger than {} MiB", MAX_FILE_BYTES >> 20);
        problems.wrong(whole, message, "no config is so large: is it another file?");
        return Err(problems);
    }
    match std::fs::read(path).map(String::from_utf8) {
        Ok(Ok(text)) => return Ok(text),
        Ok(Err(error)) if matches!(error.as_bytes(), [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) => {
            problems.wrong(whole, "this is UTF-16, as some editors save", "save it as UTF-8");
        }
        Ok(Err(error)) => {
            let line = error
                .as_bytes()
                .iter()
                .take(error.utf8_error().valid_up_to())
                .filter(|b| **b == b'\n')
                .count();
            let message = format!("not UTF-8 text: line {} has an invalid byte", line + 1);
            problems.wrong(whole, message, "a config is YAML in UTF-8");
        }
        Err(error) => problems.wrong(whole, format!("can't be read: {error}"), remedy(path, &error)),
    }
    Err(problems)
}

/// What to do about a file that can't be read.
fn remedy(path: &Path, error: &Error) -> String {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match error.kind() {
        ErrorKind::NotFound if folder.is_dir() => {
            let wanted = path.file_name().unwrap_or_default().to_string_lossy();
            let near = near(folder, &wanted).map(|near| format!("; did you mean `{near}`?"));
            let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
            format!("the folder {} has no file of that name{}", folder.display(), near.unwrap_or_default())
        }
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            format!("there is no folder {}", folder.display())
        }
        ErrorKind::IsADirectory => "this is a folder: name the file in it".to_owned(),
        ErrorKind::PermissionDenied => {
            "let this user read it: change its owner or mode, or those of the folders that lead to it"
                .to_owned()
        }
        _ => "copy it to another disk, or give its text to `attache check -`".to_owned(),
    }
}

/// The YAML or JSON file of a folder whose name was most likely meant: by its spelling, or by another ending.
fn near(folder: &Path, wanted: &str) -> Option<String> {
    let files = std::fs::read_dir(folder).ok()?.flatten().take(MAX_NAMES);
    let mut names: Vec<String> = files
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| matches!(stem(name), Some((_, "yaml" | "yml" | "json"))))
        .collect();
    names.sort();
    let wanted_stem = stem(wanted).map_or(wanted, |(stem, _)| stem);
    let same = names.iter().find(|name| stem(name).is_some_and(|(stem, _)| stem == wanted_stem));
    let same = same.map(String::as_str);
    same.or_else(|| nearest(wanted, names.iter().map(String::as_str))).map(str::to_owned)
}

fn stem(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(path: &Path) -> String {
        match read(path) {
            Ok(text) => text,
            Err(problems) => {
                let found = problems.finish("", Some(path));
                let said = found
                    .iter()
                    .map(|one| [&one.message, one.help.as_deref().unwrap_or_default()].join("; "));
                said.collect()
            }
        }
    }

    #[test]
    fn a_file_that_can_not_be_read_is_reported_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(
            said(&at("attache.yaml")).ends_with("has no file of that name"),
            "{}",
            said(&at("attache.yaml"))
        );
        std::fs::write(at("attache.yml"), "").unwrap();
        for missing in ["attache.yaml", "atache.yml", "attache"] {
            assert!(said(&at(missing)).ends_with("did you mean `attache.yml`?"), "{}", said(&at(missing)));
        }
        assert!(said(&at("nosuch/attache.yaml")).contains("; there is no folder "));
        assert!(said(&at("attache.yml/attache.yaml")).contains("; there is no folder "));
        assert!(said(folder.path()).ends_with("this is a folder: name the file in it"));
    }
}
