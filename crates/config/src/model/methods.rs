//! Which methods a listener takes.

use super::prelude::*;

/// Methods that a listener takes. A request with another one is refused with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Methods {
    /// Every token (RFC 9110 section 9.1).
    #[default]
    Any,
    /// Those of capital letters, `-` and `_`, as nginx takes them.
    Capitals,
    /// Those that Envoy's parser of HTTP/1 knows: the methods of HTTP, WebDAV and UPnP, and `PURGE`.
    Known,
}

/// In the order of the alphabet.
const KNOWN: [&str; 34] = [
    "ACL",
    "BIND",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MOVE",
    "MSEARCH",
    "NOTIFY",
    "OPTIONS",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "PUT",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SOURCE",
    "SUBSCRIBE",
    "TRACE",
    "UNBIND",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
];

impl Methods {
    /// Whether the listener takes this method.
    pub fn take(self, method: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Capitals => method.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'-' | b'_')),
            Self::Known => KNOWN.binary_search(&method).is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_takes_its_methods() {
        let taken = |methods: Methods| {
            let all = ["GET", "UNSUBSCRIBE", "ACL", "M-SEARCH", "FOO", "X_Y", "get", "Get", "FOO1", "FOO!"];
            all.into_iter().filter(|method| methods.take(method)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(taken(Methods::Any), "GET UNSUBSCRIBE ACL M-SEARCH FOO X_Y get Get FOO1 FOO!");
        assert_eq!(taken(Methods::Capitals), "GET UNSUBSCRIBE ACL M-SEARCH FOO X_Y");
        assert_eq!(taken(Methods::Known), "GET UNSUBSCRIBE ACL");
        assert!(KNOWN.is_sorted());
    }
}
