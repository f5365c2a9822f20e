//! A request and a response, as the proxy passes them on: what was read of the head, and a body.
//!
//! These types are like the `http` crate's, but with [`Fields`] instead of its map, and with a field for each thing that would be an
//! extension there. Method, target and status are that crate's types. The conversions to its types are for HTTP/2, which uses them.

use std::{any::Any, borrow::Cow, fmt, rc::Rc};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri, Version, uri::PathAndQuery};

use crate::Fields;

/// The head of a request.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The target.
    pub uri: Uri,
    /// The HTTP version that it was received with.
    pub version: Version,
    /// The fields.
    pub headers: Fields,
    /// The query as the client sent it, if the URI can't hold it.
    pub raw_query: Option<RawQuery>,
    /// `:protocol` of an extended CONNECT (RFC 8441).
    pub protocol: Option<ConnectProtocol>,
}

impl Default for RequestHead {
    fn default() -> Self {
        Self {
            method: Method::GET,
            uri: Uri::default(),
            version: Version::HTTP_11,
            headers: Fields::new(),
            raw_query: None,
            protocol: None,
        }
    }
}

/// The head of a response.
#[derive(Debug, Default)]
pub struct ResponseHead {
    /// The status.
    pub status: StatusCode,
    /// The HTTP version that it was received with.
    pub version: Version,
    /// The fields.
    pub headers: Fields,
    /// The reason phrase, if it isn't the usual one of the status.
    pub reason: Option<Bytes>,
    /// What a response carries beside its body: the connection that it opened.
    pub carried: Option<Box<dyn Any>>,
}

/// A request. Code that may have to send it again keeps its head. The head is copied only if one of the two changes.
#[derive(Clone, Debug, Default)]
pub struct Request<B> {
    head: Rc<RequestHead>,
    body: B,
}

/// A response. Its head is boxed, because it is large and is moved often.
#[derive(Debug, Default)]
pub struct Response<B> {
    head: Box<ResponseHead>,
    body: B,
}

macro_rules! message {
    ($message:ident, $head:ident, $held:ident, $mut:expr) => {
        impl<B> $message<B> {
            /// A message with a default head, without fields.
            pub fn new(body: B) -> Self {
                Self { head: $held::default(), body }
            }

            /// A message from its parts.
            pub fn from_parts(head: impl Into<$held<$head>>, body: B) -> Self {
                Self { head: head.into(), body }
            }

            /// The parts.
            pub fn into_parts(self) -> ($held<$head>, B) {
                (self.head, self.body)
            }

            /// The head.
            pub fn head(&self) -> &$head {
                &self.head
            }

            /// The head, for changes.
            pub fn head_mut(&mut self) -> &mut $head {
                $mut(&mut self.head)
            }

            /// The HTTP version that it was received with.
            pub fn version(&self) -> Version {
                self.head.version
            }

            /// The HTTP version, for changes.
            pub fn version_mut(&mut self) -> &mut Version {
                &mut self.head_mut().version
            }

            /// The fields.
            pub fn headers(&self) -> &Fields {
                &self.head.headers
            }

            /// The fields, for changes.
            pub fn headers_mut(&mut self) -> &mut Fields {
                &mut self.head_mut().headers
            }

            /// The body.
            pub const fn body(&self) -> &B {
                &self.body
            }

            /// The body, for changes.
            pub const fn body_mut(&mut self) -> &mut B {
                &mut self.body
            }

            /// The body alone.
            pub fn into_body(self) -> B {
                self.body
            }

            /// The same head with another body.
            pub fn map<T>(self, make: impl FnOnce(B) -> T) -> $message<T> {
                $message { head: self.head, body: make(self.body) }
            }
        }
    };
}

message!(Request, RequestHead, Rc, Rc::make_mut);
message!(Response, ResponseHead, Box, Box::as_mut);

impl<B> Request<B> {
    /// The method.
    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// The method, for changes.
    pub fn method_mut(&mut self) -> &mut Method {
        &mut self.head_mut().method
    }

    /// The target.
    pub fn uri(&self) -> &Uri {
        &self.head.uri
    }

    /// A request with the same head, which both share, and another body.
    pub fn with_body<T>(&self, body: T) -> Request<T> {
        Request { head: Rc::clone(&self.head), body }
    }

    /// The target, for changes.
    pub fn uri_mut(&mut self) -> &mut Uri {
        &mut self.head_mut().uri
    }
}

impl<B> Response<B> {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// The status, for changes.
    pub fn status_mut(&mut self) -> &mut StatusCode {
        &mut self.head.status
    }
}

impl<B> From<http::Request<B>> for Request<B> {
    fn from(request: http::Request<B>) -> Self {
        let (head, body) = request.into_parts();
        Self { head: Rc::new(head.into()), body }
    }
}

impl From<http::request::Parts> for RequestHead {
    fn from(parts: http::request::Parts) -> Self {
        Self {
            method: parts.method,
            uri: parts.uri,
            version: parts.version,
            headers: parts.headers.into(),
            raw_query: None,
            protocol: None,
        }
    }
}

impl From<RequestHead> for http::request::Parts {
    fn from(head: RequestHead) -> Self {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = head.method;
        parts.uri = head.uri;
        parts.version = head.version;
        parts.headers = head.headers.into();
        parts
    }
}

impl<B> From<Request<B>> for http::Request<B> {
    fn from(request: Request<B>) -> Self {
        Self::from_parts(Rc::unwrap_or_clone(request.head).into(), request.body)
    }
}

impl<B> From<http::Response<B>> for Response<B> {
    fn from(response: http::Response<B>) -> Self {
        let (head, body) = response.into_parts();
        Self { head: Box::new(head.into()), body }
    }
}

impl From<http::response::Parts> for ResponseHead {
    fn from(parts: http::response::Parts) -> Self {
        Self {
            status: parts.status,
            version: parts.version,
            headers: parts.headers.into(),
            reason: None,
            carried: None,
        }
    }
}

impl<B> From<Response<B>> for http::Response<B> {
    fn from(response: Response<B>) -> Self {
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.status = response.head.status;
        parts.version = response.head.version;
        parts.headers = HeaderMap::from(response.head.headers);
        Self::from_parts(parts, response.body)
    }
}

/// What an extended CONNECT asks for (RFC 8441 section 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectProtocol(Cow<'static, str>);

impl ConnectProtocol {
    /// A protocol that attache itself names.
    pub const fn from_static(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ConnectProtocol {
    fn from(name: &str) -> Self {
        Self(Cow::Owned(name.to_owned()))
    }
}

impl fmt::Display for ConnectProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The query as the client sent it. It is kept if it contains bytes that [`Uri`] can't hold (`"`, `<`, `>`); the URI has them
/// percent-encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawQuery(pub(crate) Bytes);

impl RawQuery {
    /// The path and query to write for `path`. The raw query is used if the URI's query is still its encoded form.
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

pub(crate) fn needs_encoding(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>')
}

pub(crate) fn encoded(query: &[u8]) -> Vec<u8> {
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

/// The value of `:path` of HTTP/2, and its raw query if the URI can't hold that. `None` if the value is no path.
pub fn path_and_query(path: &[u8]) -> Option<(PathAndQuery, Option<RawQuery>)> {
    if path.is_empty() {
        return None;
    }
    let query = path.iter().position(|byte| *byte == b'?').map_or(path.len(), |at| at + 1);
    let (before, raw) = path.split_at(query);
    let bytes = if raw.iter().copied().any(needs_encoding) {
        [before, &encoded(raw)].concat().into()
    } else {
        Bytes::copy_from_slice(path)
    };
    let raw = (bytes.len() > path.len()).then(|| RawQuery(Bytes::copy_from_slice(raw)));
    Some((PathAndQuery::from_maybe_shared(bytes).ok()?, raw))
}

/// A target as a URI; `None` if it doesn't match the grammar.
pub(crate) fn uri_of(target: &[u8]) -> Option<Uri> {
    if target.iter().copied().any(needs_encoding) {
        return Uri::try_from(encoded(target)).ok();
    }
    Uri::try_from(target).ok()
}
