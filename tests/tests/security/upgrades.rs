//! Upgrades are passed on only if the config allows their protocol; header names that others could take for another name only if the config
//! keeps them.

use attache_tests::{Attache, eventually, local, raw};

use super::{LenientUpstream, h2, say};

fn attache(port: u16) -> Attache {
    Attache::start(&format!(
        "listeners:
  in:
    bind: 127.0.0.1:$PORT
    protocol: http
    http: {{ upgrades: off }}
    routes:
      - {{ match: {{ path: /socket/* }}, to: app, upgrades: websocket }}
      - {{ match: {{ path: /two/* }}, to: app, upgrades: [websocket, foo/1] }}
      - {{ match: {{ path: /all/* }}, to: app, upgrades: any }}
      - {{ match: {{ path: /plain/* }}, to: app, upgrades: ignore }}
      - {{ match: {{ path: /own }}, respond: 204 }}
      - {{ match: {{ path: /* }}, to: app }}
upstreams: {{ app: 'http://127.0.0.1:{port}' }}"
    ))
}

/// The status, and the part of the request that the upstream saw.
fn ask(attache: &Attache, app: &LenientUpstream, path: &str, protocol: &str) -> (String, String) {
    app.forget();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let answer = say(local(attache.port), &[(0, head.as_bytes())]);
    (answer.split(' ').nth(1).unwrap_or_default().to_owned(), app.seen())
}

#[test]
fn a_protocol_that_the_config_does_not_allow_reaches_no_upstream() {
    let app = LenientUpstream::start();
    let attache = attache(app.port);
    for (path, protocol, passes) in [
        ("/", "websocket", false),
        ("/own", "websocket", false),
        ("/socket/x", "websocket", true),
        ("/socket/x", "WebSocket", true),
        ("/socket/x", "foo/1", false),
        ("/socket/x", "websocket, foo/1", false),
        ("/socket/x", "foo/1, websocket", false),
        ("/two/x", "websocket, FOO/1", true),
        ("/two/x", "foo", false),
        ("/two/x", "foo/2", false),
        ("/all/x", "anything", true),
    ] {
        let (status, seen) = ask(&attache, &app, path, protocol);
        if passes {
            assert_eq!(status, "200", "{path} {protocol}");
            assert!(seen.to_lowercase().contains("\r\nupgrade: "), "{path} {protocol}: {seen}");
        } else {
            assert_eq!((status.as_str(), seen.as_str()), ("403", ""), "{path} {protocol}");
        }
    }
    eventually("the reason is counted", || {
        attache.metric("attache_requests_total", &["reason=\"upgrade-denied\"", "4xx"]) >= 7.0
    });
    // Without `Connection: upgrade` there is no upgrade, and `h2c` is never one.
    let plain = raw(
        local(attache.port),
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: close\r\n\r\n",
    );
    assert!(plain.starts_with("HTTP/1.1 200"), "{plain}");
    let (status, seen) = ask(&attache, &app, "/", "h2c");
    assert!(status == "200" && !seen.to_lowercase().contains("upgrade"), "{status} {seen}");
}

#[test]
fn an_upgrade_that_is_ignored_is_a_request_like_others() {
    let app = LenientUpstream::start();
    let attache = attache(app.port);
    let (status, seen) = ask(&attache, &app, "/plain/x", "websocket");
    assert_eq!(status, "200");
    assert!(seen.starts_with("GET /plain/x ") && !seen.to_lowercase().contains("upgrade"), "{seen}");
}

#[test]
fn a_websocket_of_http_2_needs_the_same_permission() {
    let app = LenientUpstream::start();
    let attache = attache(app.port);
    for (path, passes) in
        [("/", false), ("/socket/x", true), ("/two/x", true), ("/all/x", true), ("/plain/x", false)]
    {
        app.forget();
        let fields = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", path),
            ("sec-websocket-version", "13"),
        ];
        say(local(attache.port), &[(0, &h2(&fields, false))]);
        assert_eq!(app.seen().starts_with(&format!("GET {path} HTTP/1.1\r\n")), passes, "{path}");
    }
    eventually("the reason is counted", || {
        attache.metric("attache_requests_total", &["reason=\"upgrade-denied\"", "4xx"]) >= 2.0
    });
}

fn names(port: u16, names: &str) -> Attache {
    Attache::start(&format!(
        "listeners: {{ in: {{ bind: '127.0.0.1:$PORT', protocol: http, http: {{ header_names: {{ {names} }} }}, to: app }} }}\nupstreams: {{ app: 'http://127.0.0.1:{port}' }}"
    ))
}

const CHUNKED: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nX_User: 1\r\nX.User: 2\r\nX-User: 3\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: x_sum, x.sum, x-sum\r\nConnection: close, TE\r\n\r\n1\r\na\r\n0\r\nx_sum: 4\r\nx.sum: 5\r\nx-sum: 6\r\n\r\n";

#[test]
fn header_names_that_look_like_others_are_kept_dropped_or_refused() {
    let app = LenientUpstream::start();
    for (config, status, kept) in [
        ("", "200", "x_user x.user x-user x_sum x.sum x-sum"),
        ("underscores: drop", "200", "x.user x-user x.sum x-sum"),
        ("others: drop", "200", "x_user x-user x_sum x-sum"),
        ("underscores: drop, others: drop", "200", "x-user x-sum"),
        ("underscores: reject", "400", ""),
        ("underscores: drop, others: reject", "400", ""),
    ] {
        app.forget();
        let attache = names(app.port, config);
        let answer = say(local(attache.port), &[(0, CHUNKED)]);
        assert_eq!(answer.split(' ').nth(1), Some(status), "{config}: {answer}");
        let seen = app.seen().to_lowercase();
        for name in ["x_user", "x.user", "x-user", "x_sum", "x.sum", "x-sum"] {
            let there = seen.contains(&format!("\r\n{name}: "));
            assert_eq!(there, kept.split(' ').any(|own| own == name), "{config} {name}: {seen}");
        }
        let dropped =
            2 * usize::from(status == "200") - kept.matches(".user").count() - kept.matches("_user").count();
        if status == "200" {
            eventually("dropped fields are counted", || {
                attache.metric("attache_dropped_headers_total", &["listener=\"in\""]) == dropped as f64
            });
        }
    }
}

#[test]
fn header_names_of_http_2_are_handled_the_same() {
    let app = LenientUpstream::start();
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/"),
        ("x_user", "1"),
        ("x-user", "2"),
    ];
    for (config, reaches) in [("underscores: drop", true), ("underscores: reject", false)] {
        app.forget();
        let attache = names(app.port, config);
        say(local(attache.port), &[(0, &h2(&fields, true))]);
        let seen = app.seen();
        assert_eq!(seen.contains("x-user: 2"), reaches, "{config}: {seen}");
        assert!(!seen.contains("x_user"), "{config}: {seen}");
    }
}
