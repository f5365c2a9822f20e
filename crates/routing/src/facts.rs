//! The data of a request by which a route is chosen.

use attache_http::{CanonicalHost, Client, default_port, parse_authority};
use attache_wire::{Fields, RequestHead};
use http::Method;

/// One request as the matchers see it. It borrows everything; making it allocates only where the host is written in capital letters.
#[derive(Debug)]
pub struct RequestFacts<'a> {
    /// Method.
    pub method: &'a Method,
    /// `http` or `https`, as the client says it.
    pub scheme: &'a str,
    /// Host in the form in which hosts are compared; `None` if the request names none (HTTP/1.0).
    pub host: Option<CanonicalHost<'a>>,
    /// The port of the request's authority, or the scheme's default.
    pub port: u16,
    /// Path, normalized already; empty for CONNECT, `*` for `OPTIONS *`.
    pub path: &'a str,
    /// Query without `?`.
    pub query: Option<&'a str>,
    /// Header fields.
    pub headers: &'a Fields,
    /// The client.
    pub client: &'a Client,
}

/// The parsed authority, without a borrow of it.
#[derive(Clone, Copy, Debug)]
pub struct NamedHost {
    /// Bytes of the authority that are its host in canonical form; `None` if it is written in another form.
    host: Option<u16>,
    port: u16,
}

impl<'a> RequestFacts<'a> {
    /// The facts of a request that was checked and normalized (`check_request`, `normalize_uri`).
    pub fn of(request: &'a RequestHead, client: &'a Client) -> Self {
        let scheme = scheme(request, client);
        let authority = request.uri.authority().and_then(|authority| parse_authority(authority.as_str()));
        let host = authority.and_then(|authority| CanonicalHost::new(authority.host));
        let port = authority.and_then(|authority| authority.port).unwrap_or_else(|| default_port(scheme));
        Self::new(request, client, scheme, host, port)
    }

    /// The same facts again, for a request whose authority was already parsed.
    pub fn again(request: &'a RequestHead, client: &'a Client, named: NamedHost) -> Self {
        let authority = request.uri.authority().map_or("", |authority| authority.as_str());
        let Some(host) = named.host.and_then(|len| authority.get(..usize::from(len))) else {
            return Self::of(request, client);
        };
        let host = Some(CanonicalHost::of_canonical(host));
        Self::new(request, client, scheme(request, client), host, named.port)
    }

    /// Its parsed authority, for [`RequestFacts::again`].
    pub fn named(&self, request: &RequestHead) -> NamedHost {
        let authority = request.uri.authority().map_or("", |authority| authority.as_str());
        let host = self.host.as_ref().map(CanonicalHost::as_str);
        let host = host.filter(|host| authority.as_bytes().starts_with(host.as_bytes()));
        NamedHost { host: host.and_then(|host| host.len().try_into().ok()), port: self.port }
    }

    fn new(
        request: &'a RequestHead,
        client: &'a Client,
        scheme: &'a str,
        host: Option<CanonicalHost<'a>>,
        port: u16,
    ) -> Self {
        Self {
            method: &request.method,
            scheme,
            host,
            port,
            path: request.uri.path(),
            query: request.uri.query(),
            headers: &request.headers,
            client,
        }
    }
}

fn scheme<'a>(request: &'a RequestHead, client: &Client) -> &'a str {
    request.uri.scheme_str().unwrap_or(if client.tls { "https" } else { "http" })
}
