//! Access rules with hand-written HTTP/2: pseudo-fields that no client library would send.

use std::thread;

use attache_tests::{Attache, local};

use super::{LenientUpstream, frame, h2, say};

#[test]
fn no_form_of_http_2_avoids_an_access_rule() {
    let app = LenientUpstream::start();
    let attache = Attache::start(&format!(
        "listeners:
  in:
    bind: 127.0.0.1:$PORT
    authorization: {{ deny: [{{ path: /admin/* }}, {{ host: admin.test }}, {{ methods: DELETE }}, {{ headers: {{ x-role: admin }} }}] }}
    to: app
upstreams: {{ app: 'http://127.0.0.1:{}' }}",
        app.port
    ));
    let address = local(attache.port);
    let ask = |fields: &[(&str, &str)]| say(address, &[(0, &h2(fields, true))]);
    let usual = |path: &'static str, more: &[(&'static str, &'static str)]| {
        let mut all = vec![(":method", "GET"), (":scheme", "http"), (":authority", "app"), (":path", path)];
        all.extend_from_slice(more);
        all
    };
    ask(&usual("/open", &[]));
    assert!(app.seen().starts_with("GET /open HTTP/1.1\r\n"), "{}", app.seen());
    app.forget();

    let mut all: Vec<Vec<(&str, &str)>> = Vec::new();
    for path in [
        "/admin/x",
        "//admin/x",
        "/x/..;/admin/x",
        "/%2561dmin/x",
        "/admin%2fx",
        "admin/x",
        "",
        "*",
        "http://app/admin/x",
        "/admin/x?y",
        "/admin\\x",
        "/open /admin",
        "/open\r\nx: /admin",
    ] {
        all.push(usual(path, &[]));
    }
    for more in [
        [("host", "admin.test")],
        [("x-role", "admin")],
        [("x_role", "admin")],
        [("x-original-url", "/admin")],
        [("x_rewrite_url", "/admin")],
        [("x-http-method-override", "DELETE")],
        [("x_http_method", "DELETE")],
        // Pseudo-fields after other fields, repeated, unknown, and in upper case (RFC 9113 section 8.3).
        [(":path", "/admin/x")],
        [(":authority", "admin.test")],
        [(":method", "DELETE")],
        [(":admin", "x")],
        [("X-Role", "admin")],
        [("connection", "x-admin")],
        [("transfer-encoding", "chunked")],
    ] {
        all.push(usual("/marked", &more));
    }
    for authority in
        ["admin.test", "ADMIN.TEST", "admin.test.", "admin.test:8080", "x@admin.test", "app, admin.test", ""]
    {
        all.push(vec![
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", authority),
            (":path", "/marked"),
        ]);
    }
    all.push(vec![(":method", "GET"), (":scheme", "http"), (":path", "/marked"), ("host", "admin.test")]);
    all.push(vec![(":method", "GET"), (":scheme", "http"), (":path", "/marked")]);
    all.push(vec![(":method", "GET"), (":authority", "app"), (":path", "/marked")]);
    for method in ["DELETE", "delete", "DELETE ", ""] {
        all.push(vec![(":method", method), (":scheme", "http"), (":authority", "app"), (":path", "/marked")]);
    }
    all.push(vec![
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "app"),
        (":path", "/admin/chat"),
        ("sec-websocket-version", "13"),
    ]);
    all.push(vec![(":method", "CONNECT"), (":authority", "app:80")]);
    all.push(vec![
        (":method", "CONNECT"),
        (":scheme", "http"),
        (":authority", "app:80"),
        (":path", "/marked"),
    ]);
    // Each client waits for its result, so many run at once.
    for some in all.chunks(12) {
        thread::scope(|scope| {
            for fields in some {
                scope.spawn(|| say(address, &[(0, &h2(fields, true))]));
            }
        });
        assert_eq!(app.seen(), "", "{some:?}");
    }

    // A browser uses one connection for several hosts: each request is checked.
    const PREFACE: usize = 24 + 9;
    let mut bytes = h2(&usual("/open", &[]), true);
    for (stream, path, host) in [(3, "/marked", "admin.test"), (5, "/admin/x", "app"), (7, "/again", "app")] {
        let fields = [(":method", "GET"), (":scheme", "http"), (":authority", host), (":path", path)];
        let mut more = h2(&fields, true).split_off(PREFACE);
        more[8] = stream;
        bytes.append(&mut more);
    }
    say(address, &[(0, &bytes)]);
    let seen = app.seen();
    assert!(seen.contains("GET /open ") && seen.contains("GET /again "), "{seen}");
    assert!(!seen.contains("admin") && !seen.contains("marked"), "{seen}");
    app.forget();

    // Trailers come after the rules: a trailer with the name of a header that a rule matches is not passed on.
    let mut bytes = h2(
        &usual("/open", &[])
            .iter()
            .map(|f| if f.0 == ":method" { (":method", "POST") } else { *f })
            .collect::<Vec<_>>(),
        false,
    );
    frame(&mut bytes, 0, 0, b"abc");
    let trailers = [&b"\0\x06x-role\x05admin"[..], b"\0\x06x_role\x05admin"].concat();
    frame(&mut bytes, 1, 5, &trailers);
    say(address, &[(0, &bytes)]);
    assert!(app.seen().starts_with("POST /open") && !app.seen().contains("admin"), "{}", app.seen());
}
