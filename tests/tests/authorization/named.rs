//! The upstream that a header names: it must be one of the route's, the header must occur once, and no rule can be avoided with it.

use std::fs;

use attache_tests::{Attache, TestProcess, curl, free_port, local, nginx, raw, text};

use super::{
    ask, status,
    tokens::{Signer, claims},
};

/// A server that answers with its name, and with the headers that named it.
fn named(name: &str) -> (TestProcess, u16) {
    let port = free_port();
    let server = format!(
        "server {{ listen 127.0.0.1:{port}; return 200 'this is {name}, named $http_x_upstream\\n'; }}"
    );
    (nginx(&server, local(port)), port)
}

fn start(routes: &str, rest: &str, ports: [u16; 3]) -> Attache {
    let [orders, billing, secret] = ports;
    Attache::start(&format!(
        "access_log: {{ to: stdout, format: json }}
listeners:
  in:
    bind: 127.0.0.1:$PORT
    routes:
{routes}
upstreams:
  orders: 'http://127.0.0.1:{orders}'
  billing: 'http://127.0.0.1:{billing}'
  secret: 'http://127.0.0.1:{secret}'
{rest}"
    ))
}

#[test]
fn a_header_can_name_only_an_upstream_of_its_route() {
    let ((_a, a), (_b, b), (_c, c)) = (named("orders"), named("billing"), named("secret"));
    let attache = start(
        "      - { match: { path: /secret }, to: secret, authorization: { allow: [{ methods: DELETE }] } }
      - { name: named, upstream_header: x-upstream, to: [orders, billing] }",
        "",
        [a, b, c],
    );
    for name in ["orders", "billing"] {
        let answer = ask(&attache, "GET /a", &format!("X-UPSTREAM: {name}\r\n"));
        assert!(answer.contains(&format!("this is {name}, named {name}\n")), "{answer}");
    }
    for (fields, why) in [
        ("", "the request has no `x-upstream`"),
        ("X-Upstream:\r\n", "names none"),
        ("X-Upstream: secret\r\n", "names none"),
        ("X-Upstream: Orders\r\n", "names none"),
        ("X-Upstream: orders, billing\r\n", "names none"),
        ("X-Upstream: %6frders\r\n", "names none"),
        ("X-Upstream: 127.0.0.1:80\r\n", "names none"),
        ("X-Upstream: orders\r\nX-Upstream: billing\r\n", "more than one"),
        ("X-Upstream: orders\r\nX-Upstream: orders\r\n", "more than one"),
        ("X_Upstream: orders\r\n", "no `x-upstream`"),
        ("X-Upstream-: orders\r\n", "no `x-upstream`"),
    ] {
        let answer = ask(&attache, "GET /a", fields);
        assert_eq!(status(&answer), 404, "{fields}: {answer}");
        assert!(
            answer.contains("x-attache-reason: no-upstream") && answer.contains(why),
            "{fields}: {answer}"
        );
        assert!(!answer.contains("billing\n"), "the answer must not name the upstreams: {answer}");
    }
    // A header that `Connection` names doesn't count; neither does a trailer.
    let answer = ask(&attache, "GET /a", "X-Upstream: orders\r\nConnection: x-upstream\r\n");
    assert_eq!(status(&answer), 404, "{answer}");
    let trailers = "POST /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: x-upstream\r\n\r\n0\r\nx-upstream: orders\r\n\r\n";
    assert_eq!(status(&raw(local(attache.port), trailers.as_bytes())), 404);
    for (line, fields) in [
        ("CONNECT orders:80", "X-Upstream: orders\r\nHost: orders:80\r\n"),
        ("GET /secret", "X-Upstream: orders\r\n"),
        ("GET /%73ecret", "X-Upstream: secret\r\n"),
        ("GET /x/../secret", "X-Upstream: secret\r\n"),
    ] {
        let answer = ask(&attache, line, fields);
        assert!(status(&answer) == 403, "{line}: {answer}");
    }
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nX-Upstream: secret\r\n";
    assert_eq!(status(&ask(&attache, "GET /a", upgrade)), 404);
    let http2 = |fields: &[&str]| {
        let mut all = vec!["-i", "--http2-prior-knowledge"];
        all.extend(fields.iter().flat_map(|field| ["-H", *field]));
        let url = attache.url("/a");
        all.push(&url);
        text(&curl(all))
    };
    assert!(http2(&["x-upstream: billing"]).contains("this is billing"));
    assert!(http2(&["x-upstream: billing", "x-upstream: orders"]).contains("no-upstream"));
    assert!(http2(&["x-upstream: secret"]).contains("no-upstream"));
    // Opaque bytes have no header.
    let opaque = raw(local(attache.port), b"\x00\x01\x02\x03 secret\r\n\r\n");
    assert!(!opaque.contains("this is"), "{opaque}");
    assert!(attache.metric("attache_requests_total", &["no-upstream"]) >= 12.0);
}

#[test]
fn a_claim_that_names_the_upstream_replaces_what_the_client_writes() {
    let ((_a, a), (_b, b), (_c, c)) = (named("orders"), named("billing"), named("secret"));
    let signer = Signer::new();
    let file = signer.0.path("jwks.json");
    fs::write(&file, signer.keys("one")).unwrap();
    let attache = start(
        "      - { upstream_header: x-upstream, to: [orders, billing], authorization: { jwt: { issuers: corp } } }",
        &format!(
            "jwt: {{ corp: {{ issuer: 'https://id', audiences: shop, keys: {{ file: '{}' }}, claim_headers: {{ x-upstream: tenant }} }} }}",
            file.display()
        ),
        [a, b, c],
    );
    let token = signer.token("one", &claims(r#","tenant":"billing""#));
    for fields in ["", "X-Upstream: orders\r\n", "x_upstream: orders\r\nX-Upstream: secret\r\n"] {
        let answer = ask(&attache, "GET /a", &format!("Authorization: Bearer {token}\r\n{fields}"));
        assert!(answer.contains("this is billing, named billing\n"), "{fields}: {answer}");
    }
    let nameless = signer.token("one", &claims(""));
    let answer =
        ask(&attache, "GET /a", &format!("Authorization: Bearer {nameless}\r\nX-Upstream: orders\r\n"));
    assert!(status(&answer) == 404 && answer.contains("no-upstream"), "{answer}");
}
