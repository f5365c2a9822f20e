//! Routes and requests for tests, in the notation of the config file.

use std::sync::Arc;

use attache_config::model::{
    Action, Address, AddressMatch, Destination, EndpointSource, EndpointTarget, Forward, HostName,
    HostPattern, Listener, Match, PathPattern, PathPolicy, Policy, Route, Segment, Traffic, Upstream,
    UpstreamId, ValueMatch, ValuePattern,
};
use attache_http::{Client, VerifiedIdentity, check_request, normalize_uri};
use attache_wire::RequestHead;
use http::{HeaderName, HeaderValue};

/// A route to upstream 0 with this name.
pub(crate) fn route(name: &str, matcher: Match) -> Route {
    Route { matcher, ..Route::new(name, Action::Forward(forward(&[(0, 1)]))) }
}

pub(crate) fn forward(to: &[(usize, u32)]) -> Forward {
    let policy = Arc::new(Policy::default());
    let to = to.iter().map(|&(id, weight)| Destination {
        upstream: UpstreamId(id),
        weight,
        policy: policy.clone(),
    });
    Forward { traffic: Traffic::Opaque, ..Forward::new(to.collect()) }
}

/// `*`, `name`, `*.suffix`, `prefix.*`, each with or without a port.
pub(crate) fn host(text: &str) -> HostPattern {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, port.parse().ok()),
        _ => (text, None),
    };
    let name = if name == "*" {
        HostName::Any
    } else if let Some(suffix) = name.strip_prefix('*') {
        HostName::Suffix(suffix.into())
    } else if let Some(prefix) = name.strip_suffix('*') {
        HostName::Prefix(prefix.into())
    } else {
        HostName::Exact(name.into())
    };
    HostPattern { name, port }
}

/// `/exact`, `/prefix/*`, `/template/{id}/{rest...}`, `~regex`.
pub(crate) fn path(text: &str) -> PathPattern {
    if let Some(regex) = text.strip_prefix('~') {
        return PathPattern::Regex(regex::Regex::new(regex).unwrap().into());
    }
    if let Some(prefix) = text.strip_suffix("/*") {
        return PathPattern::Prefix(prefix.into());
    }
    if !text.contains('{') {
        return PathPattern::Exact(text.into());
    }
    let segment = |segment: &str| match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
        None => Segment::Literal(segment.into()),
        Some(name) => match name.strip_suffix("...") {
            Some(name) => Segment::Rest(name.into()),
            None => Segment::Capture(name.into()),
        },
    };
    PathPattern::Template(text[1..].split('/').map(segment).collect())
}

/// `name=value`, or `name` for any value; `!` before it inverts.
pub(crate) fn value(text: &str) -> ValueMatch {
    let (text, not) = text.strip_prefix('!').map_or((text, false), |text| (text, true));
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, ValuePattern::Exact(value.into())),
        None => (text, ValuePattern::Present),
    };
    ValueMatch { name: name.into(), value, not }
}

pub(crate) fn range(text: &str) -> AddressMatch {
    let (network, behind) = text.split_once('/').unwrap();
    let (prefix, port) = behind.split_once(':').map_or((behind, None), |(prefix, port)| (prefix, Some(port)));
    AddressMatch {
        network: network.parse().unwrap(),
        prefix: prefix.parse().unwrap(),
        port: port.map(|port| port.parse().unwrap()),
    }
}

/// `[host] [path]` of a route; `-` is none.
pub(crate) fn matching(hosts: &[&str], at: &str) -> Match {
    Match {
        hosts: hosts.iter().copied().map(host).collect(),
        path: (at != "-").then(|| path(at)),
        ..Match::default()
    }
}

pub(crate) fn listener(routes: Vec<Route>) -> Listener {
    Listener { routes, ..Listener::new("outbound") }
}

pub(crate) fn upstream(name: &str, host: &str, port: u16) -> Upstream {
    let source = EndpointSource::new(EndpointTarget::Dns { host: host.into(), port });
    Upstream::new(name, Address::Endpoints(vec![source]))
}

/// A request as it reaches routing: checked and normalized. `target` is `host/path?query`.
pub(crate) fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> RequestHead {
    let (host, path) = target.split_at(target.find('/').unwrap());
    let mut parts: RequestHead =
        http::Request::builder().method(method).uri(path).body(()).unwrap().into_parts().0.into();
    if !host.is_empty() {
        parts.headers.insert("host", HeaderValue::from_str(host).unwrap());
    }
    for (name, value) in headers {
        parts.headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    if host.is_empty() {
        parts.version = http::Version::HTTP_10;
    }
    check_request(&mut parts, false, true).unwrap();
    normalize_uri(&mut parts.uri, PathPolicy::default()).unwrap();
    parts
}

/// A client that was intercepted on its way to `destination` (may be empty) with this server name (may be empty).
pub(crate) fn client(destination: &str, sni: &str) -> Client {
    Client {
        address: "10.1.2.3:4567".parse().ok(),
        original_destination: destination.parse().ok().map(Box::new),
        sni: (!sni.is_empty()).then(|| sni.into()),
        proven: VerifiedIdentity::names(["spiffe://cluster.local/ns/shop/sa/web"], 1),
        ..Client::default()
    }
}
