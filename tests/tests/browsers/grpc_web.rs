//! Tests of gRPC-Web: with its own client from npm in both forms, and byte by byte.

use std::{process::Command, time::Instant};

use attache_tests::{Attache, TestProcess, eventually, free_port, local, raw, script_server};
use serde_json::{Value, json};

use super::ask;

fn start() -> (TestProcess, Attache) {
    let port = free_port();
    let server = script_server("grpc_server.py", local(port), &[]);
    let attache = Attache::start(&format!(
        "listeners:
  in:
    bind: 127.0.0.1:$PORT
    grpc_web: true
    cors: {{ origins: 'https://shop.test', headers: '*', expose: [grpc-status, grpc-message] }}
    authorization: {{ deny: [{{ headers: {{ x-refuse: '1' }} }}] }}
    routes: [{{ match: {{ path: /off/* }}, to: app, grpc_web: false, rewrite: {{ prefix: / }} }}]
    to: app
upstreams: {{ app: 'h2c://127.0.0.1:{port}' }}"
    ));
    (server, attache)
}

#[test]
fn the_grpc_web_client_gets_what_a_grpc_client_gets() {
    let (_server, attache) = start();
    let here = |path: &str| format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("node")
        .env("NODE_PATH", here("../target/judges-node/node_modules"))
        .args([here("scripts/grpc_web.js"), attache.url("").trim_end_matches('/').to_owned()])
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    for format in ["text", "binary"] {
        let said = &said[format];
        assert_eq!(
            said["unary"],
            json!({ "answer": "olleh", "code": 0, "trailer": "kept" }),
            "{format}: {said}"
        );
        assert_eq!(said["long"], 300_000, "{format}: {said}");
        assert_eq!(
            (&said["failed"]["code"], &said["failed"]["message"]),
            (&json!(5), &json!("as you wished: é")),
            "{said}"
        );
        assert_eq!(said["refused"]["code"], 7, "{format}: {said}");
        assert_eq!(
            said["stream"],
            json!({ "messages": ["0", "1", "2", "3", "4"], "code": 0 }),
            "{format}: {said}"
        );
    }
}

#[test]
fn trailers_are_in_the_body_and_other_requests_pass_unchanged() {
    let (_server, attache) = start();
    let body = "\0\0\0\0\u{3}abc";
    let send = |path: &str, content_type: &str, body: &str| {
        let headers = format!(
            "Content-Type: {content_type}\r\nOrigin: https://shop.test\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        ask(&attache, &format!("POST {path}"), &headers)
    };
    let (head, answer) = send("/test.Echo/Unary", "application/grpc-web+proto", body);
    assert!(
        head.starts_with("http/1.1 200") && head.contains("content-type: application/grpc-web"),
        "{head}"
    );
    assert!(head.contains("access-control-allow-origin: https://shop.test"), "{head}");
    assert!(answer.contains("\0\0\0\0\u{3}cba") && answer.contains("grpc-status: 0\r\n"), "{answer:?}");
    // "hello" of a text client in two padded pieces.
    let (head, answer) = send("/test.Echo/Unary", "application/grpc-web-text", "AAAAAAM=YWJj");
    assert!(
        head.contains("content-type: application/grpc-web-text") && answer.contains("AAAAAANjYmE="),
        "{head} {answer}"
    );
    for bad in ["AAAAAAM=YW", "AAAA!AM=YWJj"] {
        let (head, answer) = send("/test.Echo/Unary", "application/grpc-web-text", bad);
        assert!(!answer.contains("AAAAAANjYmE="), "{bad}: {head} {answer}");
    }
    let (head, _) = send("/off/test.Echo/Unary", "application/grpc-web+proto", body);
    assert!(
        !head.contains("grpc-web") || !head.starts_with("http/1.1 200") || head.contains("grpc-status"),
        "{head}"
    );
    let (head, answer) = send("/test.Echo/Unary", "application/grpc", body);
    assert!(
        head.contains("content-type: application/grpc\r\n")
            || head.contains("content-type: application/grpc"),
        "{head}"
    );
    assert!(!answer.contains("grpc-status: 0\r\n") || head.contains("transfer-encoding"), "{answer:?}");
}

#[test]
fn a_stream_is_passed_on_without_delay() {
    let (_server, attache) = start();
    let begun = Instant::now();
    let body = "\0\0\0\0\u{3}0.1";
    let request = format!(
        "POST /test.Echo/Slow HTTP/1.1\r\nHost: app\r\nConnection: close\r\nContent-Type: application/grpc-web\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = raw(local(attache.port), request.as_bytes());
    assert!(answer.contains("done") && begun.elapsed().as_secs() < 5, "{answer:?}");
    eventually("it counts as a call that succeeded", || {
        attache.metric("attache_requests_total", &["2xx"]) >= 1.0
    });
}
