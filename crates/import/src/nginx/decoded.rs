//! nginx decodes a path before it chooses a location; attache decodes only letters, digits and `-._~`.
//!
//! So nginx's `/@admin` also matches `/%40admin`, and `/admin` matches `/%2Fadmin`. The import therefore writes reserved
//! characters in both ways (`(?:@|%40)`), and lets attache decode escaped slashes.

use crate::path::PlannedPath;
use crate::plan::VirtualHost;
use crate::value::YamlMap;

/// Changes the paths of all rules, so that they match the paths that nginx matches.
pub(super) fn as_nginx_reads_it(sites: &mut [VirtualHost], listener: &mut YamlMap) {
    let mut chosen = false;
    for rule in sites.iter_mut().flat_map(|site| &mut site.rules) {
        chosen |= !matches!(rule.when.path, PlannedPath::All | PlannedPath::Any);
        rule.when.path = both_ways(&rule.when.path);
    }
    // If one location gets every path, no location depends on escaped slashes, so they stay as they are for the
    // application.
    if chosen {
        listener.child("http").child("path").set("escaped_slashes", "decode");
    }
}

/// The same condition, with reserved characters in both ways.
fn both_ways(path: &PlannedPath) -> PlannedPath {
    let plain = |text: &str| text.bytes().all(|b| is_same(char::from(b)));
    match path {
        PlannedPath::All | PlannedPath::Any => path.clone(),
        PlannedPath::Exact(text) | PlannedPath::Segments(text) | PlannedPath::Text(text) if plain(text) => {
            path.clone()
        }
        PlannedPath::Regex(regex) => PlannedPath::Regex(escaped_too(regex)),
        other => PlannedPath::Regex(escaped_too(&other.expression())),
    }
}

/// Whether attache reads this character the same, escaped or not.
fn is_same(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/-._~".contains(c)
}

/// An expression with reserved characters in both ways. Character classes stay as they are.
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

/// One character, both as it is and escaped.
fn literal(c: char, out: &mut String) {
    let mut bytes = [0; 4];
    let mut escaped = String::new();
    for byte in c.encode_utf8(&mut bytes).bytes() {
        escaped.push_str(&format!("%{byte:02X}"));
    }
    // These have a meaning of their own in a URL, so a path has them only escaped.
    if matches!(c, '%' | '?' | '#') {
        out.push_str(&format!("(?i:{escaped})"));
    } else {
        out.push_str(&format!("(?:{}|(?i:{escaped}))", regex::escape(&c.to_string())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(path: &PlannedPath, request: &str) -> bool {
        both_ways(path).takes(request)
    }

    #[test]
    fn what_is_reserved_may_be_escaped() {
        let text = PlannedPath::prefix("/@admin");
        assert!(takes(&text, "/@admin/x") && takes(&text, "/%40admin/x") && !takes(&text, "/admin"));
        let exact = PlannedPath::Exact("/a+b c".to_owned());
        assert!(takes(&exact, "/a+b%20c") && takes(&exact, "/a%2bb%20c") && !takes(&exact, "/a%2Cb%20c"));
        assert!(takes(&PlannedPath::Exact("/ü".to_owned()), "/%c3%bc"));
        let regex = PlannedPath::Regex(r"/(?<g1>[a-z@]{1,3})\+:(?:x|y)\d.*\.php".to_owned());
        assert!(
            takes(&regex, "/ab%2B%3ax1/..php")
                && takes(&regex, "/a@+:y2.php")
                && !takes(&regex, "/ab++x1.php")
        );
        assert!(takes(&PlannedPath::Exact("/a?b".to_owned()), "/a%3Fb"));
    }

    #[test]
    fn other_paths_stay_as_they_are() {
        for path in [
            PlannedPath::All,
            PlannedPath::Any,
            PlannedPath::Exact("/a-b_c.d~e".to_owned()),
            PlannedPath::prefix("/a/"),
        ] {
            assert_eq!(both_ways(&path), path);
        }
        assert_eq!(
            both_ways(&PlannedPath::Regex(r".*\.(?:php|git)".to_owned())),
            PlannedPath::Regex(r".*\.(?:php|git)".to_owned())
        );
    }
}
