//! The request or connection to decide about, and its client.

use std::cell::{Cell, OnceCell};

use attache_http::{CanonicalHost, Client, default_port, is_spelling_of, parse_authority};
use attache_wire::{
    Fields, KnownName, KnownSet, RequestHead,
    header::{X_HTTP_METHOD, X_HTTP_METHOD_OVERRIDE, X_METHOD_OVERRIDE, X_ORIGINAL_URL, X_REWRITE_URL},
};
use http::Method;

use crate::{
    jwt::Claims,
    reading::{PathReading, is_plain, path_of},
};

/// One request or connection as rules see it. It borrows everything; values that only some rules need are made on first use.
#[derive(Debug)]
pub struct Facts<'a> {
    pub(crate) client: &'a Client,
    /// `None` for opaque bytes, in which attache sees no request.
    pub(crate) http: Option<HttpFacts<'a>>,
    pub(crate) claims: Option<&'a Claims>,
}

/// The data of an HTTP request.
#[derive(Debug)]
pub(crate) struct HttpFacts<'a> {
    request: &'a RequestHead,
    /// The path; empty if there is none.
    path: &'a str,
    simple: Cell<Option<bool>>,
    reading: OnceCell<PathReading>,
}

/// The meaning of the bytes after the request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyUse {
    /// They are this request's body.
    Request,
    /// A WebSocket over HTTP/2 (RFC 8441), which is a GET in HTTP/1.1.
    Extended,
    /// `CONNECT host:port`: any bytes, which may be requests that attache can't see.
    Tunnel,
}

/// Headers from which some frameworks take another method than a POST's own.
const OVERRIDES: [KnownName; 3] = [X_HTTP_METHOD, X_HTTP_METHOD_OVERRIDE, X_METHOD_OVERRIDE];

/// Headers from which some servers and frameworks take another path than the request's own.
const OTHER_PATHS: [KnownName; 2] = [X_ORIGINAL_URL, X_REWRITE_URL];

impl<'a> Facts<'a> {
    /// The facts of a request that was checked and normalized (`check_request`, `normalize_uri`).
    #[inline]
    pub fn of_request(request: &'a RequestHead, client: &'a Client) -> Self {
        let path = Some(request.uri.path()).filter(|path| path.starts_with('/')).unwrap_or_default();
        let (simple, reading) = Default::default();
        Self { client, http: Some(HttpFacts { request, path, simple, reading }), claims: None }
    }

    /// Adds the claims of its verified token.
    #[inline]
    pub const fn with_claims(mut self, claims: Option<&'a Claims>) -> Self {
        self.claims = claims;
        self
    }

    /// The facts of an opaque connection, or of one whose TLS is passed through.
    pub const fn of_connection(client: &'a Client) -> Self {
        Self { client, http: None, claims: None }
    }

    /// True if the request's path has a single reading, and no header names another path.
    #[inline]
    pub fn has_one_reading(&self) -> bool {
        self.http.as_ref().is_none_or(|http| http.simple_path().is_some() || http.path().is_none())
    }

    /// True if a header names another method, which some frameworks use in place of the request's.
    #[inline]
    pub fn names_another_method(&self) -> bool {
        self.http.as_ref().is_some_and(|http| {
            !http.is_what_it_says()
                && http
                    .overrides()
                    .any(|other| !other.eq_ignore_ascii_case(http.method().as_str().as_bytes()))
        })
    }

    /// The paths that an upstream may read in this request; `None` if that could be any.
    pub fn readings(&self) -> Option<Vec<String>> {
        let mut all = Vec::new();
        let Some(http) = self.http.as_ref().filter(|_| !self.has_one_reading()) else { return Some(all) };
        let mut add = |path: &str, reading: &PathReading| {
            match reading {
                PathReading::Plain => all.push(path.to_owned()),
                PathReading::Loose(loose) => {
                    all.extend(loose.iter().flat_map(|(text, lower)| [text, lower]).cloned());
                }
                PathReading::Unreadable => return None,
            }
            Some(())
        };
        add(http.path()?, http.reading())?;
        for other in http.other_paths() {
            let path = path_of(other)?;
            add(path, &PathReading::of(path))?;
        }
        all.sort_unstable();
        all.dedup();
        Some(all)
    }

    /// The port that the client connected to; `None` on Unix sockets.
    pub(crate) fn port(&self) -> Option<u16> {
        self.client.destination().map(|address| address.port())
    }
}

impl<'a> HttpFacts<'a> {
    pub(crate) fn kind(&self) -> BodyUse {
        if self.request.method != Method::CONNECT {
            BodyUse::Request
        } else if self.request.protocol.is_some() {
            BodyUse::Extended
        } else {
            BodyUse::Tunnel
        }
    }

    pub(crate) fn method(&self) -> &'a Method {
        &self.request.method
    }

    pub(crate) fn headers(&self) -> &'a Fields {
        &self.request.headers
    }

    /// The path; `None` if there is none (CONNECT, `OPTIONS *`).
    pub(crate) fn path(&self) -> Option<&'a str> {
        Some(self.path).filter(|path| !path.is_empty())
    }

    /// The path, if it is the only one that the request names and has only one reading.
    #[inline]
    pub(crate) fn simple_path(&self) -> Option<&'a str> {
        let is_simple = self.simple.get().unwrap_or_else(|| {
            let is_simple = !self.path.is_empty() && self.has_one_path() && is_plain(self.path);
            self.simple.set(Some(is_simple));
            is_simple
        });
        is_simple.then_some(self.path)
    }

    /// How other programs would read the path.
    pub(crate) fn reading(&self) -> &PathReading {
        self.reading.get_or_init(|| PathReading::of(self.path))
    }

    /// The host in the form in which hosts are compared, and the port.
    pub(crate) fn host(&self) -> (Option<CanonicalHost<'_>>, u16) {
        let uri = &self.request.uri;
        let authority = uri.authority().and_then(|authority| parse_authority(authority.as_str()));
        let port = authority.and_then(|authority| authority.port);
        (
            authority.and_then(|authority| CanonicalHost::new(authority.host)),
            port.unwrap_or_else(|| default_port(uri.scheme_str().unwrap_or("http"))),
        )
    }

    /// The host and the port as the client sent them; empty if there is none.
    pub(crate) fn authority(&self) -> &'a str {
        self.request.uri.authority().map_or("", |authority| authority.as_str())
    }

    /// True if it is one request, and its method is the only one that it names.
    #[inline]
    pub(crate) fn is_what_it_says(&self) -> bool {
        self.kind() == BodyUse::Request && !self.may_name_more(const { KnownSet::of(&OVERRIDES) })
    }

    /// True if its path is the only one that it names.
    #[inline]
    fn has_one_path(&self) -> bool {
        !self.may_name_more(const { KnownSet::of(&OTHER_PATHS) })
    }

    #[inline]
    fn may_name_more(&self, names: KnownSet) -> bool {
        let headers = &self.request.headers;
        headers.contains_any(names) || headers.may_be_underscored()
    }

    /// Methods that the request names in addition to its own.
    pub(crate) fn overrides(&self) -> impl Iterator<Item = &'a [u8]> {
        self.in_any_spelling(&OVERRIDES)
    }

    /// Paths that the request names in addition to its own. They may have a scheme, a host and a query.
    pub(crate) fn other_paths(&self) -> impl Iterator<Item = &'a [u8]> {
        self.in_any_spelling(&OTHER_PATHS)
    }

    /// The values of these headers, also in spellings with other characters for their hyphens.
    fn in_any_spelling(&self, names: &'static [KnownName]) -> impl Iterator<Item = &'a [u8]> {
        let headers = &self.request.headers;
        let fields = self.may_name_more(KnownSet::of(names)).then(|| headers.iter());
        let found = fields.into_iter().flatten().filter(move |(name, _)| {
            names.iter().any(|known| is_spelling_of(name.as_bytes(), known.as_str()))
        });
        found.map(|(_, value)| value.as_bytes())
    }
}
