//! Reads one request head, strictly.
//!
//! This module decides whether a head has only one meaning, and how its body is framed. The rules are RFC 9112 sections 2.2, 3, 5 and 6.3
//! and RFC 9110 section 5.6.2, without the leniency that they allow a recipient. What another parser may read differently is refused.

use std::{ops::Range, rc::Rc};

use bytes::{Bytes, BytesMut};
use http::{Method, Uri, Version, uri::PathAndQuery};
use memchr::{memchr, memrchr};

use crate::{
    FaultKind, Fields, ForbiddenByte, HeadLimits, MessageFault, RawQuery, RequestHead,
    chars::{self, HOST, PATH, QUERY, TOKEN},
    field::{self, BARE_LF},
    fields::LineIndex,
    header::{self, KnownName},
    message::{encoded, needs_encoding, uri_of},
    value::{self, ConnectionOptions},
};

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFraming {
    /// There is no body.
    None,
    /// By its length in bytes.
    Length(u64),
    /// By its chunks.
    Chunked,
}

/// What to do with raw UTF-8 in a target. No RFC allows it, and some clients send it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetStrictness {
    /// Refuse it.
    #[default]
    Strict,
    /// Pass it on unchanged.
    Lenient,
}

/// What is known of a valid head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedRequest {
    /// Its length in bytes, with the empty line that ends it.
    pub len: usize,
    /// The position of the method.
    pub method: Range<usize>,
    /// The position of the target.
    pub target: Range<usize>,
    /// The version is HTTP/1.1, or a later HTTP/1, which counts as 1.1 (RFC 9110 section 2.5). Otherwise it is HTTP/1.0.
    pub http11: bool,
    /// How its body is framed.
    pub framing: RequestFraming,
    /// The bytes after this message may be another protocol: it is a CONNECT, or it asks for an `Upgrade`.
    pub may_switch: bool,
    /// Another request may follow on this connection.
    pub persists: bool,
    /// The client waits for status 100 before it sends the body (RFC 9110 section 10.1.1).
    pub expects: bool,
    /// The client accepts trailers (`TE: trailers`).
    pub takes_trailers: bool,
}

const TOO_LONG: MessageFault =
    MessageFault::of(FaultKind::LineTooLong, "The request line is longer than allowed.");
/// The most bytes of a method. The longest registered method has 17 bytes.
const MAX_METHOD: usize = 64;
const FORM: MessageFault =
    MessageFault::invalid("The request's target has a form that its method does not allow.");
const BYTE: &str = "The request's target has a byte that is not allowed there; write it percent-encoded.";

/// Takes the head off the front of the buffer; `None` while its end has not arrived.
///
/// # Errors
/// The rule that was broken. Nothing after the head can be trusted.
pub fn read(
    buf: &mut BytesMut,
    limits: &HeadLimits,
    target: TargetStrictness,
) -> Result<Option<(ParsedRequest, Rc<RequestHead>)>, MessageFault> {
    let Some((head, index)) = parse(buf, limits, target)? else { return Ok(None) };
    let bytes = buf.split_to(head.len).freeze();
    let message = message(&head, bytes, index)?;
    Ok(Some((head, message)))
}

fn parse(
    bytes: &[u8],
    limits: &HeadLimits,
    target: TargetStrictness,
) -> Result<Option<(ParsedRequest, LineIndex)>, MessageFault> {
    // Bytes that can't be a request are refused at once, without waiting for the end of the line.
    let method = check_method(bytes)?;
    let Some(end) = memchr(b'\n', bytes) else {
        return if bytes.len() > limits.line + 2 { Err(TOO_LONG) } else { Ok(None) };
    };
    // As above, where the end was not there yet: in pieces a line is refused for the same reason.
    if end > limits.line + 2 {
        return Err(TOO_LONG);
    }
    let Some(line) = bytes.get(..end).and_then(|line| line.strip_suffix(b"\r")) else {
        return Err(BARE_LF);
    };
    if line.len() > limits.line {
        return Err(TOO_LONG);
    }
    let RequestLine { connect, http11, target } = request_line(line, method, target)?;

    let mut seen = RequestFramingFields::default();
    let field = |name: KnownName, value: &[u8]| seen.field(name, value);
    let Some((len, index)) = field::fields(bytes, end + 1, limits.size, limits.count, field)? else {
        return Ok(None);
    };
    let framing = seen.framing(connect, http11)?;
    let head = ParsedRequest {
        len,
        method: 0..method,
        target,
        http11,
        framing,
        may_switch: connect || (seen.upgrade && http11),
        persists: seen.connection.persists(http11),
        expects: seen.expects && http11,
        takes_trailers: seen.takes_trailers,
    };
    Ok(Some((head, index)))
}

/// What the fields that decide the framing say.
#[derive(Default)]
struct RequestFramingFields {
    hosts: u32,
    length: Option<u64>,
    codings: Codings,
    upgrade: bool,
    expects: bool,
    takes_trailers: bool,
    connection: ConnectionOptions,
}

impl RequestFramingFields {
    #[inline]
    fn field(&mut self, name: KnownName, value: &[u8]) -> Result<(), MessageFault> {
        match name {
            header::TE => {
                self.takes_trailers |= value::elements(value).any(|te| te.eq_ignore_ascii_case(b"trailers"));
            }
            header::HOST => {
                self.hosts += 1;
                if !chars::all(value, &HOST) {
                    return Err(MessageFault::invalid(
                        "The Host header has a character that is not allowed in hosts.",
                    ));
                }
            }
            header::EXPECT => {
                self.expects |= value.eq_ignore_ascii_case(b"100-continue");
            }
            header::UPGRADE => self.upgrade = true,
            header::CONNECTION => self.connection.add(value),
            header::CONTENT_LENGTH => {
                let length = value::number(value)
                    .ok_or(MessageFault::invalid("The Content-Length is not one decimal number."))?;
                if self.length.replace(length).is_some() {
                    return Err(MessageFault::invalid("There is more than one Content-Length."));
                }
            }
            header::TRANSFER_ENCODING => {
                if self.codings == Codings::None && value.eq_ignore_ascii_case(b"chunked") {
                    self.codings = Codings::Chunked;
                } else {
                    self.codings.add(value);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn framing(&self, connect: bool, http11: bool) -> Result<RequestFraming, MessageFault> {
        if self.codings != Codings::None {
            self.check_codings(http11)?;
        }
        if self.hosts > 1 {
            return Err(MessageFault::invalid("There is more than one Host header."));
        }
        if self.hosts == 0 && http11 {
            return Err(MessageFault::invalid("There is no Host header."));
        }
        let framing = match self.length {
            _ if self.codings == Codings::Chunked => RequestFraming::Chunked,
            Some(0) | None => RequestFraming::None,
            Some(n) => RequestFraming::Length(n),
        };
        if connect && framing != RequestFraming::None {
            // RFC 9110 section 9.3.6: content has no meaning here, and its bytes could be taken for bytes of the tunnel.
            return Err(MessageFault::invalid("A CONNECT has a body."));
        }
        Ok(framing)
    }

    fn check_codings(&self, http11: bool) -> Result<(), MessageFault> {
        if !http11 {
            return Err(MessageFault::invalid("HTTP/1.0 has no Transfer-Encoding."));
        }
        if self.length.is_some() {
            return Err(MessageFault::invalid(
                "There is a Content-Length together with a Transfer-Encoding.",
            ));
        }
        match self.codings {
            Codings::None | Codings::Chunked => Ok(()),
            Codings::OthersAndChunked => Err(MessageFault::of(
                FaultKind::UnknownCoding,
                "The Transfer-Encoding names a coding other than `chunked`, which attache does not implement.",
            )),
            Codings::Others | Codings::Bad => {
                Err(MessageFault::invalid("The Transfer-Encoding is not exactly `chunked`."))
            }
        }
    }
}

/// The transfer codings of a request. All lines of `Transfer-Encoding` together are one list (RFC 9110 section 5.3). If the list ends in
/// `chunked`, the end of the body is known, so the answer can say that the other codings are not implemented (RFC 9112 section 6.1). If
/// `chunked` is not the last coding, the end of the body is unknown (section 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Codings {
    #[default]
    None,
    /// `chunked` alone.
    Chunked,
    /// Other codings, and no `chunked` after them yet.
    Others,
    /// Other codings, then `chunked`.
    OthersAndChunked,
    /// The value is no list of codings, or a coding follows `chunked`.
    Bad,
}

impl Codings {
    #[cold]
    fn add(&mut self, value: &[u8]) {
        for coding in value.split(|b| *b == b',') {
            // A coding may have parameters (RFC 9112 section 7); `chunked` has none.
            let mut parts = coding.split(|b| *b == b';');
            let name = value::trim(parts.next().unwrap_or_default());
            let token = !name.is_empty() && name.iter().all(|b| TOKEN[usize::from(*b)]);
            let chunked = name.eq_ignore_ascii_case(b"chunked");
            *self = match self {
                Self::None if chunked && parts.next().is_none() => Self::Chunked,
                Self::Others if chunked && parts.next().is_none() => Self::OthersAndChunked,
                Self::None | Self::Others if token && !chunked => Self::Others,
                _ => Self::Bad,
            };
        }
    }
}

/// Which other protocol a client speaks, if its first bytes show that.
#[cold]
pub(crate) fn another_protocol(bytes: &[u8]) -> Option<MessageFault> {
    /// The signature of version 2 of the PROXY protocol, without the line ends at its beginning.
    const PROXY: &[u8] = b"\0\r\nQUIT\n";
    match bytes {
        [b'P', b'R', b'O', b'X', b'Y', b' ', ..] => Some(UNEXPECTED_PROXY),
        _ if bytes.starts_with(PROXY) => Some(UNEXPECTED_PROXY),
        // RFC 1928 section 3: the version, a number of methods, and as many methods. SOCKS4: the version, a command, a port.
        [5, 1..=8, ..] | [4, 1 | 2, _, _, ..] => Some(MessageFault::invalid(
            "The client speaks SOCKS: give it this proxy's address with `http://` in place of `socks://`.",
        )),
        _ => None,
    }
}

const UNEXPECTED_PROXY: MessageFault = MessageFault::invalid(
    "The connection begins with a PROXY protocol header, which only a listener with `proxy_protocol` accepts.",
);

/// Checks the bytes of the method that have arrived. Returns the method's length.
fn check_method(bytes: &[u8]) -> Result<usize, MessageFault> {
    let window = bytes.get(..bytes.len().min(MAX_METHOD + 1)).unwrap_or_default();
    match window.iter().position(|b| !TOKEN[usize::from(*b)]) {
        Some(0) => Err(another_protocol(bytes)
            .unwrap_or(MessageFault::invalid("The request does not begin with a method."))),
        Some(n) if window.get(n) != Some(&b' ') => {
            Err(MessageFault::invalid("The method has a character that is not allowed in methods."))
        }
        None if window.len() > MAX_METHOD => {
            Err(MessageFault::invalid("The method is longer than 64 bytes."))
        }
        Some(n) => Ok(n),
        None => Ok(window.len()),
    }
}

struct RequestLine {
    connect: bool,
    http11: bool,
    target: Range<usize>,
}

/// Parses a request line whose method has been checked.
fn request_line(line: &[u8], method: usize, policy: TargetStrictness) -> Result<RequestLine, MessageFault> {
    const SHAPE: MessageFault =
        MessageFault::invalid("The request line is not `METHOD TARGET VERSION` with single spaces.");
    let last = memrchr(b' ', line).filter(|last| *last > method).ok_or(SHAPE)?;
    let version = line.get(last + 1..).unwrap_or_default();
    let http11 = match version {
        b"HTTP/1.0" => false,
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => true,
        _ => {
            return Err(another_protocol(line)
                .unwrap_or(MessageFault::invalid("The version is not HTTP/1.1 or HTTP/1.0.")));
        }
    };
    let range = method + 1..last;
    let target = line.get(range.clone()).unwrap_or_default();
    let method = line.get(..method).unwrap_or_default();
    let connect = method == b"CONNECT";
    check_target(target, policy)?;
    let good = match target.first() {
        Some(b'/') => !connect,
        Some(b'*') => target.len() == 1 && method == b"OPTIONS",
        // The forms of a forward proxy. They are rarer, and their grammar is larger.
        Some(_) => uri_of(target).is_some_and(|uri| {
            let authority =
                uri.authority().is_some_and(|a| !a.host().is_empty() && !a.as_str().contains('@'));
            authority && connect != uri.scheme().is_some()
        }),
        None => false,
    };
    if good { Ok(RequestLine { connect, http11, target: range }) } else { Err(FORM) }
}

/// Checks the bytes of an HTTP/2 request's `:path`, by the rules for an HTTP/1 target.
///
/// # Errors
/// A byte that a target may not have.
pub fn check_path(head: &RequestHead, policy: TargetStrictness) -> Result<(), MessageFault> {
    let Some(path) = head.uri.path_and_query() else { return Ok(()) };
    match head.raw_query.as_ref().and_then(|raw| raw.target(path)) {
        // One allocation, for the few queries that a URI can't hold.
        Some(target) => check_target(&target, policy),
        None => check_target(path.as_str().as_bytes(), policy),
    }
}

fn check_target(target: &[u8], policy: TargetStrictness) -> Result<(), MessageFault> {
    let question = memchr(b'?', target).unwrap_or(target.len());
    let (path, query) = target.split_at_checked(question).unwrap_or_default();
    let at =
        chars::first_other(path, &PATH).or_else(|| chars::first_other(query, &QUERY).map(|at| question + at));
    match at {
        None => Ok(()),
        Some(at) => unusual_target(target, at, question, policy),
    }
}

/// Handles a target whose first unusual byte is at `at`.
#[cold]
fn unusual_target(
    target: &[u8],
    at: usize,
    question: usize,
    policy: TargetStrictness,
) -> Result<(), MessageFault> {
    let refused = |at: usize| {
        let byte = target.get(at).copied().unwrap_or_default();
        Err(MessageFault {
            kind: FaultKind::Invalid,
            rule: BYTE,
            at: Some(ForbiddenByte { byte, position: at as u32 + 1 }),
        })
    };
    if policy == TargetStrictness::Strict {
        return refused(at);
    }
    let allowed = |(at, byte): (usize, &u8)| {
        let table = if at < question { &PATH } else { &QUERY };
        *byte >= 0x80 || table[usize::from(*byte)]
    };
    if let Some(at) = target.iter().enumerate().position(|byte| !allowed(byte)) {
        return refused(at);
    }
    match std::str::from_utf8(target) {
        Ok(_) => Ok(()),
        Err(error) => refused(error.valid_up_to()),
    }
}

const TARGET: MessageFault =
    MessageFault::invalid("The request's target has a form that its method does not allow.");
const METHOD: MessageFault =
    MessageFault::invalid("The method has a character that is not allowed in methods.");

/// The head of a request that was read. Its bytes are shared, not copied.
///
/// # Errors
/// [`Uri`] can't hold the target.
fn message(head: &ParsedRequest, bytes: Bytes, index: LineIndex) -> Result<Rc<RequestHead>, MessageFault> {
    let method = method(bytes.get(head.method.clone()).unwrap_or_default())?;
    let target = bytes.slice(head.target.clone());
    let no_path = method == Method::OPTIONS && has_no_path(&target);
    let mut raw_query = None;
    let mut uri = if target.iter().copied().any(needs_encoding) {
        let query = target.iter().position(|b| *b == b'?').map_or(target.len(), |at| at + 1);
        raw_query = Some(RawQuery(target.slice(query..)));
        Uri::try_from(encoded(&target)).map_err(|_| TARGET)?
    } else {
        Uri::from_maybe_shared(target).map_err(|_| TARGET)?
    };
    if no_path {
        // RFC 9112 section 3.2.4: such a target is sent on as `OPTIONS *`. The `http` crate would make it `/`.
        let mut parts = uri.into_parts();
        parts.path_and_query = Some(PathAndQuery::from_static("*"));
        uri = Uri::from_parts(parts).map_err(|_| TARGET)?;
    }
    let version = if head.http11 { Version::HTTP_11 } else { Version::HTTP_10 };
    Ok(Rc::new(RequestHead {
        method,
        uri,
        version,
        headers: Fields::of_head(bytes, index),
        raw_query,
        protocol: None,
    }))
}

/// Whether the target has the form `http://host`, without a path.
fn has_no_path(target: &[u8]) -> bool {
    let authority =
        target.iter().position(|b| *b == b':').and_then(|at| target.get(at..)?.strip_prefix(b"://"));
    authority.is_some_and(|authority| !authority.iter().any(|b| matches!(b, b'/' | b'?')))
}

fn method(bytes: &[u8]) -> Result<Method, MessageFault> {
    match bytes {
        b"GET" => Ok(Method::GET),
        _ => Method::from_bytes(bytes).map_err(|_| METHOD),
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::server::RequestReader;

    #[test]
    fn a_client_of_another_protocol_is_told_so() {
        for (bytes, rule) in [
            (&b"\x05\x02\0\x02"[..], "The client speaks SOCKS"),
            (b"\x04\x01\0\x50\x7f\0\0\x01\0", "The client speaks SOCKS"),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "PROXY protocol"),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", "PROXY protocol"),
            (b"\x16\x03\x01\x02\0\x01", "does not begin with a method"),
            (b"\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "empty lines"),
            (b"PROXYFIND / HTTP/2\r\nHost: h\r\n\r\n", "version"),
        ] {
            let limits = HeadLimits { line: 8192, size: 8192, count: 100 };
            let head = RequestReader::new(TargetStrictness::Strict).head(&mut BytesMut::from(bytes), &limits);
            let fault = head.map(drop).unwrap_err();
            assert!(fault.rule.contains(rule), "{fault:?}");
        }
    }
}
