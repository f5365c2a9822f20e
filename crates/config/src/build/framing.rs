//! Header fields that no edit may touch.

use super::Problems;
use crate::diagnostic::Place;

/// A header that says where a message ends or belongs: a change would make two parsers read two messages
/// (RFC 9112 section 11.2). The name is in lower case.
pub fn is_framing(name: &str) -> bool {
    const FRAMING: [&str; 8] = [
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    FRAMING.contains(&name)
}

pub(super) fn framing(name: &http::HeaderName, at: Place, request: bool, problems: &mut Problems) {
    if is_framing(name.as_str()) {
        let message = format!("`{name}` belongs to one connection and can't be changed");
        problems.wrong(at, message, "attache sets it for each connection");
    } else if request && name == http::header::HOST {
        problems.wrong(at, "the Host header isn't changed here", "`rewrite: { host: … }` on the route");
    }
}
