//! Patterns of file names, as nginx reads them by glob(3): `*`, `?`, `[a-z]` and `[!a-z]`. A pattern is matched with one
//! name of a path at a time, so nothing in it matches `/`.

use std::path::{Component, Path, PathBuf};

/// Whether a text is a pattern, and not a plain name.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Whether a name matches a pattern. A leading dot is matched only by a dot.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut from) = (0, 0);
    // The last `*`, and the first character of the name that it doesn't match yet.
    let mut star: Option<(usize, usize)> = None;
    while from < name.len() {
        if pattern.get(at) == Some(&'*') {
            star = Some((at, from));
            at += 1;
        } else if let Some(next) = one(&pattern, at, name[from]) {
            at = next;
            from += 1;
        } else if let Some((of_star, matched)) = star {
            star = Some((of_star, matched + 1));
            at = of_star + 1;
            from = matched + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

/// The index behind the part of a pattern that matches this character.
fn one(pattern: &[char], at: usize, c: char) -> Option<usize> {
    match *pattern.get(at)? {
        '?' => Some(at + 1),
        '\\' if at + 1 < pattern.len() => (pattern[at + 1] == c).then_some(at + 2),
        '[' => match class(pattern, at, c) {
            Some((is_in, next)) => is_in.then_some(next),
            None => (c == '[').then_some(at + 1),
        },
        own => (own == c).then_some(at + 1),
    }
}

/// Whether a character is in the class at this index, and the index behind the class. `None`: `[` has no `]`.
fn class(pattern: &[char], at: usize, c: char) -> Option<(bool, usize)> {
    let mut next = at + 1;
    let inverted = matches!(pattern.get(next), Some('!' | '^'));
    next += usize::from(inverted);
    let (first, mut is_in) = (next, false);
    loop {
        let low = *pattern.get(next)?;
        if low == ']' && next > first {
            return Some((is_in != inverted, next + 1));
        }
        match (pattern.get(next + 1), pattern.get(next + 2)) {
            (Some('-'), Some(high)) if *high != ']' => {
                is_in |= (low..=*high).contains(&c);
                next += 3;
            }
            _ => {
                is_in |= low == c;
                next += 1;
            }
        }
    }
}

/// The files that match a pattern, in the order of glob(3). A plain path is returned as it is, also if there is no file.
///
/// # Errors
/// Why a folder of the pattern can't be read.
pub(super) fn files(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = vec![PathBuf::new()];
    let mut chosen = false;
    for part in pattern.components() {
        let Component::Normal(name) = part else {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        };
        let name = name.to_string_lossy();
        if !is_pattern(&name) {
            found.iter_mut().for_each(|path| path.push(name.as_ref()));
            if chosen {
                // Only some of the folders that matched a pattern may have this file.
                found.retain(|path| path.symlink_metadata().is_ok());
            }
            continue;
        }
        chosen = true;
        let mut inner = Vec::new();
        for folder in found.iter().filter(|path| path.as_os_str().is_empty() || !path.is_file()) {
            let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            let wrong =
                |error: std::io::Error| format!("the folder `{}` can't be read: {error}", here.display());
            for entry in std::fs::read_dir(here).map_err(wrong)? {
                let own = entry.map_err(wrong)?.file_name();
                if matches(&name, &own.to_string_lossy()) {
                    inner.push(folder.join(own));
                }
            }
        }
        found = inner;
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_names_as_glob_does() {
        for (pattern, name) in [
            ("*", "a.conf"),
            ("*.conf", "a.b.conf"),
            ("*a*b*", "xaxbx"),
            ("guard?.conf", "guard1.conf"),
            ("[0-9]*", "10-deny"),
            ("[!x]*", "10-deny"),
            ("[]x]", "]"),
            ("[a-]", "-"),
            ("[ab", "[ab"),
            (".*", ".deny"),
            (r"\*", "*"),
            ("**", ""),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*", ".hidden"),
            ("?hidden", ".hidden"),
            ("*.conf", "a.conf~"),
            ("*a*b*", "xbxax"),
            ("guard?.conf", "guard.conf"),
            ("[!0-9]*", "10-deny"),
            ("a", "ab"),
            (r"\*", "x"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
