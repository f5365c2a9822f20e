//! The JSON schema accepts and refuses configs as `attache check` does, according to a validator that is not ours. It refuses no valid
//! config, and it accepts an invalid one only if a check of the whole config is needed to see the error.

use std::{fs, path::Path};

use attache_tests::{binary, python_with_packages, text};

/// Valid configs that no example in `config/` contains.
const RIGHT: &[&str] = &[
    "upstreams: { a: '${A:-http://a.test}' }",
    "workers: ${WORKERS:-2}\nupstreams: { a: { address: 'http://a.test', connect_timeout: '${T:-1s}' } }",
    "listeners: { a: { bind: '${B:-127.0.0.1:1}', protocol: '${P:-http1}', max_connections: '${M:-5}' } }\nupstreams: { a: 'http://a.test' }",
    "upstreams: { a: { address: 'http://a.test', outlier_ejection: off, pool: { max_idle: 3 } } }",
    "listeners: { a: { bind: ':1', routes: [{ match: { headers: { x-key: !file ./key } }, to: a }] } }\nupstreams: { a: 'http://a.test' }",
    "metrics: off\nadmin: unix:/run/a.sock\naccess_log: { to: stdout, filter: { status: [404, 5xx, 500-504] } }\nupstreams: { a: 'http://a.test' }",
    "x-mine: { any: thing }\nupstreams: { a: { address: ['http://10.0.0.1:80', 'http://[fd00::1]:80'] }, b: 'srv+https://_a._tcp.b.test', c: 'unix:/run/c.sock' }",
    "listeners: { a: { bind: ['localhost:1', '[::1]:2'], routes: [{ to: { a: 95%, b: 5% } }] } }\nupstreams: { a: 'http://a.test', b: 'http://b.test' }",
    "upstreams: { a: { address: 'https://a.test', tls: { min_version: 1.3 } } }",
    "listeners: { l: { bind: ':1', to: a, tls: { mode: off, certificate: x } } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { l: { bind: ':1', to: a, tls: { mode: '${MODE:-off}', key: x } } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { l: { bind: 'unix:/run/a.sock', unix_mode: 660, to: a } }\nupstreams: { a: 'http://a.test' }",
    "tracing: {}\notlp: {}\nupstreams: { a: 'http://a.test' }",
    "upstreams: { a: { address: 'http://a.test', health_check: { tcp: true } } }",
    "upstreams: { a: { address: 'https://a.test', tls: { pins: ['sha256//mIkG3eEpVdm+u/ko/cwxzOMo1bk4TyHIlByibiA5Ea='] } } }",
    "listeners: { l: { bind: ':1', to: a, tls: { certificate: c, key: k, client_optional: false } } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { l: { bind: ':1', to: a, tls: { certificate: c, key: k, client_optional: '${OPTIONAL:-false}' } } }\nupstreams: { a: 'http://a.test' }",
    "upstreams: { a: { address: 'http://a.test', health_check: { tcp: false, path: /healthz } } }",
];

/// Invalid configs that a schema can refuse.
const WRONG: &[&str] = &[
    "upstreams: { a: { address: 'https://a.test', credential: { bearer: { file: /t }, header: { name: x-key, file: /t } } } }",
    "upstreams: { a: { address: 'https://a.test', credential: {} } }",
    "upstreams: { a: { address: 'http://a.test', health_check: { interval: 5s } } }",
    "upstreams: { a: { address: 'http://a.test', health_check: { tcp: true, host: a.test } } }",
    "listeners: { l: { bind: ':1', routes: [{ respond: 204, timeout: 5s }] } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { l: { bind: ':1', routes: [{ to: a, fault: { header: x-fault } }] } }\nupstreams: { a: 'http://a.test' }",
    "access_log: { to: { file: /var/log/a, keep: 3 } }\nupstreams: { a: 'http://a.test' }",
    "access_log: { to: { syslog: 'unix:/dev/log', max_size: 1MiB } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { a: { bind: 15001 } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { a: { bind: 'example.com:1' } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { a: { bnid: ':1' } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { a: { bind: ':1', protocol: htp } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { a: { bind: ':1', max_connections: many } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { a: { bind: ':1', routes: [{ to: a, timeout: fast }] } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { a: { bind: ':1', routes: [{ to: a, timeout: 5 }] } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { a: { bind: ':1', routes: [{ to: { a: 120% } }] } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { a: { bind: ':1', routes: [{ match: { methods: [get] }, to: a }] } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { a: { bind: ':1', routes: [{ to: a, retry: { on: [500s] } }] } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { a: { bind: ':1', routes: [{ to: a, retry: { budget: 2 } }] } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { a: { bind: ':1', routes: [{ to: a, retry: { attempts: -1 } }] } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { a: { bind: ':1', routes: [{ to: a, rewrite: { prefix: v2 } }] } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { a: { bind: ':1', routes: [{ to: a, request_headers: { remove: ['x y'] } }] } }\nupstreams: { a: 'http://a.test' }",
    "upstreams: { a: { address: 'http://a.test', health_check: {} } }",
    "upstreams: { a: { address: 'http://a.test', health_check: { interval: 5s } } }",
    "upstreams: { a: 'a.test:80' }",
    "upstreams: { a: 'ftp://a.test' }",
    "upstreams: { a: { adress: 'http://a.test' } }",
    "upstreams: { a: { address: 'http://a.test', connect_timeout: 5 } }",
    "upstreams: { a: { address: 'http://a.test', connect_timeout: '1 s' } }",
    "upstreams: { a: { address: 'http://a.test', balance: fastest } }",
    "upstreams: { a: { address: 'http://a.test', source_address: eth0 } }",
    "upstreams: { a: { address: 'http://a.test', on_unhealthy: kill } }",
    "upstreams: { a: { address: 'http://a.test', outlier_ejection: { max_percent: 150% } } }",
    "upstreams: { a: { address: 'http://a.test', outlier_ejection: { consecutive_5xx: few } } }",
    "upstreams: { a: { address: 'https://a.test', tls: { min_version: 1.1 } } }",
    "dns: { servers: [dns.test] }\nupstreams: { a: 'http://a.test' }",
    "admin: 0.0.0.0:15000\nupstreams: { a: 'http://a.test' }",
    "metrics: 15090\nupstreams: { a: 'http://a.test' }",
    "workers: two\nupstreams: { a: 'http://a.test' }",
    "tracing: collector:4317\nupstreams: { a: 'http://a.test' }",
    "shutdown: { drain_timeout: soon }\nupstreams: { a: 'http://a.test' }",
    "access_log: { to: stdout, filter: { status: 6xx } }\nupstreams: { a: 'http://a.test' }",
    "upstreams:",
    "listener: { a: { bind: ':1' } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { l: { bind: ':70000', to: a } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { l: { bind: ':1', routes: [{ to: a, respond: 404 }] } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { l: { bind: ':1', routes: [{ match: { path: /x } }] } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { l: { bind: ':1', routes: [{ to: a, redirect: { path: /x } }] } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { l: { bind: ':1', routes: [{ match: { path: v1 }, to: a }] } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { l: { bind: ':1', routes: [{ match: { host: 'http://a.test' }, to: a }] } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { l: { bind: ':1', routes: [{ match: { host: '*.*.test' }, to: a }] } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { l: { bind: ':1', routes: [{ match: { headers: { 'x y': v } }, to: a }] } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { l: { bind: ':1', routes: [{ match: { method: GET, methods: GET }, to: a }] } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { l: { bind: ':1', routes: [{ to: a, rewrite: { path: /x, prefix: /y } }] } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { l: { bind: ':1', to: a, tls: { certificate: a } } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { l: { bind: ':1', to: a, tls: { certificate: a, key: b, allow: [x.test] } } }\nupstreams: { a: 'http://a.test' }",
    "listeners: { l: { bind: ':1', to: a, cors: { origins: 'https://a.test/x' } } }\nupstreams: { a: 'http://a.test' }",
    "upstreams: { a: 'http://a.test/v1' }",
    "upstreams: { a: 'http://a.test:99999' }",
    "upstreams: { a: 'http://u:p@a.test' }",
    "upstreams: { a: 'http://a.test?x=1' }",
    "upstreams: { a: 'http://a test' }",
    "upstreams: { 'a b': 'http://a.test' }",
    "upstreams: { '': 'http://a.test' }",
    "upstreams: { a: { address: 'https://a.test', tls: { key: x } } }",
    "upstreams: { a: { address: 'https://a.test', tls: { ca: x, ca_pem: y } } }",
    "upstreams: { a: { address: 'https://a.test', tls: { pins: abc } } }",
    "upstreams: { a: { address: 'https://a.test', tls: { name: 'https://b' } } }",
    "upstreams: { a: { address: 'http://a.test', host: 'a.test/x' } }",
    "upstreams: { a: { address: 'http://a.test', health_check: { path: /h, interval: 0s } } }",
    "access_log: { to: 'kafka://x' }\nupstreams: { a: 'http://a.test' }",
    "access_log: { to: { file: /a/b, syslog: 'unix:/dev/log' } }\nupstreams: { a: 'http://a.test' }",
    "tracing: { otlp: 'http://c.test:4317', zipkin: 'http://c.test:9411' }\nupstreams: { a: 'http://a.test' }",
    "dns: { search: ['a b'] }\nupstreams: { a: 'http://a.test' }",
    "jwt: { id: { issuer: 'https://id.test', audiences: a, keys: { inline: '{}', file: x } } }\nupstreams: { a: 'http://a.test' }",
    "jwt: { id: { issuer: 'https://id.test', audiences: a, keys: { upstream: a } } }\nupstreams: { a: 'http://a.test' }",
];

/// Invalid notations of one value, which replaces `…`.
const NOTATIONS: &[(&str, &[&str])] = &[
    (
        "upstreams: { a: '…' }",
        &[
            "tcp://db.internal",
            "tls://db.internal",
            "http://a.test:0",
            "tcp://a.test:65536",
            "https://1.2.3.256",
            "http://1.2.3",
            "http://a..b",
            "kubernetes://orders:http",
            "kubernetes://Orders.shop:http",
            "srv://orders.internal",
            "unix+ftp:/run/a",
            "unix:",
            "HTTP://a.test",
            "htps://a.test",
        ],
    ),
    (
        "upstreams: { a: { address: 'http://a.test', … } }",
        &[
            "source_address: 10.0.0.256",
            "connect_timeout: 0s",
            "connect_timeout: 400d",
            "timeout: 5 minutes",
            "timeout: 1.2.3s",
            "idle_timeout: -1s",
            "pool: { h2_stream_window: 1KiB }",
            "pool: { headers_size: 4KiB }",
            "circuit_breaker: { failures: { window: 5 } }",
            "balance: { panic_threshold: 50 % }",
            "balance: { algorithm: maglev, hash: 'cookie:' }",
            "balance: { algorithm: maglev, hash: 'header:x y' }",
            "health_check: { path: /h, port: 0 }",
            "health_check: { path: /h, port: 70000 }",
            "health_check: { tcp: { send: 'hex:0' } }",
            "retry: { hedge: p100 }",
            "retry: { hedge: '0' }",
            "retry: { budget: 101% }",
            "retry: { buffer: 1.5B }",
            "retry: { on: ['grpc:ok'] }",
            "retry: { on: [600] }",
        ],
    ),
    (
        "upstreams: { a: { address: authority, … } }",
        &["deny: 10.0.0.0/33", "deny: '10.0.0.0/8:0'", "deny: 'fd00::/129'"],
    ),
    (
        "listeners: { l: { bind: '…', to: a } }\nupstreams: { a: 'http://a.test' }",
        &["127.0.0.1:65536", "300.0.0.1:80", "unix:", "[::1]", "http://127.0.0.1:1"],
    ),
    (
        "listeners: { l: { bind: ':1', to: a, … } }\nupstreams: { a: 'http://a.test' }",
        &[
            "http: { limits: { headers_size: 4KiB } }",
            "http: { limits: { request_line: 8Ki } }",
            "authorization: { deny: [{ client: 10.0.0.0/33 }] }",
            "authorization: { deny: [{ client: '10.0.0.0/8:80' }] }",
            "authorization: { deny: [{ identity: 'spiffe://*/x' }] }",
            "unix_mode: '0999'",
            "server_first_ports: [70000]",
            "cors: { origins: 'https://A.test' }",
            "cors: { origins: 'https://a.test:99999' }",
            "http: { via: '' }",
        ],
    ),
    (
        "listeners: { l: { bind: ':1', routes: [{ to: a, match: { … } }] } }\nupstreams: { a: 'http://a.test' }",
        &[
            "host: a..b",
            "host: 'shop.test:0'",
            "host: 1.2.3.256",
            "path: '/a*'",
            "path: '/a b'",
            "path: '/{}'",
            "path: 'a?b'",
            "sni: 'a b'",
            "methods: [G T]",
            "headers: { x: 'a*b' }",
            "destination: ':0'",
            "destination: 10.0.0.0/33",
        ],
    ),
    (
        "listeners: { l: { bind: ':1', routes: [{ to: a, … }] } }\nupstreams: { a: 'http://a.test' }",
        &[
            "rate_limit: 0/s",
            "rate_limit: 5/d",
            "fault: { abort: { share: 200% } }",
            "fault: { abort: { status: 99 } }",
            "deadline_header: ':path'",
            "headers: { request: { remove: 'x:y' } }",
            "headers: { request: { set: { 'x y': z } } }",
            "headers: { request: { set: { x: '%{request.hots}' } } }",
            "rewrite: { path: 'v2?x' }",
            "rewrite: { host: 'http://b.test' }",
            "session_cookie: { name: s, key: short }",
        ],
    ),
    (
        "listeners: { l: { bind: ':1', routes: [{ … }] } }\nupstreams: { a: 'http://a.test' }",
        &[
            "to: { a: 1000001 }",
            "respond: 99",
            "respond: 600",
            "respond: { status: 600 }",
            "redirect: { status: 304, path: /x }",
            "redirect: { scheme: ftp }",
            "redirect: { host: 'b.test:99999' }",
        ],
    ),
    (
        "…\nupstreams: { a: 'http://a.test' }",
        &[
            "admin: 192.168.0.1:15000",
            "metrics: 1.2.3.4:99999",
            "watch_interval: 0s",
            "dns: { servers: ['1.2.3.4:99999'] }",
            "dns: { ndots: 16 }",
            "otlp: http://c.test:99999",
            "tracing: { zipkin: 'ftp://c.test' }",
            "access_log: { to: stdout, filter: { status: 600 } }",
            "access_log: { to: stdout, format: { template: '%{staus}' } }",
            "access_log: { to: { syslog: 'http://logs' } }",
            "access_log: { to: { file: /a, max_size: 1XB } }",
            "jwt: { i: { issuer: x, keys: { file: /k }, from: 'cookie:' } }",
            "shutdown: { drain_timeout: 5 }",
            "overload: { shed_requests: 120% }",
            "metrics: { app: 'https://127.0.0.1:1/' }",
        ],
    ),
];

fn judged(folder: &Path, configs: &[String]) -> Vec<(bool, bool, String)> {
    let schema = folder.join("schema.json");
    let printed = std::process::Command::new(binary()).arg("schema").output().unwrap();
    fs::write(&schema, printed.stdout).unwrap();
    let files: Vec<_> = configs
        .iter()
        .enumerate()
        .map(|(index, config)| {
            let file = folder.join(format!("{index}.yaml"));
            fs::write(&file, config).unwrap();
            file
        })
        .collect();
    fs::write(folder.join("key"), "a key").unwrap();
    let output = python_with_packages("schema.py").arg(&schema).args(&files).output().unwrap();
    let said = text(&output);
    let by_schema: Vec<&str> = said.lines().collect();
    assert_eq!(by_schema.len(), files.len(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    files
        .iter()
        .zip(by_schema)
        .map(|(file, by_schema)| {
            let check = std::process::Command::new(binary())
                .args(["check", "--without-files"])
                .arg(file)
                .output()
                .unwrap();
            let why = format!("schema: {by_schema}\ncheck: {}", String::from_utf8_lossy(&check.stderr));
            (by_schema == "ok", check.status.success(), why)
        })
        .collect()
}

#[test]
fn the_schema_refuses_no_valid_config() {
    let folder = tempfile::tempdir().unwrap();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let mut configs: Vec<String> = RIGHT.iter().map(|config| format!("{config}\n")).collect();
    for entry in fs::read_dir(examples).unwrap() {
        configs.push(fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    for ((by_schema, _, why), config) in judged(folder.path(), &configs).iter().zip(&configs) {
        assert!(by_schema, "{config}\n{why}");
    }
    // The valid configs here are really valid.
    for (_, by_check, why) in judged(folder.path(), &configs[..RIGHT.len()]) {
        assert!(by_check, "{why}");
    }
}

#[test]
fn the_schema_refuses_the_configs_that_check_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let notations = NOTATIONS.iter().flat_map(|(config, all)| all.iter().map(|one| config.replace('…', one)));
    let configs: Vec<String> =
        WRONG.iter().map(ToString::to_string).chain(notations).map(|config| config + "\n").collect();
    for ((by_schema, by_check, why), config) in judged(folder.path(), &configs).iter().zip(&configs) {
        assert!(!by_check && !by_schema, "{config}\n{why}");
    }
}
