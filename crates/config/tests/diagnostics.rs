//! What a person reads who made a mistake.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_raw_string_hashes,
    clippy::format_push_string,
    reason = "tests"
)]

use std::path::Path;

fn found(text: &str) -> String {
    match attache_config::parse(text, Some(Path::new("attache.yaml")), &|_| None) {
        Ok(config) => config.warnings.iter().map(ToString::to_string).collect(),
        Err(found) => found.to_string(),
    }
}

#[test]
fn an_unknown_key_has_a_suggestion() {
    let text = r#"listeners:
  outbound:
    bind: 127.0.0.1:15001
    routes:
      - to: orders
        timout: 2s
        retries: 3
upstreams:
  orders:
    address: https://orders.internal:8443
    balanc: round-robin
    detect_timeout: 1s
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:6:9: error: unknown key `timout` in a route
  6 |         timout: 2s
    |         ^^^^^^ did you mean `timeout`?
attache.yaml:7:9: error: unknown key `retries` in a route
  7 |         retries: 3
    |         ^^^^^^^ did you mean `retry`?
attache.yaml:11:5: error: unknown key `balanc` in an upstream
  11 |     balanc: round-robin
     |     ^^^^^^ did you mean `balance`?
attache.yaml:12:5: error: unknown key `detect_timeout` in an upstream
  12 |     detect_timeout: 1s
     |     ^^^^^^^^^^^^^^ `detect_timeout` is a key of a listener
"#);
}

#[test]
fn a_misspelt_required_key_is_one_mistake() {
    for (listener, upstream, key) in [
        ("bnd: ':1', to: a", "address: 'http://b'", "bind"),
        ("listen: ':1', to: a", "address: 'http://b'", "bind"),
        ("bind: ':1', to: a", "adress: 'http://b'", "address"),
        ("bind: ':1', to: a", "url: 'http://b'", "address"),
        ("bind: ':1', to: a", "address: [{ adress: 'http://b', weight: 1 }]", "address"),
        ("bind: ':1', to: a, tls: { certificate: c, keyy: k }", "address: 'http://b'", "key"),
        ("bind: ':1', to: a, tls: { cert: c, key: k }", "address: 'http://b'", "certificate"),
        ("bind: ':1', to: a", "address: 'https://b', tls: { certificate: c, ky: k }", "key"),
        ("bind: ':1', routes: [{ too: a }]", "address: 'http://b'", "to"),
        ("bind: ':1', routes: [{ respnd: 403 }]", "address: 'http://b'", "respond"),
        ("bind: ':1', routes: [{ redirct: { path: /x } }]", "address: 'http://b'", "redirect"),
        ("bind: ':1', routes: [{ to: a, rate_limit: { reqests: 3 } }]", "address: 'http://b'", "requests"),
        ("bind: ':1', routes: [{ to: a, fault: { delai: { time: 1s } } }]", "address: 'http://b'", "delay"),
        ("bind: ':1', to: a", "address: 'http://b', credential: { barer: { file: x } }", "bearer"),
        ("bind: ':1', to: a", "address: 'http://b', credential: { bearer: { fle: x } }", "file"),
    ] {
        let text = format!("listeners: {{ o: {{ {listener} }} }}\nupstreams: {{ a: {{ {upstream} }} }}\n");
        let found = found(&text);
        assert_eq!(found.matches("error:").count(), 1, "{text}{found}");
        assert!(found.contains(&format!("did you mean `{key}`?")), "{text}{found}");
    }
    let found = found("upstream: { a: 'http://b' }\n");
    assert!(found.matches("error:").count() == 1 && found.contains("did you mean `upstreams`?"), "{found}");
}

#[test]
fn several_errors_are_reported_at_once() {
    let text = r#"listeners:
  outbound:
    bind: localhost
    protocol: htpp
    max_connections: many
    routes:
      - match: { host: "orders.*.internal", path: v1/*, methods: [get] }
        to: { orders: 95%, ordrs: 10% }
        timeout: 30
        retry: { attempts: -1, on: [connect-failure, reste], budget: 20 }
upstreams:
  orders: orders.internal:8443
  next:
    tls: { certificate: /certs/tls.crt }
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:3:11: error: `localhost` has no port
  3 |     bind: localhost
    |           ^^^^^^^^^ `localhost:15001`? A port alone is `:15001`
attache.yaml:4:15: error: `htpp` isn't known here
  4 |     protocol: htpp
    |               ^^^^ did you mean `http`? one of `auto`, `http`, `http1`, `http2`, `tcp` or `tls`
attache.yaml:5:22: error: `many` doesn't fit here
  5 |     max_connections: many
    |                      ^^^^ expected a whole number
attache.yaml:7:24: error: `orders.*.internal` has a `*` inside
  7 |       - match: { host: "orders.*.internal", path: v1/*, methods: [get] }
    |                        ^^^^^^^^^^^^^^^^^^^ `*` stands for whole labels: `*.internal` or `orders.*`
attache.yaml:7:51: error: `v1/*` isn't a path
  7 |       - match: { host: "orders.*.internal", path: v1/*, methods: [get] }
    |                                                   ^^^^ a path begins with `/`, a regular expression with `~`: `/v1/*`?
attache.yaml:7:67: error: `get` isn't a method
  7 |       - match: { host: "orders.*.internal", path: v1/*, methods: [get] }
    |                                                                   ^^^ methods are told apart by case: `GET`?
attache.yaml:9:18: error: `30` has no unit
  9 |         timeout: 30
    |                  ^^ `30s` or `30ms`?
attache.yaml:10:28: error: -1 is too small
  10 |         retry: { attempts: -1, on: [connect-failure, reste], budget: 20 }
     |                            ^^ at least 0
attache.yaml:10:54: error: `reste` isn't a condition for a retry
  10 |         retry: { attempts: -1, on: [connect-failure, reste], budget: 20 }
     |                                                      ^^^^^ did you mean `reset`?
attache.yaml:10:70: error: `20` is more than the whole
  10 |         retry: { attempts: -1, on: [connect-failure, reste], budget: 20 }
     |                                                                      ^^ from `0%` to `100%`, or `20%`?
attache.yaml:12:11: error: `orders.internal:8443` doesn't say what is spoken there
  12 |   orders: orders.internal:8443
     |           ^^^^^^^^^^^^^^^^^^^^ `http://orders.internal:8443`, `https://orders.internal:8443`, `h2c://orders.internal:8443`, `tcp://orders.internal:8443` or `tls://orders.internal:8443`?
attache.yaml:13:3: error: the key `address` is missing in an upstream
  13 |   next:
     |   ^^^^ `address:` with an address such as `https://orders.internal:8443`, or a mapping (an address with its weight), or a list of these
"#);
}

#[test]
fn a_reference_that_does_not_exist_has_a_suggestion() {
    let text = r#"listeners:
  a: { bind: ":1", to: ordesr }
  b: { bind: ":1", to: [orders] }
upstreams:
  orders: https://orders.internal
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:2:24: error: there is no upstream `ordesr`
  2 |   a: { bind: ":1", to: ordesr }
    |                        ^^^^^^ did you mean `orders`?
attache.yaml:3:14: error: `0.0.0.0:1` is already listened on by `a`
  3 |   b: { bind: ":1", to: [orders] }
    |              ^^^^ give each listener a different address
attache.yaml:3:24: error: it is not clear which of these upstreams a request is for
  3 |   b: { bind: ":1", to: [orders] }
    |                        ^ `upstream_header: x-upstream` on the route, or weights: `{ orders: 95%, orders-next: 5% }`
"#);
}

#[test]
fn what_is_no_yaml_is_said_so() {
    let text = r#"upstreams:
  orders: https://orders.internal
	database: tcp://db:5432
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:3:1: error: not valid YAML: while scanning a plain scalar, found a tab
  3 |  database: tcp://db:5432
    | ^ here is a tab: YAML is indented with spaces
"#);
}

#[test]
fn another_language_is_no_config() {
    let text = r#"<?xml version="1.0"?>
<config><listen port="80"/></config>
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml: error: this is XML or HTML, and no config of attache
  `attache schema` describes a config of attache; the smallest is `upstreams: { orders: https://orders.internal:8443 }`
"#);
}

#[test]
fn slips_of_indentation_spaces_and_quotes_are_named() {
    const DEEPER: &str = "lines that belong to a key are indented deeper than the key";
    for (text, help) in [
        ("listeners:\n  o:\n  bind: :1\n  to: a\nupstreams:\n  a: http://b\n", DEEPER),
        ("listeners:\no:\n  bind: :1\nupstreams:\n  a: http://b\n", DEEPER),
        ("upstreams:\n  a:\n  address: http://b\n", DEEPER),
        (
            "listeners:\n  o:\n    bind: :1\n    routes:\n      - match:\n        path: /x\n        to: a\nupstreams:\n  a: http://b\n",
            DEEPER,
        ),
        ("upstreams:\n  a:http://b\n", "write a space behind the colon: `a: http://b`"),
        ("upstreams:\n  a: { address:http://b }\n", "write a space behind the colon: `address: http://b`"),
        (
            "listeners:\n  o:\n    bind: :1\n    routes:\n      -to: a\nupstreams:\n  a: http://b\n",
            "write a space behind the dash: `- to`",
        ),
        ("upstreams\n  a: http://b\n", "is a colon missing at the end of this line?"),
        ("upstreams:\n  a: \"http://b\n", "a quote is opened above and not closed"),
        ("upstreams: { a: 'http://b }\n", "a quote is opened here and not closed"),
        (
            "upstreams: { a: { address: 'https://b', tls: { ca: \"C:\\certs\\ca.crt\" } } }\n",
            r#"in `"…"` a `\` begins an escape: write the value in `'…'`"#,
        ),
        // The key above has no value, and could have this one.
        ("upstreams:\norders: http://b\n", "if it belongs to `upstreams:` above, indent it deeper"),
        (
            "listeners:\n  o:\n    bind: :1\n    tls:\n    certificate: c\n    key: k\n    to: a\nupstreams: { a: 'http://b' }\n",
            "^^^ if it belongs to `tls:` above, indent it deeper",
        ),
        // A key of a section where a name stands.
        (
            "listeners:\n  o:\n    bind: :1\n  routes:\n    - to: a\nupstreams: { a: 'http://b' }\n",
            "`routes` is a key of a listener: indent it deeper than the name",
        ),
        (
            "upstreams:\n  a: http://b\n  timeout: 5s\n",
            "`timeout` is a key of an upstream: indent it deeper than the name",
        ),
        (
            "listeners:\n  o:\n    bind: :1\n    routes:\n      - match: { path: /x }\n      to: a\nupstreams: { a: 'http://b' }\n",
            "indent this line like the item's first key, behind the dash",
        ),
        ("listeners:\n  - name: o\n    bind: :1\nupstreams: { a: 'http://b' }\n", "without a dash: `o: …`"),
        // What only looks right.
        ("upstreams:\n\u{a0}\u{a0}a: http://b\n", "only looks like a space stands here (U+00A0)"),
        ("upstreams:\n  a: “http://b”\n", "`“` (U+201C) is no quote of YAML"),
        ("upstreams:\n  a\u{200b}: http://b\n", "an invisible character stands here (U+200B)"),
        ("upstreams:\n  a: 'http://{{ .Values.host }}'\n", "this is a template"),
        ("upstreams:\n  a: 'http://$HOST'\n", "`${HOST}`, in braces"),
        ("// a comment\nupstreams: { a: 'http://b' }\n", "a comment begins with `#`"),
        ("upstreams: { a: http://b#c }\n", "a comment begins with a space and `#`"),
        (&format!("a: {}", "[".repeat(200)), "this many levels are no config"),
        ("upstreams: { a: 'https:/b' }\n", "^ `https://b`?"),
        ("upstreams: { a: 'postgres://b:5432' }\n", "`postgres` is written `tcp`"),
        (
            "listeners: { o: { bind: 70000, to: a } }\nupstreams: { a: 'http://b' }\n",
            "a port is a number from 0 to 65535",
        ),
        ("upstreams: { a: http://b\n", "what is opened here is not closed"),
    ] {
        let said = found(text);
        assert!(said.contains(help), "{text}\n{said}");
    }
}

#[test]
fn an_empty_file_shows_the_smallest_config() {
    for text in ["", "# nothing yet\n", "---\n", "null\n"] {
        insta::allow_duplicates!(insta::assert_snapshot!(found(text), @r#"
attache.yaml: error: the file is empty
  the smallest config is
    upstreams:
      orders: https://orders.internal:8443
"#));
    }
}

#[test]
fn a_list_where_a_mapping_is_wanted() {
    let text = r#"upstreams:
  - orders: https://orders.internal
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:2:3: error: a list doesn't fit here
  2 |   - orders: https://orders.internal
    |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ a name is a key here, without a dash: `orders: …`
"#);
}

#[test]
fn a_key_that_stands_twice() {
    let text = r#"upstreams:
  orders: https://orders.internal
  orders: https://orders-next.internal
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:3:3: error: the key `orders` is given twice
  3 |   orders: https://orders-next.internal
    |   ^^^^^^ it is first given in line 2: remove one
"#);
}

#[test]
fn a_variable_that_is_not_set() {
    let text = r#"workers: ${WORKERS}
upstreams:
  orders: https://${HOST}:8443
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:1:10: error: the environment variable `WORKERS` isn't set
  1 | workers: ${WORKERS}
    |          ^^^^^^^^^^ set it, or give a default: `${WORKERS:-…}`
attache.yaml:3:11: error: the environment variable `HOST` isn't set
  3 |   orders: https://${HOST}:8443
    |           ^^^^^^^^^^^^^^^^^^^^ set it, or give a default: `${HOST:-…}`
"#);
}

#[test]
fn tls_needs_its_parts() {
    let text = r#"listeners:
  inbound:
    bind: 0.0.0.0:15006
    tls: { certificate: /certs/tls.crt, allow: ["spiffe://d/a*"], client_optional: true }
    to: app
upstreams:
  app: { address: "http://127.0.0.1:8080", tls: { insecure_skip_verify: true } }
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:4:25: error: `certificate` without `key`
  4 |     tls: { certificate: /certs/tls.crt, allow: ["spiffe://d/a*"], client_optional: true }
    |                         ^^^^^^^^^^^^^^ add `key:` beside it
attache.yaml:4:48: error: `allow` without `client_ca`: no client is asked for a certificate
  4 |     tls: { certificate: /certs/tls.crt, allow: ["spiffe://d/a*"], client_optional: true }
    |                                                ^ name who signs the clients' certificates: `client_ca: /certs/ca.crt`
attache.yaml:4:49: error: `spiffe://d/a*` has a `*` inside of a segment
  4 |     tls: { certificate: /certs/tls.crt, allow: ["spiffe://d/a*"], client_optional: true }
    |                                                 ^^^^^^^^^^^^^^^ `*` is one whole segment, a final `/**` the rest
attache.yaml:4:84: error: `client_optional` without `client_ca`: no client is asked for a certificate
  4 |     tls: { certificate: /certs/tls.crt, allow: ["spiffe://d/a*"], client_optional: true }
    |                                                                                    ^^^^ name who signs the clients' certificates: `client_ca: /certs/ca.crt`
attache.yaml:7:49: error: `tls` for an address that says `http://`, which is plaintext
  7 |   app: { address: "http://127.0.0.1:8080", tls: { insecure_skip_verify: true } }
    |                                                 ^ write `https://` in the address, or remove `tls`
"#);
}

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
fn patterns_say_what_is_wrong_with_them() {
    let text = r#"listeners:
  outbound:
    bind: 127.0.0.1:15001
    to: orders
    routes:
      - { match: { path: "~/v[0-9" }, to: orders }
      - { match: { path: "/v1*" }, to: orders }
      - { match: { path: "/users/{id}/{id}" }, to: orders }
      - { match: { path: "/search?q=1" }, to: orders }
      - { match: { host: bücher.example }, to: orders }
      - { match: { headers: { "x a": v1, x-b: "a*b" } }, to: orders }
      - { match: { destination: [10.0.0.1/8, db:5432] }, to: orders }
upstreams:
  orders: https://orders.internal
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:6:26: error: `~/v[0-9` isn't a regular expression
  6 |       - { match: { path: "~/v[0-9" }, to: orders }
    |                          ^^^^^^^^^ unclosed character class
attache.yaml:7:26: error: `/v1*` has a `*` that isn't its last segment
  7 |       - { match: { path: "/v1*" }, to: orders }
    |                          ^^^^^^ a prefix ends on a segment: `/v1/*`; or `~/v1.*`
attache.yaml:8:26: error: `{id}` is given twice
  8 |       - { match: { path: "/users/{id}/{id}" }, to: orders }
    |                          ^^^^^^^^^^^^^^^^^^ give each capture a name of its own
attache.yaml:9:26: error: `/search?q=1` has a query
  9 |       - { match: { path: "/search?q=1" }, to: orders }
    |                          ^^^^^^^^^^^^^ `path: /search` and `query: { q: … }`
attache.yaml:10:26: error: `bücher.example` has characters beyond ASCII
  10 |       - { match: { host: bücher.example }, to: orders }
     |                          ^^^^^^^^^^^^^^ write the name in its ASCII form (punycode, `xn--…`), so that it can't be mistaken for another one
attache.yaml:11:31: error: `x a` isn't a header name
  11 |       - { match: { headers: { "x a": v1, x-b: "a*b" } }, to: orders }
     |                               ^^^^^ letters, digits and `-`, without a colon
attache.yaml:11:47: error: `a*b` has a `*` that is neither first nor last
  11 |       - { match: { headers: { "x a": v1, x-b: "a*b" } }, to: orders }
     |                                               ^^^^^ a regular expression `~…`, or `=a*b` for the text itself
attache.yaml:12:34: error: `10.0.0.1/8` has bits beyond its prefix
  12 |       - { match: { destination: [10.0.0.1/8, db:5432] }, to: orders }
     |                                  ^^^^^^^^^^ `10.0.0.0/8`, or `10.0.0.1` alone?
attache.yaml:12:46: error: `db` isn't an IP address
  12 |       - { match: { destination: [10.0.0.1/8, db:5432] }, to: orders }
     |                                              ^^^^^^^ such as `10.0.0.0/8` or `10.1.2.3:5432`
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
fn yes_is_no_boolean_and_a_value_may_be_missing() {
    let text = r#"workers: "2"
listeners:
  outbound:
    bind: :15001
    transparent: yes
    to:
upstreams: { orders: https://orders.internal }
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:1:10: error: expected a whole number, found `2`
  1 | workers: "2"
    |          ^^^ remove the quotes
attache.yaml:5:18: error: expected `true` or `false`, found `yes`
  5 |     transparent: yes
    |                  ^^^ write `true`
attache.yaml:6:7: error: a value is missing here
  6 |     to:
    |       ^ expected a name such as `orders`, or a list of these, or a mapping with a percentage or a weight such as `95%` for each key; lines that belong to a key are indented deeper than the key
"#);
}

#[test]
fn a_wide_line_is_cut_around_the_mistake() {
    let text = r#"upstreams: { a: https://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.internal, b: https://bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb.internal, c: htp://c.internal, d: https://ddddddddddddddddddddddddddddddd.internal }
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:1:145: error: the scheme `htp` isn't known
  1 | …bbbbbbbbbbbbbbbbbbbbbbbbb.internal, c: htp://c.internal, d: https://ddddddddddddddddddddddddddddddd.internal }
    |                                         ^^^^^^^^^^^^^^^^ did you mean `http`?
"#);
}

#[test]
fn flow_values_need_quotes() {
    let text = r#"listeners:
  outbound:
    bind: 127.0.0.1:15001
    routes:
      - match: { path: /users/{id} }
        to: orders
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:5:31: error: not valid YAML: while parsing a flow mapping, did not find expected ',' or '}'
  5 |       - match: { path: /users/{id} }
    |                               ^ within `{ … }` and `[ … ]` a value with `,`, `{`, `}`, `[` or `]` needs quotes: `path: "/users/{id}"`
"#);
}

#[test]
fn what_is_suspicious_is_a_warning() {
    let text = r#"listeners:
  outbound:
    bind: 127.0.0.1:15001
    protocol: http
    routes:
      - match: { path: /v1/* }
        to: orders
        timeout: 1s
        retry: { per_try_timeout: 2s }
      - match: { path: /v1/* }
        to: orders
      - match: { destination: 10.0.0.0/8 }
        to: orders
upstreams:
  orders: { address: https://orders.internal, tls: { insecure_skip_verify: true } }
  forgotten: https://forgotten.internal
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:9:16: warning: a single attempt may take longer than all attempts together
  9 |         retry: { per_try_timeout: 2s }
    |                ^ `per_try_timeout` is 2s, `timeout` is 1s
attache.yaml:10:16: warning: this route never matches
  10 |       - match: { path: /v1/* }
     |                ^ the route in line 6 matches the same
attache.yaml:12:16: warning: `destination` never matches here: connections aren't intercepted
  12 |       - match: { destination: 10.0.0.0/8 }
     |                ^ `transparent: true` on the listener
attache.yaml:15:76: warning: the peer's certificate isn't verified: any peer is trusted
  15 |   orders: { address: https://orders.internal, tls: { insecure_skip_verify: true } }
     |                                                                            ^^^^ name the authority with `ca` instead
attache.yaml:16:3: warning: no route leads to the upstream `forgotten`
  16 |   forgotten: https://forgotten.internal
     |   ^^^^^^^^^ name it in a `to`, or remove it
"#);
}

#[test]
fn weights_have_a_sum_and_ports_one_owner() {
    let text = r#"listeners:
  a: { bind: ":1", to: { one: 60%, two: 30% } }
  b: { bind: ":2", to: { one: 60%, two: 3 } }
  c: { bind: ":3", to: { one: 0, two: 0 } }
  d: { bind: 127.0.0.1:15090, to: one }
upstreams:
  one: http://one.internal
  two: tcp://two.internal:1
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:2:24: error: the percentages of this split sum to 90%, not to 100%
  2 |   a: { bind: ":1", to: { one: 60%, two: 30% } }
    |                        ^ `{ orders: 95%, orders-next: 5% }` or `{ orders: 19, orders-next: 1 }`
attache.yaml:3:24: error: this split mixes percentages and plain weights
  3 |   b: { bind: ":2", to: { one: 60%, two: 3 } }
    |                        ^ `{ orders: 95%, orders-next: 5% }` or `{ orders: 19, orders-next: 1 }`
attache.yaml:4:24: error: all weights of this split are zero
  4 |   c: { bind: ":3", to: { one: 0, two: 0 } }
    |                        ^ `{ orders: 95%, orders-next: 5% }` or `{ orders: 19, orders-next: 1 }`
attache.yaml:5:14: error: `d` and the metrics both use port 15090
  5 |   d: { bind: 127.0.0.1:15090, to: one }
    |              ^^^^^^^^^^^^^^^ move one of them, or `metrics: off`
"#);
}

#[test]
fn aliases_and_tags_have_their_limits() {
    let text = r#"x-base: &base { connect_timeout: 1 }
upstreams:
  a:
    <<: *base
    address: !secret x
  b: { <<: [1], address: http://b.internal }
  c: *c
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:5:22: error: the tag `!secret` isn't known here
  5 |     address: !secret x
    |                      ^ `!file PATH` reads a file; a value that begins with `!` needs quotes
attache.yaml:6:8: error: `<<` merges mappings, this is none
  6 |   b: { <<: [1], address: http://b.internal }
    |        ^^ write `<<: *anchor` or `<<: [*one, *two]`
attache.yaml:7:6: error: not valid YAML: while parsing node, found unknown anchor
  7 |   c: *c
    |      ^ `*name` stands for what `&name` above it marks; a value that begins with `*` needs quotes
"#);
}

#[test]
fn colours_change_nothing_but_colours() {
    let text = "upstream: {}";
    let Err(found) = attache_config::parse(text, None, &|_| None) else { panic!("this is wrong") };
    let coloured = found.display(true).to_string();
    assert!(coloured.contains("\u{1b}[31m"));
    let mut plain = coloured;
    for code in ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[31m", "\u{1b}[33m", "\u{1b}[34m"] {
        plain = plain.replace(code, "");
    }
    assert_eq!(plain, found.to_string());
}

#[test]
fn a_control_character_never_reaches_the_terminal() {
    let shown = found("upstreams: { a: \"x\u{202e}\" } # \u{9b}31m\n");
    assert!(!shown.contains(['\u{202e}', '\u{9b}']), "{shown:?}");
}

#[test]
fn machines_read_places() {
    let Err(found) = attache_config::parse("workers: 0\nupstreams: { a: http://a }\n", None, &|_| None)
    else {
        panic!("this is wrong")
    };
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json[0]["line"], 1);
    assert_eq!(json[0]["column"], 10);
    assert_eq!(json[0]["severity"], "error");
    assert_eq!(json[0]["message"], "0 is too small");
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("attache.yaml");
    let Err(found) = attache_config::load(&path, &|_| None) else { panic!("there is no file") };
    assert!(found.to_string().contains("can't be read"), "{found}");
    std::fs::write(&path, b"a: b\n\xff\xfe").unwrap();
    let Err(found) = attache_config::load(&path, &|_| None) else { panic!("this is no text") };
    assert!(found.to_string().contains("not UTF-8 text: line 2"), "{found}");
}

#[test]
fn limits_that_contradict_themselves_are_said() {
    let text = r#"overload: { shed_requests: 96% }
listeners:
  outbound:
    bind: 127.0.0.1:15001
    routes:
      - to: orders
        global_rate_limit:
          service: limit
          domain: shop
          descriptors: [ { actions: [ { path: true, method: true } ] } ]
upstreams:
  orders:
    address: http://orders
    adaptive_concurrency: { max_concurrency_limit: 2 }
    queue: { interval: 1ms }
  limits: h2c://limits
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:1:28: error: `shed_requests` comes after `stop_accepting`
  1 | overload: { shed_requests: 96% }
    |                            ^^^ requests are shed first: set it lower
attache.yaml:8:20: error: there is no upstream `limit`
  8 |           service: limit
    |                    ^^^^^ did you mean `limits`?
attache.yaml:10:39: error: an action has exactly one key
  10 |           descriptors: [ { actions: [ { path: true, method: true } ] } ]
     |                                       ^ `remote_address: true`, `request_headers: { header_name: x-user }`, `generic_key: { descriptor_value: checkout }`, …
attache.yaml:14:52: error: `max_concurrency_limit` is lower than `min_rtt.min_concurrency`
  14 |     adaptive_concurrency: { max_concurrency_limit: 2 }
     |                                                    ^ at least 3
attache.yaml:15:24: error: `interval` is shorter than `target`
  15 |     queue: { interval: 1ms }
     |                        ^^^ at least 5ms
"#);
}

#[test]
fn a_secret_goes_where_it_is_safe_or_not_at_all() {
    let text = r#"listeners:
  outbound:
    bind: 127.0.0.1:15001
    routes:
      - { match: { path: /a }, to: anywhere, credential: { bearer: { file: /t } } }
      - { match: { path: /b }, to: safe, credential: {} }
      - { match: { path: /c }, to: safe, credential: { bearer: { file: /t }, header: { name: x-key, file: /t } } }
      - { match: { path: /d }, to: safe, credential: { header: { name: host, file: /t } } }
      - { match: { path: /e }, to: safe, credential: { basic: { user: "a:b", password_file: /t } } }
      - { match: { path: /f }, respond: 204, credential: off }
      - { match: { path: /g }, to: plain, credential: { bearer: { file: /t }, insecure_send_in_clear: true } }
    to: anywhere
upstreams:
  safe: https://safe.internal
  anywhere: { address: authority, tls: {} }
  plain:
    address: http://plain.internal
    credential: { bearer: { file: /t } }
  unverified:
    address: https://unverified.internal
    tls: { insecure_skip_verify: true }
    credential: { bearer: { file: /t } }
  opaque:
    address: tls://opaque.internal:5432
    credential: { bearer: { file: /t } }
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:5:58: error: the request itself chooses the host of `anywhere`, so any host could get the secret
  5 |       - { match: { path: /a }, to: anywhere, credential: { bearer: { file: /t } } }
    |                                                          ^ make a separate upstream for the host that the secret is for
attache.yaml:6:54: error: this credential has no secret
  6 |       - { match: { path: /b }, to: safe, credential: {} }
    |                                                      ^ exactly one of `bearer: { file: … }`, `basic: { user: …, password_file: … }` and `header: { name: …, file: … }`
attache.yaml:7:54: error: a credential is one header
  7 |       - { match: { path: /c }, to: safe, credential: { bearer: { file: /t }, header: { name: x-key, file: /t } } }
    |                                                      ^ exactly one of `bearer: { file: … }`, `basic: { user: …, password_file: … }` and `header: { name: …, file: … }`
attache.yaml:8:72: error: the Host header isn't changed here
  8 |       - { match: { path: /d }, to: safe, credential: { header: { name: host, file: /t } } }
    |                                                                        ^^^^ `rewrite: { host: … }` on the route
attache.yaml:9:71: error: `a:b` isn't a user
  9 |       - { match: { path: /e }, to: safe, credential: { basic: { user: "a:b", password_file: /t } } }
    |                                                                       ^^^^^ a name without a colon
attache.yaml:10:58: error: `credential` has no meaning here
  10 |       - { match: { path: /f }, respond: 204, credential: off }
     |                                                          ^^^ it belongs to a route with `to`
attache.yaml:18:17: error: the secret would go to `plain` in plaintext, or to a peer that isn't verified
  18 |     credential: { bearer: { file: /t } }
     |                 ^ an `https://` address whose certificate is verified; `insecure_send_in_clear: true` sends it all the same
attache.yaml:22:17: error: the secret would go to `unverified` in plaintext, or to a peer that isn't verified
  22 |     credential: { bearer: { file: /t } }
     |                 ^ an `https://` address whose certificate is verified; `insecure_send_in_clear: true` sends it all the same
attache.yaml:25:17: error: `opaque` takes opaque bytes, which have no headers
  25 |     credential: { bearer: { file: /t } }
     |                 ^ give it an `https://` address
"#);
}

#[test]
fn a_prefix_takes_the_place_of_whatever_a_route_matches() {
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
fn an_answer_of_attaches_own_says_nothing_that_it_is_not_and_nothing_that_is_not_known() {
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
attache.yaml:6:7: error: `content-type` says what an answer of attache's own is and can't be changed
  6 |       headers:
    |       ^^^^^^^^ leave it out
attache.yaml:6:7: error: `grpc-status` says what an answer of attache's own is and can't be changed
  6 |       headers:
    |       ^^^^^^^^ leave it out
attache.yaml:6:7: error: `x-a` has a variable that an answer of attache's own doesn't know
  6 |       headers:
    |       ^^^^^^^^ `client.*`, `request.host`, `request.path`, `request.method`, `request.id`, `route`, `upstream` and `listener` are known
attache.yaml:6:7: error: `x-b` has a variable that an answer of attache's own doesn't know
  6 |       headers:
    |       ^^^^^^^^ `client.*`, `request.host`, `request.path`, `request.method`, `request.id`, `route`, `upstream` and `listener` are known
attache.yaml:7:31: error: `content-length` says how a message travels and can't be changed
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
attache.yaml:6:59: error: weights beside `upstream_header`
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
fn what_only_attache_writes_is_asked_of_nobody_else() {
    let text = |rules: &str, remove: &str| {
        format!(
            "listeners:
  in:
    bind: 127.0.0.1:1
    authorization: {{ jwt: {{ issuers: corp }}, external: opa }}
    routes:
      - {{ name: open, match: {{ path: /open }}, to: app, authorization: {{ external: off }}{remove} }}
      - {{ name: rest, to: app{rules} }}
jwt:
  corp: {{ issuer: a, audiences: b, keys: {{ file: /keys }}, claim_headers: {{ x-user: sub }} }}
authorizers:
  opa: {{ service: opa, upstream_headers: [x-groups, authorization] }}
upstreams: {{ app: 'http://a', opa: 'http://b' }}
"
        )
    };
    let of = |rules: &str, remove: &str| match attache_config::parse(&text(rules, remove), None, &|_| None) {
        Ok(config) => {
            config.warnings.iter().map(|found| found.message.clone()).collect::<Vec<_>>().join("\n")
        }
        Err(found) => found.to_string(),
    };
    let open = of("", "");
    assert!(open.contains("clients can write `x-groups` on this route; on `rest`"), "{open}");
    assert_eq!(of("", ", headers: { request: { remove: [x-groups, authorization] } }"), "");
    let rule = of(", authorization: { allow: [{ headers: { x-user: ann } }] }", "");
    assert!(rule.contains("a rule asks for `x-user`, which a claim of the token is written to"), "{rule}");
    // An authorizer may be asked only about what has credentials.
    let asks = of(", authorization: { allow: [{ headers: { authorization: '*' } }] }", "");
    assert!(!asks.contains("error"), "{asks}");
}

#[test]
fn a_session_wants_a_key_and_a_subset_labels_that_are_there() {
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
