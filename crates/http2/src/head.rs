//! Reads heads of messages from blocks, and writes them to blocks (RFC 9113 section 8).
//!
//! Forbidden parts of a block make its message malformed (sections 8.1.1, 8.2.1, 8.2.2 and 8.3): pseudo-fields that occur twice, come after
//! other fields, or are in the wrong kind of message or in trailers; names in upper case; fields of the connection; a fragment in `:path`.
//! Nothing is dropped silently, because the next hop could read what this one ignores.

use std::rc::Rc;

use attache_wire::{
    ConnectProtocol, Fields, RequestHead, ResponseHead,
    header::{
        CONNECTION, CONTENT_LENGTH, HTTP2_SETTINGS, KEEP_ALIVE, KnownName, PROXY_CONNECTION, TE,
        TRANSFER_ENCODING, UPGRADE,
    },
};
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, Method, StatusCode, Uri, Version,
    uri::{Authority, PathAndQuery, Scheme},
};

use crate::hpack::{Field, HpackDecoder, HpackEncoder, InvalidBlock, OVERHEAD, Pseudo, Tag};

/// Room for the fields of most messages, and (the constant below) for the bytes of their names and values.
const LINES: usize = 16;
const BYTES: usize = 512;

/// The contents of a block.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(crate) kind: BlockKind,
    pub(crate) fields: Fields,
    /// Its fields are larger than the limit (SETTINGS_MAX_HEADER_LIST_SIZE). The fields beyond the limit were not kept.
    pub(crate) too_large: bool,
    /// Why the message is malformed, if it is.
    pub(crate) malformed: Option<&'static str>,
    /// The value of the only `content-length`.
    pub(crate) length: Option<u64>,
}

/// The pseudo-fields.
#[derive(Debug, Default)]
pub(crate) struct BlockKind {
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    path: Option<PathAndQuery>,
    raw_query: Option<attache_wire::RawQuery>,
    protocol: Option<ConnectProtocol>,
    status: Option<StatusCode>,
}

/// The kind of message that a block belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessagePart {
    Request,
    Response,
    Trailers,
}

/// Reads blocks of one direction.
#[derive(Debug, Default)]
pub(crate) struct HeadReader {
    decoder: HpackDecoder,
    /// The last authority, because most requests of a connection have the same one.
    authority: Option<Authority>,
    /// The size of the last head, in bytes.
    usual: usize,
    /// The last block. Because it is large, it is filled in place and taken from here.
    block: Block,
}

impl HeadReader {
    /// Reads a complete block.
    ///
    /// # Errors
    /// The block is invalid.
    pub(crate) fn read(
        &mut self,
        bytes: &[u8],
        place: MessagePart,
        limit: usize,
    ) -> Result<&mut Block, InvalidBlock> {
        let Self { decoder, authority, usual, block } = self;
        *block = Block::default();
        let (lines, room) = if place == MessagePart::Trailers { (4, 64) } else { (LINES, BYTES.max(*usual)) };
        block.fields = Fields::with_capacity(lines, room.min(4 << 10));
        let mut read = BlockParser { block, place, size: 0, limit, regular: false, authority };
        decoder.decode(bytes, |field| read.field(field))?;
        *usual = read.size;
        Ok(block)
    }

    /// Reads a block of a message that is ignored. This keeps the compression table in step with the peer's.
    ///
    /// # Errors
    /// The block is invalid.
    pub(crate) fn skip(&mut self, block: &[u8]) -> Result<(), InvalidBlock> {
        self.decoder.decode(block, |_| {})
    }
}

struct BlockParser<'a> {
    block: &'a mut Block,
    place: MessagePart,
    size: usize,
    limit: usize,
    /// A field that is no pseudo-field was read.
    regular: bool,
    authority: &'a mut Option<Authority>,
}

impl BlockParser<'_> {
    fn field(&mut self, field: Field<'_>) {
        self.size += field.name.len() + field.value.len() + OVERHEAD;
        if self.size > self.limit {
            self.block.too_large = true;
            return;
        }
        let wrong = match field.tag {
            Tag::Pseudo(pseudo) => self.pseudo(pseudo, field.value),
            Tag::Known(known) => self.known(known, field),
            Tag::Other => self.add(None, field),
        };
        if let Some(wrong) = wrong {
            self.malformed(wrong);
        }
    }

    fn malformed(&mut self, why: &'static str) {
        self.block.malformed.get_or_insert(why);
    }

    #[inline]
    fn add(&mut self, known: Option<KnownName>, field: Field<'_>) -> Option<&'static str> {
        self.regular = true;
        let value = match field.value {
            // A request with such a value is refused later, where the answer can give the reason.
            [b' ' | b'\t', ..] | [.., b' ' | b'\t'] if self.place != MessagePart::Request => {
                trim(field.value)
            }
            value => value,
        };
        let added = self.block.fields.append_read(known, field.name, value, field.sensitive);
        (!added).then_some("a field's name is not in lower case, or it contains a byte that is not allowed")
    }

    fn known(&mut self, known: KnownName, field: Field<'_>) -> Option<&'static str> {
        match known {
            CONNECTION | KEEP_ALIVE | PROXY_CONNECTION | TRANSFER_ENCODING | UPGRADE | HTTP2_SETTINGS => {
                return Some("a field of the connection, which HTTP/2 does not have");
            }
            TE if field.value != b"trailers" => return Some("`te` is not exactly `trailers`"),
            CONTENT_LENGTH if self.place != MessagePart::Trailers => {
                let digits = field.value;
                let length =
                    std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_digit));
                let length = length.and_then(|digits| digits.parse().ok());
                if length.is_none() || self.block.length.is_some_and(|other| Some(other) != length) {
                    return Some("`content-length` is not one decimal number");
                }
                self.block.length = length;
            }
            _ => {}
        }
        self.add(Some(known), field)
    }

    fn pseudo(&mut self, pseudo: Pseudo, value: &[u8]) -> Option<&'static str> {
        let of_request = !matches!(pseudo, Pseudo::Status | Pseudo::Unknown);
        let belongs = match self.place {
            MessagePart::Request => of_request,
            MessagePart::Response => pseudo == Pseudo::Status,
            MessagePart::Trailers => false,
        };
        if !belongs {
            return Some("a pseudo-field that is not allowed in this kind of message");
        }
        if self.regular {
            return Some("a pseudo-field after other fields");
        }
        let kind = &mut self.block.kind;
        let twice = match pseudo {
            Pseudo::Method => kind.method.replace(method(value)?).is_some(),
            Pseudo::Scheme => kind.scheme.replace(scheme(value)?).is_some(),
            Pseudo::Authority => {
                let authority = match self.authority {
                    Some(last) if last.as_str().as_bytes() == value => last.clone(),
                    // Some clients send an empty `:authority` instead of none.
                    _ if value.is_empty() => return None,
                    _ => match Authority::from_maybe_shared(Bytes::copy_from_slice(value)) {
                        Ok(authority) => self.authority.insert(authority).clone(),
                        Err(_) => return Some("`:authority` is not a valid authority"),
                    },
                };
                kind.authority.replace(authority).is_some()
            }
            Pseudo::Path => {
                if value.contains(&b'#') {
                    return Some("`:path` has a fragment");
                }
                // RFC 9113 section 8.3.1: the value begins with a path. For a query alone, some parsers would read no path, and others `/`.
                if value.first() == Some(&b'?') {
                    return Some("`:path` is only a query");
                }
                let Some((path, raw)) = attache_wire::path_and_query(value) else {
                    return Some("`:path` is not a valid path");
                };
                kind.raw_query = raw;
                kind.path.replace(path).is_some()
            }
            Pseudo::Protocol => match std::str::from_utf8(value) {
                Ok(name) => kind.protocol.replace(ConnectProtocol::from(name)).is_some(),
                Err(_) => return Some("`:protocol` is not a valid name"),
            },
            Pseudo::Status => match StatusCode::from_bytes(value) {
                Ok(status) => kind.status.replace(status).is_some(),
                Err(_) => return Some("`:status` is not a number of three digits"),
            },
            Pseudo::Unknown => false,
        };
        twice.then_some("a pseudo-field occurs twice")
    }
}

/// Removes whitespace around a value; it is not a part of the value (RFC 9110 section 5.5). RFC 9113 section 8.2.1 says that such a message
/// is malformed. But HTTP/1 removes this whitespace, and attache does the same here. So no response is lost because of it, and rules and
/// the next hop read the same value in both protocols.
fn trim(value: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !is_blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_blank(byte)).map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}

/// An invalid method counts as missing; both make the message malformed. The same is true of a scheme.
fn method(value: &[u8]) -> Option<Method> {
    match value {
        b"GET" => Some(Method::GET),
        b"POST" => Some(Method::POST),
        _ => Method::from_bytes(value).ok(),
    }
}

fn scheme(value: &[u8]) -> Option<Scheme> {
    match value {
        b"http" => Some(Scheme::HTTP),
        b"https" => Some(Scheme::HTTPS),
        _ => Scheme::try_from(value).ok(),
    }
}

impl Block {
    /// The head of a request (section 8.3.1, RFC 8441 section 4).
    ///
    /// # Errors
    /// Why the request is malformed.
    pub(crate) fn request(&mut self) -> Result<Rc<RequestHead>, &'static str> {
        let Self { kind, fields, malformed, .. } = self;
        if let Some(why) = malformed {
            return Err(why);
        }
        let method = kind.method.take().ok_or("`:method` is missing or invalid")?;
        let mut parts = http::uri::Parts::default();
        let is_connect = method == Method::CONNECT;
        if is_connect && kind.protocol.is_none() {
            if kind.scheme.is_some() || kind.path.is_some() || kind.authority.is_none() {
                return Err("CONNECT needs `:authority`, without `:scheme` and `:path`");
            }
        } else {
            if kind.protocol.is_some() && !is_connect {
                return Err("`:protocol` without CONNECT");
            }
            let scheme = kind.scheme.take().ok_or("`:scheme` is missing or invalid")?;
            parts.path_and_query = Some(kind.path.take().ok_or("`:path` is missing")?);
            // The `http` crate has no scheme without an authority.
            parts.scheme = kind.authority.is_some().then_some(scheme);
        }
        parts.authority = kind.authority.take();
        let uri = Uri::from_parts(parts).map_err(|_| "the pseudo-fields don't form a URI")?;
        Ok(Rc::new(RequestHead {
            method,
            uri,
            version: Version::HTTP_2,
            headers: std::mem::take(fields),
            raw_query: kind.raw_query.take(),
            protocol: kind.protocol.take(),
        }))
    }

    /// The head of a response (section 8.3.2).
    ///
    /// # Errors
    /// Why the response is malformed.
    pub(crate) fn response(&mut self) -> Result<Box<ResponseHead>, &'static str> {
        let Self { kind, fields, malformed, .. } = self;
        if let Some(why) = malformed {
            return Err(why);
        }
        let status = kind.status.ok_or("`:status` is missing")?;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err("HTTP/2 has no 101");
        }
        let headers = std::mem::take(fields);
        Ok(Box::new(ResponseHead { status, version: Version::HTTP_2, headers, reason: None, carried: None }))
    }

    /// Trailers, as the map that bodies carry.
    ///
    /// # Errors
    /// Why the trailers are malformed.
    pub(crate) fn trailers(&mut self) -> Result<HeaderMap, &'static str> {
        match self.malformed {
            Some(why) => Err(why),
            None => Ok(std::mem::take(&mut self.fields).into()),
        }
    }
}

/// Writes the block of a request.
pub(crate) fn write_request(encoder: &mut HpackEncoder, head: &RequestHead, out: &mut BytesMut) {
    encoder.begin(out);
    let uri = &head.uri;
    encoder.pseudo(out, Pseudo::Method, head.method.as_str().as_bytes());
    if let Some(scheme) = uri.scheme() {
        encoder.pseudo(out, Pseudo::Scheme, scheme.as_str().as_bytes());
    }
    if let Some(authority) = uri.authority() {
        encoder.pseudo(out, Pseudo::Authority, authority.as_str().as_bytes());
    }
    if (head.method != Method::CONNECT || head.protocol.is_some())
        && let Some(path) = uri.path_and_query()
    {
        match head.raw_query.as_ref().and_then(|raw| raw.target(path)) {
            Some(raw) => encoder.pseudo(out, Pseudo::Path, &raw),
            // For `?query` alone, the `http` crate shows a `/` before it that it does not hold.
            None if path.as_str().starts_with('?') => {
                encoder.pseudo(out, Pseudo::Path, &[b"/", path.as_str().as_bytes()].concat());
            }
            None => encoder.pseudo(out, Pseudo::Path, path.as_str().as_bytes()),
        }
    }
    if let Some(protocol) = &head.protocol {
        encoder.pseudo(out, Pseudo::Protocol, protocol.as_str().as_bytes());
    }
    write_fields(encoder, &head.headers, out);
}

/// Writes the block of a response.
pub(crate) fn write_response(
    encoder: &mut HpackEncoder,
    status: StatusCode,
    fields: &Fields,
    out: &mut BytesMut,
) {
    encoder.begin(out);
    encoder.pseudo(out, Pseudo::Status, status.as_str().as_bytes());
    write_fields(encoder, fields, out);
}

fn write_fields(encoder: &mut HpackEncoder, fields: &Fields, out: &mut BytesMut) {
    for (name, value) in fields {
        let tag = attache_wire::FieldName::known(&name).map_or(Tag::Other, Tag::Known);
        let sensitive = value.is_sensitive();
        encoder.field(out, Field { tag, name: name.as_bytes(), value: value.as_bytes(), sensitive });
    }
}

/// Writes the block of trailers.
pub(crate) fn write_trailers(encoder: &mut HpackEncoder, map: &HeaderMap, out: &mut BytesMut) {
    encoder.begin(out);
    for (name, value) in map {
        let name = name.as_str().as_bytes();
        let sensitive = value.is_sensitive();
        encoder.field(out, Field { tag: Tag::of(name), name, value: value.as_bytes(), sensitive });
    }
}
