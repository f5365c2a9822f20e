//! From a head's bytes to the `http` crate's types, without a copy: values, targets and reasons are slices of the head.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header::CONTENT_LENGTH,
    uri::PathAndQuery,
};

use crate::{
    Fault, Field, Lines, field::TOO_MANY, names, request, response, value_unchecked::value, write::Names,
};

/// How the sender of a message spelt its field names, and its reason phrase. An extension of the message.
#[derive(Clone, Debug)]
pub struct Spelling {
    head: Bytes,
    names: std::sync::Arc<[(u32, u32)]>,
    reason: Option<(u32, u32)>,
}

impl Spelling {
    /// `None` where everything is as it would be written anyway.
    fn of(head: &Bytes, index: &[Field], reason: Option<(u32, u32)>) -> Option<Self> {
        let plain = |field: &Field| !field.name(head).iter().any(u8::is_ascii_uppercase);
        if reason.is_none() && index.iter().all(plain) {
            return None;
        }
        Some(Self { head: head.clone(), names: index.iter().map(Field::name_at).collect(), reason })
    }

    pub(crate) fn names(&self) -> Names<'_> {
        Names { head: &self.head, index: &self.names, next: 0 }
    }

    pub(crate) fn reason(&self) -> Option<&[u8]> {
        let (start, len) = self.reason?;
        self.head.get(start as usize..start as usize + len as usize)
    }
}

/// The query as the client sent it, where it holds bytes that [`Uri`] has no room for (`"`, `<`, `>`): in the URI they stand
/// percent-encoded. An extension of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawQuery(Bytes);

impl RawQuery {
    /// The path and query to be written for `uri`: with the raw query, where the URI's is still its encoded form.
    pub fn target(&self, path: &PathAndQuery) -> Option<Vec<u8>> {
        if encoded(&self.0) != path.query()?.as_bytes() {
            return None;
        }
        let mut target = path.path().as_bytes().to_vec();
        target.push(b'?');
        target.extend_from_slice(&self.0);
        Some(target)
    }
}

fn needs_encoding(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>')
}

fn encoded(query: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(query.len() + 16);
    for &byte in query {
        match byte {
            b'"' => out.extend_from_slice(b"%22"),
            b'<' => out.extend_from_slice(b"%3C"),
            b'>' => out.extend_from_slice(b"%3E"),
            _ => out.push(byte),
        }
    }
    out
}

/// A target as a URI; `None` where its grammar is broken.
pub(crate) fn uri_of(target: &[u8]) -> Option<Uri> {
    if target.iter().copied().any(needs_encoding) {
        return Uri::try_from(encoded(target)).ok();
    }
    Uri::try_from(target).ok()
}

const TARGET: Fault = Fault::invalid("The request's target is not one that its method may have.");
const NAME: Fault = Fault::invalid("A header's name has a character it may not have.");
const METHOD: Fault = Fault::invalid("The method has a character it may not have.");

/// A request's head.
///
/// # Errors
/// The target is nothing that the `http` crate's types can hold.
pub fn request(head: &request::Head, lines: &Lines<'_>) -> Result<http::request::Parts, Fault> {
    let bytes = lines.bytes();
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = method(bytes.get(head.method.clone()).unwrap_or_default())?;
    let target = bytes.slice(head.target.clone());
    if target.iter().copied().any(needs_encoding) {
        let query = target.iter().position(|b| *b == b'?').map_or(target.len(), |at| at + 1);
        parts.uri = Uri::try_from(encoded(&target)).map_err(|_| TARGET)?;
        parts.extensions.insert(RawQuery(target.slice(query..)));
    } else {
        parts.uri = Uri::from_maybe_shared(target).map_err(|_| TARGET)?;
    }
    if parts.method == Method::OPTIONS && has_no_path(bytes.get(head.target.clone()).unwrap_or_default()) {
        // RFC 9112 section 3.2.4: it is sent on as `OPTIONS *`. The crate would make `/` of it.
        let mut uri = parts.uri.into_parts();
        uri.path_and_query = Some(PathAndQuery::from_static("*"));
        parts.uri = Uri::from_parts(uri).map_err(|_| TARGET)?;
    }
    parts.version = if head.http11 { Version::HTTP_11 } else { Version::HTTP_10 };
    parts.headers = headers(lines)?;
    if let Some(spelling) = Spelling::of(bytes, lines.index(), None) {
        parts.extensions.insert(spelling);
    }
    Ok(parts)
}

/// `http://host`.
fn has_no_path(target: &[u8]) -> bool {
    let authority =
        target.iter().position(|b| *b == b':').and_then(|at| target.get(at..)?.strip_prefix(b"://"));
    authority.is_some_and(|authority| !authority.iter().any(|b| matches!(b, b'/' | b'?')))
}

fn method(bytes: &[u8]) -> Result<Method, Fault> {
    match bytes {
        b"GET" => Ok(Method::GET),
        _ => Method::from_bytes(bytes).map_err(|_| METHOD),
    }
}

/// An answer's head.
///
/// # Errors
/// The status is below 100, which no head that was read has.
pub fn response(head: &response::Head, lines: &Lines<'_>) -> Result<http::response::Parts, Fault> {
    let bytes = lines.bytes();
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = StatusCode::from_u16(head.status)
        .map_err(|_| Fault::invalid("The answer's status is not one of three digits."))?;
    parts.version = if head.http11 { Version::HTTP_11 } else { Version::HTTP_10 };
    parts.headers = headers(lines)?;
    if head.rewrite_length {
        match head.length {
            Some(length) => parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length)),
            None => parts.headers.remove(CONTENT_LENGTH),
        };
    }
    let reason = bytes.get(head.reason.clone()).unwrap_or_default();
    let usual = parts.status.canonical_reason().unwrap_or("Unknown").as_bytes() == reason;
    let reason = (!usual).then_some((head.reason.start as u32, reason.len() as u32));
    if let Some(spelling) = Spelling::of(bytes, lines.index(), reason) {
        parts.extensions.insert(spelling);
    }
    Ok(parts)
}

/// The fields as a map, in their order.
///
/// # Errors
/// There are more than the map can hold.
pub fn headers(lines: &Lines<'_>) -> Result<HeaderMap, Fault> {
    let mut headers = HeaderMap::try_with_capacity(lines.index().len()).map_err(|_| TOO_MANY)?;
    for field in lines.index() {
        // A name that was read is a token, and short enough.
        let name = field.name(lines.bytes());
        let name = match names::usual(name) {
            Some(name) => name,
            None => HeaderName::from_bytes(name).map_err(|_| NAME)?,
        };
        headers.try_append(name, value(lines, field)).map_err(|_| TOO_MANY)?;
    }
    Ok(headers)
}
