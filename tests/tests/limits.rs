//! Limits that a service counts for all proxies, and the protection of the process itself.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use attache_tests::{Attache, eventually, free_port, local, nginx, raw, script_server};

fn orders() -> (attache_tests::TestProcess, u16) {
    let port = free_port();
    let server = format!(
        "server {{ listen 127.0.0.1:{port}; add_header x-got \"$http_x_counted\" always; return 200 'ordered'; }}"
    );
    (nginx(&server, local(port)), port)
}

fn get(attache: &Attache, headers: &str) -> String {
    raw(
        local(attache.port),
        format!("GET /v1 HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n{headers}\r\n").as_bytes(),
    )
    .to_lowercase()
}

#[test]
fn a_rate_limit_service_counts_for_all_proxies_that_ask_it() {
    let (_orders, port) = orders();
    let service: SocketAddr = local(free_port());
    let limits = script_server("ratelimit_server.py", service, &[]);
    let config = |mode: &str, service: SocketAddr| {
        format!(
            "listeners:
  outbound:
    bind: '127.0.0.1:$PORT'
    routes:
      - name: shop
        to: orders
        global_rate_limit:
          service: limits
          domain: shop
          timeout: 5s
          failure_mode: {mode}
          descriptors:
            - actions: [ {{ route: true }}, {{ request_headers: {{ header_name: x-user, descriptor_key: user }} }} ]
            - actions: [ {{ remote_address: true }} ]
upstreams:
  orders: 'http://127.0.0.1:{port}'
  limits: 'h2c://{service}'
"
        )
    };
    let (one, other) = (Attache::start(&config("deny", service)), Attache::start(&config("deny", service)));
    let user = "x-user: ann-3\r\n";
    for attache in [&one, &other, &one] {
        let answer = get(attache, user);
        assert!(answer.starts_with("http/1.1 200"), "{answer}\n{}", limits.output());
        assert!(answer.contains("x-limited-by: the service") && answer.contains("x-got: yes"), "{answer}");
    }
    // Three in all, through whichever proxy.
    let answer = get(&other, user);
    assert!(answer.starts_with("http/1.1 429"), "{answer}");
    for line in [
        "x-attache-reason: rate-limited",
        "x-envoy-ratelimited: true",
        "ratelimit-limit: 3",
        "ratelimit-remaining: 0",
        "ratelimit-reset: 42",
        "retry-after: 42",
    ] {
        assert!(answer.contains(line), "{line}\n{answer}");
    }
    assert!(get(&other, "x-user: bob-3\r\n").starts_with("http/1.1 200"), "his bucket is a different one");
    let seen = limits.output();
    assert!(seen.contains("shop (('route', 'shop'), ('user', 'ann-3')) 1"), "{seen}");
    assert!(seen.contains("shop (('remote_address', '127.0.0.1'),) 1"), "{seen}");
    assert_eq!(one.metric("attache_rate_limit_service_total", &["limits", "ok"]), 2.0);
    assert_eq!(other.metric("attache_rate_limit_service_total", &["limits", "over-limit"]), 1.0);

    drop(limits);
    let denied = get(&one, "x-user: eve-3\r\n");
    assert!(denied.starts_with("http/1.1 500") && denied.contains("rate-limit-service-error"), "{denied}");
    let allows = Attache::start(&config("allow", service));
    assert!(get(&allows, "x-user: eve-3\r\n").starts_with("http/1.1 200"));
    assert!(allows.metric("attache_rate_limit_service_total", &["limits", "error"]) >= 1.0);
}

/// Sets how much memory is in use, out of 100 MiB.
fn use_memory(folder: &Path, mebibytes: u64) {
    // The file is replaced as a whole: a part of a number would be another number.
    fs::write(folder.join("new"), (mebibytes << 20).to_string()).unwrap();
    fs::rename(folder.join("new"), folder.join("memory.current")).unwrap();
}

#[test]
fn when_memory_runs_out_attache_does_less_step_by_step_and_recovers_by_itself() {
    let (_orders, port) = orders();
    let group = tempfile::tempdir().unwrap();
    fs::write(group.path().join("memory.max"), (100 << 20).to_string()).unwrap();
    use_memory(group.path(), 10);
    let attache = Attache::start(&format!(
        "workers: 1
overload: {{ cgroup: '{}' }}
listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
upstreams: {{ orders: 'http://127.0.0.1:{port}' }}",
        group.path().display()
    ));
    let active = |action: &str| attache.metric("attache_overload_action_active", &[action]) > 0.0;
    let mut kept = TcpStream::connect(local(attache.port)).unwrap();
    kept.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut ask = |headers: &str| {
        kept.write_all(format!("GET / HTTP/1.1\r\nhost: orders\r\n{headers}\r\n").as_bytes()).unwrap();
        let mut answer = Vec::new();
        let mut space = [0; 4096];
        while !answer.ends_with(b"ordered") && !answer.ends_with(b"limits.\n") {
            match kept.read(&mut space) {
                Ok(0) | Err(_) => break,
                Ok(n) => answer.extend_from_slice(&space[..n]),
            }
        }
        String::from_utf8_lossy(&answer).to_lowercase()
    };
    assert!(ask("").starts_with("http/1.1 200"));

    // 85 %: idle connections are closed, on both sides.
    let open = |side: &str| attache.metric(side, &[]);
    assert_eq!(open("attache_upstream_connections_active"), 1.0);
    use_memory(group.path(), 86);
    eventually("keep-alive ends", || active("disable-keepalive"));
    eventually("idle connections are closed", || {
        open("attache_connections_active") == 0.0 && open("attache_upstream_connections_active") == 0.0
    });
    let answer = raw(local(attache.port), b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n").to_lowercase();
    assert!(answer.starts_with("http/1.1 200"), "{answer}");

    // 90 %: the least urgent requests are refused first.
    use_memory(group.path(), 91);
    eventually("requests are shed", || active("shed-requests"));
    let shed = get(&attache, "priority: u=7\r\n");
    assert!(shed.starts_with("http/1.1 503") && shed.contains("x-attache-reason: overloaded"), "{shed}");
    assert!(get(&attache, "priority: u=0\r\n").starts_with("http/1.1 200"));
    assert!(get(&attache, "").starts_with("http/1.1 200"), "one with the usual urgency is still served");

    // 95 %: all requests are refused; with one connection open, no other is accepted.
    use_memory(group.path(), 97);
    eventually("accepting stops", || active("stop-accepting"));
    assert!(get(&attache, "priority: u=0\r\n").starts_with("http/1.1 503"));
    assert!(attache_tests::http_get(local(attache.metrics), "/readyz").starts_with("HTTP/1.1 200"));

    // It recovers by itself.
    use_memory(group.path(), 50);
    eventually("it is over", || {
        !active("disable-keepalive") && !active("shed-requests") && !active("stop-accepting")
    });
    assert!(get(&attache, "priority: u=7\r\n").starts_with("http/1.1 200"));
    // The end is logged ten seconds after the last line at the earliest: a process around a threshold must not fill the log.
    eventually("it is logged", || attache.process.output().contains("overload is over"));
}
