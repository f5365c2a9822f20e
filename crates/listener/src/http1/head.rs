//! One request head, read strictly.
//!
//! Decides whether a head can be read in one way only, and how its body is framed. The rules are RFC 9112 sections 2.2, 3, 5 and 6.3
//! and RFC 9110 section 5.6.2, each without the leniency that they allow a recipient: what another parser may read differently is
//! refused. What passes here, hyper reads the same way; a test holds the two against each other.

use attache_telemetry::Reason;
use memchr::memchr;

use crate::request::Refusal;

/// Bounds on one head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of the request line.
    pub(crate) request_line: usize,
    /// Bytes of all header lines.
    pub(crate) headers_size: usize,
    /// Header lines.
    pub(crate) headers_count: usize,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// By its chunks.
    Chunked,
}

/// What is needed of a good head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Bytes up to its last.
    pub(crate) len: usize,
    /// Its body.
    pub(crate) framing: Framing,
    /// What follows may not be HTTP: CONNECT, or an `Upgrade` was asked for.
    pub(crate) may_switch: bool,
}

pub(crate) const fn bad(rule: &'static str) -> Refusal {
    Refusal { reason: Reason::BadRequest, rule }
}

const TOO_LONG: Refusal =
    Refusal { reason: Reason::UriTooLong, rule: "The request line is longer than allowed." };
const TOO_LARGE: Refusal =
    Refusal { reason: Reason::HeadersTooLarge, rule: "The headers are larger than allowed." };
const TOO_MANY: Refusal =
    Refusal { reason: Reason::HeadersTooLarge, rule: "There are more headers than allowed." };
const BARE_LF: Refusal = bad("A line ends in LF without CR.");
const CONTROL: Refusal = bad("A header value has a control character (or a bare CR).");

/// Reads the head that `bytes` begin with; `None` while its end is not there.
pub(crate) fn parse(bytes: &[u8], limits: &Limits) -> Result<Option<Head>, Refusal> {
    let Some(end) = memchr(b'\n', bytes) else {
        if bytes.len() > limits.request_line + 2 {
            return Err(TOO_LONG);
        }
        // A line of something else entirely need not be waited for.
        return match bytes.iter().position(|b| !TOKEN[usize::from(*b)]) {
            Some(0) => Err(bad("The request does not begin with a method.")),
            Some(n) if bytes.get(n) != Some(&b' ') => Err(bad("The method has a character it may not have.")),
            _ => Ok(None),
        };
    };
    let Some(line) = bytes.get(..end).and_then(|line| line.strip_suffix(b"\r")) else {
        return Err(BARE_LF);
    };
    if line.len() > limits.request_line {
        return Err(TOO_LONG);
    }
    let Line { connect, http11 } = request_line(line)?;

    let mut hosts = 0_u32;
    let mut length = None;
    let mut chunked = false;
    let mut upgrade = false;
    let field = |name: &[u8], value: &[u8]| {
        // The lengths tell the five names that matter from almost all others.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                hosts += 1;
                if !value.iter().all(|b| HOST[usize::from(*b)]) {
                    return Err(bad("The Host header has a character that no host has."));
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let first = length.replace(content_length(value)?).is_none();
                if !first {
                    return Err(bad("There is more than one Content-Length."));
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if chunked {
                    return Err(bad("There is more than one Transfer-Encoding."));
                }
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(bad("The Transfer-Encoding is not exactly `chunked`."));
                }
                chunked = true;
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => upgrade = true,
            _ => {}
        }
        Ok(())
    };
    let rest = bytes.get(end + 1..).unwrap_or_default();
    let Some(fields) = fields(rest, limits.headers_size, limits.headers_count, field)? else {
        return Ok(None);
    };
    if chunked && !http11 {
        return Err(bad("HTTP/1.0 has no Transfer-Encoding."));
    }
    if chunked && length.is_some() {
        return Err(bad("There is a Content-Length beside a Transfer-Encoding."));
    }
    if hosts > 1 {
        return Err(bad("There is more than one Host header."));
    }
    if hosts == 0 && http11 {
        return Err(bad("There is no Host header."));
    }
    let framing = match length {
        _ if chunked => Framing::Chunked,
        Some(0) | None => Framing::None,
        Some(n) => Framing::Length(n),
    };
    if connect && framing != Framing::None {
        // RFC 9110 section 9.3.6: it has no meaning, and the bytes could be taken for the tunnel's.
        return Err(bad("A CONNECT has a body."));
    }
    Ok(Some(Head { len: end + 1 + fields, framing, may_switch: connect || (upgrade && http11) }))
}

/// Reads trailer lines up to the empty one; their length with it.
pub(crate) fn trailers(bytes: &[u8], size: usize, count: usize) -> Result<Option<usize>, Refusal> {
    fields(bytes, size, count, |name, _| {
        // RFC 9110 section 6.5.1: framing and routing are not for trailers.
        let forbidden: [&[u8]; 3] = [b"content-length", b"transfer-encoding", b"host"];
        if forbidden.iter().any(|f| name.eq_ignore_ascii_case(f)) {
            return Err(bad("A trailer has a name that is for headers only."));
        }
        Ok(())
    })
}

struct Line {
    connect: bool,
    http11: bool,
}

fn request_line(line: &[u8]) -> Result<Line, Refusal> {
    let parts = memchr(b' ', line).zip(memchr::memrchr(b' ', line)).filter(|(a, b)| a < b);
    let parts = parts.and_then(|(a, b)| Some((line.get(..a)?, line.get(a + 1..b)?, line.get(b + 1..)?)));
    let Some((method, target, version)) = parts else {
        return Err(bad("The request line is not `METHOD TARGET VERSION` with single spaces."));
    };
    if method.is_empty() || !method.iter().all(|b| TOKEN[usize::from(*b)]) {
        return Err(bad("The method has a character it may not have."));
    }
    let http11 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return Err(bad("The version is not HTTP/1.1 or HTTP/1.0.")),
    };
    let connect = method == b"CONNECT";
    let good = match target.first() {
        Some(_) if !target.iter().all(|b| TARGET[usize::from(*b)]) => false,
        Some(b'/') => !connect,
        Some(b'*') => target.len() == 1 && method == b"OPTIONS",
        // The forms of a forward proxy, rarer and with more grammar: hyper's own parser has the last word.
        Some(_) => http::Uri::try_from(target).is_ok_and(|uri| {
            let authority =
                uri.authority().is_some_and(|a| !a.host().is_empty() && !a.as_str().contains('@'));
            authority && connect != uri.scheme().is_some()
        }),
        None => false,
    };
    if !good {
        return Err(bad("The request's target is not one that its method may have."));
    }
    Ok(Line { connect, http11 })
}

/// Reads field lines up to and with the empty line that ends them; `None` while it isn't there.
fn fields(
    bytes: &[u8],
    max_size: usize,
    max_count: usize,
    mut field: impl FnMut(&[u8], &[u8]) -> Result<(), Refusal>,
) -> Result<Option<usize>, Refusal> {
    let mut rest = bytes;
    let mut count = 0;
    while let Some(end) = memchr(b'\n', rest) {
        let (line, after) = rest.split_at(end + 1);
        let Some(line) = line.strip_suffix(b"\r\n") else { return Err(BARE_LF) };
        rest = after;
        let size = bytes.len() - rest.len();
        if line.is_empty() {
            return Ok(Some(size));
        }
        count += 1;
        if count > max_count {
            return Err(TOO_MANY);
        }
        if size > max_size {
            return Err(TOO_LARGE);
        }
        let (name, value) = split(line)?;
        field(name, value)?;
    }
    // `\r\n` of the end is not counted.
    if bytes.len() > max_size + 2 { Err(TOO_LARGE) } else { Ok(None) }
}

fn split(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let Some(colon) = line.iter().position(|b| !TOKEN[usize::from(*b)]) else {
        return Err(bad("A header line has no colon."));
    };
    match (colon, line.get(colon)) {
        (0, Some(b' ' | b'\t')) => return Err(bad("A header is folded over two lines.")),
        (0, _) => return Err(bad("A header has no name.")),
        (_, Some(b':')) => {}
        (_, Some(b' ' | b'\t')) => {
            return Err(bad("There is whitespace between a header's name and its colon."));
        }
        _ => return Err(bad("A header's name has a character it may not have.")),
    }
    let (name, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default();
    // Branchless, so that it is compiled to vector instructions.
    let control = |b: u8| u8::from((b < 0x20 && b != b'\t') || b == 0x7f);
    if value.iter().fold(0, |bad, &b| bad | control(b)) != 0 {
        return Err(CONTROL);
    }
    // Only SP and HTAB are whitespace here (RFC 9110 section 5.6.3).
    let trimmed = |b: &u8| matches!(b, b' ' | b'\t');
    let start = value.iter().position(|b| !trimmed(b)).unwrap_or(value.len());
    let end = value.iter().rposition(|b| !trimmed(b)).map_or(start, |last| last + 1);
    Ok((name, value.get(start..end).unwrap_or_default()))
}

fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    const INVALID: Refusal = bad("The Content-Length is not one decimal number.");
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(INVALID);
    }
    Ok(value.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
}

const fn table(extra: &[u8], visible: bool) -> [bool; 256] {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        let c = b as u8;
        table[b] = c.is_ascii_alphanumeric() || (visible && c.is_ascii_graphic());
        b += 1;
    }
    let mut i = 0;
    while i < extra.len() {
        table[extra[i] as usize] = !visible;
        i += 1;
    }
    table
}

/// RFC 9110 section 5.6.2.
pub(crate) const TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~", false);
/// RFC 3986's characters and those that clients send unescaped all the same. Not `#`, which some parsers cut off; not `\`, which
/// some read as `/`; not `"`, `<` and `>`, which are nowhere legal.
pub(crate) const TARGET: [bool; 256] = table(b"#\\\"<>", true);
/// RFC 3986 section 3.2: a registered name, an address or an IP literal, and a port.
const HOST: [bool; 256] = table(b"-._~%!$&'()*+;=:[]", false);
