//! Tests of compression: curl's decoders read the responses, and the test also looks at the compressed bytes.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use attache_tests::{Attache, curl, free_port, local, nginx};

use super::ask;

const TEXT: &str = "the quick brown fox jumps over the lazy dog; ";

#[test]
fn responses_are_compressed_for_clients_that_ask_and_decode_to_the_same() {
    let port = free_port();
    let long = TEXT.repeat(60);
    let location = |path: &str, more: &str, body: &str| {
        format!("location {path} {{ default_type text/plain; {more} return 200 '{body}'; }}")
    };
    let server = format!(
        "server {{ listen 127.0.0.1:{port}; {} {} {} {} {} {} {} {} }}",
        location("/long", "add_header etag '\"x\"'; add_header accept-ranges bytes;", &long),
        location("/short", "", "short"),
        location("/encoded", "add_header content-encoding br;", &long),
        location("/fixed", "add_header cache-control 'public, No-Transform';", &long),
        location("/weak", "add_header etag 'W/\"x\"'; add_header vary origin;", &long),
        "location /image { default_type image/png; return 200 'png'; }",
        "location /part { return 206 'part'; }",
        location("/off", "", &long),
    );
    let _app = nginx(&server, local(port));
    let attache = Attache::start(&format!(
        "listeners:
  in:
    bind: 127.0.0.1:$PORT
    compression: {{}}
    routes:
      - {{ match: {{ path: /off }}, to: app, compression: off }}
      - {{ match: {{ path: /gzip/* }}, to: app, rewrite: {{ prefix: / }}, compression: {{ codings: gzip, types: 'image/*', min_size: 0 }} }}
      - {{ name: rest, match: {{ path: /* }}, to: app }}
upstreams: {{ app: 'http://127.0.0.1:{port}' }}"
    ));
    for (coding, protocol) in [
        ("gzip", "--http1.1"),
        ("br", "--http2-prior-knowledge"),
        ("zstd", "--http1.1"),
        ("zstd", "--http2-prior-knowledge"),
    ] {
        let (head, _) = ask(&attache, "GET /long", &format!("Accept-Encoding: {coding}\r\n"));
        for line in [&*format!("content-encoding: {coding}"), "etag: w/\"x\"", "vary: accept-encoding"] {
            assert!(head.contains(line), "{line}: {head}");
        }
        assert!(!head.contains("content-length") && !head.contains("accept-ranges"), "{head}");
        let header = format!("Accept-Encoding: {coding}");
        let read = curl([protocol, "--compressed", "-H", &header, &attache.url("/long")]);
        assert_eq!(
            String::from_utf8_lossy(&read.stdout),
            long,
            "{coding}: {}",
            String::from_utf8_lossy(&read.stderr)
        );
    }
    for (path, headers) in [
        ("GET /long", ""),
        ("GET /long", "Accept-Encoding: gzip;q=0, identity\r\n"),
        ("GET /long", "Accept-Encoding: deflate\r\n"),
        ("HEAD /long", "Accept-Encoding: gzip\r\n"),
        ("GET /short", "Accept-Encoding: gzip\r\n"),
        ("GET /encoded", "Accept-Encoding: gzip\r\n"),
        ("GET /fixed", "Accept-Encoding: gzip\r\n"),
        ("GET /image", "Accept-Encoding: gzip\r\n"),
        ("GET /part", "Accept-Encoding: gzip\r\n"),
        ("GET /off", "Accept-Encoding: gzip\r\n"),
        ("GET /gzip/long", "Accept-Encoding: gzip\r\n"),
        ("GET /gzip/image", "Accept-Encoding: br\r\n"),
    ] {
        let (head, _) = ask(&attache, path, headers);
        assert!(
            !head.contains("content-encoding: gzip") && head.contains("content-length"),
            "{path} {headers}: {head}"
        );
    }
    let (head, _) = ask(&attache, "GET /long", "");
    assert!(head.contains("vary: accept-encoding") && head.contains("etag: \"x\""), "{head}");
    let (head, _) = ask(&attache, "GET /weak", "Accept-Encoding: gzip\r\n");
    assert!(
        head.contains("etag: w/\"x\"")
            && head.contains("vary: origin")
            && head.contains("vary: accept-encoding"),
        "{head}"
    );
    assert!(
        ask(&attache, "GET /short", "Accept-Encoding: gzip, identity;q=0\r\n")
            .0
            .contains("content-encoding: gzip")
    );
    assert!(
        ask(&attache, "GET /gzip/image", "Accept-Encoding: gzip\r\n").0.contains("content-encoding: gzip")
    );
    assert!(attache.metric("attache_compressed_responses_total", &["rest", "zstd"]) >= 4.0);
}

#[test]
fn a_stream_arrives_without_delay_and_a_cut_one_stays_cut() {
    let app = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = app.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in app.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    let attache = Attache::start(&format!(
        "listeners: {{ in: {{ bind: '127.0.0.1:$PORT', compression: {{ codings: gzip }}, to: app }} }}
upstreams: {{ app: 'http://127.0.0.1:{port}' }}"
    ));
    let mut stream = TcpStream::connect(local(attache.port)).unwrap();
    stream
        .write_all(b"GET /events HTTP/1.1\r\nHost: app\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n")
        .unwrap();
    let begun = Instant::now();
    let mut read = Vec::new();
    let mut piece = [0; 4096];
    // The head and the first event must arrive long before the end.
    let is_there = |read: &[u8]| {
        let end = read.windows(4).position(|window| window == b"\r\n\r\n");
        end.is_some_and(|end| read.len() > end + 4 + 20)
    };
    while !is_there(&read) {
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "{:?}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&piece[..count]);
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let cut = curl(["--compressed", &attache.url("/cut")]);
    assert!(!cut.status.success(), "{cut:?}");
}

/// Sends an event, pauses, and sends another; or sends half of a body.
fn serve(mut stream: TcpStream) {
    let mut head = [0; 2048];
    let count = stream.read(&mut head).unwrap_or(0);
    let events = String::from_utf8_lossy(&head[..count]).starts_with("GET /events");
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\nf\r\ndata: 1234567\n\n\r\n");
    thread::sleep(Duration::from_secs(if events { 4 } else { 0 }));
    if events {
        let _ = stream.write_all(b"0\r\n\r\n");
    }
}
