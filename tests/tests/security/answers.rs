//! What a response must not do: open a tunnel that was not requested, or bring back fields in trailers or in a 1xx that the route removes.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use attache_tests::{Attache, eventually, local, raw};

use super::{LenientUpstream, frame, h2, say};

/// An HTTP/1 server that answers every request with the same bytes and then continues to read.
fn answering(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let (mut space, mut head) = ([0; 4096], Vec::new());
                while let Ok(n @ 1..) = stream.read(&mut space) {
                    head.extend_from_slice(&space[..n]);
                    if head.windows(4).any(|end| end == b"\r\n\r\n") {
                        head.clear();
                        if stream.write_all(answer).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    port
}

fn attache(port: u16, route: &str) -> Attache {
    Attache::start(&format!(
        "listeners: {{ in: {{ bind: '127.0.0.1:$PORT', routes: [{{ to: app, {route} }}] }} }}
upstreams: {{ app: 'http://127.0.0.1:{port}' }}"
    ))
}

#[test]
fn only_a_101_for_a_requested_protocol_opens_a_tunnel() {
    let upgrade =
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let plain = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (asked, answer) in [
        (
            &upgrade[..],
            &b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"[..],
        ),
        (upgrade, b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n"),
        (
            upgrade,
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket, foo\r\n\r\n",
        ),
        (plain, b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
    ] {
        let attache = attache(answering(answer), "");
        let heard = say(local(attache.port), &[(0, asked), (100, b"behind")]);
        assert!(heard.starts_with("HTTP/1.1 502"), "{heard}");
        assert!(heard.contains("x-attache-reason: upstream-protocol-error"), "{heard}");
    }
}

/// For a client of HTTP/2, any success means that its tunnel is open (RFC 8441 section 5); HTTP/1 opens one only with 101.
#[test]
fn a_websocket_of_http_2_is_open_when_the_server_has_switched() {
    for (answer, status) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..], "502"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "502"),
        (b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "502"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "403"),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", "302"),
    ] {
        let attache = attache(answering(answer), "");
        let mut bytes = h2(
            &[
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "http"),
                (":authority", "a"),
                (":path", "/chat"),
                ("sec-websocket-version", "13"),
            ],
            false,
        );
        frame(&mut bytes, 0, 0, b"behind");
        say(local(attache.port), &[(0, &bytes)]);
        let label = format!("code=\"{}xx\"", &status[..1]);
        eventually(&format!("{status} to {answer:?}"), || {
            attache.metric("attache_requests_total", &[&label, "http2"]) == 1.0
        });
    }
}

#[test]
fn no_trailer_of_a_request_brings_back_a_field_that_the_route_removes_or_matches() {
    let app = LenientUpstream::start();
    let attache = Attache::start(&format!(
        "listeners:
  in:
    bind: 127.0.0.1:$PORT
    routes:
      - match: {{ headers: {{ x-debug: '*' }} }}
        respond: 403
      - to: app
        headers: {{ request: {{ set: {{ x-tenant: gold }}, remove: x-internal }} }}
upstreams: {{ app: 'http://127.0.0.1:{}' }}",
        app.port
    ));
    let names = ["X-Tenant", "X_Tenant", "x-internal", "X_INTERNAL", "x-debug", "x_debug"];
    let trailers: String = names.iter().map(|name| format!("{name}: forged\r\n")).collect();
    let body = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: {}, x-sum\r\nConnection: close, TE\r\n\r\n1\r\na\r\n0\r\n{trailers}X-Sum: 7\r\n\r\n",
        names.join(", ")
    );
    say(local(attache.port), &[(0, body.as_bytes())]);
    let seen = app.seen().to_lowercase();
    assert!(!seen.contains("forged"), "{seen}");
    assert!(seen.contains("x-sum: 7") && seen.contains("x-tenant: gold"), "{seen}");
}

#[test]
fn no_trailer_and_no_1xx_of_a_response_brings_back_a_field_that_the_route_removes() {
    let answer = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX-Internal: early\r\nX_Internal: early\r\nServer: early\r\nConnection: x\r\nX-Attache-Reason: no-route\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-internal, x_internal, server, x-sum\r\nX-Internal: head\r\n\r\n1\r\na\r\n0\r\nX-Internal: late\r\nX_Internal: late\r\nServer: late\r\nX-Sum: 7\r\n\r\n";
    let attache =
        attache(answering(answer), "headers: { response: { remove: x-internal, set: { server: ours } } }");
    let heard = raw(
        local(attache.port),
        b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n",
    )
    .to_lowercase();
    assert!(heard.contains("103 early hints") && heard.contains("link: </a>"), "{heard}");
    assert!(heard.contains("x-sum: 7") && heard.contains("server: ours"), "{heard}");
    for gone in [": early", ": late", ": head", "x-attache-reason"] {
        assert!(!heard.contains(gone), "{gone}: {heard}");
    }
}

#[test]
fn a_client_that_sends_nothing_takes_no_permit_if_a_server_may_send_first() {
    let (app, cache) = (LenientUpstream::start(), LenientUpstream::start());
    let attache = Attache::start(&format!(
        "listeners:
  in:
    bind: 127.0.0.1:$PORT
    detect_timeout: 100ms
    routes: [{{ match: {{ host: app }}, to: app }}]
    to: cache
upstreams:
  app: 'http://127.0.0.1:{}'
  cache: {{ address: 'tcp://127.0.0.1:{}', circuit_breaker: {{ max_requests: 2 }} }}",
        app.port, cache.port
    ));
    let silent: Vec<_> = (0..8).map(|_| TcpStream::connect(local(attache.port)).unwrap()).collect();
    eventually("they are connected", || cache.connections().len() == 8);
    // A client that sends something has its permit and is answered.
    let answer = say(local(attache.port), &[(0, b"*1\r\n\r\n")]);
    assert!(answer.ends_with("ok"), "{answer}");
    // After some time the others hold nothing any more, and are served like any other client.
    thread::sleep(Duration::from_millis(1_500));
    for mut stream in silent {
        stream.write_all(b"GET /b HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(app.seen().matches("GET /b").count(), 8);
}
