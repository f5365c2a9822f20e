//! Another service decides about requests: what it is told, what its answers change, and every way to avoid it. The service is grpcio's,
//! and Python's own HTTP server.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::mpsc::{self, Receiver},
    thread,
};

use attache_tests::{Attache, TestProcess, binary, eventually, free_port, local, nginx, raw, script_server};
use serde_json::Value;

use super::{ask, http2_status, status};

/// Reports what reached it. nginx knows the contents of `$request_body` only if it sends the body on.
fn app() -> (TestProcess, u16) {
    let (port, inner) = (free_port(), free_port());
    let fields = "uri=$request_uri user=$http_x_user, debug=$http_x_debug, listed=$http_x_not_listed, length=$http_content_length, body=$http_x_body, host=$http_x_host";
    let server = format!(
        "server {{ listen 127.0.0.1:{port}; location / {{
            proxy_set_header x-body $request_body; proxy_set_header x-host $http_host;
            proxy_pass http://127.0.0.1:{inner}; }} }}
         server {{ listen 127.0.0.1:{inner}; return 200 '{fields}\\n'; }}"
    );
    (nginx(&server, local(port)), port)
}

struct AuthorizerProcess {
    process: TestProcess,
    grpc: SocketAddr,
    http: SocketAddr,
}

impl AuthorizerProcess {
    fn start() -> Self {
        let (grpc, http) = (local(free_port()), local(free_port()));
        let process = script_server("authorizer.py", grpc, &[&http.port().to_string()]);
        Self { process, grpc, http }
    }

    /// What the authorizer was asked about this path.
    fn told(&self, path: &str) -> Vec<Value> {
        let output = self.process.output();
        let lines = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["path"].as_str().is_some_and(|it| it.starts_with(path))).collect()
    }
}

fn start(service: &AuthorizerProcess, authorizer: &str, listener: &str, app: u16) -> Attache {
    let listener = listener.replace('\n', "\n    ");
    Attache::start(&format!(
        "access_log: {{ to: stdout, format: json }}
listeners:
  in:
    bind: 127.0.0.1:$PORT
    {listener}
authorizers:
  grpc: {{ service: grpc, timeout: 2s, upstream_headers: [x-user], {authorizer} }}
  http: {{ service: http, protocol: http, path_prefix: /check, timeout: 2s, upstream_headers: x-user, response_headers: set-cookie, {authorizer} }}
upstreams:
  app: 'http://127.0.0.1:{app}'
  bytes: 'tcp://127.0.0.1:{app}'
  grpc: 'h2c://{}'
  http: 'http://{}'
",
        service.grpc, service.http
    ))
}

const BY_GRPC: &str = "authorization: { external: grpc }\nto: app";

#[test]
fn a_denial_has_the_service_s_answer_and_reaches_no_upstream() {
    let (_app, port) = app();
    let service = AuthorizerProcess::start();
    let attache = start(&service, "denial_headers: [www-authenticate, set-cookie]", BY_GRPC, port);
    let denied = ask(&attache, "GET /denied?q=1", "X-A: 1\r\nx-a: 2\r\nContent-Length: 0\r\n").to_lowercase();
    assert!(denied.starts_with("http/1.1 401"), "{denied}\n{}", service.process.output());
    for line in [
        "www-authenticate: negotiate",
        "set-cookie: a=1",
        "set-cookie: b=2",
        "x-attache-reason: denied-by-authorizer",
        "\r\n\r\nwho are you?\n",
    ] {
        assert!(denied.contains(line), "{line}: {denied}");
    }
    assert!(!denied.contains("x-hidden") && !denied.contains("uri="), "{denied}");
    let told = &service.told("/denied")[0];
    assert_eq!(
        (&told["method"], &told["path"], &told["source"]),
        (&"GET".into(), &"/denied?q=1".into(), &"127.0.0.1".into())
    );
    assert_eq!(told["headers"]["x-a"], "1,2", "{told}");
    assert_eq!(told["port"], u64::from(attache.port));
    assert_eq!(status(&ask(&attache, "GET /bare", "")), 403);
    let login = ask(&attache, "GET /login", "");
    assert!(status(&login) == 302 && !login.contains("location"), "it isn't listed: {login}");
    let head = ask(&attache, "HEAD /denied", "").to_lowercase();
    assert!(
        head.starts_with("http/1.1 401") && head.contains("content-length: 13") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    // Also over HTTP/2, and in gRPC's own form.
    assert_eq!(http2_status(&attache.url("/denied"), &[]), "401");
    let grpc = ask(&attache, "POST /denied", "Content-Type: application/grpc\r\nContent-Length: 0\r\n")
        .to_lowercase();
    assert!(grpc.starts_with("http/1.1 200") && grpc.contains("grpc-status: 16"), "{grpc}");
    assert!(grpc.contains("grpc-message: who are you?"), "{grpc}");
    eventually("the log says why", || {
        attache.process.output().contains("authorizer grpc denies the request: the policy says no")
    });
    assert_eq!(attache.metric("attache_authorizer_total", &["grpc", "denied"]), 6.0);
    assert_eq!(attache.metric("attache_requests_total", &["denied-by-authorizer"]), 6.0);
}

#[test]
fn an_answer_changes_what_it_may_and_fields_that_a_client_sends_in_its_name_are_removed() {
    let (_app, port) = app();
    let service = AuthorizerProcess::start();
    let attache = start(&service, "", BY_GRPC, port);
    let spoofed = "X-User: root\r\nX_User: root\r\nX-Debug: 1\r\nx_debug: 1\r\n";
    let answer =
        ask(&attache, "POST /user?ro%6ce=x&a=1&role=y", &format!("{spoofed}Content-Length: 3\r\n\r\nabc"));
    assert!(answer.contains("uri=/user?a=1&team=a%26b user=ann, debug=, listed=, length="), "{answer}");
    assert!(answer.contains("body=abc, host=app"), "{answer}");
    assert!(answer.contains("x-checked: yes"), "{answer}");
    let plain = ask(&attache, "GET /plain", spoofed);
    assert!(plain.contains("uri=/plain user=, "), "{plain}");
    assert_eq!(status(&ask(&attache, "GET /split", "")), 503, "no answer can be split");
    // Trailers are fields too.
    let chunked = "Transfer-Encoding: chunked\r\nTrailer: x-user\r\n\r\n3\r\nabc\r\n0\r\nX-User: root\r\n";
    let answer = ask(&attache, "POST /trailers", chunked);
    assert!(answer.contains("user=, ") && answer.contains("body=abc"), "{answer}");
    // A trailer must not bring back a field that the authorizer removes. In HTTP/2, trailers follow the body unchanged.
    let (seen, echo) = echo_of_trailers();
    let attache = start(&service, "", BY_GRPC, echo);
    for name in ["x-debug", "X_Debug", "X-Kept"] {
        let chunked =
            format!("Transfer-Encoding: chunked\r\nTrailer: {name}\r\n\r\n3\r\nabc\r\n0\r\n{name}: 1\r\n");
        assert_eq!(status(&ask(&attache, "POST /user", &chunked)), 200);
        let told = seen.recv().unwrap();
        assert!(!told.contains("debug"), "{name}: {told}");
        assert_eq!(told.ends_with("x-kept: 1\r\n\r\n"), name == "X-Kept", "{name}: {told}");
    }
}

/// An application that reports what came after the last chunk.
fn echo_of_trailers() -> (Receiver<String>, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, seen) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut all, mut space) = (String::new(), [0; 4096]);
            // The end of the chunked body: its trailers end with an empty line.
            while !all
                .split_once("\r\n0\r\n")
                .is_some_and(|(_, rest)| format!("\r\n{rest}").ends_with("\r\n\r\n"))
            {
                match stream.read(&mut space) {
                    Ok(read @ 1..) => all.push_str(&String::from_utf8_lossy(&space[..read])),
                    _ => break,
                }
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let behind = all.split_once("\r\n0\r\n").map_or("", |(_, rest)| rest);
            let _ = tell.send(behind.to_lowercase());
        }
    });
    (seen, port)
}

#[test]
fn no_path_leaves_the_prefix_of_an_authorizer() {
    let (_app, port) = app();
    let service = AuthorizerProcess::start();
    // The service's own page `/health` answers 200 to everybody.
    let attache = start(&service, "", "authorization: { external: http }\nto: app", port);
    assert_eq!(status(&ask(&attache, "GET /denied", "")), 401);
    assert_eq!(status(&ask(&attache, "GET /x/..%2Fdenied/%20", "")), 200, "it stays below the prefix");
    for path in ["/..%2Fhealth", "/x/..%2f..%2fhealth", "/..%252fhealth", "/..%5Chealth"] {
        let answer = ask(&attache, &format!("GET {path}"), "");
        assert!(status(&answer) == 403 && answer.contains("denied-by-authorizer"), "{path}: {answer}");
    }
    assert!(!service.process.output().contains("health"), "{}", service.process.output());
    // A client must not send anything in attache's name.
    ask(&attache, "GET /named", "X_Attache_Context_Area: public\r\nX_Envoy_Auth_Partial_Body: false\r\n");
    let told = &service.told("/check/named")[0];
    assert!(!told.to_string().contains("public") && !told.to_string().contains("partial"), "{told}");
}

#[test]
fn a_denial_has_a_body_only_if_its_status_allows_one() {
    let (_app, port) = app();
    let service = AuthorizerProcess::start();
    let attache = start(&service, "denial_headers: ['*']", BY_GRPC, port);
    for code in [204, 205, 304] {
        // Two requests on one connection: a body that the client doesn't expect would be read as the second response.
        let both = format!(
            "GET /status/{code} HTTP/1.1\r\nHost: app\r\n\r\nGET /plain HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"
        );
        let answers = raw(local(attache.port), both.as_bytes());
        let (first, second) = answers.split_once("\r\n\r\n").unwrap();
        assert!(first.starts_with(&format!("HTTP/1.1 {code} ")), "{code}: {answers}");
        assert!(second.starts_with("HTTP/1.1 200 "), "{code}: {answers}");
        let head = first.to_lowercase();
        assert!(!head.contains("transfer-encoding") && !head.contains("x-framing"), "{code}: {answers}");
    }
    for code in [0, 99, 101, 199, 600, 999, 70_000, -1] {
        let answer = ask(&attache, &format!("GET /status/{code}"), "");
        assert_eq!(status(&answer), 403, "{code}: {answer}");
    }
    // The answer must not be larger than expected, and must not be endless.
    for path in ["/huge", "/many"] {
        let answer = ask(&attache, &format!("GET {path}"), "");
        assert!(status(&answer) == 503 && answer.contains("authorizer-unavailable"), "{path}: {answer}");
    }
}

#[test]
fn without_an_answer_no_request_is_allowed_unless_the_config_says_so() {
    let (_app, port) = app();
    let mut service = AuthorizerProcess::start();
    let closed = start(&service, "", BY_GRPC, port);
    let open = start(&service, "failure_mode: open", BY_GRPC, port);
    for path in ["/fail", "/slow", "/split"] {
        let answer = ask(&closed, &format!("GET {path}"), "");
        assert!(
            status(&answer) == 503 && answer.contains("x-attache-reason: authorizer-unavailable"),
            "{path}: {answer}"
        );
        assert!(!answer.contains("127.0.0.1") && !answer.contains("not today"), "{answer}");
        let answer = ask(&open, &format!("GET {path}"), "X-User: root\r\n");
        assert!(answer.contains(&format!("uri={path} user=, ")), "{path}: {answer}");
    }
    service.process.signal("KILL");
    service.process.wait();
    assert_eq!(status(&ask(&closed, "GET /user", "")), 503);
    assert_eq!(status(&ask(&open, "GET /user", "")), 200);
    assert_eq!(closed.metric("attache_authorizer_total", &["grpc", "failed"]), 4.0);
    assert_eq!(open.metric("attache_authorizer_total", &["grpc", "failed-open"]), 4.0);
    eventually("the log says why", || closed.process.output().contains("grpc-status 14"));
}

#[test]
fn routes_may_use_another_authorizer_or_none_and_a_dry_run_only_logs() {
    let (_app, port) = app();
    let service = AuthorizerProcess::start();
    let attache = start(
        &service,
        "body: { max: 8B }",
        "authorization: { external: grpc, deny: [{ path: /never }] }
routes:
  - { match: { path: /bare }, to: app, authorization: { external: off } }
  - { match: { path: /denied }, to: app, authorization: { external: { authorizer: grpc, context: { tier: gold } } } }
  - { match: { path: /login }, to: app, authorization: { external: http } }
  - { match: { path: /answer }, respond: 204 }
  - { match: { path: /long }, to: app, authorization: { external: { authorizer: grpc, body: false } } }
  - { match: { path: /fail }, to: app, authorization: { dry_run: true, external: grpc } }
to: app",
        port,
    );
    assert_eq!(status(&ask(&attache, "GET /bare", "")), 200);
    assert_eq!(status(&ask(&attache, "GET /denied", "")), 401);
    assert_eq!(service.told("/denied")[0]["context"]["tier"], "gold");
    let login = ask(&attache, "GET /login", "");
    assert!(status(&login) == 302 && login.contains("location: https://id.test/"), "{login}");
    assert_eq!(status(&ask(&attache, "GET /answer", "")), 204);
    assert_eq!(
        service.told("/answer").len(),
        1,
        "the authorizer is also asked about requests that attache answers itself"
    );
    assert_eq!(status(&ask(&attache, "GET /nowhere", "Host: app\r\n")), 200);
    assert_eq!(status(&ask(&attache, "GET /never", "")), 403);
    assert!(service.told("/never").is_empty(), "the rules come first");
    assert_eq!(status(&ask(&attache, "GET /fail", "")), 200, "a dry run");
    assert_eq!(attache.metric("attache_authorization_total", &["would-deny"]), 1.0);
    let body = |path: &str, body: &str| {
        ask(&attache, &format!("POST {path}"), &format!("Content-Length: {}\r\n\r\n{body}", body.len()))
    };
    assert!(body("/p", "12345678").contains("body=12345678"));
    assert_eq!(service.told("/p")[0]["body"], "12345678");
    let long = body("/p", "123456789");
    assert!(status(&long) == 413 && long.contains("x-attache-reason: body-too-large"), "{long}");
    let chunked = "Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n5\r\n67890\r\n0\r\n";
    assert_eq!(status(&ask(&attache, "POST /p", chunked)), 413);
    assert!(body("/long", "123456789").contains("body=123456789"));
    assert_eq!(service.told("/long")[0]["body"], "");
}

#[test]
fn the_authorizer_gets_a_part_of_the_body_and_the_upstream_all_of_it() {
    let (_app, port) = app();
    let service = AuthorizerProcess::start();
    let attache = start(&service, "body: { max: 4B, partial: true }", BY_GRPC, port);
    let chunked = "X-Envoy-Auth-Partial-Body: false\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n123\r\n5\r\n45678\r\n0\r\n";
    assert!(ask(&attache, "POST /part", chunked).contains("body=12345678"));
    let told = &service.told("/part")[0];
    assert_eq!(
        (&told["body"], &told["headers"]["x-envoy-auth-partial-body"]),
        (&"1234".into(), &"true".into())
    );
    assert!(ask(&attache, "POST /whole", "Content-Length: 4\r\n\r\nabcd").contains("body=abcd"));
    let told = &service.told("/whole")[0];
    assert_eq!(
        (&told["body"], &told["headers"]["x-envoy-auth-partial-body"]),
        (&"abcd".into(), &"false".into())
    );
}

#[test]
fn by_http_the_head_is_sent_and_only_200_allows_the_request() {
    let (_app, port) = app();
    let service = AuthorizerProcess::start();
    let attache = start(
        &service,
        "request_headers: [x-a, 'x-t-*', x-attache-context-tier]",
        "authorization: { external: { authorizer: http, context: { Team: core } } }\nto: app",
        port,
    );
    let answer = ask(
        &attache,
        "POST /x?q=1",
        "X-User: root\r\nX-A: 1\r\nX-T-B: 2\r\nX-Secret: 3\r\nX-Attache-Context-Tier: gold\r\nContent-Length: 3\r\n\r\nabc",
    );
    assert!(answer.contains("uri=/x?q=1 user=ann, ") && answer.contains("body=abc"), "{answer}");
    assert!(answer.contains("set-cookie: seen=1") && answer.contains("listed=,"), "{answer}");
    let told = &service.told("/check/x")[0];
    assert_eq!(
        (&told["method"], &told["path"], &told["body"]),
        (&"POST".into(), &"/check/x?q=1".into(), &"".into())
    );
    let headers = &told["headers"];
    assert_eq!(
        (&headers["host"], &headers["x-a"], &headers["x-t-b"]),
        (&"app".into(), &"1".into(), &"2".into())
    );
    assert_eq!(headers["x-attache-context-team"], "core");
    assert!(headers["x-secret"].is_null() && headers["x-attache-context-tier"].is_null(), "{headers}");
    let denied = ask(&attache, "GET /denied", "");
    assert!(
        status(&denied) == 401 && denied.contains("x-hidden: 1") && denied.ends_with("who are you?\n"),
        "{denied}"
    );
    assert_eq!(status(&ask(&attache, "GET /created", "")), 201);
    let failed = ask(&attache, "GET /fail", "");
    assert!(status(&failed) == 503 && failed.contains("authorizer-unavailable"), "{failed}");
    assert_eq!(status(&ask(&attache, "OPTIONS *", "")), 403, "it has no path that could be asked about");
}

#[test]
fn no_protocol_avoids_the_authorizer() {
    let (_app, port) = app();
    let service = AuthorizerProcess::start();
    let tunnels = |authorizer: &str| {
        let listener = format!(
            "authorization: {{ external: {authorizer} }}\nroutes: [{{ match: {{ methods: CONNECT }}, to: app }}]\nto: app"
        );
        let attache = start(&service, "", &listener, port);
        let connect = raw(local(attache.port), b"CONNECT app:80 HTTP/1.1\r\nHost: app:80\r\n\r\nGET /in HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let upgrade = ask(&attache, "GET /denied", "Upgrade: websocket\r\nConnection: upgrade\r\n");
        assert_eq!(status(&upgrade), 401);
        connect
    };
    assert!(tunnels("grpc").contains("uri=/in"));
    let output = service.process.output();
    assert!(output.contains(r#""method": "CONNECT""#), "{output}");
    // What follows a refused CONNECT is a request of its own, and the authorizer is asked about it too.
    let by_http = tunnels("http");
    assert_eq!(status(&by_http), 403, "{by_http}");
    assert_eq!(service.told("/check/in").len(), 1);

    let opaque = |authorizer: &str, killed: bool| {
        let mut service = AuthorizerProcess::start();
        let attache = start(
            &service,
            "",
            &format!("protocol: tcp\nto: bytes\nauthorization: {{ external: {authorizer} }}"),
            port,
        );
        if killed {
            service.process.signal("KILL");
            service.process.wait();
        }
        let mut stream = TcpStream::connect(local(attache.port)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        (answer.contains("uri=/"), service.process.output())
    };
    let (passed, told) = opaque("grpc", false);
    assert!(passed && told.contains(r#""opaque": true"#), "{told}");
    assert!(!opaque("grpc", true).0);
}

#[test]
fn an_http_authorizer_is_refused_on_a_listener_for_opaque_connections_only() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.yaml");
    let config = "listeners: { in: { bind: '127.0.0.1:1', protocol: tcp, to: bytes, authorization: { external: http } } }
authorizers: { http: { service: service, protocol: http } }
upstreams: { bytes: 'tcp://127.0.0.1:2', service: 'http://127.0.0.1:3' }";
    fs::write(&file, config).unwrap();
    let checked = Command::new(binary()).args(["check", "--config"]).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(!checked.status.success() && said.contains("it would refuse every connection"), "{said}");
}
