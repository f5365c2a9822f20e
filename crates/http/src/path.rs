//! Brings a path into one form, once, before it is matched.
//!
//! Rule: the route and the upstream must read the same path. Otherwise a client could bypass a route's protection (`/public/..%2fadmin`).
//! [`PathPolicy`] says what is normalised. This is how, in one pass over the bytes:
//! 1. Refused are raw control bytes, NUL in any form, a raw backslash (some servers read it as `/`), and a `%` that isn't followed by two
//!    hex digits. Other escaped control bytes (`%0A`) are data and stay; non-ASCII UTF-8 stays.
//! 2. `%2F` and `%5C` are handled as the policy says, then unreserved bytes are decoded (RFC 3986 section 6.2.2.2). Nothing is decoded
//!    twice: `%2541` stays.
//! 3. The segments are handled one by one: if slashes are merged, empty segments are dropped; then dot segments are resolved (section
//!    5.2.4). `%2e` counts as a dot here even if unreserved bytes are not decoded, because the upstream would decode it.
//! 4. Path parameters (`;name=value` after a segment, RFC 3986 section 3.3): servers that support them remove them before they resolve dot
//!    segments and choose a handler; other servers don't know them. Unless the policy keeps them, a dot segment or an empty segment with
//!    parameters is refused, and routes are matched without parameters ([`without_parameters`]).
//!
//! A path that is in this form already is borrowed: the usual request costs one scan and no allocation.

use std::borrow::Cow;

use attache_config::model::{EscapedSlashes, PathParameters, PathPolicy};
use attache_wire::chars;
use http::{Uri, uri::PathAndQuery};

use crate::Refusal;

/// Returns the path in its one form. `path` begins with `/`, or is `*` or empty; those two are returned unchanged.
///
/// # Errors
/// [`Refusal`] with `bad-request`, by the rules of this module.
pub fn normalize_path(path: &str, policy: PathPolicy) -> Result<Cow<'_, str>, Refusal> {
    if !path.starts_with('/') {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path, policy)?;
    if policy.parameters != PathParameters::Keep && has_parameters(&decoded) {
        if policy.parameters == PathParameters::Reject {
            return Err(PARAMETERS);
        }
        // `/;jsessionid=1` is the root with a session. An empty name hides a segment only if another segment follows.
        let mut segments = decoded.split('/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            let Some((name, _)) = segment.split_once(';') else { continue };
            if dots(name).is_some() || (name.is_empty() && segments.peek().is_some()) {
                return Err(HIDDEN);
            }
        }
    }
    match resolve(&decoded, policy)? {
        None => Ok(decoded),
        Some(resolved) => Ok(Cow::Owned(resolved)),
    }
}

/// The path that routes are matched against. It has no parameters in its segments, unless the policy keeps them.
pub fn without_parameters(path: &str, policy: PathPolicy) -> Cow<'_, str> {
    if policy.parameters == PathParameters::Keep || !has_parameters(path) {
        return Cow::Borrowed(path);
    }
    let mut bare = String::with_capacity(path.len());
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            bare.push('/');
        }
        bare.push_str(segment.split_once(';').map_or(segment, |(name, _)| name));
    }
    Cow::Owned(bare)
}

/// This uses the standard library's search: a faster one costs more to set up than the search of most paths.
fn has_parameters(path: &str) -> bool {
    path.as_bytes().contains(&b';')
}

/// Brings a URI's path into its one form. The query doesn't change.
///
/// # Errors
/// As [`normalize_path`].
pub fn normalize_uri(uri: &mut Uri, policy: PathPolicy) -> Result<(), Refusal> {
    let Cow::Owned(path) = normalize_path(uri.path(), policy)? else { return Ok(()) };
    set_path(uri, path)
}

/// Replaces a URI's path and keeps its query.
///
/// # Errors
/// `bad-request` if the path has bytes that no URI can hold.
pub fn set_path(uri: &mut Uri, mut path: String) -> Result<(), Refusal> {
    if let Some(query) = uri.query() {
        path.push('?');
        path.push_str(query);
    }
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).map_err(|_| INVALID)?);
    *uri = Uri::from_parts(parts).map_err(|_| INVALID)?;
    Ok(())
}

const INVALID: Refusal = Refusal::bad_request("The path has a byte that no URI may hold.");
const CLIMB: Refusal = Refusal::bad_request("The path climbs above the root with `..` segments.");
const ESCAPE: Refusal =
    Refusal::bad_request("The path has a `%` that is not followed by two hexadecimal digits.");
const PARAMETERS: Refusal = Refusal::bad_request("The path has parameters (`;`); write them as %3B.");
const HIDDEN: Refusal =
    Refusal::bad_request("The path hides a dot segment or an empty segment with parameters (`..;`).");
const NUL: Refusal = Refusal::bad_request("The path contains a NUL byte.");
const BACKSLASH: Refusal = Refusal::bad_request("The path contains a backslash; write it as %5C.");
const SLASH: Refusal = Refusal::bad_request("The path contains an escaped slash or backslash (%2F, %5C).");

/// Bytes that have no meaning of their own and can't hide one.
static PLAIN: [bool; 256] = {
    let mut table = [true; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte >= 0x20 && byte != 0x7f && byte != b'%' as usize && byte != b'\\' as usize;
        byte += 1;
    }
    table
};

/// Steps 1 and 2 of the module's rule.
fn decode(path: &str, policy: PathPolicy) -> Result<Cow<'_, str>, Refusal> {
    let bytes = path.as_bytes();
    if chars::all(bytes, &PLAIN) {
        return Ok(Cow::Borrowed(path));
    }
    // Allocated at the first byte that changes.
    let mut out: Option<String> = None;
    let mut kept = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'%' => {
                let (Some(high), Some(low)) = (hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) else {
                    return Err(ESCAPE);
                };
                let value = high << 4 | low;
                let replacement = match (value, policy.escaped_slashes) {
                    (0, _) => return Err(NUL),
                    (b'/' | b'\\', EscapedSlashes::Reject) => return Err(SLASH),
                    (b'/' | b'\\', EscapedSlashes::Decode) => Some('/'),
                    _ if policy.decode_unreserved && unreserved(value) => Some(char::from(value)),
                    _ => None,
                };
                if let Some(replacement) = replacement {
                    let out = out.get_or_insert_with(|| String::with_capacity(path.len()));
                    out.push_str(path.get(kept..at).unwrap_or_default());
                    out.push(replacement);
                    kept = at + 3;
                }
                at += 3;
            }
            0 => return Err(NUL),
            b'\\' => return Err(BACKSLASH),
            _ if byte.is_ascii_control() => return Err(INVALID),
            _ => at += 1,
        }
    }
    Ok(match out {
        None => Cow::Borrowed(path),
        Some(mut out) => {
            out.push_str(path.get(kept..).unwrap_or_default());
            Cow::Owned(out)
        }
    })
}

/// Step 3 of the module's rule; `None` if nothing changes.
fn resolve(path: &str, policy: PathPolicy) -> Result<Option<String>, Refusal> {
    let body = path.strip_prefix('/').unwrap_or(path);
    let special = |segment: &str, last: bool| {
        (policy.dot_segments && dots(segment).is_some())
            || (policy.merge_slashes && segment.is_empty() && !last)
    };
    // The usual path has no segment that is empty or begins with a dot. Each pair of neighbouring bytes shows that.
    let suspect = |pair: &[u8]| matches!(pair, [b'/', b'/' | b'.' | b'%']);
    if !path.as_bytes().windows(2).any(suspect) {
        return Ok(None);
    }
    // The last segment of `/` or `/a/` is empty; it stays.
    let mut rest = body;
    loop {
        match rest.split_once('/') {
            Some((segment, _)) if special(segment, false) => break,
            Some((_, behind)) => rest = behind,
            None if special(rest, true) => break,
            None => return Ok(None),
        }
    }
    let mut out = String::with_capacity(path.len());
    let mut segments = body.split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match if policy.dot_segments { dots(segment) } else { None } {
            Some(Dots::Stay) => {}
            Some(Dots::Up) => {
                let parent = out.rfind('/').ok_or(CLIMB)?;
                out.truncate(parent);
            }
            None if policy.merge_slashes && segment.is_empty() && !last => continue,
            None => {
                out.push('/');
                out.push_str(segment);
                continue;
            }
        }
        // `/a/.` and `/a/b/..` both mean the directory `/a/`.
        if last {
            out.push('/');
        }
    }
    if out.is_empty() {
        out.push('/');
    }
    Ok(Some(out))
}

enum Dots {
    Stay,
    Up,
}

/// Whether a segment is `.` or `..`, each dot plain or escaped.
fn dots(segment: &str) -> Option<Dots> {
    // The longest such segment is `%2e%2e`.
    if segment.is_empty() || segment.len() > 6 {
        return None;
    }
    let mut rest = segment.as_bytes();
    let mut count = 0;
    loop {
        rest = match rest {
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            [] => break,
            _ => return None,
        };
        count += 1;
    }
    match count {
        1 => Some(Dots::Stay),
        2 => Some(Dots::Up),
        _ => None,
    }
}

fn hex(byte: Option<&u8>) -> Option<u8> {
    char::from(*byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

const fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(path: &str) -> Result<String, String> {
        normalize_path(path, PathPolicy::default()).map(Cow::into_owned).map_err(|e| e.text.into_owned())
    }

    #[test]
    fn the_examples_of_rfc_3986_hold() {
        assert_eq!(normal("/a/b/c/./../../g").as_deref(), Ok("/a/g"));
        assert_eq!(normal("/mid/content=5/../6").as_deref(), Ok("/mid/6"));
        for (from, to) in [
            ("/b/c/.", "/b/c/"),
            ("/b/c/..", "/b/"),
            ("/b/..", "/"),
            ("/.", "/"),
            ("/a..;x", "/a..;x"),
            ("/a;x=1/b;y", "/a;x=1/b;y"),
            ("/;jsessionid=1", "/;jsessionid=1"),
            ("/...", "/..."),
            ("/a//../b", "/a/b"),
            ("/a%2e%2E/b", "/a../b"),
            ("/a/%2e%2E/b", "/b"),
            ("/%7Euser/%41", "/~user/A"),
            ("/a%2Fb%5cc", "/a%2Fb%5cc"),
            ("/%2541", "/%2541"),
            ("/caf%C3%A9/\u{e9}", "/caf%C3%A9/\u{e9}"),
        ] {
            assert_eq!(normal(from).as_deref(), Ok(to), "{from}");
        }
    }

    #[test]
    fn a_path_in_its_form_already_is_borrowed() {
        for path in ["/", "/v1/orders/5", "/a//b/", "/a%2Fb", "/a.b/..c/d..", "*", ""] {
            assert!(
                matches!(normalize_path(path, PathPolicy::default()), Ok(Cow::Borrowed(same)) if same == path)
            );
        }
    }

    #[test]
    fn a_path_that_upstreams_could_read_differently_is_refused() {
        for path in [
            "/..",
            "/a/../..",
            "/a/%2e%2e/%2e%2e/b",
            "/%",
            "/%4",
            "/%g1",
            "/%00",
            "/a\\b",
            "/a/..;/admin",
            "/a/%2e.;x/admin",
            "/.;x/admin",
            "/;x/admin",
            "/a/..;",
            "/\u{1}",
            "/\u{7f}",
        ] {
            assert!(normal(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn every_switch_of_the_policy_is_obeyed() {
        let with = |path, change: fn(&mut PathPolicy)| {
            let mut policy = PathPolicy::default();
            change(&mut policy);
            normalize_path(path, policy).map(Cow::into_owned).map_err(|e| e.text.into_owned())
        };
        assert_eq!(with("//a///b//", |p| p.merge_slashes = true).as_deref(), Ok("/a/b/"));
        assert_eq!(with("/a//../b", |p| p.merge_slashes = true).as_deref(), Ok("/b"));
        assert_eq!(with("/a/../b/.", |p| p.dot_segments = false).as_deref(), Ok("/a/../b/."));
        assert_eq!(with("/%41/%2e%2E/b", |p| p.decode_unreserved = false).as_deref(), Ok("/b"));
        assert_eq!(with("/%41", |p| p.decode_unreserved = false).as_deref(), Ok("/%41"));
        assert_eq!(with("/a%2F..%5cb", |p| p.escaped_slashes = EscapedSlashes::Decode).as_deref(), Ok("/b"));
        assert!(with("/a%2fb", |p| p.escaped_slashes = EscapedSlashes::Reject).is_err());
        assert!(with("/a%5Cb", |p| p.escaped_slashes = EscapedSlashes::Reject).is_err());
    }

    #[test]
    fn parameters_are_ignored_kept_or_refused() {
        let with = |parameters| PathPolicy { parameters, ..PathPolicy::default() };
        let matched = |path, parameters| without_parameters(path, with(parameters)).into_owned();
        assert_eq!(matched("/admin;x=1/b;y;z/c", PathParameters::Ignore), "/admin/b/c");
        assert_eq!(matched("/admin;x", PathParameters::Keep), "/admin;x");
        assert!(normalize_path("/a;x", with(PathParameters::Reject)).is_err());
        assert!(normalize_path("/a%3Bx", with(PathParameters::Reject)).is_ok());
        assert_eq!(normalize_path("/a/..;x", with(PathParameters::Keep)).as_deref(), Ok("/a/..;x"));
    }

    #[test]
    fn the_query_is_left_alone() {
        let mut uri: Uri = "http://h:1/a/../b?x=%41/../y".parse().unwrap();
        normalize_uri(&mut uri, PathPolicy::default()).unwrap();
        assert_eq!(uri, "http://h:1/b?x=%41/../y");
    }

    fn policies() -> impl Strategy<Value = PathPolicy> {
        let slashes = prop_oneof![
            Just(EscapedSlashes::Keep),
            Just(EscapedSlashes::Reject),
            Just(EscapedSlashes::Decode)
        ];
        (any::<bool>(), any::<bool>(), any::<bool>(), slashes).prop_map(|(dot, decode, merge, escaped)| {
            PathPolicy {
                dot_segments: dot,
                decode_unreserved: decode,
                merge_slashes: merge,
                escaped_slashes: escaped,
                parameters: PathParameters::Ignore,
            }
        })
    }

    fn paths() -> impl Strategy<Value = String> {
        proptest::collection::vec(
            prop_oneof![
                Just("/"),
                Just("/"),
                Just("."),
                Just(".."),
                Just("%2e"),
                Just("%2F"),
                Just("%5c"),
                Just("a"),
                Just("%41"),
                Just("%25"),
                Just("2e"),
                Just("\u{e9}"),
                Just("%"),
            ],
            0..12,
        )
        .prop_map(|parts| format!("/{}", parts.concat()))
    }

    proptest! {
        #[test]
        fn a_second_pass_changes_nothing(path in paths(), policy in policies()) {
            if let Ok(once) = normalize_path(&path, policy) {
                let twice = normalize_path(&once, policy);
                prop_assert_eq!(twice.as_deref(), Ok(&*once));
                prop_assert!(once.starts_with('/'));
            }
        }

        #[test]
        fn no_dot_segment_is_left(path in paths(), mut policy in policies()) {
            policy.dot_segments = true;
            if let Ok(path) = normalize_path(&path, policy) {
                prop_assert!(path.split('/').all(|segment| dots(segment).is_none()), "{}", path);
            }
        }

        #[test]
        fn no_text_makes_it_panic(path in "/\\PC*", policy in policies()) {
            let _ = normalize_path(&path, policy);
        }
    }
}
