//! The part of a request or connection that an authorizer gets.

use std::{collections::BTreeMap, net::SocketAddr, time::SystemTime};

use attache_config::model::{Authorizer, HeaderMatch, Name};
use attache_http::{Client, REQUEST_ID, is_framing, is_spelling_of};
use attache_rpc::UpstreamService;
use attache_wire::{
    Fields, Request, RequestHead, ValueRef,
    header::{CONTENT_LENGTH, COOKIE, HOST},
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Version};

use super::messages::{self as m, CheckRequest};
use crate::reading::stays_below;

/// Envoy's header that says whether the body in the question is only a part.
const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

/// The prefix of the context's headers in the HTTP form. No client may send such headers.
const CONTEXT: &str = "x-attache-context-";

/// One request or connection.
#[derive(Debug)]
pub struct AuthorizerQuestion<'a> {
    /// The client.
    pub client: &'a Client,
    /// The request as the upstream would get it, before the route's own changes; `None` for opaque bytes.
    pub request: Option<&'a RequestHead>,
    /// The beginning of its body, if the authorizer gets it.
    pub body: Option<&'a BodyExcerpt>,
    /// The context that the config adds.
    pub context: &'a [(Name, Name)],
    /// The listener, for logs and traces.
    pub listener: &'a Name,
}

/// The beginning of a body.
#[derive(Clone, Debug, Default)]
pub struct BodyExcerpt {
    /// Its bytes.
    pub bytes: Bytes,
    /// The body is longer.
    pub partial: bool,
}

impl AuthorizerQuestion<'_> {
    /// As `CheckRequest`.
    pub(super) fn message(&self, config: &Authorizer) -> CheckRequest {
        let client = self.client;
        let peer = |address: Option<SocketAddr>, principal: String| m::EnvoyPeer {
            address: address.map(|address| m::EnvoyAddress {
                socket_address: Some(m::SocketAddress {
                    address: address.ip().to_canonical().to_string(),
                    port_value: u32::from(address.port()),
                }),
            }),
            principal,
        };
        let principal = client.identity().map_or_else(String::new, |identity| identity.to_string());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let time =
            m::Timestamp { seconds: now.as_secs().cast_signed(), nanos: now.subsec_nanos().cast_signed() };
        let sni = client.sni.as_ref().map(|sni| m::TlsSession { sni: sni.to_string() });
        CheckRequest {
            attributes: Some(m::AttributeContext {
                source: Some(peer(client.address, principal)),
                destination: Some(peer(client.destination(), String::new())),
                request: Some(m::EnvoyRequest {
                    time: Some(time),
                    http: self.request.map(|head| self.http(head, config)),
                }),
                context_extensions: self
                    .context
                    .iter()
                    .map(|(k, v)| (k.to_string(), v.to_string()))
                    .collect(),
                tls_session: sni,
            }),
        }
    }

    fn http(&self, head: &RequestHead, config: &Authorizer) -> m::EnvoyHttpRequest {
        let scheme = if self.client.tls { "https" } else { "http" };
        let mut headers = told(&head.headers, &config.request_headers);
        let (mut body, mut raw_body) = (String::new(), Vec::new());
        if let Some(excerpt) = self.body {
            headers.insert(PARTIAL_BODY.into(), excerpt.partial.to_string());
            match std::str::from_utf8(&excerpt.bytes) {
                Ok(text) => text.clone_into(&mut body),
                Err(_) => raw_body = excerpt.bytes.to_vec(),
            }
        }
        let length = head.headers.get(CONTENT_LENGTH).and_then(ValueRef::to_number);
        let id = head.headers.get(REQUEST_ID).map_or_else(String::new, text);
        m::EnvoyHttpRequest {
            id,
            method: method(head).to_string(),
            headers,
            path: target(head).unwrap_or_default(),
            host: host(head),
            scheme: scheme.into(),
            size: length.map_or(-1, u64::cast_signed),
            protocol: if head.version == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" }.into(),
            body,
            raw_body,
        }
    }

    /// As an HTTP request. `None` if there is no request or no path, because the authorizer could not distinguish it
    /// from other requests. Also `None` if the authorizer could read a path outside of `prefix`, since it decides only
    /// about paths below it.
    pub(super) fn http_request(
        &self,
        config: &Authorizer,
        prefix: &str,
        service: &UpstreamService,
    ) -> Result<Option<Request<Bytes>>, String> {
        let Some((head, target)) = self.request.and_then(|head| Some((head, target(head)?))) else {
            return Ok(None);
        };
        if !stays_below(prefix, head.uri.path()) {
            return Ok(None);
        }
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = method(head).clone();
        *request.uri_mut() = service.uri(&format!("{prefix}{target}"))?;
        let headers = request.headers_mut();
        for (name, value) in told(&head.headers, &config.request_headers) {
            let carried = name == "content-type" || !is_of_the_message(&name);
            if carried {
                let _ = headers.try_insert(name.as_str(), value.as_bytes());
            }
        }
        headers.try_insert(HOST, host(head).as_bytes()).map_err(|_| "the request has no valid host")?;
        for (key, value) in self.context {
            let name = format!("{CONTEXT}{}", key.to_ascii_lowercase());
            let name = HeaderName::try_from(name)
                .map_err(|_| format!("context `{key}` is not a valid header name"))?;
            headers.insert(name, HeaderValue::from_str(value).map_err(|error| error.to_string())?);
        }
        if let Some(excerpt) = self.body {
            let partial = if excerpt.partial { "true" } else { "false" };
            headers.insert(PARTIAL_BODY, HeaderValue::from_static(partial));
            headers.insert(CONTENT_LENGTH, excerpt.bytes.len());
            *request.body_mut() = excerpt.bytes.clone();
        }
        Ok(Some(request))
    }
}

/// The method of the request; for a WebSocket over HTTP/2 (RFC 8441) it is that of HTTP/1.1.
fn method(head: &RequestHead) -> &Method {
    if head.protocol.is_some() { &Method::GET } else { &head.method }
}

/// Path and query; `None` for CONNECT and `OPTIONS *`.
fn target(head: &RequestHead) -> Option<String> {
    if head.method == Method::CONNECT && head.protocol.is_none() {
        return None;
    }
    let target = head.uri.path_and_query()?.as_str();
    target.starts_with('/').then(|| target.to_owned())
}

fn host(head: &RequestHead) -> String {
    let of_uri = || head.uri.authority().map(|host| host.as_str().to_owned());
    head.headers.get(HOST).map(text).or_else(of_uri).unwrap_or_default()
}

/// The headers in the question, by their names in lower case. Lines of one name are joined, so that none is hidden. A
/// client can't send the headers that attache itself adds, not even to an authorizer that reads `_` as `-`.
fn told(headers: &Fields, wanted: &[HeaderMatch]) -> BTreeMap<String, String> {
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let name = name.lower();
        if !wanted.iter().any(|wanted| wanted.matches(&name)) || is_said_here(&name) {
            continue;
        }
        let value = text(value);
        match told.get_mut(&*name) {
            Some(joined) => {
                joined.push_str(if *name == *COOKIE.as_str() { "; " } else { "," });
                joined.push_str(&value);
            }
            None => drop(told.insert(name.into_owned(), value)),
        }
    }
    told
}

/// True for a name, in any spelling, of a header that attache itself adds for the authorizer.
fn is_said_here(name: &str) -> bool {
    let begin = name.as_bytes().get(..CONTEXT.len());
    begin.is_some_and(|begin| is_spelling_of(begin, CONTEXT)) || is_spelling_of(name.as_bytes(), PARTIAL_BODY)
}

/// A value as text. A value that is not UTF-8 is kept, but equals no other text.
fn text(value: ValueRef<'_>) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// True for fields of the HTTP message itself, which don't belong in the message to or from an authorizer.
pub(super) fn is_of_the_message(name: &str) -> bool {
    name == "expect" || is_framing(name)
}
