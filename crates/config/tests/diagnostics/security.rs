//! TLS, secrets, and headers that only attache may write.

use super::found;

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
fn a_client_shows_one_certificate() {
    for spiffe in [true, false] {
        let tls = format!("{{ certificate: /c, key: /k, spiffe: {spiffe} }}");
        let found = found(&format!("upstreams: {{ a: {{ address: 'https://b', tls: {tls} }} }}\n"));
        assert_eq!(found.contains("both `spiffe` and a certificate from files"), spiffe, "{found}");
    }
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
attache.yaml:6:54: error: a credential has exactly one secret
  6 |       - { match: { path: /b }, to: safe, credential: {} }
    |                                                      ^ exactly one of `bearer: { file: … }`, `basic: { user: …, password_file: … }` and `header: { name: …, file: … }`
attache.yaml:7:54: error: a credential has exactly one secret
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
     |                 ^ an `https://` address whose certificate is verified; with `insecure_send_in_clear: true` it is sent anyway
attache.yaml:22:17: error: the secret would go to `unverified` in plaintext, or to a peer that isn't verified
  22 |     credential: { bearer: { file: /t } }
     |                 ^ an `https://` address whose certificate is verified; with `insecure_send_in_clear: true` it is sent anyway
attache.yaml:25:17: error: `opaque` takes opaque bytes, which have no headers
  25 |     credential: { bearer: { file: /t } }
     |                 ^ give it an `https://` address
"#);
}

#[test]
fn a_header_that_attache_writes_is_never_trusted_from_a_client() {
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
    assert!(
        rule.contains(
            "this rule checks `x-user`, but attache writes a claim of the token there only after the rules"
        ),
        "{rule}"
    );
    // An authorizer may be asked only about what has credentials.
    let asks = of(", authorization: { allow: [{ headers: { authorization: '*' } }] }", "");
    assert!(!asks.contains("error"), "{asks}");
}
