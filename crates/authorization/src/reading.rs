//! How the most lenient upstreams would read a path.
//!
//! attache sends the path that it matched. But upstreams decode `%2F` (once or more), read `\` as `/`, cut off
//! `;parameters`, merge slashes and ignore case, each in its own way and in any combination. Some read `//name/` as an
//! authority (RFC 3986 section 4.2), and some replace letters by similar ones: `ａ` by `a`, the Kelvin sign by `k`.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;
use percent_encoding::percent_decode;

/// Rounds of decoding before a path counts as unreadable: `%252525`… is an attack.
const ROUNDS: usize = 4;

/// The number of ways in which a path is read: decoded zero to [`ROUNDS`] times, and each time with or without
/// parameters, with or without empty segments, with its letters folded, and without an authority in front.
pub(crate) const READINGS: usize = 6 * (ROUNDS + 1);

/// How other programs read a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PathReading {
    /// As it was sent.
    Plain,
    /// In several ways: [`READINGS`] texts, or one for all of them, each in its own case and in lower case.
    Loose(Vec<(String, String)>),
    /// Its readings can't be determined.
    Unreadable,
}

impl PathReading {
    pub(crate) fn of(path: &str) -> Self {
        if is_plain(path) {
            return Self::Plain;
        }
        // Only its case has two readings, as for the paths of gRPC.
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

/// True if it has only one reading: no capital letters, no encoding, no parameters, no empty or dot segment, and no
/// slash at its end.
///
/// This runs for every request that meets a rule about paths, so it has no branch for each byte: a short path is
/// checked by a table, a longer one by sixteen pairs of neighbours at once.
pub(crate) fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    let found = if let Some(last) = bytes.last_chunk::<17>() {
        let steps = bytes.windows(17).step_by(16);
        // The last step overlaps with the one before.
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
/// The byte is odd after a slash.
const BEHIND_SLASH: u8 = 2;
/// The byte is a slash: shifted right by one, this bit meets [`BEHIND_SLASH`] of the next byte.
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

/// True if a byte after the first is odd, or a pair of neighbours.
#[inline]
fn is_odd_chunk<const BYTES: usize>(chunk: &[u8; BYTES]) -> bool {
    let pairs = chunk.iter().zip(chunk.iter().skip(1));
    pairs.fold(false, |found, (&a, &b)| found | is_odd(b) | is_odd_pair(a, b))
}

/// The path in a header that names another path: the path itself, or that of a URL. `None` if it could be any path.
pub(crate) fn path_of(value: &[u8]) -> Option<&str> {
    let path = std::str::from_utf8(value).ok()?.split(['?', '#']).next()?;
    let path = path
        .split_once("://")
        .map_or(path, |(_, rest)| rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"));
    path.starts_with('/').then_some(path)
}

/// All readings of a path; `None` if its decoding doesn't end, or a result isn't a text.
pub(crate) fn loosen(path: &str) -> Option<Vec<String>> {
    let mut all = Vec::with_capacity(READINGS);
    let mut bytes = path.as_bytes().to_vec();
    for round in 0..=ROUNDS {
        if round > 0
            && let Some(decoded) = decode_once(&bytes)
        {
            bytes = decoded;
        }
        // Some servers end or split a text at a control character, and some decode `%u0061` to a letter.
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

/// Whether every reader finds the path below the prefix, if the path is appended to the prefix.
pub(crate) fn stays_below(prefix: &str, path: &str) -> bool {
    if prefix.is_empty() || is_plain(path) {
        return true;
    }
    let below = |reading: &str| {
        reading.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    loosen(&format!("{prefix}{path}")).is_some_and(|all| all.iter().all(|reading| below(reading)))
}

/// The path of `//authority/path`, also with more slashes in front (WHATWG's URLs); any other path unchanged.
fn behind_authority(text: &str) -> &str {
    let is_slash = |char: char| matches!(char, '/' | '\\');
    let rest = text.trim_start_matches(is_slash);
    if text.len() - rest.len() < 2 {
        return text;
    }
    rest.find(is_slash).and_then(|at| rest.get(at..)).unwrap_or("/")
}

/// The text with its letters replaced as other programs do: in the form NFKC, without invisible characters, and with
/// both Turkish letters that equal `i` in another case. `None` for an ASCII text.
#[cold]
fn folded(text: &str) -> Option<String> {
    const NFKC: ComposingNormalizerBorrowed<'static> = ComposingNormalizerBorrowed::new_nfkc();
    let is_seen = |char: &char| !matches!(char, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}');
    let fold = |char| if matches!(char, '\u{130}' | '\u{131}') { 'i' } else { char };
    (!text.is_ascii()).then(|| NFKC.normalize_iter(text.chars().filter(is_seen).map(fold)).collect())
}

/// A path without dot segments. Before these are resolved, parameters are cut off if `cut`, and slashes merged if
/// `merge`. No empty segment is left in either case.
fn resolve(text: &str, cut: bool, merge: bool) -> String {
    // For a program that decodes first, an encoded `?` or `#` ends the path.
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

/// One round of percent-decoding; `None` if nothing is encoded.
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
        assert_eq!(PathReading::of("/v1/orders"), PathReading::Plain);
        assert_eq!(PathReading::of("/"), PathReading::Plain);
        for odd in ["/V1", "/a//b", "/a/./b", "/a%2Fb", "/a\\b", "/a;x", "/a/", "/.git"] {
            assert_ne!(PathReading::of(odd), PathReading::Plain, "{odd}");
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
    fn for_no_reader_the_appended_path_leaves_the_prefix() {
        for path in [
            "/a",
            "/A/b/",
            "/a%2Fb",
            "/a//b",
            "/a;x",
            "/..a/b",
            "/a/..%2Fb",
            "/a%2F..",
            "/100%",
            "/",
            "/a%3Fb",
        ] {
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
            // Its last segment begins with that of the prefix.
            "/..%2Fcheckout",
            "/..%2Fcheck-all",
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
