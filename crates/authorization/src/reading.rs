//! How the most lenient upstreams would read a path.
//!
//! What is sent on is the path that was matched. But upstreams decode `%2F` (once or more), take `\` for `/`, cut `;parameters` off, merge
//! slashes and ignore case, each in its own way and in any combination. Some take `//name/` for an authority (RFC 3986 section 4.2), and
//! some take letters for those that they look like or are folded to: `ａ` for `a`, the Kelvin sign for `k`.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;
use percent_encoding::percent_decode;

/// Rounds of decoding before a path counts as unreadable: `%252525`… is an attack.
const ROUNDS: usize = 4;

/// In how many ways a path is read: decoded from never to [`ROUNDS`] times, and each time with parameters or without, with or without
/// empty segments, with its letters folded, and also without an authority in front.
pub(crate) const READINGS: usize = 6 * (ROUNDS + 1);

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
pub(crate) fn loosen(path: &str) -> Option<Vec<String>> {
    let mut all = Vec::with_capacity(READINGS);
    let mut bytes = path.as_bytes().to_vec();
    for round in 0..=ROUNDS {
        if round > 0
            && let Some(decoded) = decode_once(&bytes)
        {
            bytes = decoded;
        }
        // Some servers end or split a text at a control character, and some read `%u0061` as a letter.
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

/// Whether every reader finds the path below the prefix, where the path is written behind it.
pub(crate) fn stays_below(prefix: &str, path: &str) -> bool {
    if prefix.is_empty() || is_plain(path) {
        return true;
    }
    let below = |reading: &str| {
        reading.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    loosen(&format!("{prefix}{path}")).is_some_and(|all| all.iter().all(|reading| below(reading)))
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
    // For a program that decodes first, an encoded query or fragment ends the path.
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
    match percent_decode(bytes).into() {
        Cow::Borrowed(_) => None,
        Cow::Owned(decoded) => Some(decoded),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
    fn no_reader_leaves_a_prefix_by_the_path_behind_it() {
        for path in ["/a", "/A/b/", "/a%2Fb", "/a//b", "/a;x", "/..a/b", "/a/..%2Fb", "/100%", "/", "/a%3Fb"]
        {
            assert!(stays_below("/check", path) && stays_below("", path), "{path}");
        }
        for path in [
            "/..%2Fhealth",
            "/..%2fhealth",
            "/a/..%2F..%2Fhealth",
            "/..;/health",
            "/%2e%2e%2fhealth",
            "/..%252Fhealth",
            "/..%5Chealth",
            "/..\\health",
            "/a;x/..;y/..;z/health",
            "/%EF%BC%8E%EF%BC%8E/health",
            "/%EF%BC%8E./health",
            "/a%00",
        ] {
            assert!(!stays_below("/check", path), "{path}");
        }
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
    }
}
