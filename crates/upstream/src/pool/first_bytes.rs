//! A peer that speaks something else than HTTP/1, in words for people.

/// What a peer says in place of an answer of HTTP/1: its name, or its first bytes, which often tell what it is.
#[cold]
pub(super) fn begins_with(bytes: &[u8]) -> String {
    /// Behind its length, a frame of HTTP/2 says its kind, and the first is SETTINGS (RFC 9113 section 3.4).
    const SETTINGS: u8 = 4;
    if let [0, _, _, SETTINGS, 0, 0, 0, 0, 0, ..] = *bytes {
        return "It speaks HTTP/2: write `h2c://` in its address.".to_owned();
    }
    let first: String = bytes.iter().take(32).flat_map(|byte| byte.escape_ascii()).map(char::from).collect();
    format!("It begins with `{first}`.")
}
