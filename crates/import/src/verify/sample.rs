//! Texts that match a pattern.

use regex_syntax::hir::{Class, Hir, HirKind};

/// A text that a regular expression matches: the shortest one, or (`long`) one that contains the optional and repeated
/// parts.
pub(crate) fn of(regex: &str, long: bool) -> Option<String> {
    let hir = regex_syntax::parse(regex).ok()?;
    let mut out = String::new();
    walk(&hir, long, &mut out);
    Some(out)
}

fn walk(hir: &Hir, long: bool, out: &mut String) {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => out.push_str(&String::from_utf8_lossy(&literal.0)),
        HirKind::Class(class) => out.push(pick(class)),
        HirKind::Repetition(repetition) => {
            let most = repetition.max.unwrap_or(u32::MAX);
            let times = if long { (repetition.min + 2).min(most) } else { repetition.min };
            for _ in 0..times.min(40) {
                walk(&repetition.sub, long, out);
            }
        }
        HirKind::Capture(capture) => walk(&capture.sub, long, out),
        HirKind::Concat(parts) => parts.iter().for_each(|part| walk(part, long, out)),
        HirKind::Alternation(parts) => {
            let part = if long { parts.last() } else { parts.first() };
            if let Some(part) = part {
                walk(part, long, out);
            }
        }
    }
}

/// A character of a class, a letter or digit if the class has one.
fn pick(class: &Class) -> char {
    let has = |c: char| match class {
        Class::Unicode(class) => class.ranges().iter().any(|range| range.start() <= c && c <= range.end()),
        Class::Bytes(class) => class
            .ranges()
            .iter()
            .any(|range| u32::from(range.start()) <= c as u32 && c as u32 <= u32::from(range.end())),
    };
    let first = match class {
        Class::Unicode(class) => class.ranges().first().map(regex_syntax::hir::ClassUnicodeRange::start),
        Class::Bytes(class) => class.ranges().first().map(|range| char::from(range.start())),
    };
    "xv1a0k-_.~/".chars().find(|c| has(*c)).or(first).unwrap_or('x')
}
