//! Keys and values: unknown, missing, misspelt, of another type, or in contradiction.

use super::found;

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
    |                                                                   ^^^ methods are case-sensitive: `GET`?
attache.yaml:9:18: error: `30` has no unit
  9 |         timeout: 30
    |                  ^^ `30s` or `30ms`?
attache.yaml:10:28: error: -1 is too small
  10 |         retry: { attempts: -1, on: [connect-failure, reste], budget: 20 }
     |                            ^^ at least 0
attache.yaml:10:54: error: `reste` isn't a condition for a retry
  10 |         retry: { attempts: -1, on: [connect-failure, reste], budget: 20 }
     |                                                      ^^^^^ did you mean `reset`?
attache.yaml:10:70: error: `20` is more than 100%
  10 |         retry: { attempts: -1, on: [connect-failure, reste], budget: 20 }
     |                                                                      ^^ from `0%` to `100%`, or `20%`?
attache.yaml:12:11: error: `orders.internal:8443` has no scheme, so its protocol isn't known
  12 |   orders: orders.internal:8443
     |           ^^^^^^^^^^^^^^^^^^^^ `http://orders.internal:8443`, `https://orders.internal:8443`, `h2c://orders.internal:8443`, `tcp://orders.internal:8443` or `tls://orders.internal:8443`?
attache.yaml:13:3: error: the key `address` is missing in an upstream
  13 |   next:
     |   ^^^^ `address:` with an address such as `https://orders.internal:8443`, or a mapping (an address with its weight), or a list of these
attache.yaml:14:25: error: `certificate` without `key`
  14 |     tls: { certificate: /certs/tls.crt }
     |                         ^^^^^^^^^^^^^^ add `key:` beside it
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
attache.yaml:3:14: error: `0.0.0.0:1` is already used by `a`
  3 |   b: { bind: ":1", to: [orders] }
    |              ^^^^ give each listener a different address
attache.yaml:3:24: error: it is not clear which of these upstreams a request is for
  3 |   b: { bind: ":1", to: [orders] }
    |                        ^ `upstream_header: x-upstream` on the route, or weights: `{ orders: 95%, orders-next: 5% }`
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
    |                          ^^^^^^^^^^^^^^^^^^ give each capture a different name
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
fn limits_that_contradict_each_other_are_reported() {
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
attache.yaml:1:28: error: `shed_requests` is higher than `stop_accepting`
  1 | overload: { shed_requests: 96% }
    |                            ^^^ requests are shed before the listener stops accepting: set it lower than `stop_accepting`
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
