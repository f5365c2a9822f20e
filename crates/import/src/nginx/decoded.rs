//! nginx decodes a path before it chooses a location; attache decodes letters, digits and `-._~` alone.
//!
//! So a location of `/@admin` has `/%40admin`, too, and one of `/admin` has `/%2Fadmin`: what is reserved in a path is
//! written in both ways here, and an escaped slash is one.

use crate::path::Path;
use crate::plan::Site;
use crate::value::Map;

/// Makes the paths of all rules those that nginx reads.
pub(super) fn as_nginx_reads_it(sites: &mut [Site], listener: &mut Map) {
    let mut chosen = false;
    for rule in sites.iter_mut().flat_map(|site| &mut site.rules) {
        chosen |= !matches!(rule.when.path, Path::All | Path::Any);
        rule.when.path = both_ways(&rule.when.path);
    }
    // Where one location has everything, an escaped slash may stay one for the application.
    if chosen {
        listener.child("http").child("path").set("escaped_slashes", "decode");
    }
}

/// The same path, with what is reserved as it is or escaped.
fn both_ways(path: &Path) -> Path {
    let plain = |text: &str| text.bytes().all(|b| is_same(char::from(b)));
    match path {
        Path::All | Path::Any => path.clone(),
        Path::Exact(text) | Path::Segments(text) | Path::Text(text) if plain(text) => path.clone(),
        Path::Regex(regex) => Path::Regex(escaped_too(regex)),
        other => Path::Regex(escaped_too(&other.expression())),
    }
}

/// attache reads such a character the same, escaped or not.
fn is_same(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/-._~".contains(c)
}

/// An expression whose reserved characters may be escaped. Classes stay as they are.
fn escaped_too(regex: &str) -> String {
    let mut out = String::with_capacity(regex.len() + 16);
    let mut chars = regex.chars().peekable();
    let mut class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next) if class || next.is_ascii_alphanumeric() || is_same(next) => out.extend([c, next]),
                Some(next) => literal(next, &mut out),
                None => out.push(c),
            },
            '[' | ']' => {
                class = c == '[';
                out.push(c);
            }
            _ if class => out.push(c),
            // `(?:`, `(?i:`, `(?<name>`.
            '(' if chars.peek() == Some(&'?') => {
                out.push(c);
                for next in chars.by_ref() {
                    out.push(next);
                    if matches!(next, ':' | '>' | ')') {
                        break;
                    }
                }
            }
            '{' => {
                out.push(c);
                for next in chars.by_ref() {
                    out.push(next);
                    if next == '}' {
                        break;
                    }
                }
            }
            '.' | '^' | '$' | '*' | '+' | '?' | '(' | ')' | '|' | '}' => out.push(c),
            c if is_same(c) => out.push(c),
            c => literal(c, &mut out),
        }
    }
    out
}

/// One character, as it is or escaped.
fn literal(c: char, out: &mut String) {
    let mut bytes = [0; 4];
    let escaped: String = c.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")).collect();
    // These begin something else in a URL, so they stand in a path escaped alone.
    if matches!(c, '%' | '?' | '#') {
        out.push_str(&format!("(?i:{escaped})"));
    } else {
        out.push_str(&format!("(?:{}|(?i:{escaped}))", regex::escape(&c.to_string())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(path: &Path, request: &str) -> bool {
        both_ways(path).takes(request)
    }

    #[test]
    fn what_is_reserved_may_be_escaped() {
        let text = Path::prefix("/@admin");
        assert!(takes(&text, "/@admin/x") && takes(&text, "/%40admin/x") && !takes(&text, "/admin"));
        let exact = Path::Exact("/a+b c".to_owned());
        assert!(takes(&exact, "/a+b%20c") && takes(&exact, "/a%2bb%20c") && !takes(&exact, "/a%2Cb%20c"));
        assert!(takes(&Path::Exact("/ü".to_owned()), "/%c3%bc"));
        let regex = Path::Regex(r"/(?<g1>[a-z@]{1,3})\+:(?:x|y)\d.*\.php".to_owned());
        assert!(
            takes(&regex, "/ab%2B%3ax1/..php")
                && takes(&regex, "/a@+:y2.php")
                && !takes(&regex, "/ab++x1.php")
        );
        assert!(takes(&Path::Exact("/a?b".to_owned()), "/a%3Fb"));
    }

    #[test]
    fn other_paths_stay_as_they_are() {
        for path in [Path::All, Path::Any, Path::Exact("/a-b_c.d~e".to_owned()), Path::prefix("/a/")] {
            assert_eq!(both_ways(&path), path);
        }
        assert_eq!(
            both_ways(&Path::Regex(r".*\.(?:php|git)".to_owned())),
            Path::Regex(r".*\.(?:php|git)".to_owned())
        );
    }
}
