//! Ways to reach an upstream with HTTP rules without passing the rules: opaque bytes, pauses, CONNECT, extended CONNECT.

use std::{io::Write, net::TcpStream, thread, time::Duration};

use attache_tests::{Attache, eventually, local, raw};

use super::{LenientUpstream, frame, h2, say};

const REQUEST: &[u8] =
    b"GET /internal/x HTTP/1.1\r\nHost: app\r\nX-Forwarded-Client-Cert: URI=spiffe://root\r\nConnection: close\r\n\r\n";

fn guarded(port: u16) -> Attache {
    Attache::start(&format!(
        "listeners:
  in:
    bind: 127.0.0.1:$PORT
    detect_timeout: 200ms
    http: {{ header_timeout: 1s }}
    routes: [{{ match: {{ path: /internal/* }}, respond: 403 }}]
    to: app
upstreams: {{ app: {{ address: 'http://127.0.0.1:{port}', circuit_breaker: {{ max_requests: 2 }} }} }}"
    ))
}

#[test]
fn bytes_that_are_not_http_never_reach_an_http_upstream() {
    let app = LenientUpstream::start();
    let attache = guarded(app.port);
    let address = local(attache.port);
    let prefixes: [&[u8]; 10] = [
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b"\0",
        b"\x16\x03\x01",
        b"*1\r\n$4\r\nPING\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
        b"GET \x01",
    ];
    for prefix in prefixes {
        let answer = say(address, &[(0, &[prefix, REQUEST].concat())]);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{prefix:?}: {answer}");
    }
    // A pause before the request, and one within it.
    let answer = say(address, &[(400, REQUEST)]);
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let answer = say(address, &[(0, b"GET"), (400, &REQUEST[3..])]);
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let answer = say(address, &[(0, b"GET /internal/x HT"), (1500, b"TP/1.1\r\nHost: a\r\n\r\n")]);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(app.seen(), "");
}

#[test]
fn a_client_that_connects_ahead_of_use_is_served_and_holds_no_permit() {
    let app = LenientUpstream::start();
    let attache = guarded(app.port);
    let address = local(attache.port);
    let ahead: Vec<_> = (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
    thread::sleep(Duration::from_millis(500));
    let answer = raw(address, b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for mut stream in ahead {
        stream.write_all(b"GET /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(app.seen().matches("GET /b").count(), 8);
}

#[test]
fn with_both_kinds_of_routes_a_request_stays_a_request_whatever_precedes_it() {
    let (app, cache) = (LenientUpstream::start(), LenientUpstream::start());
    let attache = Attache::start(&format!(
        "listeners:
  in:
    bind: 127.0.0.1:$PORT
    detect_timeout: 200ms
    routes: [{{ match: {{ host: app }}, to: app }}]
    to: cache
upstreams: {{ app: 'http://127.0.0.1:{}', cache: 'tcp://127.0.0.1:{}' }}",
        app.port, cache.port
    ));
    let address = local(attache.port);
    for pieces in [
        &[(0, &b"\r\n\r\n"[..]), (0, REQUEST)][..],
        &[(0, b" "), (0, REQUEST)],
        &[(0, b"GET\t/internal/x HTTP/1.1\r\n\r\n")],
        &[(0, b"GET /internal/x\r\n")],
        &[(0, b"GE"), (500, b"T /internal/x HTTP/1.1\r\n\r\n")],
    ] {
        let answer = say(address, pieces);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 "), "{pieces:?}: {answer}");
        assert!(!cache.seen().contains("internal"), "{pieces:?}: {}", cache.seen());
        app.forget();
    }
    // A client that connected ahead of use.
    let answer = say(address, &[(500, b"GET /x HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")]);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Opaque bytes reach the route that accepts them.
    say(address, &[(0, b"*1\r\n$4\r\nPING\r\n")]);
    say(address, &[(500, b"*1\r\n$4\r\nLATE\r\n")]);
    assert!(cache.seen().contains("PING") && cache.seen().contains("LATE"), "{}", cache.seen());
}

#[test]
fn a_connect_becomes_a_tunnel_only_if_the_config_allows_one() {
    let app = LenientUpstream::start();
    let attache = Attache::start(&format!(
        "access_log: {{ to: stdout }}
listeners:
  in:
    bind: 127.0.0.1:$PORT
    routes:
      - match: {{ path: /internal/* }}
        respond: 403
      - match: {{ host: asked.test, methods: [CONNECT] }}
        to: app
      - match: {{ host: named.test }}
        to: any
      - match: {{ host: raw.test, methods: CONNECT }}
        to: raw
    to: app
upstreams: {{ app: 'http://127.0.0.1:{0}', raw: 'tcp://127.0.0.1:{0}', any: authority }}",
        app.port
    ));
    let address = local(attache.port);
    let connect = |host: &str| {
        let head = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        say(address, &[(0, head.as_bytes()), (100, REQUEST)])
    };
    let refused = connect("a:80");
    assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("connect-denied"), "{refused}");
    assert_eq!(app.seen(), "");
    eventually("the refusal is logged", || attache.process.output().contains("methods: CONNECT"));
    for host in ["asked.test:80", "raw.test:80"] {
        assert!(connect(host).starts_with("HTTP/1.1 200"), "{host}");
        assert!(app.seen().contains("/internal/x"), "{host}");
        app.forget();
    }
    // The rule for HTTP/2's CONNECT is the same.
    let fields = [(":method", "CONNECT"), (":authority", "a:80")];
    let mut bytes = h2(&fields, false);
    frame(&mut bytes, 0, 0, REQUEST);
    say(address, &[(0, &bytes)]);
    eventually("the refusal is counted", || {
        attache.metric("attache_requests_total", &["reason=\"connect-denied\"", "http2"]) > 0.0
    });
    assert_eq!(app.seen(), "");
}

#[test]
fn an_extended_connect_for_anything_but_a_websocket_gets_501() {
    let app = LenientUpstream::start();
    let attache = Attache::start(&format!(
        "listeners: {{ in: {{ bind: '127.0.0.1:$PORT', protocol: http }} }}\nupstreams: {{ app: 'http://127.0.0.1:{}' }}",
        app.port
    ));
    for (count, protocol) in ["foo", "h2c", "connect-udp", "websocket, h2c", "http"].into_iter().enumerate() {
        let fields = [
            (":method", "CONNECT"),
            (":protocol", protocol),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", "/chat"),
        ];
        let mut bytes = h2(&fields, false);
        frame(&mut bytes, 0, 0, REQUEST);
        say(local(attache.port), &[(0, &bytes)]);
        eventually(protocol, || {
            attache.metric("attache_requests_total", &["reason=\"upgrade-unsupported\"", "5xx"])
                > count as f64
        });
        assert_eq!(app.seen(), "", "{protocol}");
    }
    // Tokens of Upgrade are compared without case (RFC 9110 section 7.8): each is a handshake, and never a tunnel by itself.
    for protocol in ["websocket", "WebSocket", "WEBSOCKET"] {
        let fields = [
            (":method", "CONNECT"),
            (":protocol", protocol),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", "/chat"),
            ("sec-websocket-version", "13"),
        ];
        let mut bytes = h2(&fields, false);
        frame(&mut bytes, 0, 0, REQUEST);
        app.forget();
        say(local(attache.port), &[(0, &bytes)]);
        let seen = app.seen();
        assert!(
            seen.starts_with("GET /chat HTTP/1.1\r\n") && !seen.contains("/internal"),
            "{protocol}: {seen}"
        );
    }
}

#[test]
fn limits_and_faults_apply_to_tunnels_and_opaque_bytes() {
    let app = LenientUpstream::start();
    let attache = |listener: &str, route: &str, upstream: &str| {
        Attache::start(&format!(
            "listeners: {{ in: {{ bind: '127.0.0.1:$PORT', {listener}, routes: [{{ to: app, {route} }}] }} }}\nupstreams: {{ app: {upstream} }}"
        ))
    };
    let connect = format!("CONNECT 127.0.0.1:{0} HTTP/1.1\r\nHost: 127.0.0.1:{0}\r\n\r\n", app.port);
    let tcp = format!("'tcp://127.0.0.1:{}'", app.port);
    let limit = "rate_limit: { requests: 1, per: 1m, burst: 1 }";

    let limited = attache("protocol: http", limit, "authority");
    let answers: Vec<String> = (0..3).map(|_| say(local(limited.port), &[(0, connect.as_bytes())])).collect();
    assert!(answers[0].starts_with("HTTP/1.1 200"), "{answers:?}");
    assert!(answers[1..].iter().all(|answer| answer.starts_with("HTTP/1.1 429")), "{answers:?}");

    let limited = attache("protocol: tcp", limit, &tcp);
    let heard: Vec<String> = (0..3).map(|_| say(local(limited.port), &[(0, b"a\r\n\r\n")])).collect();
    assert!(heard[0].starts_with("HTTP/1.1 200") && heard[1].is_empty() && heard[2].is_empty(), "{heard:?}");
    eventually("both are logged", || {
        attache_tests::Attache::metric(&limited, "attache_requests_total", &["reason=\"rate-limited\""])
            == 2.0
    });

    let abort = "fault: { abort: { status: 418, share: 100% } }";
    let faulty = attache("protocol: http", abort, "authority");
    let answer = say(local(faulty.port), &[(0, connect.as_bytes())]);
    assert!(answer.starts_with("HTTP/1.1 418"), "{answer}");
    assert!(answer.contains("x-attache-reason: fault-injected\r\n"), "{answer}");
    let faulty = attache("protocol: tcp", abort, &tcp);
    assert_eq!(say(local(faulty.port), &[(0, b"b\r\n\r\n")]), "");
    eventually("the fault is logged", || {
        faulty.metric("attache_requests_total", &["reason=\"fault-injected\""]) == 1.0
    });
    assert!(!app.seen().contains('b'), "{}", app.seen());
}

#[test]
fn a_request_that_a_limit_refuses_reaches_no_mirror() {
    let (app, shadow) = (LenientUpstream::start(), LenientUpstream::start());
    let attache = Attache::start(&format!(
        "listeners:
  in:
    bind: 127.0.0.1:$PORT
    routes: [{{ to: app, mirror: shadow, rate_limit: {{ requests: 1, per: 1m, burst: 1 }} }}]
upstreams: {{ app: 'http://127.0.0.1:{}', shadow: 'http://127.0.0.1:{}' }}",
        app.port, shadow.port
    ));
    let get = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let statuses: Vec<bool> =
        (0..10).map(|_| raw(local(attache.port), get).starts_with("HTTP/1.1 200")).collect();
    assert_eq!(statuses.iter().filter(|good| **good).count(), 1, "{statuses:?}");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(shadow.seen().matches("GET /a").count(), 1, "{}", shadow.seen());
    assert_eq!(app.seen().matches("GET /a").count(), 1);
}
