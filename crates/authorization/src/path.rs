//! Paths as they were sent, and as the most lenient upstream would read them.
//!
//! What is sent on is the path that was matched. But upstreams decode `%2F` (once or more), take `\` for `/`, cut `;parameters` off, merge
//! slashes and ignore case, each in its own way and in any combination. Some take `//name/` for an authority (RFC 3986 section 4.2), and
//! some take letters for those that they look like or are folded to: `ａ` for `a`, the Kelvin sign for `k`. So each pattern is asked
//! about the path as it is, and about every reading of it, with both sides of the comparison read alike. Where the answers differ,
//! nobody can say which resource is meant.

use attache_config::model::{PathPattern, Segment};
use attache_http::pattern::path_matches;
use icu_normalizer::ComposingNormalizerBorrowed;
use regex::{Regex, RegexBuilder};

use crate::truth::Truth;

/// Rounds of decoding before a path counts as unreadable: `%252525`… is an attack.
const ROUNDS: usize = 4;

/// In how many ways a path is read: decoded from never to [`ROUNDS`] times, and each time with parameters or without, with or without
/// empty segments, with its letters folded, and also without an authority in front.
const READINGS: usize = 6 * (ROUNDS + 1);

/// How others read a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// As it was sent.
    Plain,
    /// In several ways: [`READINGS`] texts, or one for all of them, each with its letters' case, and in lower case.
    Loose(Vec<(String, String)>),
    /// It can't be decided what it is.
    Unreadable,
}

impl Reading {
    pub(crate) fn of(path: &str) -> Self {
        if is_plain(path) {
            return Self::Plain;
        }
        // Only its case can be read in two ways: such are the paths of gRPC.
        let lower = path.to_ascii_lowercase();
        if is_plain(&lower) {
            return Self::Loose(vec![(path.to_owned(), lower)]);
        }
        let with_lower = |loose: String| {
            let lower = loose.to_ascii_lowercase();
            (loose, lower)
        };
        loosen(path).map_or(Self::Unreadable, |all| Self::Loose(all.into_iter().map(with_lower).collect()))
    }
}

/// Nothing about it has a second reading: no case, no encoding, no parameters, no empty or dot segment, and no slash at its end.
///
/// Every request that a rule about paths is asked about is looked at, so it is done without a branch for each byte: a short path by
/// a table, a longer one sixteen pairs of neighbours at once.
pub(crate) fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    let found = if let Some(last) = bytes.last_chunk::<17>() {
        let steps = bytes.windows(17).step_by(16);
        // What is left of the last step is looked at again.
        bytes.first().is_some_and(|&byte| is_odd(byte))
            || steps.filter_map(<[u8]>::first_chunk::<17>).any(is_odd_chunk)
            || is_odd_chunk(last)
    } else {
        let (found, _) = bytes.iter().fold((0, 0), |(found, before), &byte| {
            let class = CLASSES[usize::from(byte)];
            (found | (class & (ODD | before)), class >> 1)
        });
        found != 0
    };
    !found && (bytes.len() < 2 || bytes.last() != Some(&b'/'))
}

/// The byte itself is odd.
const ODD: u8 = 1;
/// It is odd behind a slash.
const BEHIND_SLASH: u8 = 2;
/// It is a slash: shifted right by one it asks for [`BEHIND_SLASH`] of the next byte.
const SLASH: u8 = BEHIND_SLASH << 1;

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0_u8;
    loop {
        let odd = if is_odd(byte) { ODD } else { 0 };
        let behind = if is_odd_pair(b'/', byte) { BEHIND_SLASH } else { 0 };
        let slash = if byte == b'/' { SLASH } else { 0 };
        classes[byte as usize] = odd | behind | slash;
        if byte == u8::MAX {
            break;
        }
        byte += 1;
    }
    classes
};

#[expect(
    clippy::needless_bitwise_bool,
    reason = "no branch for each byte, so that they are compared side by side"
)]
const fn is_odd(byte: u8) -> bool {
    byte.is_ascii_uppercase()
        | (byte == b'%')
        | (byte == b'\\')
        | (byte == b';')
        | (byte <= b' ')
        | (byte >= 0x7f)
}

#[expect(
    clippy::needless_bitwise_bool,
    reason = "no branch for each byte, so that they are compared side by side"
)]
const fn is_odd_pair(a: u8, b: u8) -> bool {
    (a == b'/') & ((b == b'/') | (b == b'.'))
}

/// A byte behind the first is odd, or a pair of neighbours.
#[inline]
fn is_odd_chunk<const BYTES: usize>(chunk: &[u8; BYTES]) -> bool {
    let pairs = chunk.iter().zip(chunk.iter().skip(1));
    pairs.fold(false, |found, (&a, &b)| found | is_odd(b) | is_odd_pair(a, b))
}

/// The path in a header that names another one: as it is, or in a URL. `None` where that could be any.
pub(crate) fn path_of(value: &[u8]) -> Option<&str> {
    let path = std::str::from_utf8(value).ok()?.split(['?', '#']).next()?;
    let path = path
        .split_once("://")
        .map_or(path, |(_, rest)| rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"));
    path.starts_with('/').then_some(path)
}

/// All readings of a path; `None` where there is no end to its decoding, or it becomes no text.
fn loosen(path: &str) -> Option<Vec<String>> {
    let mut all = Vec::with_capacity(READINGS);
    let mut bytes = path.as_bytes().to_vec();
    for round in 0..=ROUNDS {
        if round > 0
            && let Some(decoded) = decode_once(&bytes)
        {
            bytes = decoded;
        }
        // A control character ends or splits a text for somebody, and `%u0061` is a letter for some.
        let wide = bytes.windows(2).any(|pair| pair.eq_ignore_ascii_case(b"%u"));
        if wide || bytes.iter().any(u8::is_ascii_control) {
            return None;
        }
        let text = std::str::from_utf8(&bytes).ok()?;
        for (cut, merge) in [(true, true), (true, false), (false, true), (false, false)] {
            all.push(resolve(text, cut, merge));
        }
        let folded = folded(text);
        let text = folded.as_deref().unwrap_or(text);
        all.push(resolve(text, true, true));
        all.push(resolve(behind_authority(text), true, true));
    }
    decode_once(&bytes).is_none().then_some(all)
}

/// The path of `//authority/path`, also with more slashes in front (WHATWG's URLs); any other path as it is.
fn behind_authority(text: &str) -> &str {
    let is_slash = |char: char| matches!(char, '/' | '\\');
    let rest = text.trim_start_matches(is_slash);
    if text.len() - rest.len() < 2 {
        return text;
    }
    rest.find(is_slash).and_then(|at| rest.get(at..)).unwrap_or("/")
}

/// A text whose letters are those that others take them for: in the form NFKC, without characters that can't be seen, and both of the
/// Turkish letters that are one with `i` in another case. `None` for one of ASCII.
#[cold]
fn folded(text: &str) -> Option<String> {
    const NFKC: ComposingNormalizerBorrowed<'static> = ComposingNormalizerBorrowed::new_nfkc();
    let is_seen = |char: &char| !matches!(char, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}');
    let fold = |char| if matches!(char, '\u{130}' | '\u{131}') { 'i' } else { char };
    (!text.is_ascii()).then(|| NFKC.normalize_iter(text.chars().filter(is_seen).map(fold)).collect())
}

/// A path without dot segments, with parameters cut off and slashes merged or not before that. No empty segment is left either way.
fn resolve(text: &str, cut: bool, merge: bool) -> String {
    // A query or fragment that was encoded ends the path for whoever decodes before looking for one.
    let text = if cut { text.split(['?', '#']).next().unwrap_or_default() } else { text };
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split(['/', '\\']).skip(1) {
        let segment = if cut { segment.split(';').next().unwrap_or_default() } else { segment };
        match segment {
            "." => {}
            "" if merge => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    segments.retain(|segment| !segment.is_empty());
    format!("/{}", segments.join("/"))
}

/// One round of percent-decoding; `None` where nothing is encoded.
fn decode_once(bytes: &[u8]) -> Option<Vec<u8>> {
    let digit = |at: usize| bytes.get(at).and_then(|&b| char::from(b).to_digit(16));
    let escape = |at: usize| {
        let escaped = bytes.get(at) == Some(&b'%');
        escaped.then(|| Some(digit(at + 1)? * 16 + digit(at + 2)?)).flatten()
    };
    let mut out = Vec::with_capacity(bytes.len());
    let (mut at, mut any) = (0, false);
    while let Some(&byte) = bytes.get(at) {
        if let Some(value) = escape(at).and_then(|value| u8::try_from(value).ok()) {
            out.push(value);
            at += 3;
            any = true;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    any.then_some(out)
}

/// A pattern and how it is read.
#[derive(Debug)]
pub(crate) struct Path {
    pattern: PathPattern,
    loose: Loose,
}

#[derive(Debug)]
enum Loose {
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

impl Path {
    pub(crate) fn new(pattern: &PathPattern) -> Self {
        let patterns = |text: &str, make: fn(&str) -> PathPattern| {
            let made = |all: Vec<String>| all.iter().map(|loose| make(&loose.to_ascii_lowercase())).collect();
            loosen(text).map_or(Loose::None, |all| Loose::of(made(all)))
        };
        let loose = match pattern {
            PathPattern::Exact(path) if is_plain(path) => Loose::Same,
            PathPattern::Exact(path) => patterns(path, |path| PathPattern::Exact(path.into())),
            PathPattern::Prefix(prefix) if is_plain(prefix) => Loose::Same,
            PathPattern::Prefix(prefix) => {
                patterns(prefix, |prefix| PathPattern::Prefix(prefix.trim_end_matches('/').into()))
            }
            PathPattern::Template(segments) => template(segments),
            PathPattern::Regex(regex) => {
                // As large as the original may be, and half again for the other case.
                let build =
                    RegexBuilder::new(regex.as_str()).case_insensitive(true).size_limit(4 << 20).build();
                Loose::Regex(build.ok())
            }
        };
        Self { pattern: pattern.clone(), loose }
    }

    /// Whether a path that has no second reading is meant.
    #[inline]
    pub(crate) fn matches_plain(&self, path: &str) -> Truth {
        match self.loose {
            Loose::Same => path_matches(&self.pattern, path).into(),
            _ => self.matches(path, &Reading::Plain),
        }
    }

    /// Whether a path with this reading is meant.
    pub(crate) fn matches(&self, path: &str, reading: &Reading) -> Truth {
        let literal = Truth::from(path_matches(&self.pattern, path));
        let all = match reading {
            Reading::Plain => &[][..],
            Reading::Loose(all) => all,
            Reading::Unreadable => return Truth::Unsure,
        };
        let text = |at: usize| {
            let reading = all.get(at).or(all.first());
            reading.map_or((path, path), |(loose, lower)| (loose, lower))
        };
        // A plain path is read in one way.
        let ways = 0..all.len().max(1);
        let matched = |found: Truth, matched: bool| found.agree(matched.into());
        match &self.loose {
            Loose::Same => ways.map(|at| path_matches(&self.pattern, text(at).1)).fold(literal, matched),
            Loose::Pattern(pattern) => {
                ways.map(|at| path_matches(pattern, text(at).1)).fold(literal, matched)
            }
            Loose::Patterns(patterns) => {
                let each = patterns.iter().enumerate();
                each.map(|(at, pattern)| path_matches(pattern, text(at).1)).fold(literal, matched)
            }
            Loose::Regex(_) if all.is_empty() && literal == Truth::Yes => literal,
            Loose::Regex(Some(regex)) => {
                let either = |loose: &str| regex.is_match(loose) || regex.is_match(&format!("{loose}/"));
                ways.map(|at| either(text(at).0)).fold(literal, matched)
            }
            Loose::Regex(None) | Loose::None => literal.agree(Truth::Unsure),
        }
    }
}

impl Loose {
    /// One for each reading of a path, in their order.
    fn of(patterns: Vec<PathPattern>) -> Self {
        match patterns.split_first() {
            Some((first, rest)) if rest.iter().all(|other| other == first) => Self::Pattern(first.clone()),
            _ => Self::Patterns(patterns),
        }
    }
}

fn template(segments: &[Segment]) -> Loose {
    let mut patterns = vec![Vec::new(); READINGS];
    for segment in segments {
        let all = match segment {
            // The last slash of a path means nothing to many.
            Segment::Literal(text) if text.is_empty() => continue,
            Segment::Literal(text) => match loosen(&format!("/{text}")) {
                Some(all) => all,
                None => return Loose::None,
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
        Loose::Same
    } else {
        Loose::of(patterns.into_iter().map(PathPattern::Template).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(pattern: &PathPattern, path: &str) -> Truth {
        let (pattern, reading) = (Path::new(pattern), Reading::of(path));
        let found = pattern.matches(path, &reading);
        if reading == Reading::Plain {
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
    fn a_plain_path_has_one_reading() {
        assert_eq!(Reading::of("/v1/orders"), Reading::Plain);
        assert_eq!(Reading::of("/"), Reading::Plain);
        for odd in ["/V1", "/a//b", "/a/./b", "/a%2Fb", "/a\\b", "/a;x", "/a/", "/.git"] {
            assert_ne!(Reading::of(odd), Reading::Plain, "{odd}");
        }
    }

    #[test]
    fn the_loosest_reading_decodes_merges_and_resolves() {
        for (path, loose) in [
            ("/public/..%2Fadmin", "/admin"),
            ("/public/%2e%2e/admin", "/admin"),
            ("/public/..%252fadmin", "/admin"),
            ("/public/..;/admin", "/admin"),
            ("/public\\..\\admin", "/admin"),
            ("/public/..%5Cadmin", "/admin"),
            ("//admin//", "/admin"),
            ("/../../admin", "/admin"),
            ("/a;v=1/b;w", "/a/b"),
            ("/%61dmin", "/admin"),
            ("/admin%3Fx/../y", "/admin"),
            ("/a/%23b", "/a"),
            ("/100%", "/100%"),
        ] {
            let all = loosen(path).unwrap();
            assert_eq!((&*all[READINGS - 6], all.len()), (loose, READINGS), "{path}");
        }
        for (path, folded) in [
            ("/%EF%BD%81dmin", "/admin"),
            ("/%E2%84%AAeys", "/Keys"),
            ("/key%C5%BF", "/keys"),
            ("/adm%C4%B1n", "/admin"),
            ("/adm%E2%80%8Bin", "/admin"),
            ("/x%EF%BC%8F%E2%80%A4.%EF%BC%8Fadmin", "/admin"),
            ("/cafe%CC%81", "/café"),
            ("/a/%23b", "/a"),
        ] {
            assert_eq!(loosen(path).unwrap()[READINGS - 2], folded, "{path}");
        }
        for unreadable in
            ["/a%00b", "/a%0Ab", "/%ff", "/%u0061dmin", "/%25U0061dmin", "/%c0%afadmin", "/%25252525252561"]
        {
            assert_eq!(loosen(unreadable), None, "{unreadable}");
        }
    }

    #[test]
    fn what_two_readers_read_in_two_ways_is_unsure() {
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
    fn readers_that_do_only_some_of_it_are_thought_of() {
        for path in [
            // Cut and not decoded; in another case and not decoded.
            "/admin;x/..%2fpublic",
            "/ADMIN/..%2fpublic",
            "/ADMIN;a..O/..%2fa$ma$min/x",
            // Decoded once and no more.
            "/%2561dmin/..%25252fpublic",
            // Dots resolved before slashes are merged.
            "/ADMIN//%252e%252e/x",
            // Decoded, with empty segments or parameters left where they are.
            "/%61dmin//..",
            "/%61dmin/..;/x",
        ] {
            assert_eq!(asked(&prefix("/admin"), path), Truth::Unsure, "{path}");
        }
    }

    #[test]
    fn what_every_reader_reads_alike_is_sure() {
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
        let regex = PathPattern::Regex(Box::new(Regex::new("^(?:/v[0-9]/.*/)$").unwrap()));
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

    proptest! {
        #[test]
        fn a_path_is_plain_if_no_byte_and_no_pair_is_odd(path in "/[a-z0-9_/-]{0,50}", odd in "[A-Z%;./ ~é\\\\\\x00\\x7f-]{0,2}", at in 0_usize..50) {
            let mut path = path;
            path.insert_str(at.min(path.len()), &odd);
            let byte = |b: u8| b.is_ascii_uppercase() || matches!(b, b'%' | b'\\' | b';') || !b.is_ascii_graphic();
            let pairs = ["//", "/."].iter().any(|pair| path.contains(pair));
            let ends = path.len() > 1 && path.ends_with('/');
            prop_assert_eq!(is_plain(&path), !(path.bytes().any(byte) || pairs || ends), "{:?}", path);
        }

        #[test]
        fn a_plain_path_is_matched_as_routes_match_it(path in "(/[a-z0-9_-]{1,6}){1,4}", other in "(/[a-z0-9_-]{1,6}){1,3}") {
            for pattern in [prefix(&other), exact(&other), prefix(&path), exact(&path)] {
                prop_assert_eq!(asked(&pattern, &path), Truth::from(path_matches(&pattern, &path)));
            }
        }

        #[test]
        fn a_denied_path_is_not_gone_round_by_encoding(
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
            // The rest must not climb out of it.
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
