//! Describes a peer that doesn't speak HTTP/1, for people.

/// The protocol that a peer speaks in place of HTTP/1, or else its first bytes, which often show the protocol.
#[cold]
pub(super) fn begins_with(bytes: &[u8]) -> String {
    /// In a frame of HTTP/2 the type follows the length, and the first frame is SETTINGS (RFC 9113 section 3.4).
    const SETTINGS: u8 = 4;
    if let [0, _, _, SETTINGS, 0, 0, 0, 0, 0, ..] = *bytes {
        return "It speaks HTTP/2: write `h2c://` in its address.".to_owned();
    }
    let first: String = bytes.iter().take(32).flat_map(|byte| byte.escape_ascii()).map(char::from).collect();
    format!("It begins with `{first}`.")
}
