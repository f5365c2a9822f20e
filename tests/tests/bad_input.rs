//! Bytes that two parsers could read differently never reach an upstream.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use attache_tests::{Attache, eventually, local, raw};

/// An upstream that answers every request with 200 and records the bytes that it gets.
fn recorder() -> (u16, std::sync::Arc<std::sync::Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let record = seen.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, record) = (stream.unwrap(), record.clone());
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    record.lock().unwrap().extend_from_slice(&buffer[..n]);
                    if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
                        return;
                    }
                }
            });
        }
    });
    (port, seen)
}

fn proxy_to(port: u16) -> Attache {
    Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT', protocol: http }} }}\nupstreams: {{ a: 'http://127.0.0.1:{port}' }}"
    ))
}

#[test]
fn ambiguous_framing_is_refused_and_never_sent_on() {
    let (port, seen) = recorder();
    let attache = proxy_to(port);
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let cases = [
        (
            "length beside chunked",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked beside length",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        ),
        (
            "differing lengths",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        ),
        ("a list of lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5, 5\r\n\r\nhello"),
        ("a signed length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\nhello"),
        ("obfuscated chunked", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
        (
            "chunked twice",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        ),
        ("space before the colon", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length : 5\r\n\r\nhello"),
        ("bare line feeds", "GET / HTTP/1.1\nhost: a\n\n"),
        ("one bare line feed", "GET / HTTP/1.1\r\nhost: a\r\nx: y\nz: q\r\n\r\n"),
        ("a bare carriage return", "GET / HTTP/1.1\r\nhost: a\r\nx: y\rz\r\n\r\n"),
        ("a folded line", "GET / HTTP/1.1\r\nhost: a\r\nx: y\r\n z\r\n\r\n"),
        ("NUL", "GET / HTTP/1.1\r\nhost: a\r\nx: y\0z\r\n\r\n"),
        ("no host", "GET / HTTP/1.1\r\nx: y\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
        ("chunked in 1.0", "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        (
            "a junk chunk size",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        ),
        ("a path above the root", "GET /../../etc/passwd HTTP/1.1\r\nhost: a\r\n\r\n"),
    ];
    for (what, bytes) in cases {
        let answer = raw(local(attache.port), format!("{bytes}{smuggled}").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400") || what == "a junk chunk size", "{what}: {answer}");
        assert!(!answer.contains("200 OK"), "{what}: {answer}");
        if what != "a junk chunk size" {
            assert!(answer.contains("x-attache-reason: bad-request"), "{what}: {answer}");
        }
    }
    let seen = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    assert!(!seen.contains("smuggled"), "{seen}");
    assert!(
        attache.metric("attache_requests_total", &["reason=\"bad-request\""]) >= 15.0,
        "{}",
        attache.metrics()
    );
}

#[test]
fn limits_have_their_own_statuses() {
    let (port, _) = recorder();
    let attache = proxy_to(port);
    let long = "a".repeat(70_000);
    let ask = |bytes: String| raw(local(attache.port), bytes.as_bytes());
    let answer = ask(format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", &long[..9000]));
    assert!(answer.starts_with("HTTP/1.1 414"), "{answer}");
    let answer = ask(format!("GET / HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let answer = ask(format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(101)));
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[test]
fn a_slow_head_is_a_408() {
    let (port, _) = recorder();
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT', http: {{ header_timeout: 300ms }} }} }}\nupstreams: {{ a: 'http://127.0.0.1:{port}' }}"
    ));
    let mut stream = TcpStream::connect(local(attache.port)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("header-timeout"), "{answer}");
}

#[test]
fn an_http2_client_cannot_smuggle_into_http1() {
    let (port, seen) = recorder();
    let attache = proxy_to(port);
    // A raw HTTP/2 client: preface, SETTINGS, and one HEADERS frame with literal fields that no library would send.
    let request = |fields: &[(&str, &str)]| {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0); // literal without indexing, new name (RFC 7541 section 6.2.2)
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                block.extend_from_slice(text.as_bytes());
            }
        }
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        bytes.extend_from_slice(&[0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
        bytes.extend_from_slice(&block);
        bytes
    };
    let base = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/ok")];
    let with = |extra: &[(&'static str, &'static str)]| [&base[..], extra].concat();
    let cases = [
        with(&[("transfer-encoding", "chunked")]),
        with(&[("connection", "close")]),
        with(&[("x", "y\r\nGET /smuggled HTTP/1.1")]),
        with(&[("x\r\ny", "z")]),
        with(&[("Upper", "case")]),
        with(&[("host", "other")]),
        vec![(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/ok HTTP/1.1\r\nx: y")],
        vec![
            (":method", "GET /smuggled HTTP/1.1\r\nx:"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", "/"),
        ],
    ];
    for fields in cases {
        let mut stream = TcpStream::connect(local(attache.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        stream.write_all(&request(&fields)).unwrap();
        let mut answer = [0; 4096];
        while let Ok(1..) = stream.read(&mut answer) {}
    }
    let seen = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    assert_eq!(seen, "", "nothing of these may be sent on");
    // The proxy still works afterwards.
    let answer = raw(local(attache.port), b"GET /fine HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn random_bytes_never_affect_other_clients() {
    let (port, _) = recorder();
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT', detect_timeout: 50ms }} }}\nupstreams: {{ a: 'http://127.0.0.1:{port}' }}"
    ));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..200 {
        let mut bytes = match round % 4 {
            0 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            1 => b"GET / HTTP/1.1\r\n".to_vec(),
            2 => vec![0x16, 3, 1],
            _ => Vec::new(),
        };
        for _ in 0..200 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.push(state as u8);
        }
        if let Ok(mut stream) = TcpStream::connect(local(attache.port)) {
            let _ = stream.write_all(&bytes);
        }
    }
    let answer = raw(local(attache.port), b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    eventually("no panic was counted", || attache.metric("attache_panics_total", &[]) == 0.0);
    assert!(!attache.process.output().contains("panicked"), "{}", attache.process.output());
}
