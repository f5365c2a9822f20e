//! Every way to request something that is denied: forms of the target, Host and `:authority`, protocols that wrap a request, copies of it,
//! and addresses that a client writes. The test checks what reached the application.

use std::fs;

use attache_tests::{Attache, TestProcess, eventually, free_port, local, nginx, raw};

use super::{app, ask, start, status};

/// A server that answers with its name and the request, and logs the request.
fn counting(name: &str) -> (TestProcess, u16) {
    let port = free_port();
    let server = format!(
        "log_format asked '$request_uri $host'; server {{ listen 127.0.0.1:{port}; access_log $DIR/asked.log asked; return 200 '{name} $request_uri $host\\n'; }}"
    );
    (nginx(&server, local(port)), port)
}

fn asked(server: &TestProcess) -> String {
    fs::read_to_string(server.dir().join("asked.log")).unwrap_or_default()
}

const RULES: &str = "authorization: { deny: [{ path: /admin/* }, { host: admin.test }] }\nto: app";

#[test]
fn no_form_of_a_target_or_a_host_avoids_a_rule() {
    let (server, port) = counting("app");
    let attache = start(RULES, "", port);
    let say = |head: &str| raw(local(attache.port), head.as_bytes());
    assert_eq!(status(&say("GET /open HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")), 200);
    for head in [
        "GET http://admin.test/ HTTP/1.1\r\nHost: app\r\n",
        "GET http://admin.test/ HTTP/1.1\r\nHost: admin.test\r\n",
        "GET HTTP://ADMIN.TEST/ HTTP/1.1\r\nHost: app\r\n",
        "GET http://app/admin HTTP/1.1\r\nHost: app\r\n",
        "GET http://app//admin HTTP/1.1\r\nHost: app\r\n",
        "GET https://app/admin HTTP/1.1\r\nHost: app\r\n",
        "GET http://x@admin.test/ HTTP/1.1\r\nHost: app\r\n",
        "GET http://app/x/..%5cadmin HTTP/1.1\r\nHost: app\r\n",
        "GET / HTTP/1.1\r\nHost: admin.test\r\n",
        "GET / HTTP/1.1\r\nHost: ADMIN.test.\r\n",
        "GET / HTTP/1.1\r\nHost: admin.test:8080\r\n",
        "GET / HTTP/1.1\r\nHost: app\r\nHost: admin.test\r\n",
        "GET / HTTP/1.1\r\nHost: admin.test\r\nHost: app\r\n",
        "GET / HTTP/1.1\r\nHost: app, admin.test\r\n",
        "GET / HTTP/1.1\r\nHost: x@admin.test\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n",
        "GET / HTTP/1.1\r\nHost : admin.test\r\n",
        // Without a Host the upstream would use its default host, which could be any.
        "GET / HTTP/1.0\r\n",
        "GET /admin HTTP/1.0\r\nHost: app\r\n",
        "GET /admin/../admin/x HTTP/1.1\r\nHost: app\r\n",
        "GET /admin?x=/open HTTP/1.1\r\nHost: app\r\n",
        "GET /admin#/open HTTP/1.1\r\nHost: app\r\n",
        "GET /%u0061dmin HTTP/1.1\r\nHost: app\r\n",
        "GET /open HTTP/1.1\r\nHost: app\r\nX-Original-URL: /admin\r\n",
        "GET /open HTTP/1.1\r\nHost: app\r\nX_Rewrite_Url: /admin\r\n",
        "GET admin HTTP/1.1\r\nHost: app\r\n",
        "GET \\admin HTTP/1.1\r\nHost: app\r\n",
        "GET /admin\tx HTTP/1.1\r\nHost: app\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: app\r\n",
        "CONNECT app:80 HTTP/1.1\r\nHost: app:80\r\n",
        "CONNECT /admin HTTP/1.1\r\nHost: app\r\n",
        "GET /admin HTTP/1.1\r\nHost: app\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nConnection: Upgrade, HTTP2-Settings\r\n",
        "GET /admin HTTP/1.1\r\nHost: app\r\nEarly-Data: 1\r\n",
        "GET /admin HTTP/1.1\r\nHost: app\r\nX-HTTP-Method-Override: GET\r\n",
        "PROXY TCP4 10.0.0.1 10.0.0.1 1 80\r\nGET / HTTP/1.1\r\nHost: app\r\n",
    ] {
        let answer = say(&format!("{head}Connection: close\r\n\r\n"));
        assert!((400..=505).contains(&status(&answer)), "{head}: {answer}");
    }
    // The host of the target counts, and it is the one that is sent on.
    let answer = say("GET http://app/open HTTP/1.1\r\nHost: admin.test\r\nConnection: close\r\n\r\n");
    assert!(status(&answer) >= 400 || answer.contains("app /open app"), "{answer}");
    let seen = asked(&server);
    assert!(!seen.to_lowercase().contains("admin"), "{seen}");
}

#[test]
fn a_denied_request_is_not_mirrored_and_can_not_be_wrapped() {
    let ((server, port), (copies, copy)) = (counting("app"), counting("copy"));
    let attache = Attache::start(&format!(
        "listeners:
  in:
    bind: 127.0.0.1:$PORT
    cors: {{ origins: ['https://shop.test'] }}
    compression: {{ min_size: 1B }}
    routes:
      - {{ to: app, grpc_web: true, mirror: copy, authorization: {{ deny: [{{ path: /admin/* }}] }} }}
upstreams: {{ app: 'http://127.0.0.1:{port}', copy: 'http://127.0.0.1:{copy}' }}"
    ));
    let origin = "Origin: https://shop.test\r\n";
    assert!(ask(&attache, "GET /open", "Accept-Encoding: gzip\r\n").contains("content-encoding: gzip"));
    eventually("the copy", || asked(&copies).contains("/open"));
    // A preflight answers what pages may do, and reaches no upstream. The request that it is for is refused, and the page can read that.
    let preflight =
        ask(&attache, "OPTIONS /admin/x", &format!("{origin}Access-Control-Request-Method: PUT\r\n"));
    assert!(status(&preflight) == 200 && preflight.ends_with("\r\n\r\n"), "{preflight}");
    let real =
        ask(&attache, "PUT /admin/x", &format!("{origin}Content-Length: 0\r\nAccept-Encoding: gzip\r\n"));
    assert!(
        status(&real) == 403 && real.contains("access-control-allow-origin: https://shop.test"),
        "{real}"
    );
    // An incomplete preflight is an ordinary request.
    for fields in [origin, "Access-Control-Request-Method: PUT\r\n"] {
        assert_eq!(status(&ask(&attache, "OPTIONS /admin/x", fields)), 403, "{fields}");
    }
    // A gRPC-Web request is checked in its original form, and refused in its own form.
    for content_type in ["application/grpc-web", "application/grpc-web-text+proto", "application/grpc"] {
        let fields = format!("Content-Type: {content_type}\r\nContent-Length: 8\r\n\r\nAAAAAAA=");
        let answer = ask(&attache, "POST /admin/S", &fields);
        assert!(
            answer.contains("grpc-status: 7") || answer.contains("gRPC") || status(&answer) == 403,
            "{answer}"
        );
    }
    for (line, fields) in [
        (
            "GET /admin/ws",
            "Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
        ),
        ("POST /admin/x", "Transfer-Encoding: chunked\r\n\r\n0\r\n"),
        ("POST /admin/x", "Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx"),
        ("HEAD /admin/x", ""),
        ("TRACE /admin/x", ""),
    ] {
        let answer = ask(&attache, line, fields);
        assert!(status(&answer) >= 400, "{line}: {answer}");
    }
    assert!(!asked(&server).contains("admin") && !asked(&copies).contains("admin"), "{}", asked(&copies));
}

#[test]
fn no_reading_of_a_path_avoids_the_rules_of_another_route() {
    let (server, port) = counting("app");
    let attache = start(
        "authorization: { jwt: { issuers: corp } }
to: app
routes:
  - { match: { path: /open/* }, to: app, authorization: { jwt: { issuers: corp, required: false } } }
  - { match: { path: /admin/* }, to: app, authorization: { allow: [] } }",
        "jwt: { corp: { issuer: 'https://id', audiences: shop, keys: { upstream: app, path: /keys } } }",
        port,
    );
    let say = |target: &str, more: &str| {
        let head = format!("GET {target} HTTP/1.1\r\nHost: app\r\n{more}Connection: close\r\n\r\n");
        status(&raw(local(attache.port), head.as_bytes()))
    };
    assert_eq!(say("/open/a", ""), 200);
    assert_eq!(say("/open/A%20b/", ""), 200);
    assert_eq!(say("/x", ""), 401);
    for target in [
        "/open/..%2fx",
        "/open/..%2fadmin",
        "/open/%2e%2e%5cx",
        "/open/..%252fx",
        "/open//..%2f..%2fx",
        "/open/%00",
    ] {
        assert!((400..=403).contains(&say(target, "")), "{target}");
    }
    assert_eq!(say("/open/a", "X-Original-URL: /x\r\n"), 403);
    assert_eq!(say("/open/a", "X-Original-URL: /open/b\r\n"), 200);
    let seen = asked(&server);
    assert!(seen.lines().all(|line| line.starts_with("/keys") || line.starts_with("/open")), "{seen}");
    assert!(!seen.contains("..") && !seen.contains("%00"), "{seen}");
}

#[test]
fn no_reading_of_a_method_a_header_or_a_query_avoids_the_rules_of_another_route() {
    let (server, port) = counting("app");
    let attache = start(
        "routes:
  - { match: { path: /orders/*, methods: DELETE }, to: app, authorization: { allow: [] } }
  - { match: { headers: { x-tenant: root } }, to: app, authorization: { allow: [] } }
  - { match: { query: { action: purge } }, to: app, authorization: { allow: [] } }
  - { match: { path: /users/* }, to: app, authorization: { allow: [{ headers: { x-key: right } }] } }
  - { to: app }",
        "",
        port,
    );
    let say = |line: &str, more: &str| {
        let head =
            format!("{line} HTTP/1.1\r\nHost: app\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n");
        status(&raw(local(attache.port), head.as_bytes()))
    };
    for (line, more) in [
        ("POST /orders/1", "X-HTTP-Method-Override: DELETE\r\n"),
        ("POST /orders/1", "X-HTTP-Method: delete\r\n"),
        ("POST /orders/1", "X_Method_Override: DELETE\r\n"),
        ("POST /ORDERS/1", "X-Method-Override: DELETE\r\n"),
        ("delete /orders/1", ""),
        ("GET /x", "X-Tenant: a\r\nX-Tenant: root\r\n"),
        ("GET /x", "X-Tenant: a, root\r\n"),
        ("GET /x?a=1;action=purge", ""),
        ("GET /x?Action=purge", ""),
        ("GET /x?action[]=purge", ""),
        ("GET /x?action%5B0%5D=purge", ""),
        ("GET /x?action=list&action=purge", ""),
        ("GET /Users/5", ""),
        ("GET /users/5", ""),
        ("GET //app/users/5", ""),
        ("GET /%EF%BD%95sers/5", ""),
        ("GET /u%C5%BFers/5", ""),
    ] {
        assert_eq!(say(line, more), 403, "{line} {more}");
    }
    assert_eq!(asked(&server), "");
    // In every reading, the rules allow these requests.
    for (line, more) in [
        ("POST /orders/1", "X-HTTP-Method-Override: POST\r\n"),
        ("POST /x", "X-HTTP-Method-Override: DELETE\r\n"),
        ("GET /x", "X-Tenant: a, b\r\nX-Tenant: c\r\n"),
        ("GET /x?action=list;b=purge&c[]=purge", ""),
        ("GET /Users/5", "X-Key: right\r\n"),
        ("GET /caf%C3%A9", ""),
        ("GET /Other/A%20B/", ""),
    ] {
        assert_eq!(say(line, more), 200, "{line} {more}");
    }
}

#[test]
fn an_address_has_one_meaning_however_many_proxies_are_trusted() {
    let (_app, port) = app();
    let at = |trusted: &str| {
        let rules = format!("trusted_proxies: [{trusted}], allow: [{{ forwarded_client: 10.1.0.0/16 }}]");
        start(&format!("authorization: {{ {rules} }}\nto: app"), "", port)
    };
    // No proxy in front is trusted: the connection's own address counts, whatever the headers say.
    let none = at("192.0.2.1/32");
    for line in ["10.1.2.3", "10.1.2.3, 192.0.2.1", "192.0.2.1"] {
        assert_eq!(status(&ask(&none, "GET /", &format!("X-Forwarded-For: {line}\r\n"))), 403, "{line}");
    }
    let two = at("127.0.0.0/8, 10.9.0.0/16");
    for (line, expected) in [
        ("10.1.2.3", 200),
        ("10.1.2.3, 10.9.0.1", 200),
        ("10.1.2.3:1234, 10.9.0.1", 200),
        ("::ffff:10.1.2.3, 10.9.0.1", 200),
        ("9.9.9.9, 10.1.2.3, 10.9.0.1, 10.9.0.2", 200),
        ("10.1.2.3, 9.9.9.9", 403),
        ("10.1.2.3, 10.9.0.1, 9.9.9.9", 403),
        ("10.9.0.1", 403),
        ("10.1.2.3 10.9.0.1", 403),
        ("10.1.2.3,, 10.9.0.1", 403),
        ("10.1.2.3/32", 403),
        ("010.001.002.003", 403),
        ("0x0a010203", 403),
        ("167838211", 403),
        ("fe80::1%eth0", 403),
        ("::10.1.2.3", 403),
        ("localhost", 403),
    ] {
        assert_eq!(status(&ask(&two, "GET /", &format!("X-Forwarded-For: {line}\r\n"))), expected, "{line}");
    }
    // An unexpected PROXY header is not a request, and neither is a second one.
    let behind = start(
        "proxy_protocol: require\nauthorization: { allow: [{ client: 10.1.0.0/16 }] }\nto: app",
        "",
        port,
    );
    let get = "GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n";
    for (header, expected) in [
        ("PROXY TCP4 10.1.2.3 10.0.0.1 1 80\r\n", 200),
        ("PROXY TCP4 9.9.9.9 10.0.0.1 1 80\r\nPROXY TCP4 10.1.2.3 10.0.0.1 1 80\r\n", 400),
    ] {
        let answer = raw(local(behind.port), format!("{header}{get}").as_bytes());
        assert_eq!(status(&answer), expected, "{header}: {answer}");
    }
    for header in [
        "",
        "PROXY TCP4 10.1.2.3\r\n",
        "PROXY TCP4 010.1.2.3 10.0.0.1 1 80\r\n",
        "proxy TCP4 10.1.2.3 10.0.0.1 1 80\r\n",
    ] {
        let answer = raw(local(behind.port), format!("{header}{get}").as_bytes());
        assert!(!answer.contains("uri="), "{header}: {answer}");
    }
}
