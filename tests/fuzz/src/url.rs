//! Addresses: an authority, a request's absolute target and an upstream's URL name the same host and port for `url` (WHATWG) and `http`
//! (RFC 3986), or are refused.

use attache_config::model::{Address, EndpointTarget};
use attache_http::{CanonicalHost, check_request, parse_authority};
use attache_wire::{HeadLimits, request, server::RequestReader};
use bytes::BytesMut;
use url::{Host, Url};

const LIMITS: HeadLimits = HeadLimits { line: 8000, size: 16000, count: 64 };

/// A host in a form that can be compared.
fn form(host: &str) -> String {
    CanonicalHost::new(host).map_or_else(String::new, |host| host.as_str().to_owned())
}

/// Whether the host of a URL is this text, possibly with a final dot.
fn is_written_as(url: &str, address: &str) -> bool {
    url.split(['/', '\\', '@', ':', '?', '#']).any(|part| part.strip_suffix('.').unwrap_or(part) == address)
}

/// Host and port of a URL. WHATWG reads `0x7f.1`, `127.1` and `0177.0.0.1` as 127.0.0.1, all others as a name: such hosts
/// are left out.
fn theirs(text: &str) -> Option<(String, u16)> {
    let url = Url::parse(text).ok()?;
    let host = match url.host()? {
        Host::Domain(name) => form(name),
        Host::Ipv6(address) => form(&address.to_string()),
        Host::Ipv4(address) if is_written_as(text, &address.to_string()) => form(&address.to_string()),
        Host::Ipv4(_) => return None,
    };
    Some((host, url.port_or_known_default()?))
}

fn authority(text: &str) {
    let Some(ours) = parse_authority(text) else { return };
    let canonical = form(ours.host);
    assert_eq!(form(&canonical), canonical, "{text}");
    let strict: http::uri::Authority = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(form(strict.host()), canonical, "{text}");
    assert_eq!(strict.port_u16(), ours.port, "{text}");
    if let Some((host, port)) = theirs(&format!("http://{text}/")) {
        assert_eq!((host, port), (canonical, ours.port.unwrap_or(80)), "{text}");
    }
}

fn absolute_target(text: &str) {
    let mut buf = BytesMut::from(format!("GET {text} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
    let mut reader = RequestReader::new(request::TargetStrictness::Strict);
    let Ok(Some((_, head))) = reader.head(&mut buf, &LIMITS) else { return };
    let mut head = std::rc::Rc::unwrap_or_clone(head);
    if check_request(&mut head, false, true).is_err() || text.starts_with('/') {
        return;
    }
    let (Some(host), Some((their_host, their_port))) = (head.uri.host(), theirs(text)) else { return };
    let default = if head.uri.scheme_str() == Some("https") { 443 } else { 80 };
    assert_eq!((form(host), head.uri.port_u16().unwrap_or(default)), (their_host, their_port), "{text}");
}

fn upstream(text: &str) {
    let quoted = text.replace('\'', "''");
    let config = format!("listeners: {{ in: {{ bind: ':1', to: a }} }}\nupstreams: {{ a: '{quoted}' }}");
    let Ok(config) = attache_config::parse(&config, None, &|_| None) else { return };
    let Address::Endpoints(sources) = &config.upstreams[0].address else { return };
    let (host, port) = match &sources[0].target {
        EndpointTarget::Dns { host, port } => (form(host), *port),
        EndpointTarget::Ip(address) => (form(&address.ip().to_string()), address.port()),
        _ => return,
    };
    // For other schemes WHATWG has another grammar of hosts.
    if text.starts_with("http://") || text.starts_with("https://") {
        let Some(theirs) = theirs(text) else { return };
        assert_eq!((host, port), theirs, "{text}");
    }
}

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.contains(['\r', '\n']) {
        return;
    }
    authority(text);
    absolute_target(text);
    upstream(text);
}
