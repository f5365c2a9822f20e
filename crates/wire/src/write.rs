//! Writes heads as bytes.
//!
//! The lines of a head are written as they were read, with names as the sender spelt them: some old servers accept only the spelling
//! `Content-Length`. Lines that were added on the way have names in lower case.

use bytes::{BufMut as _, BytesMut};
use http::{Method, StatusCode};

use crate::{
    Fields,
    header::{CONNECTION, CONTENT_LENGTH, KnownName, TRANSFER_ENCODING, UPGRADE},
    line::{decimal, field},
    outbox::BodyEncoder,
    value,
};

/// Writes a request's head with its framing. Fields of the message about framing are replaced.
pub fn request(out: &mut BytesMut, method: &Method, target: &[u8], headers: &Fields, encoder: BodyEncoder) {
    out.reserve(128 + target.len() + headers.lines().size());
    out.put_slice(method.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(target);
    out.put_slice(b" HTTP/1.1\r\n");
    connection_lines(out, headers);
    message(out, headers, encoder);
    out.put_slice(b"\r\n");
}

/// What a response's head says about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionPersistence {
    /// Nothing: the connection persists, which is the default of HTTP/1.1.
    Persists,
    /// `close`.
    Closes,
    /// `keep-alive`, for an HTTP/1.0 client that asked for it.
    KeepAlive,
    /// The `Connection` field of the message itself.
    AsItIs,
}

/// Writes a response's head with its framing. `reason` is the phrase if it is not the usual one of the status.
pub fn response(
    out: &mut BytesMut,
    http11: bool,
    (status, reason): (StatusCode, Option<&[u8]>),
    headers: &Fields,
    encoder: BodyEncoder,
    connection: ConnectionPersistence,
) {
    out.reserve(160 + headers.lines().size());
    if http11 && status == StatusCode::OK && reason.is_none() {
        out.put_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        out.put_slice(if http11 { b"HTTP/1.1 " } else { b"HTTP/1.0 " });
        out.put_slice(status.as_str().as_bytes());
        out.put_slice(b" ");
        let usual = || status.canonical_reason().unwrap_or("Unknown").as_bytes();
        out.put_slice(reason.unwrap_or_else(usual));
        out.put_slice(b"\r\n");
    }
    match connection {
        ConnectionPersistence::Closes => out.put_slice(b"connection: close\r\n"),
        ConnectionPersistence::KeepAlive => out.put_slice(b"connection: keep-alive\r\n"),
        ConnectionPersistence::Persists => {}
        ConnectionPersistence::AsItIs => connection_lines(out, headers),
    }
    if message(out, headers, encoder) && connection != ConnectionPersistence::AsItIs {
        // RFC 9110 section 7.8: a sender of `Upgrade` must declare it as hop-by-hop.
        out.put_slice(b"connection: upgrade\r\n");
    }
    out.put_slice(b"\r\n");
}

fn connection_lines(out: &mut BytesMut, headers: &Fields) {
    if !headers.contains_key(CONNECTION) {
        return;
    }
    let mut lines = headers.lines();
    for line in lines.all().filter(|line| line.known == CONNECTION.number()) {
        lines.copy(out, line);
    }
    lines.flush(out);
}

/// Writes all fields except `Connection`. Returns whether one of them is `Upgrade`.
fn message(out: &mut BytesMut, headers: &Fields, encoder: BodyEncoder) -> bool {
    const LENGTH: u8 = CONTENT_LENGTH.number();
    const CODING: u8 = TRANSFER_ENCODING.number();
    const HOP: u8 = CONNECTION.number();
    let mut framed = false;
    let mut lines = headers.lines();
    for line in lines.all() {
        match line.known {
            LENGTH => match encoder {
                _ if framed => {}
                // The length of a body that isn't sent: it says how long the body of a GET would be.
                BodyEncoder::None => {
                    framed = true;
                    lines.copy(out, line);
                }
                BodyEncoder::Length(n) => {
                    framed = true;
                    // A number with leading zeros could be read as an octal number.
                    let digits = lines.value(line);
                    if value::number(digits) == Some(n) && (digits.len() == 1 || !digits.starts_with(b"0")) {
                        lines.copy(out, line);
                    } else {
                        lines.flush(out);
                        length(out, lines.name(line), n);
                    }
                }
                BodyEncoder::Chunked | BodyEncoder::UntilEnd => {}
            },
            CODING | HOP => {}
            _ => lines.copy(out, line),
        }
    }
    lines.flush(out);
    match encoder {
        BodyEncoder::Length(n) if !framed => length(out, b"content-length", n),
        BodyEncoder::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
        BodyEncoder::Length(_) | BodyEncoder::None | BodyEncoder::UntilEnd => {}
    }
    headers.contains_key(UPGRADE)
}

fn length(out: &mut BytesMut, name: &[u8], n: u64) {
    out.put_slice(name);
    out.put_slice(b": ");
    decimal(n, |digits| out.put_slice(digits));
    out.put_slice(b"\r\n");
}

/// Writes a 1xx response. It has no framing and no fields about one connection (RFC 9110 section 15.2).
pub fn informational(out: &mut BytesMut, status: StatusCode, headers: &Fields) {
    const NOT_OURS: [KnownName; 4] = [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE];
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(status.canonical_reason().unwrap_or("Informational").as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in headers.iter().filter(|(name, _)| !name.is_in(&NOT_OURS)) {
        field(out, name.as_bytes(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}
