//! Who may do what: rules and tokens in the program itself, for every way of access.

mod external;
mod named;
mod round;
mod tokens;
mod ways;

use std::{io::Write as _, net::TcpStream};

use attache_tests::{Attache, TestProcess, curl, eventually, free_port, local, nginx, raw, text};

fn app() -> (TestProcess, u16) {
    let port = free_port();
    let server = format!(
        "server {{ listen 127.0.0.1:{port}; return 200 'uri=$request_uri user=$http_x_user token=$http_authorization\\n'; }}"
    );
    (nginx(&server, local(port)), port)
}

fn start(listener: &str, rest: &str, port: u16) -> Attache {
    let listener = listener.replace('\n', "\n    ");
    Attache::start(&format!(
        "access_log: {{ to: stdout, format: json }}
listeners:
  in:
    bind: 127.0.0.1:$PORT
    {listener}
{rest}
upstreams:
  app: 'http://127.0.0.1:{port}'
  bytes: 'tcp://127.0.0.1:{port}'
"
    ))
}

fn ask(attache: &Attache, line: &str, headers: &str) -> String {
    let host = if headers.to_lowercase().contains("host:") { "" } else { "Host: app\r\n" };
    raw(
        local(attache.port),
        format!("{line} HTTP/1.1\r\n{host}Connection: close\r\n{headers}\r\n").as_bytes(),
    )
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// The status of the answer to a GET by HTTP/2, with more arguments of curl.
fn http2_status(url: &str, arguments: &[&str]) -> String {
    let fixed = ["-s", "--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_code}"];
    text(&curl(fixed.iter().chain(arguments).chain([&url])))
}

#[test]
fn a_refused_request_reaches_no_upstream_and_its_answer_names_no_rule() {
    let (_app, port) = app();
    let attache = start(
        "to: app
authorization:
  deny: [{ name: no-admin, path: /admin/* }]
  allow: [{ name: reads, methods: [GET, HEAD], client: 127.0.0.0/8 }]",
        "",
        port,
    );
    assert_eq!(status(&ask(&attache, "GET /orders", "")), 200);
    for (line, headers) in [
        ("GET /admin/x", ""),
        ("GET /ADMIN/x", ""),
        ("GET /x/..%2Fadmin", ""),
        ("GET //admin/x", ""),
        ("GET http://app/admin", ""),
        ("POST /orders", "Content-Length: 0\r\n"),
        ("get /orders", ""),
        ("GET /orders", "X-HTTP-Method-Override: DELETE\r\n"),
        ("OPTIONS *", ""),
    ] {
        let answer = ask(&attache, line, headers);
        assert_eq!(status(&answer), 403, "{line}: {answer}");
        assert!(answer.contains("x-attache-reason: denied-by-rule"), "{answer}");
        assert!(!answer.contains("no-admin") && !answer.contains("reads"), "{answer}");
    }
    let tunnel = ask(&attache, "CONNECT app:80", "Host: app:80\r\n");
    assert_ne!(status(&tunnel), 200, "{tunnel}");
    eventually("the log names the rule", || attache.process.output().contains("denied by rule `no-admin`"));
    assert!(attache.metric("attache_authorization_total", &["no-admin", "denied"]) >= 4.0);
    assert_eq!(attache.metric("attache_authorization_total", &["reads", "allowed"]), 1.0);
    assert_eq!(http2_status(&attache.url("/admin/y"), &[]), "403");
}

#[test]
fn routes_add_rules_of_their_own_and_a_dry_run_only_logs() {
    let (_app, port) = app();
    let attache = start(
        "authorization: { deny: [{ name: nobody, client: 10.0.0.0/8 }] }
routes:
  - { name: closed, match: { path: /closed/* }, to: app, authorization: { allow: [] } }
  - { name: answer, match: { path: /answer }, respond: 204, authorization: { allow: [] } }
  - { name: tried, match: { path: /tried }, to: app, authorization: { dry_run: true, allow: [] } }
to: app",
        "",
        port,
    );
    assert_eq!(status(&ask(&attache, "GET /open", "")), 200);
    assert_eq!(status(&ask(&attache, "GET /closed/x", "")), 403);
    assert_eq!(status(&ask(&attache, "GET /answer", "")), 403);
    assert_eq!(status(&ask(&attache, "GET /tried", "")), 200);
    assert_eq!(attache.metric("attache_authorization_total", &["tried", "would-deny"]), 1.0);
    eventually("the log has the result", || attache.process.output().contains("would be denied"));
}

#[test]
fn opaque_bytes_avoid_no_rule() {
    let (_app, port) = app();
    let ask = |rules: &str| {
        let attache = start(&format!("protocol: tcp\nto: bytes\nauthorization: {{ {rules} }}"), "", port);
        let mut stream = TcpStream::connect(local(attache.port)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        let _ = std::io::Read::read_to_string(&mut stream, &mut answer);
        (answer.contains("uri=/"), attache)
    };
    assert!(ask("allow: [{ client: 127.0.0.1 }]").0);
    let (passed, attache) = ask("deny: [{ name: no-admin, path: /admin }]");
    assert!(!passed);
    // The client may see the end of the connection a moment before it is counted.
    eventually("the refused connection is counted", || {
        attache.metric("attache_requests_total", &["denied-by-rule"]) == 1.0
    });
    assert!(!ask("allow: [{ client: 10.0.0.0/8 }]").0);
    assert!(!ask("allow: [{ methods: GET }]").0);
}
