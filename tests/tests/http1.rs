//! HTTP/1.1 through the proxy, between curl and nginx.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use attache_tests::{Attache, curl, eventually, free_port, local, nginx, raw, text};

fn hello() -> (attache_tests::TestProcess, u16) {
    let port = free_port();
    let server = nginx(
        &format!(
            "server {{ listen 127.0.0.1:{port}; root $DIR;
                location = /hello {{ return 200 \"hello $request_method $host $http_x_request_id\"; }}
                location = /empty {{ return 204; }}
                location = /moved {{ return 302 /hello; }}
                location = /missing {{ return 404 \"nothing here\"; }}
                location /dav {{ dav_methods PUT DELETE; }} }}"
        ),
        local(port),
    );
    (server, port)
}

#[test]
fn one_upstream_and_no_routes_gets_everything() {
    let (_server, port) = hello();
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ hello: 'http://127.0.0.1:{port}' }}"
    ));
    let answer = text(&curl(["-H", "Host: orders.internal", &attache.url("/hello")]));
    assert!(answer.starts_with("hello GET orders.internal "), "{answer}");
    assert_eq!(text(&curl(["-o", "/dev/null", "-w", "%{http_code}", &attache.url("/empty")])), "204");
    assert_eq!(text(&curl(["-w", " %{http_code}", &attache.url("/missing")])), "nothing here 404");
    let head = text(&curl(["--head", &attache.url("/hello")]));
    assert!(head.starts_with("HTTP/1.1 200") && head.to_lowercase().contains("content-length: "), "{head}");
}

#[test]
fn a_connection_serves_pipelined_requests_in_order() {
    let (_server, port) = hello();
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ hello: 'http://127.0.0.1:{port}' }}"
    ));
    let answers = raw(
        local(attache.port),
        b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\nGET /missing HTTP/1.1\r\nhost: b\r\n\r\nGET /hello HTTP/1.1\r\nhost: c\r\nconnection: close\r\n\r\n",
    );
    let order: Vec<usize> = ["hello GET a", "nothing here", "hello GET c"]
        .iter()
        .map(|part| answers.find(part).unwrap_or_else(|| panic!("{part} in {answers}")))
        .collect();
    assert!(order.is_sorted(), "{answers}");
}

#[test]
fn an_http_1_0_client_gets_an_answer_it_can_read() {
    let (_server, port) = hello();
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ hello: 'http://127.0.0.1:{port}' }}"
    ));
    let answer = raw(local(attache.port), b"GET /hello HTTP/1.0\r\nHost: old\r\n\r\n");
    assert!(answer.contains("hello GET old"), "{answer}");
    assert!(!answer.to_lowercase().contains("transfer-encoding"), "{answer}");
}

#[test]
fn a_forward_proxy_accepts_absolute_form_and_connect() {
    let (_server, port) = hello();
    // The built-in default config, on another port.
    let attache = Attache::start(
        "listeners: { outbound: { bind: '127.0.0.1:$PORT', to: anywhere } }\nupstreams: { anywhere: { address: authority } }",
    );
    let proxy = attache.url("");
    let url = format!("http://127.0.0.1:{port}/hello");
    assert!(text(&curl(["--proxy", &proxy, &url])).starts_with("hello GET 127.0.0.1"));
    assert!(text(&curl(["--proxy", &proxy, "--proxytunnel", &url])).starts_with("hello GET 127.0.0.1"));
    // A failed tunnel says why.
    let nowhere = format!("http://127.0.0.1:{}/", free_port());
    let failed = curl(["--proxy", &proxy, "-i", &nowhere]);
    let answer = text(&failed).to_lowercase();
    assert!(
        answer.starts_with("http/1.1 503") && answer.contains("x-attache-reason: connect-refused"),
        "{answer}"
    );
}

#[test]
fn an_https_url_is_never_sent_in_plaintext() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = upstream.local_addr().unwrap().port();
    let attache = Attache::start(
        "listeners: { outbound: { bind: '127.0.0.1:$PORT', to: anywhere } }\nupstreams: { anywhere: authority }",
    );
    let request = format!(
        "GET https://127.0.0.1:{port}/ HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n"
    );
    let answer = raw(local(attache.port), request.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("protocol-mismatch"), "{answer}");
    upstream.set_nonblocking(true).unwrap();
    assert!(upstream.accept().is_err(), "no connection may be opened");
}

#[test]
fn early_hints_reach_the_client_before_the_answer() {
    let (port, upstream) = serve_once(|stream| {
        read_head(stream);
        let hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
        stream.write_all(hints).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
    });
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ hello: 'http://127.0.0.1:{port}' }}"
    ));
    let answer = raw(local(attache.port), b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let (hints, rest) = answer.split_once("\r\n\r\n").unwrap();
    assert!(hints.starts_with("HTTP/1.1 103") && hints.contains("link: </a.css>"), "{answer}");
    assert!(rest.starts_with("HTTP/1.1 200") && rest.ends_with("ok"), "{answer}");
    upstream.join().unwrap();
}

#[test]
fn a_body_waits_for_the_upstreams_go_ahead() {
    // The upstream refuses after the head alone; the client must never be told to continue.
    let (port, upstream) = serve_once(|stream| {
        let head = read_head(stream).to_lowercase();
        assert!(head.contains("expect: 100-continue"), "{head}");
        stream
            .write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .unwrap();
    });
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ hello: 'http://127.0.0.1:{port}' }}"
    ));
    let mut client = TcpStream::connect(local(attache.port)).unwrap();
    client
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\nexpect: 100-continue\r\n\r\n")
        .unwrap();
    let answer = read_head(&mut client);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    upstream.join().unwrap();
}

#[test]
fn an_http_1_0_client_s_expectation_is_ignored() {
    let (port, upstream) = serve_once(|stream| {
        let head = read_head(stream).to_lowercase();
        assert!(!head.contains("expect:"), "{head}");
        // The upstream never says that the body may be sent.
        let mut body = [0; 2];
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        stream.read_exact(&mut body).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
    });
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ hello: 'http://127.0.0.1:{port}' }}"
    ));
    let request = b"POST / HTTP/1.0\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\nab";
    let answer = raw(local(attache.port), request);
    assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with("ok"), "{answer}");
    upstream.join().unwrap();
}

#[test]
fn a_truncated_body_is_never_ended_cleanly() {
    for (head, body) in
        [("content-length: 1000\r\n", "only a part"), ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n")]
    {
        let (port, upstream) = serve_once(move |stream| {
            read_head(stream);
            stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n{body}").as_bytes()).unwrap();
        });
        let attache = Attache::start(&format!(
            "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ hello: 'http://127.0.0.1:{port}' }}"
        ));
        let output = curl([&attache.url("/")]);
        assert!(!output.status.success(), "curl took an incomplete body for a complete one: {head}");
        upstream.join().unwrap();
    }
}

#[test]
fn server_sent_events_are_passed_on_one_by_one() {
    let (port, upstream) = serve_once(|stream| {
        read_head(stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n").unwrap();
        // The second event is sent only after the client has confirmed the first: attache must not hold anything back.
        let mut go = [0];
        go_ahead(&mut go, stream);
        stream.write_all(b"data: 2\n\n").unwrap();
    });
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ hello: 'http://127.0.0.1:{port}' }}"
    ));
    let mut client = TcpStream::connect(local(attache.port)).unwrap();
    // The client's request body is chunked and still open; it carries the confirmation to the upstream.
    client
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while !seen.contains("data: 1") {
        let n = client.read(&mut buffer).unwrap();
        assert!(n > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    client.write_all(b"1\r\n!\r\n0\r\n\r\n").unwrap();
    client.read_to_string(&mut seen).unwrap();
    assert!(seen.contains("data: 2"), "{seen}");
    upstream.join().unwrap();
}

/// An upstream that serves one connection with `answer`.
fn serve_once(answer: impl FnOnce(&mut TcpStream) + Send + 'static) -> (u16, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        answer(&mut stream);
    });
    (port, thread)
}

/// Reads up to the end of a message's head.
fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn go_ahead(byte: &mut [u8; 1], stream: &mut TcpStream) {
    while byte[0] != b'!' {
        assert_eq!(stream.read(byte).unwrap(), 1);
    }
}

#[test]
fn an_idle_process_releases_the_code_that_only_its_start_needed() {
    let attache = Attache::start(
        "workers: 1\nlisteners: { outbound: { bind: '127.0.0.1:$PORT', routes: [ { match: { path: /* }, respond: { status: 200, body: fine } } ] } }",
    );
    let started = attache.process.resident_kib();
    eventually("a quarter is released", || attache.process.resident_kib() < started / 4 * 3);
    // Pages that are used again are mapped again.
    let mut client = TcpStream::connect(local(attache.port)).unwrap();
    client.write_all(b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("fine"), "{answer}");
}

#[test]
fn idle_connections_release_their_memory_and_still_serve() {
    const CLIENTS: u64 = 600;
    let attache = Attache::start(
        "workers: 1\nlisteners: { outbound: { bind: '127.0.0.1:$PORT', routes: [ { match: { path: /* }, respond: { status: 200, body: fine } } ] } }",
    );
    let ask = |client: &mut TcpStream, request: &[u8]| {
        let mut answer = [0; 1024];
        client.write_all(request).unwrap();
        let read = client.read(&mut answer).unwrap();
        assert!(answer[..read].ends_with(b"fine"), "{}", String::from_utf8_lossy(&answer[..read]));
    };
    const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
    let connect = || {
        let mut client = TcpStream::connect(local(attache.port)).unwrap();
        client.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        ask(&mut client, GET);
        client
    };
    // Costs that only the first connections cause must not be counted.
    drop((0..50).map(|_| connect()).collect::<Vec<_>>());
    let empty = attache.process.allocated_kib();
    let each = || attache.process.allocated_kib().saturating_sub(empty) as f64 / CLIENTS as f64;
    let mut clients: Vec<_> =
        (0..CLIENTS).map(|_| TcpStream::connect(local(attache.port)).unwrap()).collect();
    // The last connection is served, so all of them have been accepted.
    ask(&mut clients[CLIENTS as usize - 1], GET);
    let silent = each();
    assert!(silent < 2.5, "a silent connection takes {silent:.1} KiB");
    for client in &mut clients {
        client.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        ask(client, GET);
    }
    let full = each();
    eventually("idle connections are small", || each() < 3.0);
    println!(
        "a silent connection: {silent:.1} KiB; an idle one: {full:.1} KiB at first, {:.1} KiB later",
        each()
    );

    for client in &mut clients {
        ask(client, GET);
    }
    // They become idle again. One whose request then arrives in pieces, and two whose requests arrive in one piece, are answered too.
    eventually("and again", || each() < 3.0);
    let (begin, end) = GET.split_at(9);
    clients[0].write_all(begin).unwrap();
    thread::sleep(std::time::Duration::from_millis(50));
    ask(&mut clients[0], end);
    clients[1].write_all(GET).unwrap();
    ask(&mut clients[1], b"GET /b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    // The drain ends idle connections like all others.
    attache.process.signal("TERM");
    for client in &mut clients[2..] {
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
    }
}
