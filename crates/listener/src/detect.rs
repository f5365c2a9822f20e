//! Detects the protocol from the first bytes of a connection.
//!
//! The rule: *a protocol is recognised by what only this protocol sends, and detection waits only while more than one is possible.* TLS is
//! recognised by its record and ClientHello (RFC 8446 sections 4.1.2 and 5.1), HTTP/2 by its preface (RFC 9113 section 3.4), and HTTP/1 by
//! a first line that ends in an HTTP version (RFC 9112 section 3): a method and a path alone are also valid in other protocols. Everything
//! else is opaque. Nothing here consumes a byte.

use std::sync::Arc;

use memchr::memchr;

use crate::{
    http1::TOKEN,
    transport::{ClientHello, Protocol},
};

/// The preface of HTTP/2 (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The most bytes of a ClientHello. With post-quantum keys it is below 2 KiB, with session tickets below 8.
const MAX_HELLO: usize = 16 << 10;

/// What the bytes received so far show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DetectionResult {
    /// The protocol, and for TLS the contents of the ClientHello.
    Is(Protocol, Option<ClientHello>),
    /// More bytes are needed.
    More,
}

/// Detects for `protocol: auto`. A first line longer than `max_line` is HTTP/1 as soon as it can't be anything else.
pub(crate) fn auto(bytes: &[u8], max_line: usize) -> DetectionResult {
    match bytes.first() {
        None => DetectionResult::More,
        Some(0x16) => match client_hello(bytes) {
            HelloProgress::Is(hello) => DetectionResult::Is(Protocol::Tls, Some(hello)),
            HelloProgress::More => DetectionResult::More,
            HelloProgress::Not => DetectionResult::Is(Protocol::Tcp, None),
        },
        Some(_) => match preface(bytes) {
            Some(verdict) => verdict,
            None => http1(bytes, max_line),
        },
    }
}

/// Detects for `protocol: http`: HTTP/2 by its preface; the HTTP/1 parser decides about everything else.
pub(crate) fn http(bytes: &[u8]) -> DetectionResult {
    preface(bytes).unwrap_or(DetectionResult::Is(Protocol::Http1, None))
}

/// Detects for `protocol: auto` if no route accepts opaque bytes: like [`http`], and also TLS that may be passed through.
pub(crate) fn http_or_tls(bytes: &[u8]) -> DetectionResult {
    match bytes.first() {
        None => DetectionResult::More,
        Some(0x16) => tls(bytes),
        Some(_) => http(bytes),
    }
}

/// Detects for `protocol: auto` if the connection's routes accept both opaque bytes and HTTP: like [`auto`], but whatever some server would
/// read as HTTP is HTTP. Servers skip empty lines and whitespace before a request, accept tabs for spaces, and know HTTP/0.9, which has no
/// version (RFC 9112 sections 2.2 and 3). Such bytes, sent to the server as opaque, would be a request that no rule has checked.
pub(crate) fn auto_or_http(bytes: &[u8], max_line: usize) -> DetectionResult {
    let verdict = auto(bytes, max_line);
    if !matches!(verdict, DetectionResult::Is(Protocol::Tcp, _)) || bytes.first() == Some(&0x16) {
        return verdict;
    }
    let blank = |byte: &u8| matches!(byte, b'\r' | b'\n' | b' ' | b'\t' | 0x0b | 0x0c);
    let begin = bytes.iter().position(|byte| !blank(byte)).unwrap_or(bytes.len());
    let rest = bytes.get(begin..).unwrap_or_default();
    let verdict = http1(rest, max_line);
    if !matches!(verdict, DetectionResult::Is(Protocol::Tcp, _)) {
        return verdict;
    }
    let method = rest.iter().take_while(|byte| TOKEN[usize::from(**byte)]).count();
    let behind = rest.get(method..).unwrap_or_default();
    let spaces = behind.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let target = behind.get(spaces..).unwrap_or_default();
    match target {
        _ if method == 0 || method > 32 => verdict,
        [] => DetectionResult::More,
        _ if spaces == 0 => verdict,
        [b'/' | b'*', ..] => DetectionResult::Is(Protocol::Http1, None),
        _ => match target.iter().zip(b"http").all(|(a, b)| a.eq_ignore_ascii_case(b)) {
            true if target.len() < 4 => DetectionResult::More,
            true => DetectionResult::Is(Protocol::Http1, None),
            false => verdict,
        },
    }
}

/// Detects for `protocol: tls`: a ClientHello; anything else is refused.
pub(crate) fn tls(bytes: &[u8]) -> DetectionResult {
    match client_hello(bytes) {
        HelloProgress::Is(hello) => DetectionResult::Is(Protocol::Tls, Some(hello)),
        HelloProgress::More => DetectionResult::More,
        HelloProgress::Not => DetectionResult::Is(Protocol::Tcp, None),
    }
}

fn preface(bytes: &[u8]) -> Option<DetectionResult> {
    if bytes.starts_with(PREFACE) {
        return Some(DetectionResult::Is(Protocol::Http2, None));
    }
    // `P` alone may also begin POST or PUT.
    PREFACE.starts_with(bytes).then_some(DetectionResult::More)
}

/// A part of the first line must have the same result as the whole line. Otherwise a client could choose the result by the size of its
/// packets.
fn http1(bytes: &[u8], max_line: usize) -> DetectionResult {
    const OPAQUE: DetectionResult = DetectionResult::Is(Protocol::Tcp, None);
    const HTTP1: DetectionResult = DetectionResult::Is(Protocol::Http1, None);
    // One empty line before a request is allowed (RFC 9112 section 2.2).
    let line = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let end = memchr(b'\n', line);
    let line = line.get(..end.unwrap_or(line.len())).unwrap_or_default();
    // Of a long line, only the part counts that detection would have waited for.
    let long = line.len() > max_line;
    let line = line.get(..=max_line).unwrap_or(line);
    let method = line.iter().take_while(|b| TOKEN[usize::from(**b)]).count();
    let rest = line.get(method..).unwrap_or_default();
    match (method, rest) {
        (_, []) if method <= 32 && end.is_none() => DetectionResult::More,
        (0, _) if b"\r\n".starts_with(line) && end.is_none() => DetectionResult::More,
        (1..=32, [b' ', target @ ..]) => {
            // A target and a version contain visible characters, with one space between them. Raw UTF-8 counts as HTTP, and HTTP's own
            // checks refuse it or let it through.
            let text = |b: &u8| b.is_ascii_graphic() || *b >= 0x80 || matches!(b, b' ' | b'\r');
            let url = matches!(target.first(), Some(b'/' | b'h' | b'H'));
            // This includes versions that don't exist: a client that writes `HTTP/` speaks HTTP and gets an answer.
            let version = line.rsplit(|b| *b == b' ').next().unwrap_or_default();
            // If the line is as long as detection waits for, whatever looks like a URL is answered with 414.
            let http = if long { url } else { version.starts_with(b"HTTP/") };
            if !target.iter().all(text) {
                OPAQUE
            } else if end.is_none() && !long {
                DetectionResult::More
            } else if http {
                HTTP1
            } else {
                OPAQUE
            }
        }
        _ => OPAQUE,
    }
}

enum HelloProgress {
    Is(ClientHello),
    More,
    Not,
}

/// Reads a ClientHello that may be spread over several records. It is not copied if one record contains it.
fn client_hello(bytes: &[u8]) -> HelloProgress {
    let mut rest = bytes;
    let mut first: &[u8] = &[];
    let mut joined = Vec::new();
    loop {
        let message = if joined.is_empty() { first } else { &joined };
        match message {
            // Type 1, and a length of 24 bits.
            [1, a, b, c, body @ ..] => {
                let len = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
                if len > MAX_HELLO {
                    return HelloProgress::Not;
                }
                if let Some(body) = body.get(..len) {
                    return parse_hello(body).map_or(HelloProgress::Not, HelloProgress::Is);
                }
            }
            [1, ..] | [] => {}
            _ => return HelloProgress::Not,
        }
        let (record, after) = match rest {
            // A handshake record of TLS, of any version (RFC 8446 section 5.1 says that the version is ignored).
            [0x16, 3, _, a, b, body @ ..] => {
                let len = usize::from(*a) << 8 | usize::from(*b);
                if len == 0 || len > 1 << 14 {
                    return HelloProgress::Not;
                }
                match body.split_at_checked(len) {
                    Some(record) => record,
                    // The part that has arrived may already show that this is something else.
                    None if message.is_empty() && body.first().is_some_and(|kind| *kind != 1) => {
                        return HelloProgress::Not;
                    }
                    None => return HelloProgress::More,
                }
            }
            [0x16, 3, ..] | [0x16] | [] => return HelloProgress::More,
            _ => return HelloProgress::Not,
        };
        rest = after;
        if first.is_empty() {
            first = record;
        } else {
            // The ClientHello is spread over records; this is rare, and `MAX_HELLO` limits it.
            if joined.is_empty() {
                joined.extend_from_slice(first);
            }
            joined.extend_from_slice(record);
        }
    }
}

fn parse_hello(body: &[u8]) -> Option<ClientHello> {
    let mut hello = ClientHello::default();
    let rest = body.get(2 + 32..)?; // legacy_version, random
    let (_, rest) = vector8(rest)?; // legacy_session_id
    let (_, rest) = vector16(rest)?; // cipher_suites
    let (_, rest) = vector8(rest)?; // legacy_compression_methods
    if rest.is_empty() {
        return Some(hello); // before TLS 1.2 there may be no extensions
    }
    let (mut extensions, rest) = vector16(rest)?;
    if !rest.is_empty() {
        return None;
    }
    let mut seen = [false; 2];
    while let [a, b, rest @ ..] = extensions {
        let (data, after) = vector16(rest)?;
        extensions = after;
        match u16::from_be_bytes([*a, *b]) {
            0 => {
                if std::mem::replace(&mut seen[0], true) {
                    return None; // two names: servers differ in which one they use
                }
                hello.sni = Some(server_name(data)?);
            }
            16 => {
                if std::mem::replace(&mut seen[1], true) {
                    return None;
                }
                let (mut list, _) = vector16(data)?;
                while !list.is_empty() {
                    let (name, after) = vector8(list)?;
                    hello.alpn.push(name.to_vec());
                    list = after;
                }
            }
            _ => {}
        }
    }
    extensions.is_empty().then_some(hello)
}

/// The host name in the extension of RFC 6066 section 3, which must contain exactly one.
fn server_name(data: &[u8]) -> Option<Arc<str>> {
    let (list, rest) = vector16(data)?;
    let [0, list @ ..] = list else { return None };
    let (name, more) = vector16(list)?;
    let host = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if !rest.is_empty() || !more.is_empty() || name.is_empty() || name.len() > 255 || !name.iter().all(host) {
        return None;
    }
    Some(std::str::from_utf8(name).ok()?.to_ascii_lowercase().into())
}

fn vector8(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*len))
}

fn vector16(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_at_checked(2)?;
    rest.split_at_checked(usize::from(len[0]) << 8 | usize::from(len[1]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// The first bytes that rustls sends, as one record.
    fn rustls_hello(name: &str, alpn: &[&[u8]]) -> Vec<u8> {
        let mut config =
            ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        let name = name.to_owned().try_into().unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same message in records of at most `size` bytes.
    fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
        let message = &hello[5..];
        let record = |part: &[u8]| [&[0x16, 3, 1], &(part.len() as u16).to_be_bytes()[..], part].concat();
        message.chunks(size).flat_map(record).collect()
    }

    fn is(protocol: Protocol) -> DetectionResult {
        DetectionResult::Is(protocol, None)
    }

    #[test]
    fn a_client_hello_is_read_whole_from_any_number_of_records() {
        let hello = rustls_hello("Orders.Internal", &[b"h2", b"http/1.1"]);
        let expected = ClientHello {
            sni: Some("orders.internal".into()),
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        for size in [1, 7, 100, 1000, 16384] {
            let bytes = in_records(&hello, size);
            for cut in 1..bytes.len() {
                assert_eq!(
                    auto(&bytes[..cut], 100),
                    DetectionResult::More,
                    "records of {size}, cut at {cut}"
                );
            }
            assert_eq!(auto(&bytes, 100), DetectionResult::Is(Protocol::Tls, Some(expected.clone())));
        }
    }

    #[test]
    fn a_client_hello_without_a_name_is_tls_too() {
        let bytes = rustls_hello("192.0.2.1", &[]);
        assert_eq!(tls(&bytes), DetectionResult::Is(Protocol::Tls, Some(ClientHello::default())));
    }

    #[test]
    fn http_is_recognised_by_what_only_http_sends() {
        for (bytes, verdict) in [
            ("GET / HTTP/1.1\r\n", is(Protocol::Http1)),
            ("GET / HTTP/1.1\n", is(Protocol::Http1)), // HTTP, and refused there
            ("\r\nGET / HTTP/1.0\r\n", is(Protocol::Http1)),
            ("GET / HTTP/9.9\r\n", is(Protocol::Http1)),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", is(Protocol::Http2)),
            ("PRI * HTTP/2.0\r\n\r\nSM", DetectionResult::More),
            ("P", DetectionResult::More),
            ("POST /", DetectionResult::More),
            ("GET / HTTP/1.1\r", DetectionResult::More),
            ("", DetectionResult::More),
        ] {
            assert_eq!(auto(bytes.as_bytes(), 100), verdict, "{bytes:?}");
        }
    }

    #[test]
    fn other_protocols_are_opaque_without_a_wait() {
        for bytes in [
            &b"*1\r\n$4\r\nPING\r\n"[..],      // redis
            b"PING\r\n",                       // redis, nats
            b"EHLO mail.example\r\n",          // smtp
            b"SSH-2.0-OpenSSH_9.9\r\n",        // ssh
            b"\0\0\0\x08\x04\xd2\x16\x2f",     // postgres SSLRequest
            b"\x10\x0c\0\x04MQTT",             // mqtt
            b"\x16\x03\x01\0\x05\x02\0\0\0\0", // a ServerHello
            b"\x16\x16\x16\x16\x16\x16",
            b"GET \x01",
            b"\r\n\r\n",
        ] {
            assert_eq!(auto(bytes, 100), is(Protocol::Tcp), "{:?}", bytes.escape_ascii().to_string());
        }
    }

    #[test]
    fn with_both_kinds_of_routes_what_a_lenient_server_reads_as_http_is_http() {
        for bytes in [
            "\r\n\r\nGET / HTTP/1.1\r\n",
            "\nGET / HTTP/1.1\r\n",
            " GET / HTTP/1.1\r\n",
            "\t\x0b\x0cGET / HTTP/1.1\r\n",
            "GET\t/ HTTP/1.1\r\n",
            "GET  / HTTP/1.1\r\n",
            "GET /x\r\n",
            "GET /\x01 HTTP/1.1\r\n",
            "GET http://a/\n",
            "\n\nCONNECT a:80 HTTP/1.1\r\n",
            "OPTIONS *\r\n",
        ] {
            for cut in 0..bytes.len() {
                let verdict = auto_or_http(&bytes.as_bytes()[..cut], 100);
                assert_ne!(verdict, is(Protocol::Tcp), "{:?}", &bytes[..cut]);
            }
            assert_eq!(auto_or_http(bytes.as_bytes(), 100), is(Protocol::Http1), "{bytes:?}");
        }
        for bytes in [
            &b"*1\r\n$4\r\nPING\r\n"[..],
            b"PING\r\n",
            b"SET key value\r\n",
            b"CONNECT {\"verbose\":false}\r\n", // nats
            b"EHLO mail.example\r\n",
            b"SSH-2.0-OpenSSH_9.9\r\n",
            b"\0\0\0\x08\x04\xd2\x16\x2f",
            b"\x16\x03\x01\0\x05\x02\0\0\0\0",
        ] {
            assert_eq!(auto_or_http(bytes, 100), is(Protocol::Tcp), "{:?}", bytes.escape_ascii().to_string());
        }
    }

    #[test]
    fn a_line_without_an_end_is_answered_if_it_contains_a_url() {
        assert_eq!(auto(format!("GET /{}", "a".repeat(100)).as_bytes(), 100), is(Protocol::Http1));
        assert_eq!(auto(format!("SET {}", "a".repeat(100)).as_bytes(), 100), is(Protocol::Tcp));
    }

    #[test]
    fn a_line_is_the_same_in_one_packet_and_in_several() {
        let long = format!("{} / HTTP/1.1\r\n", "A".repeat(40));
        let tail = format!("GET /{}\x01 HTTP/1.1\r\n", "a".repeat(100));
        let set = format!("SET {} HTTP/1.1\r\n", "a".repeat(100));
        for bytes in [
            "PRI *\u{f1} HTTP/2.0\r\n",
            "GET /\u{e4} HTTP/1.1\r\n",
            "GET /\x01 HTTP/1.1\r\n",
            &long,
            &set,
            &tail,
        ] {
            let whole = auto(bytes.as_bytes(), 100);
            for cut in 0..bytes.len() {
                let early = auto(&bytes.as_bytes()[..cut], 100);
                assert!(
                    early == DetectionResult::More || early == whole,
                    "{bytes:?}, cut at {cut}: {early:?}, not {whole:?}"
                );
            }
        }
        assert_eq!(auto("GET /\u{e4} HTTP/1.1\r\n".as_bytes(), 100), is(Protocol::Http1));
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), start in 0_usize..4) {
            let starts: [&[u8]; 4] = [b"", b"\x16\x03\x01\0\x40\x01\0\0\x3c", b"GET ", b"PRI"];
            let all = [starts[start], &bytes].concat();
            let (_, _, _) = (auto(&all, 50), http_or_tls(&all), auto_or_http(&all, 50));
        }

        #[test]
        fn a_mutated_hello_never_panics(at in 0_usize..300, byte in any::<u8>()) {
            let mut hello = rustls_hello("a.b", &[b"h2"]);
            let at = at % hello.len();
            hello[at] = byte;
            tls(&hello);
        }

        #[test]
        fn more_bytes_never_change_a_verdict(line in "[A-Z]{1,5} /[a-z ]{0,9} ?(HTTP/1.1)?\r?\n?", more in ".{0,20}") {
            let verdict = auto(line.as_bytes(), 100);
            if verdict != DetectionResult::More {
                prop_assert_eq!(auto([line, more].concat().as_bytes(), 100), verdict);
            }
        }
    }
}
