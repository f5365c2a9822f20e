//! Fields that a request must not bring along because only this hop may write them, and fields that it must not remove.

use attache_tests::{Attache, eventually, local, raw};

use super::{LenientUpstream, h2, say};

fn attache(port: u16, http: &str, route: &str) -> Attache {
    Attache::start(&format!(
        "listeners:
  in:
    bind: 127.0.0.1:$PORT
    http: {{ {http} }}
    routes:
      - match: {{ path: /admin/* }}
        respond: 403
      - match: {{ path: /* }}
        to: app
        {route}
upstreams: {{ app: 'http://127.0.0.1:{port}' }}"
    ))
}

fn get(attache: &Attache, path: &str, fields: &str) -> String {
    let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    raw(local(attache.port), head.replace("Connection: ", "Connection: close, ").as_bytes())
}

#[test]
fn a_client_can_not_remove_fields_that_the_route_or_this_hop_adds() {
    let app = LenientUpstream::start();
    let route = "headers: { request: { set: { remote-user: anonymous, tenant: gold, x-api-key: k }, add: { x-mark: m } } }";
    let attache = attache(app.port, "forwarded: append", route);
    let nominated = "Connection: remote-user, tenant, x-api-key, x-mark, x-own, x-forwarded-for, forwarded, via, x-request-id\r\n";
    get(&attache, "/", &format!("Remote-User: admin\r\nX-Own: o\r\nX-Forwarded-For: 1.1.1.1\r\n{nominated}"));
    let seen = app.seen().to_lowercase();
    for kept in [
        "remote-user: anonymous\r\n",
        "tenant: gold\r\n",
        "x-api-key: k\r\n",
        "x-mark: m\r\n",
        "via: ",
        "x-request-id: ",
        "x-forwarded-for: 1.1.1.1, 127.0.0.1\r\n",
        "forwarded: for=127.0.0.1",
    ] {
        assert!(seen.contains(kept), "{kept}: {seen}");
    }
    assert!(!seen.contains("admin") && !seen.contains("x-own"), "{seen}");
}

#[test]
fn no_spelling_and_no_trailer_can_claim_an_identity() {
    let app = LenientUpstream::start();
    let route = "headers: { request: { set: { x-tenant: gold }, remove: x-internal } }";
    let attache = attache(app.port, "", route);
    get(
        &attache,
        "/",
        "X_Forwarded_Client_Cert: forged\r\nX-Forwarded_Client-Cert: forged\r\nX_Tenant: forged\r\nX_Internal: forged\r\nx_free: 1\r\nConnection: x\r\n",
    );
    let body = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: x-forwarded-client-cert, x-sum\r\nConnection: close, TE\r\n\r\n1\r\na\r\n0\r\nX-Forwarded-Client-Cert: forged\r\nX_Forwarded_Client_Cert: forged\r\nAuthorization: forged\r\nX-Sum: 7\r\n\r\n";
    say(local(attache.port), &[(0, body)]);
    let seen = app.seen().to_lowercase();
    assert!(!seen.contains("forged"), "{seen}");
    assert!(seen.contains("x_free: 1") && seen.contains("x-tenant: gold"), "{seen}");
}

#[test]
fn no_spelling_of_a_field_avoids_the_route_that_matches_it() {
    let app = LenientUpstream::start();
    let attache = Attache::start(&format!(
        "listeners:
  in:
    bind: 127.0.0.1:$PORT
    routes:
      - match: {{ headers: {{ x-debug: '*' }} }}
        respond: 403
    to: app
upstreams: {{ app: 'http://127.0.0.1:{}' }}",
        app.port
    ));
    assert!(get(&attache, "/", "X-Debug: 1\r\nConnection: x\r\n").starts_with("HTTP/1.1 403"));
    assert!(get(&attache, "/", "X_Debug: 1\r\nx_free: 1\r\nConnection: x\r\n").starts_with("HTTP/1.1 200"));
    let seen = app.seen().to_lowercase();
    assert!(!seen.contains("x_debug") && seen.contains("x_free: 1"), "{seen}");
}

#[test]
fn an_open_quote_hides_no_element_that_attache_adds() {
    let app = LenientUpstream::start();
    let attache = attache(app.port, "forwarded: append", "");
    get(&attache, "/", "Forwarded: for=1.2.3.4;by=\"\r\nConnection: x\r\n");
    let seen = app.seen().to_lowercase();
    assert!(seen.contains("forwarded: for=127.0.0.1;host=a;proto=http\r\n"), "{seen}");
}

#[test]
fn path_parameters_can_not_hide_a_path() {
    let app = LenientUpstream::start();
    let standard = attache(app.port, "", "");
    let refuses = attache(app.port, "path: { parameters: reject }", "");
    let keeps = attache(app.port, "path: { parameters: keep }", "");
    for (path, by_default, refused, kept) in [
        ("/admin;x", "403", "400", "200"),
        ("/admin;x/y", "403", "400", "200"),
        ("/a/..;/admin", "400", "400", "200"),
        ("/a/.;/admin", "400", "400", "200"),
        ("/;/admin", "400", "400", "200"),
        ("/a;v=1/b", "200", "400", "200"),
        ("/;jsessionid=1", "200", "400", "200"),
        ("/a%3Bv", "200", "200", "200"),
    ] {
        for (attache, status) in [(&standard, by_default), (&refuses, refused), (&keeps, kept)] {
            app.forget();
            let answer = get(attache, path, "Connection: x\r\n");
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
            assert_eq!(
                app.seen().contains(path),
                status == "200",
                "the target is passed on unchanged: {}",
                app.seen()
            );
        }
    }
}

#[test]
fn http_2_has_the_limits_of_http_1() {
    let app = LenientUpstream::start();
    let attache = attache(app.port, "limits: { request_line: 200B, headers_count: 10 }", "");
    let ask = |path: &str, count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("x-{n}")).collect();
        let mut fields = vec![(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)];
        fields.extend(names.iter().map(|name| (name.as_str(), "1")));
        say(local(attache.port), &[(0, &h2(&fields, true))]);
    };
    ask("/a", 10);
    assert!(app.seen().contains("GET /a "), "{}", app.seen());
    app.forget();
    ask(&format!("/{}", "b".repeat(190)), 0);
    ask("/c", 11);
    for reason in ["uri-too-long", "headers-too-large"] {
        let label = format!("reason=\"{reason}\"");
        eventually(reason, || attache.metric("attache_requests_total", &[&label, "http2"]) > 0.0);
    }
    assert_eq!(app.seen(), "");
}
