//! HTTP/2 and gRPC with other people's clients and servers: grpc-go, grpc-java, grpc-js, grpcio and tonic with all their defaults, h2spec,
//! and the official interoperability cases of gRPC.
//!
//! The tests here run in about a minute. `cargo xtask conformance` runs each pattern for a minute, the same without attache for comparison,
//! and the ignored tests. `ATTACHE_JUDGE_TABLE` names a file that gets a row for each.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use attache_tests::{Attache, TestProcess, free_port, local};

/// How many seconds each pattern runs: `ATTACHE_JUDGE_SECONDS`.
fn seconds() -> String {
    std::env::var("ATTACHE_JUDGE_SECONDS").unwrap_or_else(|_| "2".to_owned())
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn tool(name: &str) -> Command {
    Command::new(here("../target/judges").join(name))
}

/// The client and server of one implementation.
fn judge(name: &str) -> Command {
    match name {
        "grpc-go" => tool("judges"),
        "grpc-java" => {
            let out = here("../target/judges-java");
            let mut java = Command::new("java");
            java.arg("-cp").arg(format!("{0}/classes:{0}/lib/*", out.display())).arg("Judge");
            java
        }
        "grpc-js" => {
            let mut node = Command::new("node");
            node.arg(here("judges/node/judge.js"))
                .env("NODE_PATH", here("../target/judges-node/node_modules"));
            node
        }
        "grpcio" => {
            let mut python = Command::new(here("../target/judges-python/bin/python"));
            python.arg(here("judges/python/judge.py")).env("PYTHONDONTWRITEBYTECODE", "1");
            python
        }
        "tonic" => Command::new(here("../target/judges-tonic/debug/judge-tonic")),
        _ => panic!("no judge of this name: {name}"),
    }
}

fn serve(mut command: Command, arguments: &[&str], port: u16) -> TestProcess {
    let mut server =
        TestProcess::start(command.args(arguments), tempfile::tempdir().expect("a folder for its output"));
    server.wait_for(local(port));
    server
}

/// attache in front of a server that speaks HTTP/2 without TLS, with all defaults except the deadlines.
fn before(port: u16) -> Attache {
    Attache::start(&format!(
        "workers: 1
access_log: {{ to: stdout, filter: {{ errors: true }} }}
listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT', to: judge }} }}
upstreams: {{ judge: {{ address: 'h2c://127.0.0.1:{port}', timeout: off, idle_timeout: off }} }}"
    ))
}

/// What the clients do, and how many messages per second.
const PATTERNS: [(&str, &[&str]); 5] = [
    ("unary", &["10", "200", "2000"]),
    ("feed", &["10", "200", "2000"]),
    ("both", &["10", "200", "2000"]),
    // One call in four gets its response and the others are cancelled, like a client that sends four calls and takes the first response.
    ("cancel", &["160"]),
    ("burst", &["10000"]),
];

/// The results of one run of each pattern and rate, in the order of [`PATTERNS`]. Because some languages and machines are slow, the rates
/// run one after the other, and the patterns at the same time.
fn run_patterns(client: &'static str, target: &str) -> Vec<(&'static str, &'static str, String)> {
    let all: Vec<_> = PATTERNS
        .into_iter()
        .map(|(pattern, rates)| {
            let target = target.to_owned();
            thread::spawn(move || {
                let run = |rate: &&'static str| {
                    let mut command = judge(client);
                    let command = command.args(["client", &target, pattern, rate, &seconds()]);
                    let output = command.output().expect("a client (run `cargo xtask setup`)");
                    let said = String::from_utf8_lossy(&output.stdout).into_owned();
                    (pattern, *rate, said.trim().to_owned())
                };
                rates.iter().map(run).collect::<Vec<_>>()
            })
        })
        .collect();
    all.into_iter().flat_map(|pattern| pattern.join().expect("a pattern that ends")).collect()
}

/// Runs every pattern with a client of one implementation and a server of another through attache, all at the same time.
fn patterns(client: &'static str, server: &'static str) {
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let _server = serve(judge(server), &["server", &address], port);
    let attache = before(port);
    let table = std::env::var_os("ATTACHE_JUDGE_TABLE");
    // The same without attache, if a table compares the two.
    let direct = table.is_some().then(|| thread::spawn(move || run_patterns(client, &address)));
    let through = run_patterns(client, &format!("127.0.0.1:{}", attache.port));
    let direct = direct.map_or_else(Vec::new, |direct| direct.join().expect("patterns that end"));
    let mut rows = String::new();
    for (n, (pattern, rate, said)) in through.iter().enumerate() {
        println!("{client} to {server}, {pattern} at {rate}: {said}");
        let direct = direct.get(n).map_or("", |(_, _, said)| said);
        let _ = writeln!(rows, "| {client} | {server} | {pattern} | {rate} | {direct} | {said} |");
    }
    if let Some(table) = table {
        let file = OpenOptions::new().append(true).create(true).open(table);
        file.and_then(|mut file| file.write_all(rows.as_bytes())).expect("the table");
    }
    // If a language can't reach a rate even without attache, the result says nothing about attache.
    let fails_alone = |n: usize| direct.get(n).is_some_and(|(_, _, said)| !said.starts_with("OK"));
    let failed: Vec<_> = through
        .iter()
        .enumerate()
        .filter(|(n, (_, _, said))| !said.starts_with("OK") && !fails_alone(*n))
        .collect();
    assert!(failed.is_empty(), "{client} to {server}: {failed:?}");
    assert_eq!(attache.metric("attache_requests_total", &["http2-flood"]), 0.0);
    // A connection that ends while it carries calls makes them fail or be retried. Additional connections that were opened for many calls
    // end when they are idle.
    let sent_again = attache.metric("attache_upstream_retries_total", &[]);
    assert!(sent_again == 0.0 || (0..through.len()).any(fails_alone), "{sent_again} calls were retried");
}

#[test]
fn grpc_go_is_served_as_without_a_proxy() {
    patterns("grpc-go", "grpc-go");
}

#[test]
fn grpc_java_is_served_as_without_a_proxy() {
    patterns("grpc-java", "grpc-java");
}

#[test]
fn grpc_js_is_served_as_without_a_proxy() {
    patterns("grpc-js", "grpc-js");
}

#[test]
fn grpcio_is_served_as_without_a_proxy() {
    patterns("grpcio", "grpcio");
}

#[test]
fn tonic_is_served_as_without_a_proxy() {
    patterns("tonic", "tonic");
}

fn meets_grpc_go(other: &'static str) {
    patterns("grpc-go", other);
    patterns(other, "grpc-go");
}

#[test]
#[ignore = "long: cargo xtask conformance"]
fn grpc_java_meets_grpc_go() {
    meets_grpc_go("grpc-java");
}

#[test]
#[ignore = "long: cargo xtask conformance"]
fn grpc_js_meets_grpc_go() {
    meets_grpc_go("grpc-js");
}

#[test]
#[ignore = "long: cargo xtask conformance"]
fn grpcio_meets_grpc_go() {
    meets_grpc_go("grpcio");
}

#[test]
#[ignore = "long: cargo xtask conformance"]
fn tonic_meets_grpc_go() {
    meets_grpc_go("tonic");
}

/// One call over a path with 50 ms and 40 MB a second, in both directions, with the path on either side of attache. It may be slower than
/// without attache by at most a tenth.
#[test]
#[ignore = "long: cargo xtask conformance"]
fn one_stream_over_a_long_path_is_as_fast_as_without_a_proxy() {
    let server = free_port();
    let _server = serve(judge("grpc-go"), &["server", &format!("127.0.0.1:{server}")], server);
    let long_path = |to: u16| {
        let port = free_port();
        let arguments =
            ["relay", &format!("127.0.0.1:{port}"), &format!("127.0.0.1:{to}"), "50ms", "40000000"];
        (serve(judge("grpc-go"), &arguments, port), port)
    };
    let (_direct, direct) = long_path(server);
    let outbound = before(direct);
    let inbound = before(server);
    let (_inbound, to_inbound) = long_path(inbound.port);
    let seconds = |port: u16, pattern: &str| {
        let output = judge("grpc-go")
            .args(["client", &format!("127.0.0.1:{port}"), pattern, "8000", "0"])
            .output()
            .expect("a client");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let seconds = said.strip_prefix("OK 8000 in ").and_then(|said| said.trim().strip_suffix(" s"));
        seconds.and_then(|seconds| seconds.parse::<f64>().ok()).expect(&said)
    };
    for pattern in ["download", "upload"] {
        let (alone, out, into) =
            (seconds(direct, pattern), seconds(outbound.port, pattern), seconds(to_inbound, pattern));
        println!("{pattern} of 400 MB: {alone} s; attache before the path {out} s, behind it {into} s");
        assert!(out < alone * 1.1 && into < alone * 1.1, "{pattern}: {alone}, {out}, {into}");
    }
}

#[test]
fn h2spec_finds_nothing() {
    let port = free_port();
    let _server = serve(judge("grpc-go"), &["http1", &format!("127.0.0.1:{port}")], port);
    // attache itself serves the paths that h2spec requests, so that only attache's HTTP/2 is judged.
    let attache = Attache::start(&format!(
        // Only HTTP/2: with HTTP/1 too, an invalid preface would get a 400 of HTTP/1, but h2spec accepts only a close.
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
