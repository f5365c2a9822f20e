//! A path has one normal form under each policy: normalizing it again changes nothing, and if dot segments are resolved
//! none is left, plain or escaped.

use attache_config::model::{EscapedSlashes, PathParameters, PathPolicy};
use attache_http::normalize_path;

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let Some((&bits, text)) = data.split_first() else { return };
    let Ok(path) = std::str::from_utf8(text) else { return };
    if !path.starts_with('/') {
        return;
    }
    let bit = |n: u8| bits >> n & 1 == 1;
    let policy = PathPolicy {
        dot_segments: bit(0),
        decode_unreserved: bit(1),
        merge_slashes: bit(2),
        escaped_slashes: [EscapedSlashes::Keep, EscapedSlashes::Decode, EscapedSlashes::Reject]
            [usize::from(bits >> 3) % 3],
        parameters: [PathParameters::Ignore, PathParameters::Keep][usize::from(bit(7))],
    };
    let Ok(once) = normalize_path(path, policy) else { return };
    if policy.dot_segments {
        let is_dot = |part: &str| matches!(part.replace("%2e", ".").replace("%2E", ".").as_str(), "." | "..");
        assert!(!once.split('/').any(is_dot), "{path} -> {once}");
    }
    let twice = normalize_path(&once, policy);
    assert_eq!(twice.ok().as_deref(), Some(&*once), "{path}");
}
