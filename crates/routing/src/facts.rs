//! What a route is chosen by.

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
    /// Host in the form that hosts are compared in; `None` where the request names none (HTTP/1.0).
    pub host: Option<CanonicalHost<'a>>,
    /// The port of the request's authority, or the scheme's default.
    pub port: u16,
    /// Path, normalized already; empty for CONNECT, `*` for `OPTIONS *`.
    pub path: &'a str,
    /// Query without `?`.
    pub query: Option<&'a str>,
    /// Header fields.
    pub headers: &'a Fields,
    /// Who calls.
    pub client: &'a Client,
}

impl<'a> RequestFacts<'a> {
    /// The facts of a request that was checked and normalized (`check_request`, `normalize_uri`).
    pub fn of(request: &'a RequestHead, client: &'a Client) -> Self {
        let scheme = scheme(request, client);
        let authority = request.uri.authority().and_then(|authority| parse_authority(authority.as_str()));
        Self {
            method: &request.method,
            scheme,
            host: authority.and_then(|authority| CanonicalHost::new(authority.host)),
            port: authority.and_then(|authority| authority.port).unwrap_or_else(|| default_port(scheme)),
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
