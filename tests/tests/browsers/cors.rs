//! Tests of CORS with the program itself.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    process::Command,
    thread,
};

use attache_tests::{Attache, binary, curl, eventually, free_port, local, nginx, text};

use super::ask;

const ASKS: &str = "Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: x-a\r\n";

#[test]
fn preflights_are_answered_before_authentication() {
    let port = free_port();
    let server = format!(
        "server {{ listen 127.0.0.1:{port}; add_header access-control-allow-origin '*' always; return 200 'app $request_method\\n'; }}"
    );
    let _app = nginx(&server, local(port));
    let attache = Attache::start(&format!(
        "access_log: {{ to: stdout, format: json }}
listeners:
  in:
    bind: 127.0.0.1:$PORT
    cors: {{ origins: ['https://shop.test', 'https://*.shop.test'], methods: [GET, PUT], headers: [x-a], expose: x-id, credentials: true, max_age: 10m }}
    authorization: {{ deny: [{{ name: all, headers: {{ x-token: '!let-me-in' }} }}] }}
    routes:
      - {{ name: own, match: {{ path: /public/* }}, to: app, cors: {{ origins: '*', methods: '*', headers: '*', private_network: true }}, rate_limit: 1/h }}
      - {{ match: {{ path: /off }}, to: app, cors: off }}
      - {{ name: rest, match: {{ path: /* }}, to: app }}
upstreams: {{ app: 'http://127.0.0.1:{port}' }}"
    ));
    let token = "X-Token: let-me-in\r\n";
    let (head, body) = ask(&attache, "OPTIONS /x", &format!("Origin: https://a.shop.test\r\n{ASKS}"));
    assert!(head.starts_with("http/1.1 200") && body.is_empty(), "{head}");
    for line in [
        "access-control-allow-origin: https://a.shop.test",
        "access-control-allow-methods: get, put",
        "access-control-allow-headers: x-a",
        "access-control-allow-credentials: true",
        "access-control-max-age: 600",
        "vary: origin",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
    // Foreign origins, in spellings that other parsers read differently.
    for origin in [
        "Origin: https://shop.test.evil\r\n",
        "Origin: http://shop.test\r\n",
        "Origin: https://evil#.shop.test\r\n",
        "Origin: https://SHOP.test\r\n",
        "Origin: null\r\n",
        "Origin: https://shop.test\r\nOrigin: https://evil\r\n",
        "Origin: https://shop.test, https://evil\r\n",
    ] {
        let (head, _) = ask(&attache, "OPTIONS /x", &format!("{origin}{ASKS}"));
        assert!(head.starts_with("http/1.1 200") && !head.contains("access-control"), "{origin}: {head}");
        let (head, body) = ask(&attache, "GET /x", &format!("{origin}{token}"));
        assert!(
            body.starts_with("app GET") && !head.contains("access-control"),
            "it passes: {origin}: {head}"
        );
        assert!(head.contains("vary: origin"), "{head}");
    }
    // A page can read why its request was refused.
    let (head, _) = ask(&attache, "GET /x", "Origin: https://shop.test\r\n");
    assert!(
        head.starts_with("http/1.1 403") && head.contains("access-control-allow-origin: https://shop.test"),
        "{head}"
    );
    assert!(head.contains("access-control-expose-headers: x-id"), "{head}");
    // A request that is not a preflight does not avoid the rules.
    for (line, headers) in [
        ("OPTIONS /x", "Origin: https://shop.test\r\n"),
        ("OPTIONS /x", ASKS),
        ("GET /x", &format!("Origin: https://shop.test\r\n{ASKS}")),
        ("options /x", &format!("Origin: https://shop.test\r\n{ASKS}")),
    ] {
        let (head, _) = ask(&attache, line, headers);
        assert!(head.starts_with("http/1.1 403"), "{line} {headers}: {head}");
    }
    // Routes have their own settings, limits count no preflight, and Private Network Access is requested.
    let private = format!("Origin: https://x.test\r\nAccess-Control-Request-Private-Network: true\r\n{ASKS}");
    for _ in 0..3 {
        let (head, _) = ask(&attache, "OPTIONS /public/a", &private);
        assert!(head.contains("allow-origin: *") && head.contains("allow-private-network: true"), "{head}");
        assert!(
            head.contains("access-control-allow-methods: put") && !head.contains("credentials"),
            "{head}"
        );
    }
    let (head, _) = ask(&attache, "GET /public/a", &format!("Origin: https://x.test\r\n{token}"));
    assert!(
        head.starts_with("http/1.1 200") && head.contains("allow-origin: *") && !head.contains("vary"),
        "{head}"
    );
    let (head, _) = ask(&attache, "GET /public/a", &format!("Origin: https://x.test\r\n{token}"));
    assert!(head.starts_with("http/1.1 429") && head.contains("allow-origin: *"), "{head}");
    let (head, body) = ask(&attache, "OPTIONS /off", &format!("Origin: https://shop.test\r\n{ASKS}{token}"));
    assert!(body.starts_with("app OPTIONS") && head.contains("allow-origin: *"), "the app's own: {head}");
    let h2 = curl([
        "-s",
        "--http2-prior-knowledge",
        "-X",
        "OPTIONS",
        "-H",
        "Origin: https://shop.test",
        "-H",
        "Access-Control-Request-Method: GET",
        "-D",
        "-",
        "-o",
        "/dev/null",
        &attache.url("/x"),
    ]);
    assert!(text(&h2).contains("access-control-allow-origin: https://shop.test"), "{}", text(&h2));
    let count = |outcome: &str| attache.metric("attache_cors_requests_total", &[&format!("\"{outcome}\"")]);
    eventually("the metrics count", || count("preflight-allowed") == 5.0);
    assert_eq!((count("preflight-foreign"), count("foreign"), count("allowed")), (7.0, 7.0, 6.0));
}

#[test]
fn an_upstream_permits_nothing_in_trailers_or_before_the_final_response() {
    let app = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = app.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in app.incoming().flatten() {
            let _ = stream.read(&mut [0; 2048]);
            let _ = stream.write_all(
                b"HTTP/1.1 103 Early Hints\r\nAccess-Control-Allow-Origin: *\r\nLink: </x>\r\n\r\n\
                  HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Access-Control-Allow-Origin, X-Sum\r\n\r\n\
                  2\r\nok\r\n0\r\nAccess-Control-Allow-Origin: https://evil.test\r\nX-Sum: 1\r\n\r\n",
            );
        }
    });
    let attache = Attache::start(&format!(
        "listeners: {{ in: {{ bind: '127.0.0.1:$PORT', cors: {{ origins: 'https://shop.test' }}, to: app }} }}
upstreams: {{ app: 'http://127.0.0.1:{port}' }}"
    ));
    let (head, body) = ask(&attache, "GET /", "Origin: https://evil.test\r\nTE: trailers\r\n");
    let all = format!("{head}{}", body.to_lowercase());
    assert!(all.contains("103") && all.contains("x-sum: 1"), "{all}");
    assert!(!all.contains("access-control-allow-origin: "), "{all}");
}

#[test]
fn explain_says_which_pages_may_read_and_check_refuses_settings_that_let_every_page_act() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.yaml");
    let run = |cors: &str, arguments: &[&str]| {
        std::fs::write(&file, format!("listeners: {{ in: {{ bind: '127.0.0.1:1', cors: {{ {cors} }}, to: app }} }}\nupstreams: {{ app: 'http://a:1' }}")).unwrap();
        let (first, rest) = arguments.split_first().unwrap();
        let output = Command::new(binary())
            .arg(first)
            .args(["--config".as_ref(), file.as_os_str()])
            .args(rest)
            .output()
            .unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    for origins in ["'*'", "['https://a.test', 'null']", "'~.*'", "'~https://.*'"] {
        let said = run(&format!("origins: {origins}, credentials: true"), &["check", "--without-files"]);
        assert!(said.contains("lets every page act as the user"), "{origins}: {said}");
    }
    let said = run("origins: 'https://*.a.test', credentials: true", &["check", "--without-files"]);
    assert!(!said.contains("error"), "{said}");
    let said = run("origins: '~https://.*.a.test'", &["check", "--without-files"]);
    assert!(said.contains("matches any character") && said.contains("`~https://.*\\.a\\.test`"), "{said}");
    let said =
        run("origins: 'https://a.test'", &["explain", "-H", "Origin: https://b.test", "GET", "http://app/"]);
    assert!(said.contains("pages of https://a.test may read the answer; this one isn't"), "{said}");
}
