//! How attache passes HTTP/1 messages on: framing, names, hop-by-hop fields, and responses that two parsers could read differently.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use attache_tests::{Attache, curl, eventually, local, raw, text};

/// An upstream whose response depends on the path. It closes after each response, and keeps the heads that it got.
struct ClosingUpstream {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

fn upstream(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> ClosingUpstream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, seen, answer) = (stream.unwrap(), seen.clone(), answer.clone());
            thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") {
                    if !matches!(stream.read(&mut byte), Ok(1)) {
                        return;
                    }
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                seen.lock().unwrap().push(head.clone());
                let _ = stream.write_all(&answer(&head));
            });
        }
    });
    ClosingUpstream { port, heads }
}

impl ClosingUpstream {
    fn attache(&self, more: &str) -> Attache {
        Attache::start(&format!(
            "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT', to: u, protocol: http{more} }} }}\n\
             upstreams: {{ u: {{ address: 'http://127.0.0.1:{}', outlier_ejection: off }} }}",
            self.port
        ))
    }

    fn last(&self) -> String {
        self.heads.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

fn ask(attache: &Attache, line: &str, fields: &str) -> String {
    let request = format!("{line} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{fields}\r\n");
    raw(local(attache.port), request.as_bytes())
}

fn ok(_: &str) -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()
}

#[test]
fn the_framing_of_a_response_has_one_meaning_and_is_written_in_one_form() {
    let upstream = upstream(|head| {
        let (fields, body) = match head.split(' ').nth(1).unwrap() {
            "/small" => {
                ("Content-Length: 5\r\nTransfer-Encoding: chunked", "10\r\nchunked data fun\r\n0\r\n\r\n")
            }
            "/zero" => {
                ("Content-Length: 0\r\nTransfer-Encoding: chunked", "10\r\nchunked data fun\r\n0\r\n\r\n")
            }
            "/large" => {
                ("Transfer-Encoding: chunked\r\nContent-Length: 99", "10\r\nchunked data fun\r\n0\r\n\r\n")
            }
            "/list" => ("Content-Length: 5, 5", "hello"),
            "/twice" => ("Content-Length: 5\r\nContent-Length: 5", "hello"),
            "/differ" => ("Content-Length: 5\r\nContent-Length: 6", "hello!"),
            "/gzip" => ("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"),
            "/under" => ("Transfer-Encoding: chunked, gzip", "0\r\n\r\n"),
            "/alone" => ("Transfer-Encoding: gzip", ""),
            _ => ("X: a\rb", ""),
        };
        format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}").into_bytes()
    });
    let attache = upstream.attache("");
    for path in ["/small", "/zero", "/large"] {
        let answer = ask(&attache, &format!("GET {path}"), "");
        assert!(!answer.to_lowercase().contains("content-length"), "{answer}");
        assert!(answer.ends_with("10\r\nchunked data fun\r\n0\r\n\r\n"), "{answer}");
    }
    for path in ["/list", "/twice"] {
        let answer = ask(&attache, &format!("GET {path}"), "");
        assert_eq!(answer.matches("Content-Length: 5\r\n").count(), 1, "{answer}");
        assert_eq!(answer.to_lowercase().matches("content-length").count(), 1, "{answer}");
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    }
    for path in ["/differ", "/gzip", "/under", "/alone", "/cr"] {
        let answer = ask(&attache, &format!("GET {path}"), "");
        assert!(answer.starts_with("HTTP/1.1 502"), "{path}: {answer}");
        assert!(answer.contains("x-attache-reason: upstream-protocol-error"), "{path}: {answer}");
    }
}

#[test]
fn a_head_with_a_part_of_its_body_reaches_the_client_before_the_cut() {
    let upstream = upstream(|head| match head.split(' ').nth(1).unwrap() {
        "/length" => b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\nX-Order: created\r\n\r\nhello".to_vec(),
        "/chunk" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n".to_vec(),
    });
    let attache = upstream.attache("");
    for path in ["/length", "/chunk", "/broken"] {
        for _ in 0..20 {
            let answer = ask(&attache, &format!("GET {path}"), "");
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("hello"), "{path}: {answer}");
            assert!(!answer.ends_with("0\r\n\r\n"), "{path}: {answer}");
        }
    }
}

#[test]
fn responses_about_switching_protocols_have_the_required_fields() {
    let upstream = upstream(|head| {
        match head.split(' ').nth(1).unwrap() {
        "/101" => b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_vec(),
        "/two" => b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: HTTP/3.0\r\nUPGRADE: websocket\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n".to_vec(),
    }
    });
    let attache = upstream.attache("");
    let answer = ask(&attache, "GET /101", "");
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(answer.contains("x-attache-reason: upstream-protocol-error"), "{answer}");
    let answer = ask(&attache, "GET /426", "");
    assert!(answer.starts_with("HTTP/1.1 426"), "{answer}");
    assert!(
        answer.contains("Upgrade: websocket\r\n") && answer.contains("connection: upgrade\r\n"),
        "{answer}"
    );
    let answer = ask(&attache, "GET /two", "");
    assert!(
        answer.contains("Upgrade: HTTP/3.0\r\nUPGRADE: websocket\r\n")
            && answer.contains("connection: upgrade\r\n"),
        "{answer}"
    );
}

#[test]
fn names_and_phrases_arrive_unchanged() {
    let upstream = upstream(|_| {
        b"HTTP/1.1 200 Very Well\r\nX-Old-SERVER: yes\r\netag: 1\r\nContent-length: 2\r\n\r\nok".to_vec()
    });
    let attache = upstream.attache("");
    let answer = ask(&attache, "GET /", "SOAPAction: do\r\nx-lower: 1\r\nX-MiXed: 2\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 Very Well\r\n"), "{answer}");
    for name in ["X-Old-SERVER: yes\r\n", "etag: 1\r\n", "Content-length: 2\r\n"] {
        assert!(answer.contains(name), "{answer}");
    }
    for name in ["Host: a.test\r\n", "SOAPAction: do\r\n", "x-lower: 1\r\n", "X-MiXed: 2\r\n"] {
        assert!(upstream.last().contains(name), "{}", upstream.last());
    }
}

#[test]
fn informational_responses_lose_the_fields_of_one_hop() {
    let upstream = upstream(|_| {
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nContent-Length: 9\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()
    });
    let attache = upstream.attache("");
    let answer = ask(&attache, "GET /", "").to_lowercase();
    let (hint, _) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(hint, "http/1.1 103 early hints\r\nlink: </a>");
    let http2 = text(&curl(["-sSi", "--http2-prior-knowledge", &attache.url("/")]));
    assert!(http2.replace('\r', "").starts_with("HTTP/2 103 \nlink: </a>\n\nHTTP/2 200 \n"), "{http2}");
}

#[test]
fn targets_arrive_unchanged_and_absolute_form_becomes_origin_form() {
    let upstream = upstream(ok);
    let attache = upstream.attache("");
    for query in [r#"q=up{job="x"}"#, r"p=C:\x\y", "<a>|^`"] {
        let answer = ask(&attache, &format!("GET /f?{query}"), "");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(upstream.last().starts_with(&format!("GET /f?{query} HTTP/1.1\r\n")), "{}", upstream.last());
    }
    ask(&attache, "OPTIONS http://a.test", "");
    assert!(upstream.last().starts_with("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n"), "{}", upstream.last());
    ask(&attache, "GET http://a.test?q=1", "");
    assert!(upstream.last().starts_with("GET /?q=1 HTTP/1.1\r\nHost: a.test\r\n"), "{}", upstream.last());
    let before = upstream.heads.lock().unwrap().len();
    let answer = ask(&attache, "OPTIONS /", "Max-Forwards: 0\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(upstream.heads.lock().unwrap().len(), before, "it was not passed on");
    ask(&attache, "OPTIONS /", "Max-Forwards: 7\r\n");
    assert!(upstream.last().to_lowercase().contains("max-forwards: 6\r\n"), "{}", upstream.last());
}

#[test]
fn a_transfer_coding_that_attache_does_not_know_is_501_and_a_body_without_a_known_end_400() {
    let upstream = upstream(ok);
    let attache = upstream.attache("");
    for (status, codings) in [
        (501, "foo, chunked"),
        (501, "foo;q=1,chunked"),
        (501, "foo\r\nTransfer-Encoding: chunked"),
        (501, "foo\r\ntransfer-encoding: bar, chunked"),
        (400, "chunked\r\nTransfer-Encoding: foo"),
        (400, "foo, chunked\r\nTransfer-Encoding: chunked"),
        (400, "foo\r\nTransfer-Encoding:"),
        (400, "foo, chunked\r\nContent-Length: 5"),
        (400, "chunked\r\nTransfer-Encoding: chunked"),
        (400, "foo, chunked;q=1"),
        (400, "foo"),
    ] {
        let refused = ask(&attache, "POST /", &format!("Transfer-Encoding: {codings}\r\n"));
        let reason = if status == 501 { "unknown-transfer-coding" } else { "bad-request" };
        assert!(refused.starts_with(&format!("HTTP/1.1 {status}")), "{codings}: {refused}");
        assert!(refused.contains(&format!("x-attache-reason: {reason}\r\n")), "{codings}: {refused}");
    }
    assert!(upstream.heads.lock().unwrap().is_empty());
}

#[test]
fn a_request_whose_body_breaks_a_rule_is_told_which() {
    let upstream = upstream(|_| {
        thread::sleep(Duration::from_secs(1));
        ok("")
    });
    let attache = upstream.attache("");
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n";
    let answer = raw(local(attache.port), request.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("ended before its end: A chunk has no size."), "{answer}");
}

#[test]
fn what_an_upstream_says_of_the_way_in_trailers_reaches_the_client() {
    let upstream = upstream(|_| {
        let names = "Trailer: X-Request-Id, Via, X-Sum, X-Attache-Reason\r\n";
        let trailers = "X-Request-Id: 7\r\nVia: 1.1 b\r\nX-Sum: 1\r\nX-Attache-Reason: no-route\r\n";
        let head = format!("HTTP/1.1 200 OK\r\n{names}Transfer-Encoding: chunked\r\n\r\n");
        format!("{head}2\r\nok\r\n0\r\n{trailers}\r\n").into_bytes()
    });
    let attache = upstream.attache("");
    let answer = ask(&attache, "GET /", "TE: trailers\r\nConnection: TE\r\n");
    let (_, trailers) = answer.split_once("\r\n0\r\n").unwrap();
    let mut trailers: Vec<_> = trailers.trim_end().split("\r\n").collect();
    trailers.sort_unstable();
    assert_eq!(trailers, ["via: 1.1 b", "x-request-id: 7", "x-sum: 1"], "{answer}");
}

#[test]
fn a_mirror_gets_the_query_as_the_client_wrote_it() {
    let (upstream, mirror) = (upstream(ok), upstream(ok));
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT', routes: [{{ match: {{ path: /* }}, to: u, mirror: {{ m: 100% }} }}] }} }}\n\
         upstreams: {{ u: 'http://127.0.0.1:{}', m: 'http://127.0.0.1:{}' }}",
        upstream.port, mirror.port
    ));
    ask(&attache, r#"GET /f?q=up{job="x"}<1"#, "");
    eventually("the copy", || !mirror.last().is_empty());
    for sent in [upstream.last(), mirror.last()] {
        assert!(sent.starts_with(r#"GET /f?q=up{job="x"}<1 HTTP/1.1"#), "{sent}");
    }
}

#[test]
fn a_client_that_closes_its_side_is_answered_unless_the_config_says_otherwise() {
    let slow = |_: &str| {
        thread::sleep(Duration::from_millis(300));
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()
    };
    let upstream = upstream(slow);
    for (more, answered) in [("", true), (", http: { half_close: cut }", false)] {
        let attache = upstream.attache(more);
        let mut client = TcpStream::connect(local(attache.port)).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer);
        assert_eq!(answer.starts_with("HTTP/1.1 200"), answered, "{more}: {answer}");
    }
}

#[test]
fn the_reason_of_another_attache_is_passed_on_under_another_name() {
    let upstream = upstream(|_| {
        b"HTTP/1.1 503 Service Unavailable\r\nX-Attache-Reason: no-route\r\nContent-Length: 0\r\n\r\n"
            .to_vec()
    });
    let attache = upstream.attache("");
    let answer = ask(&attache, "GET /", "").to_lowercase();
    assert!(answer.contains("x-attache-upstream-reason: no-route\r\n"), "{answer}");
    assert!(!answer.contains("x-attache-reason"), "{answer}");
}

#[test]
fn a_route_that_answers_by_itself_opens_no_tunnel() {
    let routes = "[{ match: { methods: [GET, CONNECT] }, respond: { status: 200, body: hello } }]";
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT', routes: {routes} }} }}"
    ));
    assert!(ask(&attache, "GET /", "").ends_with("hello"));
    let answer = ask(&attache, "CONNECT a.test:443", "");
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("x-attache-reason: connect-denied\r\n"),
        "{answer}"
    );
}
