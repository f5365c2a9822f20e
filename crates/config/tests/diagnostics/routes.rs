//! Routes and upstreams that don't fit to each other, and headers that can't be changed.

use super::found;

#[test]
fn http_is_not_routed_to_opaque_upstreams() {
    let text = r#"listeners:
  outbound:
    bind: 127.0.0.1:15001
    routes:
      - match: { host: db, path: "/users/{id}" }
        to: database
        rewrite: { path: "/customers/{ide}" }
        headers: { request: { set: { x-user: "%{capture.user}", host: x } } }
      - match: { path: /a }
        rewrite: { prefix: /b }
        respond: 404
      - match: { path: /a }
        redirect: { status: 308 }
      - match: { path: /c }
upstreams:
  database: tcp://db:5432
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:5:16: error: HTTP can't be routed to `database`, which takes opaque bytes
  5 |       - match: { host: db, path: "/users/{id}" }
    |                ^ match `sni`, `destination` or `methods: CONNECT`, or give the upstream an `http` or `https` address
attache.yaml:7:26: error: the path of this route doesn't capture `ide`
  7 |         rewrite: { path: "/customers/{ide}" }
    |                          ^^^^^^^^^^^^^^^^^^ did you mean `id`?
attache.yaml:8:46: error: the path of this route doesn't capture `user`
  8 |         headers: { request: { set: { x-user: "%{capture.user}", host: x } } }
    |                                              ^^^^^^^^^^^^^^^^^ the path captures `id`
attache.yaml:8:65: error: the Host header isn't changed here
  8 |         headers: { request: { set: { x-user: "%{capture.user}", host: x } } }
    |                                                                 ^^^^ `rewrite: { host: … }` on the route
attache.yaml:10:18: error: `rewrite` has no meaning here
  10 |         rewrite: { prefix: /b }
     |                  ^ it belongs to a route with `to`
attache.yaml:13:19: error: this redirects to the same URL
  13 |         redirect: { status: 308 }
     |                   ^ give it a `scheme`, `host` or `path`
attache.yaml:14:9: error: this route does nothing
  14 |       - match: { path: /c }
     |         ^^^^^^^^^^^^^^^^^^^ give it one of `to`, `redirect` and `respond`
"#);
}

#[test]
fn an_upstream_speaks_one_thing() {
    let text = r#"upstreams:
  a:
    address: [https://a.internal, http://b.internal]
  b: { address: "http://b.internal", tls: { name: b.internal } }
  c: { address: "htps://c.internal/v1" }
  d: { address: https://d.internal/v1 }
  e: { address: https://e.internal, balance: maglev }
  f: { address: tcp://f.internal:1, protocol: http1, health_check: { path: /healthz, tcp: true } }
  g: { address: tcp://g.internal:1, health_check: { path: /primary } }
  h: { address: tcp://h.internal:1, health_check: { path: /primary, port: 8008, tls: true } }
  i: { address: "unix:/run/i.sock", health_check: { path: /healthz, port: 8008 } }
  j: { address: tcp://j.internal:1, health_check: { path: /primary, port: 8008 } }
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:3:35: error: the addresses of one upstream have different protocols
  3 |     address: [https://a.internal, http://b.internal]
    |                                   ^^^^^^^^^^^^^^^^^ the first says `https`, this one `http`
attache.yaml:4:43: error: `tls` for an address that says `http://`, which is plaintext
  4 |   b: { address: "http://b.internal", tls: { name: b.internal } }
    |                                           ^ write `https://` in the address, or remove `tls`
attache.yaml:5:17: error: the scheme `htps` isn't known
  5 |   c: { address: "htps://c.internal/v1" }
    |                 ^^^^^^^^^^^^^^^^^^^^^^ did you mean `https`?
attache.yaml:6:17: error: `https://d.internal/v1` has a path, an upstream has none
  6 |   d: { address: https://d.internal/v1 }
    |                 ^^^^^^^^^^^^^^^^^^^^^ `https://d.internal`, and `rewrite: { prefix: /v1 }` on the route
attache.yaml:7:46: error: consistent hashing needs a key to hash
  7 |   e: { address: https://e.internal, balance: maglev }
    |                                              ^^^^^^ `balance: { algorithm: maglev, hash: header:x-user }`, or `cookie:NAME`, `source`, `path`
attache.yaml:8:47: error: `tcp://` is opaque bytes, `protocol` says HTTP
  8 |   f: { address: tcp://f.internal:1, protocol: http1, health_check: { path: /healthz, tcp: true } }
    |                                               ^^^^^ write `http://` in the address
attache.yaml:8:68: error: a health check has exactly one probe
  8 |   f: { address: tcp://f.internal:1, protocol: http1, health_check: { path: /healthz, tcp: true } }
    |                                                                    ^ exactly one of `path: /healthz`, `tcp: true` and `grpc: SERVICE`
attache.yaml:9:59: error: the upstream takes opaque bytes, not HTTP
  9 |   g: { address: tcp://g.internal:1, health_check: { path: /primary } }
    |                                                           ^^^^^^^^ `tcp: true`, or the `port` of it that takes HTTP
attache.yaml:10:86: error: the upstream has no TLS that a probe could use
  10 |   h: { address: tcp://h.internal:1, health_check: { path: /primary, port: 8008, tls: true } }
     |                                                                                      ^^^^ remove it, or give the upstream `tls`
attache.yaml:11:75: error: a Unix socket has no other port
  11 |   i: { address: "unix:/run/i.sock", health_check: { path: /healthz, port: 8008 } }
     |                                                                           ^^^^ remove `port`
"#);
}

#[test]
fn a_prefix_replaces_whatever_a_route_matches() {
    for wanted in [
        "{ path: /exact }",
        "{ path: '/users/{id}' }",
        "{ path: '~/v[0-9]+' }",
        "{ host: a.example }",
        "{ path: /v1/* }",
    ] {
        let route = format!("{{ match: {wanted}, to: a, rewrite: {{ prefix: /new }} }}");
        let text = format!(
            "listeners: {{ l: {{ bind: ':15001', routes: [{route}] }} }}\nupstreams: {{ a: 'http://a' }}\n"
        );
        assert!(attache_config::parse(&text, None, &|_| None).is_ok(), "{wanted}");
    }
}

#[test]
fn a_change_of_attaches_own_answers_keeps_their_type_and_uses_only_known_values() {
    let text = r#"listeners:
  l:
    bind: ':15001'
    to: a
    local_reply:
      headers:
        remove: [grpc-status, content-length]
        set: { content-type: text/html, x-a: '%{capture.id}' }
        add: { x-b: '%{request.header.cookie}' }
upstreams: { a: 'http://a' }
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:6:7: error: `content-type` describes the body of attache's own answers and can't be changed
  6 |       headers:
    |       ^^^^^^^^ leave it out
attache.yaml:6:7: error: `grpc-status` describes the body of attache's own answers and can't be changed
  6 |       headers:
    |       ^^^^^^^^ leave it out
attache.yaml:6:7: error: `x-a` has a variable that attache's own answers don't have
  6 |       headers:
    |       ^^^^^^^^ `client.*`, `request.host`, `request.path`, `request.method`, `request.id`, `route`, `upstream` and `listener` are known
attache.yaml:6:7: error: `x-b` has a variable that attache's own answers don't have
  6 |       headers:
    |       ^^^^^^^^ `client.*`, `request.host`, `request.path`, `request.method`, `request.id`, `route`, `upstream` and `listener` are known
attache.yaml:7:31: error: `content-length` belongs to one connection and can't be changed
  7 |         remove: [grpc-status, content-length]
    |                               ^^^^^^^^^^^^^^ attache sets it for each connection
"#);
}

#[test]
fn a_header_names_only_upstreams_of_requests_that_the_route_lists() {
    let text = r#"listeners:
  l:
    bind: ':15001'
    routes:
      - { match: { path: /a }, upstream_header: host, to: [a, a] }
      - { match: { path: /b }, upstream_header: x-to, to: { a: 50%, b: 50% } }
      - { match: { path: /c }, upstream_header: x-to, to: [a, opaque, anywhere] }
      - { match: { path: /d }, to: [a, b] }
      - { match: { path: /e }, upstream_header: x-to, to: [a, c] }
      - { match: { path: /f }, upstream_header: x-to, respond: 204 }
      - { match: { path: /g }, upstream_header: x-to, to: [a, b] }
upstreams: { a: 'http://a', b: 'http://b', opaque: 'tcp://c:1', anywhere: authority }
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:5:49: error: `host` can't name an upstream: attache sets it for each connection
  5 |       - { match: { path: /a }, upstream_header: host, to: [a, a] }
    |                                                 ^^^^ take a header of your own, `x-upstream` for example
attache.yaml:5:63: error: `a` is named twice
  5 |       - { match: { path: /a }, upstream_header: host, to: [a, a] }
    |                                                               ^ keep one of them
attache.yaml:6:59: error: weights together with `upstream_header`
  6 |       - { match: { path: /b }, upstream_header: x-to, to: { a: 50%, b: 50% } }
    |                                                           ^ the header chooses, so list the upstreams: `to: [orders, billing]`
attache.yaml:7:18: error: HTTP can't be routed to `opaque`, which takes opaque bytes
  7 |       - { match: { path: /c }, upstream_header: x-to, to: [a, opaque, anywhere] }
    |                  ^ match `sni`, `destination` or `methods: CONNECT`, or give the upstream an `http` or `https` address
attache.yaml:7:49: error: a header can't name `opaque`: it takes opaque bytes, which have no header
  7 |       - { match: { path: /c }, upstream_header: x-to, to: [a, opaque, anywhere] }
    |                                                 ^^^^ give it a separate route
attache.yaml:7:49: error: a header can't name `anywhere`: it goes to the host that a request names
  7 |       - { match: { path: /c }, upstream_header: x-to, to: [a, opaque, anywhere] }
    |                                                 ^^^^ give it a separate route
attache.yaml:8:36: error: it is not clear which of these upstreams a request is for
  8 |       - { match: { path: /d }, to: [a, b] }
    |                                    ^ `upstream_header: x-upstream` on the route, or weights: `{ orders: 95%, orders-next: 5% }`
attache.yaml:9:63: error: there is no upstream `c`
  9 |       - { match: { path: /e }, upstream_header: x-to, to: [a, c] }
    |                                                               ^ did you mean `a`?
attache.yaml:10:49: error: `upstream_header` has no meaning here
  10 |       - { match: { path: /f }, upstream_header: x-to, respond: 204 }
     |                                                 ^^^^ it belongs to a route with `to`
"#);
}

#[test]
fn a_session_needs_a_key_and_a_subset_needs_labels_that_exist() {
    let of = |route: &str, address: &str| {
        let text = format!(
            "listeners: {{ in: {{ bind: 127.0.0.1:1, routes: [{{ to: app, {route} }}] }} }}\nupstreams: {{ app: {{ address: [{{ address: '{address}', labels: {{ version: v1 }} }}] }} }}"
        );
        match attache_config::parse(&text, None, &|_| None) {
            Ok(config) => {
                config.warnings.iter().map(|found| found.message.clone()).collect::<Vec<_>>().join("\n")
            }
            Err(found) => found.to_string(),
        }
    };
    let session = |key: &str| of(&format!("session_cookie: {{ name: sid{key} }}"), "http://a");
    assert!(session("").contains("this session cookie has no `key`"), "{}", session(""));
    let short = session(", key: hunter2");
    assert!(short.contains("shorter than 32 characters"), "{short}");
    assert_eq!(session(", key: 0123456789abcdef0123456789abcdef"), "");
    let subset = |address: &str| of("subset: { labels: { version: v2 } }", address);
    assert!(subset("http://a").contains("no address of `app` has these labels"));
    let pods = subset("kubernetes://app.shop:http");
    assert!(pods.contains("labels of pods are not known here: make a Service for each version"), "{pods}");
}

#[test]
fn an_error_behind_more_warnings_than_are_shown_refuses_the_file() {
    let warned = "      - { match: { path: /a }, to: u }\n".repeat(300);
    let listener = format!("listeners:\n  out:\n    bind: ':1'\n    routes:\n{warned}");
    let upstreams = "upstreams: { u: 'http://a.test' }\n";
    let said = found(&format!("{listener}      - {{ match: {{ path: /admin }}, to: nosuch }}\n{upstreams}"));
    assert!(said.starts_with("attache.yaml:305:40: error: there is no upstream `nosuch`"), "{said}");
    assert_eq!(said.matches("warning").count(), 0, "{said}");

    let config = attache_config::parse(&format!("{listener}{upstreams}"), None, &|_| None).unwrap();
    assert_eq!(config.warnings.len(), 201);
    assert_eq!(config.warnings.last().unwrap().message, "99 more are not shown");
}
