//! HTTP/2, gRPC, WebSocket and opaque TCP through the proxy, each with other people's clients and servers.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

use attache_tests::{Attache, curl, free_port, local, nginx, redis, script, script_server, text};

#[test]
fn an_http2_client_reaches_an_http1_upstream_and_the_other_way_round() {
    let (one, two) = (free_port(), free_port());
    let _one = nginx(
        &format!("server {{ listen 127.0.0.1:{one}; return 200 'one $server_protocol'; }}"),
        local(one),
    );
    let _two = nginx(
        &format!("server {{ listen 127.0.0.1:{two} http2; return 200 'two $server_protocol'; }}"),
        local(two),
    );
    let attache = Attache::start(&format!(
        "listeners:
  outbound:
    bind: 127.0.0.1:$PORT
    routes:
      - {{ match: {{ path: /one/* }}, to: one }}
      - {{ match: {{ path: /two/* }}, to: two }}
upstreams:
  one: http://127.0.0.1:{one}
  two: h2c://127.0.0.1:{two}"
    ));
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        assert_eq!(text(&curl([version, &attache.url("/one/")])), "one HTTP/1.1", "{version}");
        assert_eq!(text(&curl([version, &attache.url("/two/")])), "two HTTP/2.0", "{version}");
    }
}

#[test]
fn many_concurrent_streams_are_all_answered() {
    let port = free_port();
    let _server = nginx(&format!("server {{ listen 127.0.0.1:{port}; return 200 'ok'; }}"), local(port));
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ a: 'http://127.0.0.1:{port}' }}"
    ));
    let output = Command::new("h2load")
        .args(["-n", "20000", "-c", "8", "-m", "50", &attache.url("/")])
        .output()
        .unwrap();
    let report = text(&output);
    assert!(report.contains("20000 succeeded, 0 failed, 0 errored, 0 timeout"), "{report}");
}

#[test]
fn grpc_with_streams_deadlines_and_cancellation() {
    let port = free_port();
    let _server = script_server("grpc_server.py", local(port), &[]);
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ echo: 'http://127.0.0.1:{port}' }}"
    ));
    let report = text(&script("grpc_client.py", &[&format!("127.0.0.1:{}", attache.port), "echo.internal"]));
    assert!(report.contains("ok"), "{report}");
}

#[test]
fn a_grpc_call_that_has_no_upstream_gets_a_grpc_status() {
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ gone: 'http://127.0.0.1:{}' }}",
        free_port()
    ));
    let answer = text(&curl([
        "--http2-prior-knowledge",
        "-i",
        "-X",
        "POST",
        "-H",
        "content-type: application/grpc",
        &attache.url("/test.Echo/Unary"),
    ]));
    assert!(answer.starts_with("HTTP/2 200") && answer.contains("grpc-status: 14"), "{answer}");
    assert!(answer.contains("x-attache-reason: connect-refused"), "{answer}");
}

#[test]
fn a_websocket_echoes_through_the_proxy() {
    let port = free_port();
    let _server = script_server("ws_server.py", local(port), &[]);
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ echo: 'http://127.0.0.1:{port}' }}"
    ));
    let report = text(&script("ws_client.py", &[&format!("ws://127.0.0.1:{}/", attache.port)]));
    assert!(report.contains("101 messages echoed"), "{report}");
}

#[test]
fn a_websocket_crosses_an_http2_hop() {
    let port = free_port();
    let _server = script_server("ws_server.py", local(port), &[]);
    // Two proxies: HTTP/1.1 upgrade -> extended CONNECT over HTTP/2 -> HTTP/1.1 upgrade.
    let near_the_server = Attache::start(&format!(
        "listeners: {{ inbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ echo: 'http://127.0.0.1:{port}' }}"
    ));
    let near_the_client = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ peer: 'h2c://127.0.0.1:{}' }}",
        near_the_server.port
    ));
    let report = text(&script("ws_client.py", &[&format!("ws://127.0.0.1:{}/", near_the_client.port)]));
    assert!(report.contains("101 messages echoed"), "{report}");
}

/// Autobahn's cases, by the client that sends them: one proxy, and two with HTTP/2 between them.
#[test]
fn autobahn_s_cases_have_the_same_results_as_without_a_proxy() {
    let port = free_port();
    let near_the_server = Attache::start(&format!(
        "listeners: {{ inbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ echo: 'http://127.0.0.1:{port}' }}"
    ));
    let near_the_client = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ peer: 'h2c://127.0.0.1:{}' }}",
        near_the_server.port
    ));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = || {
        let output = Command::new(folder.join("../target/judges-autobahn/bin/python"))
            .arg(folder.join("scripts/autobahn_cases.py"))
            .args(["quick", &port.to_string()])
            .arg(format!("one={}", near_the_server.port))
            .arg(format!("two={}", near_the_client.port))
            .output()
            .expect("Autobahn's cases (run `cargo xtask setup`)");
        let results: serde_json::Value = serde_json::from_str(&text(&output)).expect("results");
        let direct = results["direct"].as_object().expect("results").clone();
        assert_eq!(direct.len(), 247);
        let different = |name: &str| {
            direct
                .iter()
                .filter(|(case, result)| results[name][*case] != **result)
                .map(|(case, _)| format!("{name} {case}"))
                .collect::<Vec<_>>()
        };
        [different("one"), different("two")].concat()
    };
    // A case has limits of time, so one that differs on a busy machine has a second try.
    let different = run();
    if !different.is_empty() {
        let again = run();
        let both: Vec<_> = different.iter().filter(|case| again.contains(case)).collect();
        assert!(both.is_empty(), "{both:?}");
    }
}

#[test]
fn a_redis_client_works_over_tcp_with_and_without_detection() {
    let port = free_port();
    let _server = redis(local(port));
    for protocol in ["tcp", "auto"] {
        let attache = Attache::start(&format!(
            "listeners: {{ cache: {{ bind: '127.0.0.1:$PORT', protocol: {protocol} }} }}\nupstreams: {{ cache: 'tcp://127.0.0.1:{port}' }}"
        ));
        let redis_cli = |arguments: &[&str]| {
            let output = Command::new("redis-cli")
                .args(["-p", &attache.port.to_string()])
                .args(arguments)
                .output()
                .unwrap();
            text(&output).trim().to_owned()
        };
        assert_eq!(redis_cli(&["set", "colour", "green"]), "OK");
        assert_eq!(redis_cli(&["get", "colour"]), "green");
        let large = "x".repeat(100_000);
        assert_eq!(redis_cli(&["set", "large", &large]), "OK");
        assert_eq!(redis_cli(&["get", "large"]), large);
    }
}

#[test]
fn bulk_over_tcp_arrives_completely_by_splice_or_copied() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let bytes: Vec<u8> = (0..48_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 21) as u8).collect();
    std::fs::write(dir.path().join("bulk"), &bytes).unwrap();
    // nginx's workers run as another user.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let root = dir.path().display();
    let _server =
        nginx(&format!("server {{ listen 127.0.0.1:{port}; location / {{ root {root}; }} }}"), local(port));
    for splice in [true, false] {
        let attache = Attache::start(&format!(
            "listeners: {{ out: {{ bind: '127.0.0.1:$PORT', protocol: tcp, tcp_splice: {splice} }} }}\nupstreams: {{ web: 'tcp://127.0.0.1:{port}' }}"
        ));
        // One or two pipes are kept for the next transfer; they show that the kernel moved the bytes.
        let pipes = || {
            let all = std::fs::read_dir(format!("/proc/{}/fd", attache.process.id())).unwrap();
            let links = all.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
            links.filter(|link| link.to_string_lossy().starts_with("pipe:")).count()
        };
        let before = pipes();
        let answer = curl([format!("http://127.0.0.1:{}/bulk", attache.port)]);
        assert!(answer.stdout == bytes, "splice {splice}: {} bytes came", answer.stdout.len());
        assert_eq!(pipes() > before, splice, "splice {splice}");
    }
}

#[test]
fn tls_is_passed_through_and_routed_by_server_name() {
    let (a, b) = (free_port(), free_port());
    let dir = tempfile::tempdir().unwrap();
    let mut servers = Vec::new();
    for (name, port) in [("a.test", a), ("b.test", b)] {
        let certified = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let path = |suffix: &str| dir.path().join(format!("{name}.{suffix}"));
        std::fs::write(path("crt"), certified.cert.pem()).unwrap();
        std::fs::write(path("key"), certified.signing_key.serialize_pem()).unwrap();
        servers.push(nginx(
            &format!(
                "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {}; ssl_certificate_key {}; return 200 'I am {name}'; }}",
                path("crt").display(),
                path("key").display()
            ),
            local(port),
        ));
    }
    let attache = Attache::start(&format!(
        "listeners:
  outbound:
    bind: 127.0.0.1:$PORT
    routes:
      - {{ match: {{ sni: a.test }}, to: a }}
      - {{ match: {{ sni: '*.test' }}, to: b }}
upstreams:
  a: tcp://127.0.0.1:{a}
  b: tcp://127.0.0.1:{b}"
    ));
    for name in ["a.test", "b.test"] {
        let answer = text(&curl([
            "--cacert",
            &dir.path().join(format!("{name}.crt")).display().to_string(),
            "--resolve",
            &format!("{name}:{}:127.0.0.1", attache.port),
            &format!("https://{name}:{}/", attache.port),
        ]));
        assert_eq!(answer, format!("I am {name}"));
    }
    let refused = curl([
        "-k",
        "--resolve",
        &format!("c.other:{0}:127.0.0.1", attache.port),
        &format!("https://c.other:{}/", attache.port),
    ]);
    assert!(!refused.status.success(), "a name without a route must not be connected");
}
