//! Heads as bytes.
//!
//! The field names go out as the sender spelt them, where [`Spelling`] is known: some old servers look for `Content-Length` and no other
//! spelling. What was added on the way is in lower case.

use std::io::Write as _;

use bytes::{BufMut as _, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE},
};

use crate::{chars::is_name, message::Spelling, outbox::Encoder};

/// A request's head, framing included. Fields of the message that speak of framing are replaced.
pub fn request(
    out: &mut BytesMut,
    method: &Method,
    target: &[u8],
    headers: &HeaderMap,
    spelling: Option<&Spelling>,
    encoder: Encoder,
) {
    out.reserve(64 + target.len() + 48 * headers.len());
    out.extend_from_slice(method.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let connection = headers.get_all(CONNECTION).iter().map(|value| (&CONNECTION, value));
    fields(out, connection, spelling);
    message(out, headers, spelling, encoder);
    out.extend_from_slice(b"\r\n");
}

/// What an answer's head says of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Nothing: it goes on, as HTTP/1.1 does by itself.
    Persists,
    /// `close`.
    Closes,
    /// `keep-alive`, for an HTTP/1.0 client that asked for it.
    KeepAlive,
    /// What the message says itself.
    AsItIs,
}

/// An answer's head, framing included.
pub fn response(
    out: &mut BytesMut,
    http11: bool,
    status: StatusCode,
    headers: &HeaderMap,
    spelling: Option<&Spelling>,
    encoder: Encoder,
    connection: Connection,
) {
    out.reserve(64 + 48 * headers.len());
    out.extend_from_slice(if http11 { b"HTTP/1.1 " } else { b"HTTP/1.0 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    match spelling.and_then(Spelling::reason) {
        Some(reason) => out.extend_from_slice(reason),
        None => out.extend_from_slice(status.canonical_reason().unwrap_or("Unknown").as_bytes()),
    }
    out.extend_from_slice(b"\r\n");
    match connection {
        Connection::Closes => out.extend_from_slice(b"connection: close\r\n"),
        Connection::KeepAlive => out.extend_from_slice(b"connection: keep-alive\r\n"),
        Connection::Persists => {}
        Connection::AsItIs => {
            let connection = headers.get_all(CONNECTION).iter().map(|value| (&CONNECTION, value));
            fields(out, connection, spelling);
        }
    }
    if message(out, headers, spelling, encoder) && connection != Connection::AsItIs {
        // RFC 9110 section 7.8: whoever sends `Upgrade` says that it is for the next hop alone.
        out.extend_from_slice(b"connection: upgrade\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// The fields but `Connection`; whether one is `Upgrade`.
fn message(out: &mut BytesMut, headers: &HeaderMap, spelling: Option<&Spelling>, encoder: Encoder) -> bool {
    let mut names = spelling.map(Spelling::names);
    let (mut framed, mut upgrade) = (false, false);
    for (name, value) in headers {
        if *name == CONTENT_LENGTH {
            // A length of a body that isn't sent says what GET would have.
            if encoder == Encoder::None && !framed {
                framed = true;
                field(out, name, value.as_bytes(), names.as_mut());
            } else if let Encoder::Length(n) = encoder
                && !framed
            {
                framed = true;
                let name = spelt(name, names.as_mut());
                length(out, name, n);
            }
            continue;
        }
        if *name == TRANSFER_ENCODING || *name == CONNECTION {
            continue;
        }
        upgrade |= *name == UPGRADE;
        field(out, name, value.as_bytes(), names.as_mut());
    }
    match encoder {
        Encoder::Length(n) if !framed => length(out, b"content-length", n),
        Encoder::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Encoder::Length(_) | Encoder::None | Encoder::UntilEnd => {}
    }
    upgrade
}

fn length(out: &mut BytesMut, name: &[u8], n: u64) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = n;
    loop {
        at -= 1;
        if let Some(digit) = digits.get_mut(at) {
            *digit = b'0' + (rest % 10) as u8;
        }
        rest /= 10;
        if rest == 0 || at == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
}

/// Field lines.
pub(crate) fn fields<'a>(
    out: &mut BytesMut,
    fields: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    spelling: Option<&Spelling>,
) {
    let mut names = spelling.map(Spelling::names);
    for (name, value) in fields {
        field(out, name, value.as_bytes(), names.as_mut());
    }
}

/// The name as it was spelt, or in lower case.
fn spelt<'a>(name: &'a HeaderName, names: Option<&mut Names<'a>>) -> &'a [u8] {
    let name = name.as_str().as_bytes();
    names.and_then(|names| names.find(name)).unwrap_or(name)
}

#[inline]
fn field<'a>(out: &mut BytesMut, name: &'a HeaderName, value: &[u8], names: Option<&mut Names<'a>>) {
    let name = spelt(name, names);
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// A 1xx answer: never framed, and nothing of one connection in it (RFC 9110 section 15.2).
pub fn informational(out: &mut BytesMut, status: StatusCode, headers: &HeaderMap) {
    let reason = status.canonical_reason().unwrap_or("Informational");
    let mut line = Vec::with_capacity(48);
    let _ = write!(line, "HTTP/1.1 {} {reason}\r\n", status.as_str());
    out.extend_from_slice(&line);
    let ours = headers
        .iter()
        .filter(|(name, _)| ![CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE].contains(name));
    fields(out, ours, None);
    out.extend_from_slice(b"\r\n");
}

/// The names of a head in their order, to be found again in about that order.
pub(crate) struct Names<'a> {
    pub(crate) head: &'a [u8],
    pub(crate) index: &'a [(u32, u32)],
    pub(crate) next: usize,
}

impl<'a> Names<'a> {
    #[inline]
    fn find(&mut self, name: &[u8]) -> Option<&'a [u8]> {
        let at = |(start, len): (u32, u32)| self.head.get(start as usize..start as usize + len as usize);
        let same = |entry: &(u32, u32)| {
            entry.1 as usize == name.len()
                && at(*entry).is_some_and(|spelt| spelt == name || spelt.eq_ignore_ascii_case(name))
        };
        if let Some(next) = self.index.get(self.next).copied()
            && let Some(spelt) = at(next)
            && is_spelling(spelt, name)
        {
            self.next += 1;
            return Some(spelt);
        }
        let rest = self.index.get(self.next..).unwrap_or_default();
        let found = match rest.iter().position(same) {
            Some(found) => self.next + found,
            None => self.index.iter().position(same)?,
        };
        self.next = found + 1;
        self.index.get(found).copied().and_then(at)
    }
}

/// Whether this spells a name that is in lower case. Names with other bytes than letters, digits and `-` are rare.
#[inline]
fn is_spelling(spelt: &[u8], name: &[u8]) -> bool {
    is_name(spelt, name)
        && (name.len() < 8
            || !name.iter().any(|b| matches!(b, b'^' | b'~'))
            || spelt.eq_ignore_ascii_case(name))
}
