//! Files that a config includes. The import takes them from the files that it was given, and from the config's folder.
//!
//! An included file may have anything that is allowed at its place: `deny all`, `auth_request`, a server. So an include is
//! followed as a whole or not at all. In the directives that [`read`] returns, an `include` is one that was not followed
//! ([`not_followed`]): the importers refuse what stands beside and below it.

use std::path::{Component, Path, PathBuf};

use super::glob;
use super::tokens::{self, Directive};
use crate::File;
use crate::remark::Remarks;
use crate::tree::Unreadable;

/// The deepest nesting of includes.
const MAX_DEPTH: usize = 8;

/// The largest number of includes that one import follows: a config that includes itself in many ways must end.
const MAX_INCLUDES: usize = 1000;

/// Folders of nginx's packages: a path below one of them is also looked up below the config's folder, which may be a copy.
const HOMES: &[&str] = &[
    "/etc/nginx/",
    "/usr/local/nginx/conf/",
    "/usr/local/openresty/nginx/conf/",
    "/usr/local/etc/nginx/",
    "/opt/homebrew/etc/nginx/",
];

/// A file that was given, and whether another one has included it.
struct GivenFile {
    path: PathBuf,
    inner: Vec<Directive>,
    included: bool,
}

/// The folder to which includes are relative.
struct BaseFolder {
    path: PathBuf,
    /// It is nginx's own folder: a pattern that matches no file in it includes nothing. Below another folder, nginx may
    /// have had files that match.
    certain: bool,
}

/// The files so far.
struct Includes {
    given: Vec<GivenFile>,
    base: BaseFolder,
    followed: usize,
    remarks: Remarks,
}

/// Where an include stands.
#[derive(Clone, Copy)]
struct IncludePlace<'p> {
    /// The files that led here: a file that includes itself is not followed.
    open: &'p [PathBuf],
    /// Outside of every block.
    top: bool,
}

/// The directives of all files, each at the place of its include.
pub(super) fn read(files: &[File], remarks: &mut Remarks) -> Result<Vec<Directive>, Unreadable> {
    let mut given = Vec::new();
    for file in files {
        let inner = tokens::parse(&file.text, &file.path.display().to_string())?;
        given.push(GivenFile { path: file.path.clone(), inner, included: false });
    }
    let base = base(&given);
    let mut all = Includes { given, base, followed: 0, remarks: Remarks::default() };
    let mut expanded = Vec::new();
    for index in 0..all.given.len() {
        let own = &all.given[index];
        let (inner, open) = (own.inner.clone(), [own.path.clone()]);
        expanded.push(all.expand(inner, IncludePlace { open: &open, top: true })?);
    }
    remarks.0.append(&mut all.remarks.0);
    // Files that include each other in a circle: the first one begins.
    let alone = all.given.iter().position(|file| !file.included).unwrap_or_default();
    let is_root = |index: &usize| *index == alone || !all.given[*index].included;
    Ok(expanded
        .into_iter()
        .enumerate()
        .filter(|(index, _)| is_root(index))
        .flat_map(|(_, list)| list)
        .collect())
}

/// Why an include is not followed, for a remark.
pub(super) fn not_followed(one: &Directive) -> Option<String> {
    (one.name() == "include").then(|| {
        format!(
            "the files of `include {}` may refuse requests, and could not be read: {}. Give the files as further arguments of the import, or remove the line if there are none; then import again",
            one.word(1),
            one.word(2)
        )
    })
}

/// Whether the file has a whole config, and not only a part such as a file of `conf.d`.
fn is_whole(list: &[Directive]) -> bool {
    list.iter().any(|one| matches!(one.name(), "http" | "stream" | "events"))
}

fn base(given: &[GivenFile]) -> BaseFolder {
    let whole = given.iter().find(|file| is_whole(&file.inner));
    let of = |file: &GivenFile| file.path.parent().map(Path::to_owned).unwrap_or_default();
    if let Some(file) = whole {
        return BaseFolder { path: of(file), certain: true };
    }
    // A file of `conf.d` or `sites-enabled`: paths in it are relative to the folder of `nginx.conf`.
    let own = given.first().map(of).unwrap_or_default();
    let above = if own.as_os_str().is_empty() { PathBuf::from("..") } else { own.join("..") };
    match [own.clone(), above].into_iter().find(|folder| folder.join("nginx.conf").is_file()) {
        Some(path) => BaseFolder { path, certain: true },
        None => BaseFolder { path: own, certain: false },
    }
}

impl Includes {
    fn expand(
        &mut self,
        list: Vec<Directive>,
        place: IncludePlace<'_>,
    ) -> Result<Vec<Directive>, Unreadable> {
        let mut out = Vec::new();
        for mut one in list {
            if one.name() == "include" && one.block.is_none() {
                self.follow(one, place, &mut out)?;
                continue;
            }
            if let Some(inner) = one.block.take() {
                one.block = Some(self.expand(inner, IncludePlace { top: false, ..place })?);
            }
            out.push(one);
        }
        Ok(out)
    }

    /// Puts the content of an include's files in its place, or the include itself with the reason.
    fn follow(
        &mut self,
        one: Directive,
        place: IncludePlace<'_>,
        out: &mut Vec<Directive>,
    ) -> Result<(), Unreadable> {
        self.followed += 1;
        let found = if self.followed > MAX_INCLUDES {
            Err(format!("the config has more than {MAX_INCLUDES} includes"))
        } else if place.open.len() > MAX_DEPTH {
            Err(format!("includes are nested deeper than {MAX_DEPTH}"))
        } else {
            self.found(one.word(1), place)
        };
        match found {
            Ok(files) => {
                if files.is_empty() {
                    let what = format!("`include {}` matches no file, so it includes nothing.", one.word(1));
                    self.remarks.note(&one.at, what);
                }
                for (path, inner) in files {
                    let open: Vec<PathBuf> = place.open.iter().cloned().chain([path]).collect();
                    out.extend(self.expand(inner, IncludePlace { open: &open, ..place })?);
                }
            }
            Err(_) if is_harmless(one.word(1), place.top) => self.tell_harmless(&one),
            Err(why) => {
                let words = vec!["include".to_owned(), one.word(1).to_owned(), why];
                out.push(Directive { words, ..one });
            }
        }
        Ok(())
    }

    /// Reports a file of nginx's packages that isn't here: its name tells its content.
    fn tell_harmless(&mut self, one: &Directive) {
        let name = one.word(1);
        if name.ends_with("proxy_params") {
            self.remarks.soft(&one.at, format!("`include {name}` could not be read, and the headers that it sets are not set. Give the file as a further argument of the import."));
        } else {
            self.remarks.note(&one.at, format!("`include {name}` was not read: nginx's file of this name can't refuse requests. If you changed it, give it as a further argument of the import."));
        }
    }

    /// The files of an include, in nginx's order. `Err`: why it can't be followed.
    fn found(
        &mut self,
        pattern: &str,
        place: IncludePlace<'_>,
    ) -> Result<Vec<(PathBuf, Vec<Directive>)>, String> {
        let is_pattern = glob::is_pattern(pattern);
        let mut files: Vec<(PathBuf, Vec<Directive>)> = Vec::new();
        for index in self.given_for(pattern, place)? {
            let file = &mut self.given[index];
            file.included = true;
            files.push((file.path.clone(), file.inner.clone()));
        }
        if is_pattern || files.is_empty() {
            let here = self.on_disk(pattern);
            let given = files.len();
            match here {
                Ok(paths) => {
                    for path in paths {
                        if !files[..given].iter().any(|(other, _)| other.file_name() == path.file_name()) {
                            let inner = parsed(&path, place)?;
                            files.push((path, inner));
                        }
                    }
                }
                Err(_) if given > 0 => {}
                Err(why) => return Err(why),
            }
        }
        if files.is_empty() && !self.base.certain {
            return Err(
                "no file matches, and `nginx.conf`, to whose folder the path is relative, is missing"
                    .to_owned(),
            );
        }
        // glob(3) sorts names, and the order decides among `allow` and `deny`.
        files.sort_by(|(one, _), (other, _)| one.file_name().cmp(&other.file_name()));
        Ok(files)
    }

    /// The given files of a pattern: those whose folders are most like the pattern's.
    fn given_for(&self, pattern: &str, place: IncludePlace<'_>) -> Result<Vec<usize>, String> {
        let (parent, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
        let mut likeness: Vec<(usize, usize)> = Vec::new();
        for (index, file) in self.given.iter().enumerate() {
            let own = file.path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            if !glob::matches(name, &own) || place.open.contains(&file.path) {
                continue;
            }
            let wanted = folders(Path::new(parent));
            let above = folders(file.path.parent().unwrap_or(Path::new("")));
            let same =
                wanted.iter().zip(&above).take_while(|(wanted, own)| glob::matches(wanted, own)).count();
            if same > 0 || wanted.is_empty() || above.is_empty() || !glob::is_pattern(name) {
                likeness.push((same, index));
            }
        }
        let most = likeness.iter().map(|(same, _)| *same).max();
        let best: Vec<usize> =
            likeness.into_iter().filter(|(same, _)| Some(*same) == most).map(|(_, index)| index).collect();
        if best.len() > 1 && !glob::is_pattern(name) {
            return Err(format!(
                "several of the given files are called `{name}`, and none has the include's folder"
            ));
        }
        Ok(best)
    }

    /// The files of a pattern below the config's folder.
    fn on_disk(&self, pattern: &str) -> Result<Vec<PathBuf>, String> {
        if pattern.contains('$') || Path::new(pattern).components().any(|part| part == Component::ParentDir) {
            return Err("a path with `..` or a variable is not looked up".to_owned());
        }
        let base = &self.base.path;
        let whole = if Path::new(pattern).is_absolute() {
            let home = if base.as_os_str().is_empty() { Path::new(".") } else { base };
            let home = home.canonicalize().map_err(|error| format!("{}: {error}", home.display()))?;
            match HOMES.iter().find_map(|above| pattern.strip_prefix(above)) {
                _ if Path::new(pattern).starts_with(&home) => PathBuf::from(pattern),
                Some(rest) => base.join(rest),
                None => {
                    return Err(
                        "it is outside of the config's folder, and not among the given files".to_owned()
                    );
                }
            }
        } else {
            base.join(pattern)
        };
        let found = glob::files(&whole)?;
        match found.iter().find(|path| !path.exists()) {
            Some(missing) => Err(format!("the file `{}` is not here", missing.display())),
            None => Ok(found),
        }
    }
}

/// The names of a folder's path, the innermost first.
fn folders(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect();
    names.reverse();
    names
}

fn parsed(path: &Path, place: IncludePlace<'_>) -> Result<Vec<Directive>, String> {
    let real = path.canonicalize().ok();
    if place.open.iter().any(|open| open.canonicalize().ok() == real && real.is_some()) {
        return Err(format!("the file `{}` includes itself", path.display()));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("the file `{}` can't be read: {error}", path.display()))?;
    tokens::parse(&text, &path.display().to_string()).map_err(|error| error.to_string())
}

/// Files of nginx's packages and of certbot, with a known content that can't refuse requests.
fn is_harmless(pattern: &str, top: bool) -> bool {
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
    let (folder, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
    let is_home =
        matches!(folder, "" | "conf") || HOMES.iter().any(|home| home.trim_end_matches('/') == folder);
    is_home && NAMES.contains(&name)
        || pattern == "/etc/letsencrypt/options-ssl-nginx.conf"
        // It has `load_module` lines: it stands outside of `http`.
        || top && (folder == "modules-enabled" || folder == "/etc/nginx/modules-enabled")
        || top && (folder == "modules" || folder == "/usr/share/nginx/modules")
}
