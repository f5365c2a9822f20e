//! HTTP/2 and gRPC as other people's clients and servers speak them: grpc-go, grpc-js and grpcio with every default of theirs, h2spec, and the official
//! interoperability cases of gRPC.
//!
//! What is here runs in about a minute. `cargo xtask conformance` runs each pattern for a minute, and the ignored tests.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use attache_tests::{Attache, Process, free_port, local};

/// Seconds that each pattern runs: `ATTACHE_JUDGE_SECONDS`.
fn seconds() -> String {
    std::env::var("ATTACHE_JUDGE_SECONDS").unwrap_or_else(|_| "2".to_owned())
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn tool(name: &str) -> Command {
    Command::new(here("../target/judges").join(name))
}

/// A client and server of one language.
fn judge(language: &str) -> Command {
    match language {
        "go" => tool("judges"),
        "js" => {
            let mut node = Command::new("node");
            node.arg(here("judges/node/judge.js"))
                .env("NODE_PATH", here("../target/judges-node/node_modules"));
            node
        }
        _ => {
            let mut python = Command::new(here("../target/judges-python/bin/python"));
            python.arg(here("judges/python/judge.py")).env("PYTHONDONTWRITEBYTECODE", "1");
            python
        }
    }
}

fn serve(mut command: Command, arguments: &[&str], port: u16) -> Process {
    let mut server =
        Process::start(command.args(arguments), tempfile::tempdir().expect("a folder for its output"));
    server.wait_for(local(port));
    server
}

/// attache before a server that speaks HTTP/2 without TLS, with every default but the deadlines.
fn before(port: u16) -> Attache {
    Attache::start(&format!(
        // One worker, and so one pool: the test counts its connections.
        "workers: 1
access_log: {{ to: stdout, filter: {{ errors: true }} }}
listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT', to: judge }} }}
upstreams: {{ judge: {{ address: 'h2c://127.0.0.1:{port}', timeout: off, idle_timeout: off }} }}"
    ))
}

/// Runs every pattern with clients of one language and a server of another, each client beside the others.
fn patterns(client: &'static str, server: &'static str) {
    let port = free_port();
    let _server = serve(judge(server), &["server", &format!("127.0.0.1:{port}")], port);
    let attache = before(port);
    let target = format!("127.0.0.1:{}", attache.port);
    let mut all = Vec::new();
    for (pattern, rates) in [
        ("unary", &["10", "200", "2000"][..]),
        ("feed", &["10", "200", "2000"]),
        ("both", &["10", "200", "2000"]),
        // A call in four gets its answer, the others are given up: as a client that asks four and takes the first.
        ("cancel", &["160"]),
        ("burst", &["10000"]),
    ] {
        // Slow languages and slow machines: the rates one after the other, the patterns side by side.
        let target = target.clone();
        all.push(thread::spawn(move || {
            for rate in rates {
                let output = judge(client)
                    .args(["client", &target, pattern, rate, &seconds()])
                    .output()
                    .expect("a client");
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(said.starts_with("OK"), "{client} to {server}, {pattern} at {rate}: {said}");
                println!("{client} to {server}, {pattern} at {rate}: {said}");
            }
        }));
    }
    for pattern in all {
        pattern.join().expect("a pattern that holds");
    }
    assert_eq!(attache.metric("attache_requests_total", &["http2-flood"]), 0.0);
    assert_eq!(
        attache.metric("attache_upstream_connections_opened_total", &[]),
        1.0,
        "one connection for all"
    );
}

#[test]
fn grpc_go_is_served_as_without_a_proxy() {
    patterns("go", "go");
}

#[test]
fn grpc_js_is_served_as_without_a_proxy() {
    patterns("js", "js");
}

#[test]
fn grpcio_is_served_as_without_a_proxy() {
    patterns("python", "python");
}

#[test]
#[ignore = "long: cargo xtask conformance"]
fn clients_and_servers_of_different_languages_meet() {
    for (client, server) in
        [("go", "js"), ("go", "python"), ("js", "go"), ("js", "python"), ("python", "go"), ("python", "js")]
    {
        patterns(client, server);
    }
}

#[test]
fn h2spec_finds_nothing() {
    let port = free_port();
    let _server = serve(judge("go"), &["http1", &format!("127.0.0.1:{port}")], port);
    // Paths of h2spec are served by attache itself, so that only its own HTTP/2 is judged.
    let attache = Attache::start(&format!(
        // HTTP/2 alone: where HTTP/1 is spoken, too, a preface that is none gets a 400 of HTTP/1, and h2spec takes nothing but a close.
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT', protocol: http2, to: judge }} }}
upstreams: {{ judge: 'http://127.0.0.1:{port}' }}"
    ));
    let output = tool("h2spec")
        .args(["--host", "127.0.0.1", "--timeout", "5", "--port", &attache.port.to_string()])
        .output()
        .expect("h2spec (run `cargo xtask setup`)");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = said.lines().rev().find(|line| line.contains("tests,")).unwrap_or_default().to_owned();
    println!("{last}");
    assert!(output.status.success() && last.contains(" 0 failed"), "{said}");
}

/// The official cases (grpc/doc/interop-test-descriptions.md) that need no credentials.
#[test]
fn the_official_interoperability_cases_pass() {
    let port = free_port();
    let _server = serve(tool("server"), &["--port", &port.to_string()], port);
    let attache = before(port);
    let cases = [
        "empty_unary",
        "large_unary",
        "client_streaming",
        "server_streaming",
        "ping_pong",
        "empty_stream",
        "timeout_on_sleeping_server",
        "cancel_after_begin",
        "cancel_after_first_response",
        "custom_metadata",
        "status_code_and_message",
        "special_status_message",
        "unimplemented_method",
        "unimplemented_service",
    ];
    for case in cases {
        let output = tool("client")
            .args([
                "--server_host",
                "127.0.0.1",
                "--server_port",
                &attache.port.to_string(),
                "--test_case",
                case,
            ])
            .output()
            .expect("grpc-go's interop client (run `cargo xtask setup`)");
        assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
