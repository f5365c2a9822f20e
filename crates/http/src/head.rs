//! What an HTTP/1 parser forgives and this proxy doesn't, read off the bytes themselves.
//!
//! hyper takes a bare LF for a line's end, and of `Transfer-Encoding` with `Content-Length` it drops the length before
//! anybody sees it. Both are allowed (RFC 9112 sections 2.2 and 6.3), and both are how two parsers come to
//! disagree about where a request ends (section 11.2). So whoever reads a client's HTTP/1 connection shows the bytes to a
//! [`HeadGuard`] before hyper gets them. The guard follows the framing of the requests and refuses, in a head:
//! bare LF, bare CR, folded lines, whitespace around a name, two lengths, a length that isn't digits, a length together
//! with a coding, a coding that isn't exactly `chunked`; in a chunked body: a size line or an end that isn't to the letter.
//!
//! A bad head is remembered with the number of its request, so that the requests before it on the same connection are
//! still answered and it alone gets 400. A bad body can only be cut. Behind CONNECT and `Upgrade`, and behind a head larger
//! than any limit, the guard is off: those bytes are not requests, or hyper refuses them itself.
//!
//! Cost: one scan of heads and size lines, none of body bytes; it allocates only for a line that is cut in two by a read.

use crate::Refusal;

/// Follows one HTTP/1 connection's requests.
#[derive(Debug, Default)]
pub struct HeadGuard {
    state: State,
    head: Head,
    /// The begun line, where a read ended inside of it.
    begun: Vec<u8>,
    /// Heads that were read to their end.
    heads: u64,
    refused: Option<Refusal>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    RequestLine,
    Field,
    /// Bytes of a body, or of a chunk, that are left.
    Body(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailer,
    Off,
}

#[derive(Clone, Copy, Debug, Default)]
struct Head {
    length: Option<u64>,
    chunked: bool,
    tunnel: bool,
}

/// A line longer than this is hyper's to refuse.
const LONGEST_LINE: usize = 1 << 20;

impl HeadGuard {
    /// Looks at the bytes that hyper is given next.
    ///
    /// # Errors
    /// A body's framing is broken: the connection must be cut, so that what was passed on of it isn't taken for whole.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        while !bytes.is_empty() && self.state != State::Off {
            bytes = match self.state {
                State::Body(left) => self.skip(bytes, left, State::Body, State::RequestLine),
                State::Chunk(left) => self.skip(bytes, left, State::Chunk, State::ChunkEnd),
                _ => {
                    let (line, rest) = match memchr::memchr(b'\n', bytes) {
                        Some(end) => bytes.split_at(end + 1),
                        None => (bytes, &[][..]),
                    };
                    self.line(line)?;
                    rest
                }
            };
        }
        Ok(())
    }

    /// Why this request is refused, if it is; the first on a connection is number 0.
    pub fn refusal_of(&self, request: u64) -> Option<&Refusal> {
        self.refused.as_ref().filter(|_| request >= self.heads)
    }

    fn skip<'b>(&mut self, bytes: &'b [u8], left: u64, more: fn(u64) -> State, then: State) -> &'b [u8] {
        let here = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let left = left - here as u64;
        self.state = if left == 0 { then } else { more(left) };
        bytes.get(here..).unwrap_or_default()
    }

    /// A line, or the part of one that was read.
    fn line(&mut self, part: &[u8]) -> Result<(), Refusal> {
        let whole = part.ends_with(b"\n");
        if !whole || !self.begun.is_empty() {
            if self.begun.len() + part.len() > LONGEST_LINE {
                self.state = State::Off;
                return Ok(());
            }
            self.begun.extend_from_slice(part);
            if !whole {
                return Ok(());
            }
        }
        // Given back below, so that its storage serves the next cut line.
        let begun = std::mem::take(&mut self.begun);
        let line = if begun.is_empty() { part } else { &begun };
        let judged = self.whole_line(line);
        self.begun = begun;
        self.begun.clear();
        match judged {
            Ok(next) => {
                self.state = next;
                Ok(())
            }
            Err(refusal) => {
                let in_head = matches!(self.state, State::RequestLine | State::Field);
                self.state = State::Off;
                if !in_head {
                    return Err(refusal);
                }
                self.refused = Some(refusal);
                Ok(())
            }
        }
    }

    fn whole_line(&mut self, line: &[u8]) -> Result<State, Refusal> {
        const BARE: Refusal = Refusal::bad_request("A line ends with a bare LF, or has a bare CR inside.");
        let line = line.strip_suffix(b"\r\n").ok_or(BARE)?;
        if memchr::memchr(b'\r', line).is_some() {
            return Err(BARE);
        }
        match self.state {
            // Section 2.2: empty lines before a request line are ignored.
            State::RequestLine | State::Trailer if line.is_empty() => Ok(State::RequestLine),
            State::RequestLine => {
                self.head = Head { tunnel: line.starts_with(b"CONNECT "), ..Head::default() };
                // The preface of HTTP/2 is its own affair.
                Ok(if line == b"PRI * HTTP/2.0" { State::Off } else { State::Field })
            }
            State::Field if line.is_empty() => {
                if self.head.chunked && self.head.length.is_some() {
                    return Err(Refusal::bad_request("There are both Transfer-Encoding and Content-Length."));
                }
                self.heads += 1;
                Ok(match self.head {
                    Head { tunnel: true, .. } => State::Off,
                    Head { chunked: true, .. } => State::ChunkSize,
                    Head { length: Some(length @ 1..), .. } => State::Body(length),
                    _ => State::RequestLine,
                })
            }
            State::Field => self.field(line).map(|()| State::Field),
            State::ChunkSize => Ok(match chunk_size(line)? {
                0 => State::Trailer,
                size => State::Chunk(size),
            }),
            State::ChunkEnd if line.is_empty() => Ok(State::ChunkSize),
            State::ChunkEnd => Err(Refusal::bad_request("A chunk is longer than its size.")),
            State::Trailer => {
                name(line)?;
                Ok(State::Trailer)
            }
            // No lines are looked at in these.
            state @ (State::Body(_) | State::Chunk(_) | State::Off) => Ok(state),
        }
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let (name, value) = name(line)?;
        // Most names are told apart by their length.
        match name.len() {
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.head.tunnel = true,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.head.length.is_some() {
                    return Err(Refusal::bad_request("There is more than one Content-Length."));
                }
                let digits =
                    std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
                let length = digits.and_then(|digits| digits.parse().ok());
                self.head.length =
                    Some(length.ok_or(Refusal::bad_request("Content-Length is not a decimal number."))?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.head.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::bad_request(
                        "Transfer-Encoding is something else than one `chunked`.",
                    ));
                }
                self.head.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }
}

/// A field's name, and its value without the whitespace around it.
fn name(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
        return Err(Refusal::bad_request("A header field is folded over two lines."));
    }
    let colon = memchr::memchr(b':', line).ok_or(Refusal::bad_request("A header field has no colon."))?;
    let (name, value) = line.split_at(colon);
    if name.is_empty() || name.last().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
        return Err(Refusal::bad_request("There is no name, or whitespace, before a header field's colon."));
    }
    Ok((name, value.get(1..).unwrap_or_default().trim_ascii()))
}

/// RFC 9112 section 7.1: `1*HEXDIG`, then perhaps extensions.
fn chunk_size(line: &[u8]) -> Result<u64, Refusal> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default();
    // Whitespace may stand before an extension (section 7.1.1), and nowhere else.
    let digits = if digits.len() == line.len() { digits } else { digits.trim_ascii_end() };
    // Fifteen digits are 2^60 bytes.
    std::str::from_utf8(digits)
        .ok()
        .filter(|text| (1..=15).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit()))
        .and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or(Refusal::bad_request("A chunk's size is not a hexadecimal number."))
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;

    /// Heads that were whole and good, whether the next is refused, whether the connection is cut.
    fn read(parts: &[&[u8]]) -> (u64, bool, bool) {
        let mut guard = HeadGuard::default();
        let cut = parts.iter().any(|part| guard.feed(part).is_err());
        assert!((0..guard.heads).all(|request| guard.refusal_of(request).is_none()));
        (guard.heads, guard.refusal_of(guard.heads).is_some(), cut)
    }

    fn refused(head: &str) -> bool {
        // Behind a good request, which is not touched by it.
        let all = format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n{head}");
        let (heads, refused, cut) = read(&[all.as_bytes()]);
        assert!(!cut);
        assert_eq!(heads, if refused { 1 } else { 2 }, "{head:?}");
        refused
    }

    #[test]
    fn what_two_parsers_read_differently_is_refused() {
        for head in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.1\r\nX: a\rY: b\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nX : a\r\n\r\n",
            "GET / HTTP/1.1\r\nX\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\ncontent-length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding:\x0bchunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(refused(head), "{head:?}");
        }
        assert!(!refused("\r\nPOST / HTTP/1.1\r\nTransfer-Encoding:\tChunked \r\n\r\n"));
        assert!(!refused("POST / HTTP/1.1\r\nContent-Length: 007\r\n\r\n"));
    }

    #[test]
    fn a_chunked_body_that_is_not_to_the_letter_is_cut() {
        let cut = |body: &str| {
            let all = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
            read(&[all.as_bytes()]).2
        };
        assert!(!cut("5 ;x=1\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"));
        for body in [
            "5\nhello\r\n",
            "5\r\nhelloo\r\n",
            "5\r\nhello\n",
            "0x5\r\n",
            "-5\r\n",
            " 5\r\n",
            "5 \r\n",
            "\r\n",
            "g\r\n",
            ";x\r\n",
            "5;x\nhello",
            "1000000000000000\r\n",
            "0\r\nX-Sum: 1\n\r\n",
            "0\r\n folded\r\n\r\n",
        ] {
            assert!(cut(body), "{body:?}");
        }
    }

    #[test]
    fn behind_a_tunnel_nothing_is_looked_at() {
        for head in
            ["CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"]
        {
            assert_eq!(read(&[head.as_bytes(), b"\x81\n\r\n\n anything"]), (1, false, false));
        }
        assert_eq!(read(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\n"]), (0, false, false));
    }

    proptest! {
        #[test]
        fn good_requests_pass_however_the_reads_cut_them(
            requests in proptest::collection::vec(select(&[
                "GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
                "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\na\nb\r\n\r\nc:",
                "POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\n\r\n\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
                "POST /d HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\n\r\n",
                "HEAD /e HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
            ][..]), 0..6),
            mut cuts in proptest::collection::vec(0_usize..400, 0..8),
        ) {
            let all = requests.concat();
            for cut in &mut cuts {
                *cut = (*cut).min(all.len());
            }
            cuts.extend([0, all.len()]);
            cuts.sort_unstable();
            let parts: Vec<_> = cuts.windows(2).map(|pair| &all.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&parts), (requests.len() as u64, false, false));
        }

        #[test]
        fn reads_make_no_difference(bytes in "[GP/: \\r\\n1a;]{0,60}|(POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n[0-2a;\\r\\n]{0,30})", at in 0_usize..100) {
            let (left, right) = bytes.as_bytes().split_at(at.min(bytes.len()));
            prop_assert_eq!(read(&[left, right]), read(&[bytes.as_bytes()]));
        }
    }
}
