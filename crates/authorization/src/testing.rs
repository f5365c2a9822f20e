//! Requests, clients and policies for tests.

use attache_config::model::Config;
use attache_http::{Client, VerifiedIdentity, check_request, normalize_uri};
use attache_wire::{RequestHead, header::HOST};
use http::{Method, Version};

use crate::{AccessPolicy, Facts};

/// The rules of the first listener of a config whose `authorization` is this.
pub(crate) fn policy(authorization: &str) -> AccessPolicy {
    let config = config(authorization);
    AccessPolicy::new(config.listeners[0].authorization.as_deref().unwrap())
}

pub(crate) fn config(authorization: &str) -> Config {
    let indented = authorization.replace('\n', "\n      ");
    let text = format!(
        "listeners:\n  in:\n    bind: ':1'\n    tls:\n      certificate: a\n      key: b\n      client_ca: c\n    \
         authorization:\n      {indented}\n    to: a\njwt:\n  corp:\n    issuer: i\n    audiences: shop\n    keys: {{ file: /k }}\n\
         upstreams:\n  a: http://a\n"
    );
    attache_config::parse(&text, None, &|_| None).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// An HTTP/1.1 request, checked and normalized like in the listener.
pub(crate) fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> RequestHead {
    let mut builder =
        http::Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(target);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        builder = builder.header(HOST, if method == "CONNECT" { target } else { "shop.test" });
    }
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    let mut parts = RequestHead::from(builder.version(Version::HTTP_11).body(()).unwrap().into_parts().0);
    check_request(&mut parts, false, true).unwrap();
    // A path that the listener would refuse stays unchanged: rules must also hold if the listener is configured to keep
    // it.
    let _ = normalize_uri(&mut parts.uri, attache_config::model::PathPolicy::default());
    parts
}

pub(crate) fn client(address: &str, identity: &str) -> Client {
    let identities = Some(identity).filter(|id| !id.is_empty());
    Client {
        address: address.parse().ok(),
        local: "10.9.9.9:8443".parse().ok(),
        tls: !identity.is_empty(),
        proven: VerifiedIdentity::names(identities, usize::from(identity.contains("://"))),
        ..Client::default()
    }
}

/// Whether a request is allowed.
pub(crate) fn allowed(policy: &AccessPolicy, request: &RequestHead, client: &Client) -> bool {
    policy.decide(&Facts::of_request(request, client)).is_allowed()
}
