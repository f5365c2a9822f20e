//! Reads one response head, strictly.
//!
//! Responses are checked as carefully as requests. If an upstream and a client read a response differently, one of them takes it for two
//! responses (RFC 9112 sections 6.3 and 11.1). Two things are rewritten into one form, as section 6.3 asks. A `Content-Length` beside
//! `Transfer-Encoding` is dropped, and the connection ends with the response. Several equal lengths become one.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::{StatusCode, Version};
use memchr::memchr;

use crate::{
    Fields, HeadLimits, MessageFault, ResponseHead,
    field::{self, BARE_LF},
    fields::LineIndex,
    header::{self, CONTENT_LENGTH, KnownName},
    value::{self, ConnectionOptions},
};

/// How the body of a response is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFraming {
    /// There is no body.
    None,
    /// By its length in bytes.
    Length(u64),
    /// By its chunks.
    Chunked,
    /// The body ends when the connection ends.
    UntilEnd,
}

/// The kind of the request's method, because the framing of the response depends on it (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodKind {
    /// HEAD: there is no body, whatever the head says.
    Head,
    /// CONNECT: a success has no body and opens a tunnel.
    Connect,
    /// Any other method.
    Other,
}

/// What is known of a valid head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedResponse {
    /// Its length in bytes, with the empty line that ends it.
    pub len: usize,
    /// The status.
    pub status: u16,
    /// The position of the reason phrase.
    pub reason: Range<usize>,
    /// The version is HTTP/1.1 or a later HTTP/1. Otherwise it is HTTP/1.0.
    pub http11: bool,
    /// How its body is framed.
    pub framing: ResponseFraming,
    /// The one length that all `Content-Length` lines mean.
    pub length: Option<u64>,
    /// The `Content-Length` lines must not be passed on as they are. [`length`](Self::length) replaces them; for a chunked body nothing
    /// does.
    pub rewrite_length: bool,
    /// Another response may follow on this connection.
    pub persists: bool,
}

const LINE: MessageFault =
    MessageFault::invalid("The response does not begin with `HTTP/1.x STATUS REASON`.");
const TOO_LONG: MessageFault = MessageFault::invalid("The response's status line is longer than allowed.");
const LENGTH: MessageFault =
    MessageFault::invalid("The response's Content-Length is not one decimal number.");
const LENGTHS: MessageFault = MessageFault::invalid("The response has Content-Length headers that differ.");
const CODING: MessageFault =
    MessageFault::invalid("The response's Transfer-Encoding is not exactly `chunked`.");

/// Takes the head off the front of the buffer; `None` while its end has not arrived.
///
/// # Errors
/// The rule that was broken. Nothing else on this connection can be trusted.
pub fn read(
    buf: &mut BytesMut,
    limits: &HeadLimits,
    asked: MethodKind,
) -> Result<Option<(ParsedResponse, Box<ResponseHead>)>, MessageFault> {
    let Some((head, index)) = parse(buf, limits, asked)? else { return Ok(None) };
    let bytes = buf.split_to(head.len).freeze();
    let message = message(&head, bytes, index)?;
    Ok(Some((head, message)))
}

fn parse(
    bytes: &[u8],
    limits: &HeadLimits,
    asked: MethodKind,
) -> Result<Option<(ParsedResponse, LineIndex)>, MessageFault> {
    const BEGIN: &[u8] = b"HTTP/1.";
    let there = bytes.len().min(BEGIN.len());
    if bytes.get(..there) != BEGIN.get(..there) {
        return Err(LINE);
    }
    let Some(end) = memchr(b'\n', bytes) else {
        return if bytes.len() > limits.line + 2 { Err(TOO_LONG) } else { Ok(None) };
    };
    if end > limits.line + 2 {
        return Err(TOO_LONG);
    }
    let Some(line) = bytes.get(..end).and_then(|line| line.strip_suffix(b"\r")) else {
        return Err(BARE_LF);
    };
    if line.len() > limits.line {
        return Err(TOO_LONG);
    }
    let (status, http11, reason) = status_line(line)?;
    let mut seen = ResponseFramingFields::default();
    let field = |name: KnownName, value: &[u8]| seen.field(name, value);
    let Some((len, index)) = field::fields(bytes, end + 1, limits.size, limits.count, field)? else {
        return Ok(None);
    };
    if seen.chunked && !http11 {
        return Err(MessageFault::invalid("The response is HTTP/1.0 and has a Transfer-Encoding."));
    }
    let bodiless = matches!(status, 100..=199 | 204 | 304)
        || asked == MethodKind::Head
        || (asked == MethodKind::Connect && (200..300).contains(&status));
    let framing = match seen.length {
        _ if bodiless => ResponseFraming::None,
        _ if seen.chunked => ResponseFraming::Chunked,
        Some(0) => ResponseFraming::None,
        Some(n) => ResponseFraming::Length(n),
        None => ResponseFraming::UntilEnd,
    };
    let persists = seen.connection.persists(http11) && framing != ResponseFraming::UntilEnd;
    let head = ParsedResponse {
        len,
        status,
        reason,
        http11,
        framing,
        length: seen.length.filter(|_| !seen.chunked),
        rewrite_length: seen.folded || (seen.chunked && seen.length.is_some()),
        persists: persists && !(seen.chunked && seen.length.is_some()),
    };
    Ok(Some((head, index)))
}

#[derive(Default)]
struct ResponseFramingFields {
    length: Option<u64>,
    folded: bool,
    chunked: bool,
    connection: ConnectionOptions,
}

impl ResponseFramingFields {
    #[inline]
    fn field(&mut self, name: KnownName, value: &[u8]) -> Result<(), MessageFault> {
        match name {
            header::CONNECTION => self.connection.add(value),
            header::CONTENT_LENGTH => {
                if self.length.is_none()
                    && let Some(length) = value::number(value)
                {
                    self.length = Some(length);
                } else {
                    self.fold(value)?;
                }
            }
            header::TRANSFER_ENCODING => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(CODING);
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes equal lengths, in one line or several, as one (RFC 9110 section 8.6).
    #[cold]
    fn fold(&mut self, value: &[u8]) -> Result<(), MessageFault> {
        self.folded = true;
        for element in value.split(|b| *b == b',') {
            let length = value::number(value::trim(element)).ok_or(LENGTH)?;
            if *self.length.get_or_insert(length) != length {
                return Err(LENGTHS);
            }
        }
        Ok(())
    }
}

fn status_line(line: &[u8]) -> Result<(u16, bool, Range<usize>), MessageFault> {
    // `HTTP/1.x `, three digits, and a reason phrase. The phrase may be missing together with its space; clients have always accepted that.
    let [_, _, _, _, _, _, _, minor, b' ', a, b, c, rest @ ..] = line else { return Err(LINE) };
    if !minor.is_ascii_digit() || !matches!(a, b'1'..=b'9') || !b.is_ascii_digit() || !c.is_ascii_digit() {
        return Err(LINE);
    }
    let control = |b: &u8| (*b < 0x20 && *b != b'\t') || *b == 0x7f;
    if !matches!(rest.first(), None | Some(b' ')) || rest.iter().any(control) {
        return Err(LINE);
    }
    let digit = |b: &u8| u16::from(b - b'0');
    let status = digit(a) * 100 + digit(b) * 10 + digit(c);
    Ok((status, *minor != b'0', line.len().min(13)..line.len()))
}

/// The head of a response that was read.
///
/// # Errors
/// The status is below 100. A head that was read never has such a status.
fn message(head: &ParsedResponse, bytes: Bytes, index: LineIndex) -> Result<Box<ResponseHead>, MessageFault> {
    let status = StatusCode::from_u16(head.status)
        .map_err(|_| MessageFault::invalid("The response's status is not a number of three digits."))?;
    let phrase = bytes.get(head.reason.clone()).unwrap_or_default();
    let usual = status.canonical_reason().unwrap_or("Unknown").as_bytes() == phrase;
    let reason = (!usual).then(|| bytes.slice(head.reason.clone()));
    let mut headers = Fields::of_head(bytes, index);
    if head.rewrite_length {
        match head.length {
            Some(length) => headers.insert(CONTENT_LENGTH, length),
            None => drop(headers.remove(CONTENT_LENGTH)),
        }
    }
    let version = if head.http11 { Version::HTTP_11 } else { Version::HTTP_10 };
    Ok(Box::new(ResponseHead { status, version, headers, reason, carried: None }))
}
