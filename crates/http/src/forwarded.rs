//! Tells the upstream who the client is and through which proxies the request came: `X-Forwarded-*`, `Forwarded` (RFC 7239) and `Via` (RFC
//! 9110 section 7.6.3).
//!
//! Rule: for each family of headers, the listener's [`ForwardedMode`] decides whether it is passed on, extended, started again or removed.
//! `Append` adds this hop to the lists (`X-Forwarded-For`, `Forwarded`). It leaves `-Proto` and `-Host` unchanged if the client sent them,
//! because they describe the first hop. `Replace` writes only what attache itself knows.

use std::fmt::Write;

use attache_config::model::{Forwarded, ForwardedMode};
use attache_wire::{
    Fields, KnownName,
    header::{self, FORWARDED, VIA},
};
use http::{HeaderValue, Version};

use crate::Client;

const FOR: KnownName = header::X_FORWARDED_FOR;
const PROTO: KnownName = header::X_FORWARDED_PROTO;
const HOST: KnownName = header::X_FORWARDED_HOST;

/// Changes the forwarding headers of a request as the listener's modes say. `scheme` and `host` are those that the client used (`host` with
/// its port, if it had one), before any rewrite.
pub fn add_forwarded(headers: &mut Fields, modes: &Forwarded, client: &Client, scheme: &str, host: &str) {
    x_forwarded(headers, modes.x_forwarded, client, host);
    told(headers, PROTO, modes.x_forwarded_proto, scheme);
    rfc7239(headers, modes.rfc7239, client, scheme, host);
}

fn x_forwarded(headers: &mut Fields, mode: ForwardedMode, client: &Client, host: &str) {
    match mode {
        ForwardedMode::Pass => return,
        ForwardedMode::Append => {}
        ForwardedMode::Replace | ForwardedMode::Remove => {
            headers.remove(FOR);
        }
    }
    if mode != ForwardedMode::Remove
        && let Some(address) = client.address
    {
        // All values become one line, because many applications read only one; the mode needs this allocation.
        let mut list = joined(headers, FOR);
        if !list.is_empty() {
            list.extend_from_slice(b", ");
        }
        list.extend_from_slice(address.ip().to_canonical().to_string().as_bytes());
        set(headers, FOR, &list);
    }
    told(headers, HOST, mode, host);
}

/// Writes a header that describes the first hop: later hops don't change it.
fn told(headers: &mut Fields, name: KnownName, mode: ForwardedMode, value: &str) {
    match mode {
        ForwardedMode::Pass => return,
        ForwardedMode::Append => {}
        ForwardedMode::Replace | ForwardedMode::Remove => {
            headers.remove(name);
        }
    }
    if mode != ForwardedMode::Remove && !value.is_empty() && !headers.contains_key(name) {
        set(headers, name, value.as_bytes());
    }
}

fn rfc7239(headers: &mut Fields, mode: ForwardedMode, client: &Client, scheme: &str, host: &str) {
    match mode {
        ForwardedMode::Pass => return,
        ForwardedMode::Append => {}
        ForwardedMode::Replace | ForwardedMode::Remove => {
            headers.remove(FORWARDED);
            if mode == ForwardedMode::Remove {
                return;
            }
        }
    }
    let mut element = String::new();
    // RFC 7239 section 6: an IPv6 address is in brackets and therefore quoted; a client without an address is `unknown`.
    let written = match client.address.map(|address| address.ip().to_canonical()) {
        Some(std::net::IpAddr::V4(v4)) => write!(element, "for={v4}"),
        Some(std::net::IpAddr::V6(v6)) => write!(element, "for=\"[{v6}]\""),
        None => write!(element, "for=unknown"),
    };
    debug_assert!(written.is_ok(), "writing to a String never fails");
    if !host.is_empty() {
        element.push_str(";host=");
        if host.bytes().all(is_token) {
            element.push_str(host);
        } else {
            // A host that was checked contains neither quotes nor backslashes.
            element.push('"');
            element.push_str(host);
            element.push('"');
        }
    }
    element.push_str(";proto=");
    element.push_str(scheme);
    let mut list = joined(headers, FORWARDED);
    // After an open quote, a parser would read our element as a part of the client's. So a value that can't be parsed is not passed on.
    if !is_forwarded(&list) {
        list.clear();
    }
    if !list.is_empty() {
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(element.as_bytes());
    set(headers, FORWARDED, &list);
}

/// Whether a list matches RFC 7239 section 4: elements of `token=value` pairs. Whitespace is allowed where lists allow it (RFC 9110 section
/// 5.6.1).
fn is_forwarded(list: &[u8]) -> bool {
    split_quoted(list, b',').is_some_and(|elements| {
        elements.into_iter().all(|element| {
            split_quoted(element, b';').is_some_and(|pairs| {
                pairs.into_iter().map(<[u8]>::trim_ascii).all(|pair| pair.is_empty() || is_pair(pair))
            })
        })
    })
}

fn is_pair(pair: &[u8]) -> bool {
    let Some(at) = pair.iter().position(|byte| *byte == b'=') else { return false };
    let (name, value) = (pair.get(..at).unwrap_or_default(), pair.get(at + 1..).unwrap_or_default());
    let token = |text: &[u8]| !text.is_empty() && text.iter().all(|byte| is_token(*byte));
    // Many programs write addresses without quotes, although the colons require them.
    let bare = |text: &[u8]| {
        !text.is_empty() && text.iter().all(|byte| is_token(*byte) || matches!(byte, b':' | b'[' | b']'))
    };
    token(name)
        && (bare(value) || (value.len() >= 2 && value.first() == Some(&b'"') && value.last() == Some(&b'"')))
}

/// The parts of a list between separators outside of quotes; `None` if a quote is not closed.
pub(crate) fn split_quoted(list: &[u8], separator: u8) -> Option<Vec<&[u8]>> {
    let (mut parts, mut begin, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in list.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            byte if *byte == separator && !quoted => {
                parts.push(list.get(begin..at).unwrap_or_default());
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(list.get(begin..).unwrap_or_default());
    (!quoted).then_some(parts)
}

/// Whether a byte may be in a token (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Joins all lines of a list header into one (RFC 9110 section 5.3).
fn joined(headers: &Fields, name: KnownName) -> Vec<u8> {
    let mut out = Vec::new();
    for value in headers.get_all(name).filter(|value| !value.is_empty()) {
        if !out.is_empty() {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(value.as_bytes());
    }
    out
}

fn set(headers: &mut Fields, name: KnownName, value: &[u8]) {
    // The parts are valid values or were checked, so the whole is a valid value.
    let _ = headers.try_insert(name, value);
}

/// The `Via` lines of one pseudonym.
#[derive(Clone, Debug)]
pub struct Via {
    h10: HeaderValue,
    h11: HeaderValue,
    h2: HeaderValue,
}

impl Via {
    /// The lines for a pseudonym; `None` if it isn't a token and so isn't allowed in `Via`.
    pub fn new(pseudonym: &str) -> Option<Self> {
        if pseudonym.is_empty() || !pseudonym.bytes().all(is_token) {
            return None;
        }
        let line = |version| HeaderValue::from_str(&format!("{version} {pseudonym}")).ok();
        Some(Self { h10: line("1.0")?, h11: line("1.1")?, h2: line("2")? })
    }

    /// Adds this hop to a request or a response that was received in `version`.
    pub fn add(&self, headers: &mut Fields, version: Version) {
        let line = match version {
            Version::HTTP_2 => &self.h2,
            Version::HTTP_10 | Version::HTTP_09 => &self.h10,
            _ => &self.h11,
        };
        headers.append(VIA, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> Client {
        Client { address: address.parse().ok(), ..Client::default() }
    }

    fn lines(mode: ForwardedMode, client: &Client, before: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut headers = Fields::new();
        for (name, value) in before {
            headers.append(*name, HeaderValue::from_static(value));
        }
        add_forwarded(&mut headers, &Forwarded::all(mode), client, "https", "orders.internal:8443");
        written(&headers)
    }

    fn written(headers: &Fields) -> Vec<String> {
        let mut lines: Vec<_> =
            headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    const SENT: &[(&str, &str)] = &[
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-for", "2.2.2.2"),
        ("x-forwarded-proto", "http"),
        ("forwarded", "for=1.1.1.1"),
    ];

    #[test]
    fn the_scheme_has_a_mode_of_its_own() {
        let all = |mode, sent: bool| {
            let modes = Forwarded { x_forwarded_proto: mode, ..Forwarded::default() };
            let mut headers = Fields::new();
            if sent {
                headers.append("x-forwarded-proto", HeaderValue::from_static("http"));
            }
            add_forwarded(&mut headers, &modes, &client("10.0.0.7:999"), "https", "orders.internal");
            written(&headers)
        };
        assert_eq!(all(ForwardedMode::Append, false), ["x-forwarded-proto: https"]);
        assert_eq!(all(ForwardedMode::Append, true), ["x-forwarded-proto: http"]);
        assert_eq!(all(ForwardedMode::Replace, true), ["x-forwarded-proto: https"]);
        assert_eq!(all(ForwardedMode::Remove, true), [""; 0]);
        assert_eq!(all(ForwardedMode::Pass, true), ["x-forwarded-proto: http"]);
    }

    #[test]
    fn append_adds_this_hop_to_what_the_client_sent() {
        assert_eq!(
            lines(ForwardedMode::Append, &client("[2001:db8::7]:999"), SENT),
            [
                "forwarded: for=1.1.1.1, for=\"[2001:db8::7]\";host=\"orders.internal:8443\";proto=https",
                "x-forwarded-for: 1.1.1.1, 2.2.2.2, 2001:db8::7",
                "x-forwarded-host: orders.internal:8443",
                "x-forwarded-proto: http",
            ]
        );
    }

    #[test]
    fn a_list_that_can_not_be_parsed_does_not_hide_this_hop() {
        for open in [
            "for=1.1.1.1;by=\"",
            "for=\"1.1.1.1",
            "for=\"a\\\"",
            "for=\"1.1.1.1, for=2.2.2.2",
            "for",
            "for=a b",
            "=x",
            "for=\"a\"b",
        ] {
            let lines = lines(ForwardedMode::Append, &client("10.0.0.7:1"), &[("forwarded", open)]);
            assert_eq!(
                lines[0], "forwarded: for=10.0.0.7;host=\"orders.internal:8443\";proto=https",
                "{open}"
            );
        }
        for good in
            ["for=1.1.1.1; proto=http", "for=\"[2001:db8::7]:80\";by=_x,for=unknown", "For=\"a\\\"b,c\""]
        {
            let lines = lines(ForwardedMode::Append, &client("10.0.0.7:1"), &[("forwarded", good)]);
            assert!(lines[0].starts_with(&format!("forwarded: {good}, for=10.0.0.7;")), "{lines:?}");
        }
    }

    #[test]
    fn replace_trusts_nothing_that_the_client_sent() {
        assert_eq!(
            lines(ForwardedMode::Replace, &client("[::ffff:10.0.0.7]:999"), SENT),
            [
                "forwarded: for=10.0.0.7;host=\"orders.internal:8443\";proto=https",
                "x-forwarded-for: 10.0.0.7",
                "x-forwarded-host: orders.internal:8443",
                "x-forwarded-proto: https",
            ]
        );
    }

    #[test]
    fn pass_and_remove_do_what_they_say() {
        assert_eq!(lines(ForwardedMode::Pass, &client("10.0.0.7:1"), SENT).len(), SENT.len());
        assert!(lines(ForwardedMode::Remove, &client("10.0.0.7:1"), SENT).is_empty());
    }

    #[test]
    fn a_client_on_a_unix_socket_is_unknown() {
        let lines = lines(ForwardedMode::Replace, &Client::default(), SENT);
        assert_eq!(lines[0], "forwarded: for=unknown;host=\"orders.internal:8443\";proto=https");
        assert!(!lines.iter().any(|line| line.starts_with("x-forwarded-for")));
    }

    #[test]
    fn via_names_the_version_that_was_received() {
        let via = Via::new("attache").unwrap();
        let mut headers = Fields::new();
        via.add(&mut headers, Version::HTTP_10);
        via.add(&mut headers, Version::HTTP_2);
        assert_eq!(headers.get_all(VIA).collect::<Vec<_>>(), ["1.0 attache", "2 attache"]);
        assert!(Via::new("two words").is_none());
    }
}
