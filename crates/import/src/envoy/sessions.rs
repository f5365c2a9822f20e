//! Sessions that a cookie of the proxy keeps: `stateful_session`, and a hash of a cookie that Envoy sets.

use crate::remark::Remarks;
use crate::secret;
use crate::tree::Node;
use crate::value::YamlMap;

use super::words;

/// `session_cookie` for the filter's config or a route's. `None` if it keeps no sessions, or if it can't be carried
/// over.
pub(super) fn stateful(config: &Node, remarks: &mut Remarks) -> Option<YamlMap> {
    let state = config.get("session_state")?;
    let inner = words::config(state);
    if !inner.str("@type").is_some_and(|url| url.ends_with("CookieBasedSessionState")) {
        remarks.point(
            &state.at,
            "attache keeps sessions by a cookie, and not by a header of responses: until a client sends the cookie of `session_cookie`, its requests may go to any endpoint.",
        );
        return None;
    }
    let mut map = cookie(inner.down(&["cookie"]), remarks)?;
    if config.is("strict") {
        map.set("strict", true);
    }
    Some(map)
}

/// A cookie that is set for clients that have none.
pub(super) fn cookie(node: &Node, remarks: &mut Remarks) -> Option<YamlMap> {
    let mut map = secret::session(node.str("name")?)?;
    remarks.note(&node.at, secret::KEY_REMARK);
    map.put("path", node.str("path").filter(|path| *path != "/"));
    if let Some(time) = node.get("ttl").and_then(words::seconds).filter(|time| *time > 0.0) {
        map.set("ttl", words::duration(time));
    }
    if node.get("attributes").is_some() {
        remarks.soft(&node.at, "attributes of the session's cookie are attache's: `HttpOnly`, `SameSite=Lax`, and `Secure` where TLS is terminated.");
    }
    remarks.note(
        &node.at,
        "attache doesn't know sessions of the original: the next request of such a client begins a new session.",
    );
    Some(map)
}
