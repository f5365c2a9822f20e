//! Patterns of paths, for paths that upstreams read in several ways.
//!
//! Each pattern is compared with the path as it was sent, and with every [`PathReading`] of it, where the pattern is read
//! in the same way as the path. If the results differ, attache can't know which resource is meant.

use std::sync::Arc;

use attache_config::model::{PathPattern, Segment};
use attache_http::pattern::{behind_prefix, path_matches};
use regex::{Regex, RegexBuilder};

use crate::{
    reading::{PathReading, READINGS, is_plain, loosen},
    truth::Truth,
};

/// A pattern and how it is read.
#[derive(Debug)]
pub(crate) struct CompiledPath {
    plain: PlainPath,
    pattern: PathPattern,
    loose: LoosePath,
}

/// How it is compared with a path that has only one reading, like most paths. The two usual kinds of patterns are
/// stored here a second time, since finding out the pattern's kind took longer than the comparison.
#[derive(Debug)]
#[repr(u8)]
enum PlainPath {
    Exact(Arc<str>),
    Prefix(Arc<str>),
    /// As [`CompiledPath::matches`] does.
    Otherwise,
}

#[derive(Debug)]
enum LoosePath {
    /// As the pattern itself.
    Same,
    /// In another form, for every reading of a path.
    Pattern(PathPattern),
    /// One for each reading of a path.
    Patterns(Vec<PathPattern>),
    /// Without regard to case.
    Regex(Option<Regex>),
    /// The pattern has no reading.
    None,
}

impl CompiledPath {
    pub(crate) fn new(pattern: &PathPattern) -> Self {
        let patterns = |text: &str, make: fn(&str) -> PathPattern| {
            let made = |all: Vec<String>| all.iter().map(|loose| make(&loose.to_ascii_lowercase())).collect();
            loosen(text).map_or(LoosePath::None, |all| LoosePath::of(made(all)))
        };
        let loose = match pattern {
            PathPattern::Exact(path) if is_plain(path) => LoosePath::Same,
            PathPattern::Exact(path) => patterns(path, |path| PathPattern::Exact(path.into())),
            PathPattern::Prefix(prefix) if is_plain(prefix) => LoosePath::Same,
            PathPattern::Prefix(prefix) => {
                patterns(prefix, |prefix| PathPattern::Prefix(prefix.trim_end_matches('/').into()))
            }
            PathPattern::Template(segments) => template(segments),
            PathPattern::Regex(regex) => {
                // The original's size limit, and half of it more for the other case.
                let build =
                    RegexBuilder::new(regex.as_str()).case_insensitive(true).size_limit(4 << 20).build();
                LoosePath::Regex(build.ok())
            }
        };
        let plain = match (pattern, &loose) {
            (PathPattern::Exact(path), LoosePath::Same) => PlainPath::Exact((**path).into()),
            (PathPattern::Prefix(prefix), LoosePath::Same) => PlainPath::Prefix((**prefix).into()),
            _ => PlainPath::Otherwise,
        };
        Self { plain, pattern: pattern.clone(), loose }
    }

    /// Whether a path with only one reading matches.
    #[inline]
    pub(crate) fn matches_plain(&self, path: &str) -> Truth {
        match &self.plain {
            PlainPath::Exact(exact) => (**exact == *path).into(),
            PlainPath::Prefix(prefix) => behind_prefix(prefix, path).is_some().into(),
            PlainPath::Otherwise => self.matches(path, &PathReading::Plain),
        }
    }

    /// Whether a path with these readings matches.
    pub(crate) fn matches(&self, path: &str, reading: &PathReading) -> Truth {
        let literal = Truth::from(path_matches(&self.pattern, path));
        let all = match reading {
            PathReading::Plain => &[][..],
            PathReading::Loose(all) => all,
            PathReading::Unreadable => return Truth::Unsure,
        };
        let text = |at: usize| {
            let reading = all.get(at).or(all.first());
            reading.map_or((path, path), |(loose, lower)| (loose, lower))
        };
        // A plain path has one reading.
        let ways = 0..all.len().max(1);
        let matched = |found: Truth, matched: bool| found.agree(matched.into());
        match &self.loose {
            LoosePath::Same => ways.map(|at| path_matches(&self.pattern, text(at).1)).fold(literal, matched),
            LoosePath::Pattern(pattern) => {
                ways.map(|at| path_matches(pattern, text(at).1)).fold(literal, matched)
            }
            LoosePath::Patterns(patterns) => {
                let each = patterns.iter().enumerate();
                each.map(|(at, pattern)| path_matches(pattern, text(at).1)).fold(literal, matched)
            }
            LoosePath::Regex(_) if all.is_empty() && literal == Truth::Yes => literal,
            LoosePath::Regex(Some(regex)) => {
                let either = |loose: &str| regex.is_match(loose) || regex.is_match(&format!("{loose}/"));
                ways.map(|at| either(text(at).0)).fold(literal, matched)
            }
            LoosePath::Regex(None) | LoosePath::None => literal.agree(Truth::Unsure),
        }
    }
}

impl LoosePath {
    /// One for each reading of a path, in their order.
    fn of(patterns: Vec<PathPattern>) -> Self {
        match patterns.split_first() {
            Some((first, rest)) if rest.iter().all(|other| other == first) => Self::Pattern(first.clone()),
            _ => Self::Patterns(patterns),
        }
    }
}

fn template(segments: &[Segment]) -> LoosePath {
    let mut patterns = vec![Vec::new(); READINGS];
    for segment in segments {
        let all = match segment {
            // Many programs ignore the last slash of a path.
            Segment::Literal(text) if text.is_empty() => continue,
            Segment::Literal(text) => match loosen(&format!("/{text}")) {
                Some(all) => all,
                None => return LoosePath::None,
            },
            capture => {
                for pattern in &mut patterns {
                    pattern.push(capture.clone());
                }
                continue;
            }
        };
        for (pattern, text) in patterns.iter_mut().zip(all) {
            pattern.push(Segment::Literal(text.trim_start_matches('/').to_ascii_lowercase().into()));
        }
    }
    if patterns.iter().all(|pattern| *pattern == *segments) {
        LoosePath::Same
    } else {
        LoosePath::of(patterns.into_iter().map(PathPattern::Template).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(pattern: &PathPattern, path: &str) -> Truth {
        let (pattern, reading) = (CompiledPath::new(pattern), PathReading::of(path));
        let found = pattern.matches(path, &reading);
        if reading == PathReading::Plain {
            assert_eq!(pattern.matches_plain(path), found, "{path}");
        }
        found
    }

    fn prefix(text: &str) -> PathPattern {
        PathPattern::Prefix(text.into())
    }

    fn exact(text: &str) -> PathPattern {
        PathPattern::Exact(text.into())
    }

    #[test]
    fn a_path_with_two_readings_is_unsure() {
        for path in [
            "/public/..%2Fadmin",
            "/public/..;/admin",
            "/public/%2e%2e%2fadmin",
            "/public/..%255cadmin",
            "/public/a%00",
        ] {
            assert_eq!(asked(&prefix("/public"), path), Truth::Unsure, "{path}");
            assert_ne!(asked(&prefix("/admin"), path), Truth::No, "{path}");
        }
        for path in [
            "/admin%3Fx",
            "/admin%23",
            "/admin%253fx/../y",
            "/ADMIN",
            "/Admin/x",
            "//admin",
            "/./admin/x",
            "/%61dmin",
            "/admin;x",
            "/admin/",
            "//shop.test/admin",
            "/%2Fshop.test/admin/x",
            "/\\\\shop.test\\admin",
            "//shop.test//admin;x",
            "/%EF%BD%81dmin",
            "//%C4%B0x/adm%C4%B1n",
        ] {
            assert_ne!(asked(&prefix("/admin"), path), Truth::No, "{path}");
        }
        assert_eq!(asked(&exact("/admin"), "/admin/"), Truth::Unsure);
        assert_eq!(asked(&exact("/admin"), "/administrator"), Truth::No);
        assert_eq!(asked(&prefix("/admin"), "/administrator/%2F"), Truth::No);
    }

    #[test]
    fn readers_that_do_only_some_of_these_steps_are_covered() {
        for path in [
            // Cut and not decoded; in another case and not decoded.
            "/admin;x/..%2fpublic",
            "/ADMIN/..%2fpublic",
            "/ADMIN;a..O/..%2fa$ma$min/x",
            // Decoded only once.
            "/%2561dmin/..%25252fpublic",
            // Dots resolved before slashes are merged.
            "/ADMIN//%252e%252e/x",
            // Decoded, with empty segments or parameters kept.
            "/%61dmin//..",
            "/%61dmin/..;/x",
        ] {
            assert_eq!(asked(&prefix("/admin"), path), Truth::Unsure, "{path}");
        }
    }

    #[test]
    fn a_path_with_one_reading_is_sure() {
        assert_eq!(asked(&prefix("/v1"), "/v1/a%20b"), Truth::Yes);
        assert_eq!(asked(&prefix("/v1"), "/v1/a%2Fb"), Truth::Yes, "it stays below");
        assert_eq!(asked(&prefix("/v1"), "/v1/Users/"), Truth::Yes);
        assert_eq!(asked(&prefix("/v1"), "/v1/a%3Fb%23c"), Truth::Yes);
        assert_eq!(asked(&prefix("/V1"), "/V1/x"), Truth::Yes);
        assert_eq!(asked(&prefix(""), "/any%2F..//thing/"), Truth::Yes);
        assert_eq!(asked(&exact("/v1/"), "/v1/"), Truth::Yes);
        assert_eq!(asked(&exact("/a%2Fb"), "/a%2Fb"), Truth::Yes);
        assert_eq!(asked(&exact("/shop.Orders/Get"), "/shop.Orders/Get"), Truth::Yes);
        assert_eq!(asked(&prefix("/a%2Fb"), "/A/b"), Truth::Unsure);
        assert_eq!(asked(&exact("/"), "/"), Truth::Yes);
        let regex = PathPattern::Regex(Regex::new("^(?:/v[0-9]/.*/)$").unwrap().into());
        assert_eq!(asked(&regex, "/v1/x/"), Truth::Yes);
        assert_eq!(asked(&regex, "/V1/x/"), Truth::Unsure);
        let template = PathPattern::Template(vec![
            Segment::Literal("users".into()),
            Segment::Capture("id".into()),
            Segment::Literal("".into()),
        ]);
        assert_eq!(asked(&template, "/users/7/"), Truth::Yes);
        assert_eq!(asked(&template, "/users/7"), Truth::Unsure);
        assert_eq!(asked(&template, "/Users/7/"), Truth::Unsure);
    }

    #[test]
    fn an_expression_or_a_template_is_held_to_every_reading_of_a_path() {
        let regex = |text: &str| PathPattern::Regex(Regex::new(text).unwrap().into());
        for (pattern, path, expected) in [
            // It matches the text as it was sent, and another reader finds another path.
            ("^(?:/public/.*)$", "/public/..%2Fadmin", Truth::Unsure),
            ("^(?:/public/.*)$", "/public/../admin", Truth::Unsure),
            // A plain path in an expression of another case.
            ("^(?:/Admin)$", "/admin", Truth::Unsure),
            ("^(?:/admin/)$", "/admin", Truth::Unsure),
            ("^(?:/admin/)$", "/Admin", Truth::Unsure),
            ("^(?:/admin)$", "/admin", Truth::Yes),
            ("^(?:/admin)$", "/other", Truth::No),
            ("^(?:/admin/)$", "/other%2Fadmin", Truth::No),
        ] {
            assert_eq!(asked(&regex(pattern), path), expected, "{pattern} {path}");
        }
        let users = |name: &str| {
            PathPattern::Template(vec![Segment::Literal(name.into()), Segment::Capture("id".into())])
        };
        for (name, path, expected) in [
            ("Users", "/users/7", Truth::Unsure),
            ("Users", "/Users/7", Truth::Yes),
            ("us%65rs", "/users/7", Truth::Unsure),
            ("users", "/others/7", Truth::No),
        ] {
            assert_eq!(asked(&users(name), path), expected, "{name} {path}");
        }
    }

    proptest! {
        #[test]
        fn a_plain_path_is_matched_as_routes_match_it(path in "(/[a-z0-9_-]{1,6}){1,4}", other in "(/[a-z0-9_-]{1,6}){1,3}") {
            for pattern in [prefix(&other), exact(&other), prefix(&path), exact(&path)] {
                prop_assert_eq!(asked(&pattern, &path), Truth::from(path_matches(&pattern, &path)));
            }
        }

        #[test]
        fn a_denied_path_can_not_be_bypassed_by_encoding(
            tail in "[a-zA-Z0-9/._-]{0,8}",
            encoded in prop::collection::vec(any::<bool>(), 6),
            upper in prop::collection::vec(any::<bool>(), 6),
        ) {
            let mut path = String::new();
            for ((c, encode), upper) in "/admin".chars().zip(encoded).zip(upper) {
                let c = if upper { c.to_ascii_uppercase() } else { c };
                if encode && c != '/' {
                    path.extend(format!("%{:02x}", c as u32).chars());
                } else {
                    path.push(c);
                }
            }
            // The rest must not leave the denied path.
            let tail = tail.replace("..", "");
            let path = format!("{path}/{tail}");
            prop_assert_ne!(asked(&prefix("/admin"), &path), Truth::No, "{}", path);
        }

        #[test]
        fn nothing_panics(path in "/\\PC{0,40}", pattern in "/\\PC{0,20}") {
            let _ = asked(&prefix(&pattern), &path);
            let _ = asked(&exact(&pattern), &path);
        }
    }
}
