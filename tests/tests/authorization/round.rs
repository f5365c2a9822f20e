//! Ways to avoid a rule, over every way of access: addresses that clients write, headers in other spellings, tunnels, upgrades.

use std::process::Command;

use attache_tests::{Attache, binary, curl, local, pki::Pki, raw, text};

use super::{app, ask, http2_status, start, status};

#[test]
fn a_network_is_that_of_the_connection_or_the_one_that_a_trusted_proxy_names() {
    let (_app, port) = app();
    let behind = start(
        "proxy_protocol: require\nauthorization: { allow: [{ client: 10.1.0.0/16 }] }\nto: app",
        "",
        port,
    );
    let get = "GET /a HTTP/1.1\r\nHost: app\r\nX-Forwarded-For: 10.1.2.3\r\nConnection: close\r\n\r\n";
    for (header, expected) in [
        ("PROXY TCP4 10.1.2.3 10.0.0.1 1 80\r\n", 200),
        ("PROXY TCP6 ::ffff:10.1.2.3 ::1 1 80\r\n", 200),
        ("PROXY TCP4 10.2.0.1 10.1.0.1 1 80\r\n", 403),
        ("PROXY TCP6 ::10.1.2.3 ::1 1 80\r\n", 403),
        // The proxy doesn't say who the client is.
        ("PROXY UNKNOWN\r\n", 403),
    ] {
        let answer = raw(local(behind.port), format!("{header}{get}").as_bytes());
        assert_eq!(status(&answer), expected, "{header}: {answer}");
    }
    let trusting = start(
        "authorization: { trusted_proxies: 127.0.0.0/8, allow: [{ forwarded_client: 10.1.0.0/16 }] }\nto: app",
        "",
        port,
    );
    for (fields, expected) in [
        ("X-Forwarded-For: 10.1.2.3\r\n", 200),
        ("X-Forwarded-For: 9.9.9.9, 10.1.2.3\r\n", 200),
        ("X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 10.1.2.3, 127.0.0.7\r\n", 200),
        ("X-Forwarded-For: 10.1.2.3, 9.9.9.9\r\n", 403),
        ("X-Forwarded-For: 10.1.2.3\r\nX-Forwarded-For: 9.9.9.9\r\n", 403),
        ("X-Forwarded-For: 10.1.2.3, \r\n", 403),
        ("X-Forwarded-For: 10.1.2.3;\r\n", 403),
        ("X_Forwarded_For: 10.1.2.3\r\n", 403),
        ("Forwarded: for=10.1.2.3\r\n", 403),
        ("", 403),
    ] {
        assert_eq!(status(&ask(&trusting, "GET /a", fields)), expected, "{fields}");
    }
}

#[test]
fn an_identity_is_the_one_that_the_certificate_proves() {
    let (_app, port) = app();
    let pki = Pki::new();
    let ca = pki.ca("ca");
    pki.issue(&ca, "api", &["localhost"]);
    pki.issue(&ca, "web", &["spiffe://shop/web"]);
    pki.issue(&ca, "job", &["spiffe://shop/job"]);
    let at = pki.dir().display().to_string();
    let attache = start(
        &format!(
            "tls: {{ certificate: {at}/api.crt, key: {at}/api.key, client_ca: {at}/ca.crt }}
authorization: {{ allow: [{{ name: web, identity: 'spiffe://shop/web' }}, {{ name: job, identity: 'spiffe://shop/job', path: /job/* }}] }}
to: app"
        ),
        "",
        port,
    );
    let url = |path: &str| format!("https://localhost:{}{path}", attache.port);
    let code = |name: &str, path: &str, version: &str| {
        let asked = curl([
            version,
            "--cacert",
            &format!("{at}/ca.crt"),
            "--cert",
            &format!("{at}/{name}.crt"),
            "--key",
            &format!("{at}/{name}.key"),
            "-H",
            "X-Forwarded-Client-Cert: URI=spiffe://shop/web",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            &url(path),
        ]);
        text(&asked)
    };
    for version in ["--http1.1", "--http2"] {
        assert_eq!(code("web", "/x", version), "200");
        assert_eq!(code("job", "/job/1", version), "200");
        assert_eq!(code("job", "/x", version), "403");
        assert_eq!(code("job", "/job/..%2fx", version), "403");
    }
    let audit = attache.metric("attache_authorization_total", &["rule=\"job\"", "allowed"]);
    assert_eq!(audit, 2.0);
}

#[test]
fn no_spelling_of_a_header_and_no_trailer_avoids_a_rule() {
    let (_app, port) = app();
    let deny = start("authorization: { deny: [{ headers: { x-role: admin } }] }\nto: app", "", port);
    let allow = start("authorization: { allow: [{ headers: { x-role: user } }] }\nto: app", "", port);
    assert_eq!(status(&ask(&deny, "GET /a", "X-Role: user\r\n")), 200);
    assert_eq!(status(&ask(&allow, "GET /a", "X-Role: user\r\n")), 200);
    for fields in [
        "X-Role: admin\r\n",
        "X-ROLE: admin\r\n",
        "X-Role:  admin \r\n",
        "X-Role: user\r\nX-Role: admin\r\n",
        "X-Role: admin\r\nX-Role: user\r\n",
        "X-Role: user, admin\r\n",
        "X_Role: admin\r\n",
        "X-Role: user\r\nX_Role: admin\r\n",
        "X-Role: admin\r\nConnection: x-role\r\n",
    ] {
        for attache in [&deny, &allow] {
            assert_eq!(status(&ask(attache, "GET /a", fields)), 403, "{fields}");
        }
    }
    for name in ["x-role: admin", "X_Role: admin"] {
        assert_eq!(http2_status(&deny.url("/a"), &["-H", name]), "403", "{name}");
    }
}

#[test]
fn the_rules_for_requests_apply_to_tunnels_and_upgrades() {
    let (_app, port) = app();
    let forward = |rules: &str| {
        Attache::start(&format!(
            "listeners: {{ out: {{ bind: '127.0.0.1:$PORT', authorization: {{ {rules} }}, to: any }} }}
upstreams: {{ any: authority }}"
        ))
    };
    let host = format!("Host: 127.0.0.1:{port}\r\n");
    let connect = |attache: &Attache| {
        let head = format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\n{host}\r\n");
        let asked = "GET /admin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        raw(local(attache.port), format!("{head}{asked}").as_bytes())
    };
    let open = connect(&forward("allow: [{ methods: CONNECT, client: 127.0.0.0/8 }]"));
    assert!(status(&open) == 200 && open.contains("uri=/admin"), "{open}");
    for rules in [
        "deny: [{ path: /admin/* }]",
        "deny: [{ methods: DELETE }]",
        "deny: [{ headers: { x-role: admin } }]",
        "allow: [{ methods: GET }]",
        "allow: [{ path: /open/* }]",
        "deny: [{ client: 127.0.0.0/8 }]",
    ] {
        let answer = connect(&forward(rules));
        assert!(status(&answer) == 403 && answer.contains("denied-by-rule"), "{rules}: {answer}");
        assert!(!answer.contains("uri="), "{rules}: {answer}");
    }
    let attache = start("authorization: { deny: [{ path: /admin/* }] }\nto: app", "", port);
    let upgrade =
        "Connection: close, upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let line = "GET /admin/ws HTTP/1.1\r\nHost: app\r\n";
    let answer = raw(local(attache.port), format!("{line}{upgrade}\r\n").as_bytes());
    assert_eq!(status(&answer), 403, "{answer}");
    // The same for HTTP/2, where path and authority are fields of their own.
    for path in
        ["/admin/x", "/x/../admin/x", "/%61dmin/x", "//admin/x", "/ADMIN/x", "/admin%2fx", "/x/..;/admin"]
    {
        let code = http2_status(&attache.url(path), &["--path-as-is"]);
        assert!(code == "403" || code == "400", "{path}: {code}");
    }
}

#[test]
fn explain_says_which_rule_decides_and_check_refuses_rules_that_allow_everything() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("attache.yaml");
    let run = |arguments: &[&str], config: &str| {
        std::fs::write(&file, config).unwrap();
        let output = Command::new(binary()).args(arguments).arg("-c").arg(&file).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let config = |rules: &str| {
        format!(
            "listeners:\n  in:\n    bind: 127.0.0.1:15001\n    authorization: {{ {rules} }}\n    to: app\nupstreams: {{ app: 'http://127.0.0.1:8080' }}\n"
        )
    };
    let rules =
        config("deny: [{ name: no-admin, path: /admin/* }], allow: [{ name: lan, client: 10.0.0.0/8 }]");
    let (_, said) = run(&["explain", "--client", "10.0.0.7", "GET", "http://app/x"], &rules);
    assert!(said.contains("> allow lan") && said.contains("allowed by rule `lan`"), "{said}");
    let (_, said) = run(&["explain", "--client", "10.0.0.7", "GET", "http://app/x/..%2fadmin"], &rules);
    assert!(said.contains("no-admin") && said.contains("denied-by-rule"), "{said}");
    let (_, said) = run(&["explain", "--client", "192.0.2.1", "GET", "http://app/x"], &rules);
    assert!(said.contains("no rule of `allow` matches"), "{said}");
    for (open, words) in [
        ("dry_run: false", "these rules allow everything to every client"),
        ("deny: [{ identity: 'spiffe://a/b' }]", "no client is asked for a certificate"),
        ("allow: [{ forwarded_client: 10.0.0.0/8 }]", "trusted_proxies"),
        (
            "trusted_proxies: [0.0.0.0/1, 128.0.0.0/1], allow: [{ forwarded_client: 10.0.0.0/8 }]",
            "every client is a trusted proxy",
        ),
        ("allow: [{ claims: { scope: x } }]", "no token is verified here"),
        ("deny: [{}]", ""),
    ] {
        let (good, said) = run(&["check"], &config(open));
        assert!((!good || words.is_empty()) && said.contains(words), "{open}: {said}");
    }
    let keys = r#"{ inline: '{"keys":[]}' }"#;
    let issuers = format!("jwt: {{ corp: {{ issuer: 'https://id', audiences: shop, keys: {keys} }} }}\n");
    let claims = |required: bool| {
        config(&format!(
            "jwt: {{ issuers: corp, required: {required} }}, deny: [{{ claims: {{ role: guest }} }}]"
        )) + &issuers
    };
    let open = "avoids this rule by sending no token";
    assert!(run(&["check"], &claims(false)).1.contains(open));
    assert!(!run(&["check"], &claims(true)).1.contains(open));
}
