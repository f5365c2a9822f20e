//! Files that a config includes: files given to the import, and files at the included path below the config's folder.

use std::path::{Path, PathBuf};

use super::tokens::{self, Directive};
use crate::File;
use crate::tree::Unreadable;

/// The deepest nesting of includes.
const MAX_DEPTH: usize = 8;

/// A file that was given, and whether another one has included it.
struct IncludedFile {
    path: PathBuf,
    inner: Vec<Directive>,
    used: bool,
}

/// The directives of all files, each at the place of its include. An include of a missing file stays as it is.
pub(super) fn read(files: &[File]) -> Result<Vec<Directive>, Unreadable> {
    let mut given = Vec::new();
    for file in files {
        let inner = tokens::parse(&file.text, &file.path.display().to_string())?;
        given.push(IncludedFile { path: file.path.clone(), inner, used: false });
    }
    let folder = files.first().and_then(|file| file.path.parent()).map(Path::to_owned).unwrap_or_default();
    let mut out = Vec::new();
    for index in 0..given.len() {
        if !given[index].used {
            given[index].used = true;
            let inner = std::mem::take(&mut given[index].inner);
            out.extend(expand(inner, &mut given, &folder, 0)?);
        }
    }
    Ok(out)
}

fn expand(
    list: Vec<Directive>,
    given: &mut [IncludedFile],
    folder: &Path,
    depth: usize,
) -> Result<Vec<Directive>, Unreadable> {
    let mut out = Vec::new();
    for mut one in list {
        if one.name() == "include" && one.block.is_none() && depth < MAX_DEPTH {
            let found = found(one.word(1), given, folder)?;
            if found.is_empty() {
                out.push(one);
            } else {
                out.extend(expand(found, given, folder, depth + 1)?);
            }
            continue;
        }
        if let Some(inner) = one.block.take() {
            one.block = Some(expand(inner, given, folder, depth)?);
        }
        out.push(one);
    }
    Ok(out)
}

fn found(pattern: &str, given: &mut [IncludedFile], folder: &Path) -> Result<Vec<Directive>, Unreadable> {
    let mut out = Vec::new();
    let (parent, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
    for file in given.iter_mut().filter(|file| !file.used) {
        let own = file.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let above = file.path.parent().map(|path| path.display().to_string()).unwrap_or_default();
        let same = parent.is_empty()
            || above.is_empty()
            || above.ends_with(parent.rsplit('/').next().unwrap_or(parent))
            || !name.contains('*');
        if same && fits(name, &own) {
            file.used = true;
            out.append(&mut file.inner);
        }
    }
    if !out.is_empty() || pattern.contains("..") || pattern.contains('$') {
        return Ok(out);
    }
    let whole = folder.join(pattern);
    let Some(parent) = whole.parent().filter(|parent| parent.starts_with(folder)) else { return Ok(out) };
    let Ok(entries) = std::fs::read_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
    else {
        return Ok(out);
    };
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| parent.join(entry.file_name()))
        .filter(|path| {
            path.is_file() && path.file_name().is_some_and(|own| fits(name, &own.to_string_lossy()))
        })
        .collect();
    paths.sort();
    for path in paths {
        if let Ok(text) = std::fs::read_to_string(&path) {
            out.extend(tokens::parse(&text, &path.display().to_string())?);
        }
    }
    Ok(out)
}

/// Whether a name matches a pattern with `*`.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, end)) => {
            name.len() >= start.len() + end.len()
                && name.starts_with(start)
                && !end.contains('*')
                && name.ends_with(end)
        }
    }
}

/// Files with a known content that guards nothing.
pub(super) fn is_quiet(pattern: &str) -> bool {
    const NAMES: &[&str] = &[
        "mime.types",
        "fastcgi_params",
        "fastcgi.conf",
        "uwsgi_params",
        "scgi_params",
        "proxy_params",
        "koi-utf",
        "koi-win",
        "win-utf",
    ];
    pattern.contains("modules-enabled")
        || pattern.rsplit('/').next().is_some_and(|name| NAMES.contains(&name))
}
