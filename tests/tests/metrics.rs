//! The metrics page, read by other people's tools; each series is increased by the event that it counts.

use std::{
    io::Write,
    net::TcpStream,
    path::Path,
    process::{Command, Output, Stdio},
};

use attache_tests::{
    Attache, TestDns, curl, eventually, free_port, free_port_on, http_get, local, nginx, script_server, text,
};

fn piped(command: &mut Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn page(attache: &Attache, accept: &str) -> (String, String) {
    let url = format!("http://{}/metrics", local(attache.metrics));
    let out = text(&curl(["-i", "-H", &format!("Accept: {accept}"), &url]));
    let (head, body) = out.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

/// Checks both formats, each with the tool that other people read it with.
fn check(attache: &Attache) {
    let (head, native) = page(attache, "*/*");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let checked = piped(Command::new("/usr/bin/promtool").args(["check", "metrics"]), &native);
    let said =
        String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "promtool: {said}\n{native}");

    let (head, open) = page(attache, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(open.ends_with("# EOF\n"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/openmetrics.py");
    let parsed = text(&piped(Command::new("/usr/bin/python3").arg(script), &open));
    let families: usize = parsed.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(families, native.matches("# TYPE").count(), "{parsed}");
}

#[test]
fn prometheus_and_openmetrics_read_the_page() {
    let server = local(free_port());
    let _upstream = nginx(&format!("server {{ listen {server}; location / {{ return 200 ok; }} }}"), server);
    let attache = Attache::start(&format!(
        "workers: 1 # so that the second call finds the first one's connection\n\
         listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT', routes: [{{ match: {{ path: /none }}, to: nobody }}, {{ to: orders }}] }} }}\n\
         upstreams: {{ orders: 'http://{server}', nobody: 'http://{}' }}",
        local(free_port())
    ));
    for path in ["/", "/none", "/"] {
        let _ = curl([&attache.url(path)]);
    }
    eventually("they are counted", || attache.metric("attache_requests_total", &[]) >= 3.0);
    check(&attache);
    let labels =
        ["listener=\"outbound\"", "upstream=\"orders\"", "protocol=\"http1\"", "code=\"2xx\"", "reason=\"\""];
    assert!(attache.metric("attache_requests_total", &labels) >= 2.0);
    assert!(attache.metric("attache_requests_total", &["reason=\"connect-refused\"", "code=\"5xx\""]) >= 1.0);
    for (name, labels) in [
        ("attache_request_duration_seconds_count", &["upstream=\"orders\""][..]),
        ("attache_request_time_to_head_seconds_count", &["upstream=\"orders\""]),
        ("attache_request_upstream_duration_seconds_count", &["upstream=\"orders\""]),
        ("attache_request_added_duration_seconds_count", &["upstream=\"orders\""]),
        ("attache_upstream_connect_duration_seconds_count", &["upstream=\"orders\"", "step=\"tcp\""]),
        ("attache_sent_bytes_total", &["upstream=\"orders\""]),
        ("attache_connections_opened_total", &["listener=\"outbound\""]),
        ("attache_upstream_connections_opened_total", &["upstream=\"orders\""]),
        (
            "attache_upstream_connection_failures_total",
            &["upstream=\"nobody\"", "reason=\"connect-refused\""],
        ),
        ("attache_upstream_pool_reused_total", &["upstream=\"orders\""]),
        ("attache_upstream_attempts_total", &["upstream=\"orders\""]),
        ("attache_upstream_endpoints", &["upstream=\"orders\"", "state=\"healthy\""]),
        ("attache_config_reloads_total", &["outcome=\"ok\""]),
        ("process_resident_memory_bytes", &[]),
        ("process_open_fds", &[]),
    ] {
        eventually(name, || attache.metric(name, labels) > 0.0);
    }
}

#[test]
fn retries_the_budget_and_an_open_breaker_are_counted() {
    let server = local(free_port());
    let _upstream = nginx(&format!("server {{ listen {server}; location / {{ return 503 no; }} }}"), server);
    let attache = Attache::start(&format!(
        "listeners:\n  outbound:\n    bind: 127.0.0.1:$PORT\n    routes:\n      - {{ match: {{ path: /retry }}, to: flaky, retry: {{ attempts: 2, on: [503], backoff: {{ base: 1ms }} }} }}\n      - {{ match: {{ path: /budget }}, to: broke, retry: {{ attempts: 2, on: [503], budget: 1%, budget_floor: 0 }} }}\n      - {{ to: broken }}\n\
         upstreams:\n  flaky: http://{server}\n  broke: http://{server}\n  broken: {{ address: 'http://{server}', circuit_breaker: {{ failures: {{ consecutive: 3, open: 1h }} }}, outlier_ejection: 'off' }}"
    ));
    assert!(attache.metric("attache_upstream_retries_total", &["upstream=\"flaky\""]) == 0.0);
    let _ = curl([&attache.url("/retry")]);
    eventually("two retries", || {
        attache.metric("attache_upstream_retries_total", &["upstream=\"flaky\"", "reason=\"upstream-error\""])
            == 2.0
            && attache.metric("attache_upstream_attempts_total", &["upstream=\"flaky\""]) == 3.0
    });
    let _ = curl([&attache.url("/budget")]);
    eventually("no retry without a budget", || {
        attache.metric(
            "attache_upstream_overflow_total",
            &["upstream=\"broke\"", "reason=\"retry-budget-exhausted\""],
        ) == 1.0
    });
    for _ in 0..5 {
        let _ = curl([&attache.url("/")]);
    }
    eventually("the circuit is open", || {
        attache.metric("attache_upstream_overflow_total", &["upstream=\"broken\"", "reason=\"circuit-open\""])
            >= 2.0
            && attache.metric("attache_requests_total", &["upstream=\"broken\"", "reason=\"circuit-open\""])
                >= 2.0
    });
    check(&attache);
}

#[test]
fn the_retry_budget_is_shown_with_its_used_part() {
    // `/hold` is never answered; everything else fails and asks for a long wait before the retry.
    let server = local(free_port());
    let _upstream = script_server("failing_or_silent.py", server, &[]);
    let attache = Attache::start(&format!(
        "listeners:\n  outbound:\n    bind: 127.0.0.1:$PORT\n    routes:\n      - {{ match: {{ path: /plain }}, to: plain, retry: {{ attempts: 0 }} }}\n      - {{ to: orders, retry: {{ attempts: 2, on: [503], budget: 50%, budget_floor: 0 }} }}\n\
         upstreams: {{ orders: 'http://{0}', plain: 'http://{0}' }}",
        server
    ));
    let gauge =
        |what: &str| attache.metric(&format!("attache_upstream_retries_{what}"), &["upstream=\"orders\""]);
    let call = |path: &str| {
        let mut stream = TcpStream::connect(local(attache.port)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: h\r\n\r\n").unwrap();
        stream
    };
    let held: Vec<_> = (0..4).map(|_| call("/hold")).collect();
    eventually("half of four requests may be retried", || gauge("limit") == 2.0);
    assert!(gauge("active") == 0.0);
    let retried = call("/fail");
    eventually("one request is being retried", || gauge("active") == 1.0);
    assert!(!attache.metrics().contains("attache_upstream_retries_limit{upstream=\"plain\"}"));
    drop((held, retried));
    eventually("nothing runs, and nothing may be retried", || {
        gauge("limit") == 0.0 && gauge("active") == 0.0
    });
    check(&attache);
}

#[test]
fn an_ejected_endpoint_is_counted_separately() {
    let ips = ["127.0.0.71", "127.0.0.72"].map(|ip| ip.parse().unwrap());
    let port = free_port_on(ips[0]);
    let servers = ips.map(|ip| std::net::SocketAddr::from((ip, port)));
    let _good =
        nginx(&format!("server {{ listen {}; location / {{ return 200 ok; }} }}", servers[0]), servers[0]);
    let _bad =
        nginx(&format!("server {{ listen {}; location / {{ return 500 no; }} }}", servers[1]), servers[1]);
    let attache = Attache::start(&format!(
        "admin: 127.0.0.1:$ADMIN\nlisteners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\n\
         upstreams: {{ orders: {{ address: ['http://{}', 'http://{}'], outlier_ejection: {{ consecutive_5xx: 2, base: 1h, max_percent: 50% }} }} }}",
        servers[0], servers[1]
    ));
    eventually("one of two is ejected", || {
        let _ = curl([&attache.url("/")]);
        attache
            .metric("attache_upstream_ejections_total", &["upstream=\"orders\"", "reason=\"upstream-error\""])
            == 1.0
    });
    eventually("the gauge says so", || {
        attache.metric("attache_upstream_endpoints", &["state=\"ejected\""]) == 1.0
            && attache.metric("attache_upstream_endpoints", &["state=\"healthy\""]) == 1.0
    });
    let events = http_get(local(attache.admin), "/events");
    let named = format!("\"endpoint\": \"{}\"", servers[1]);
    let why = "\"because\": \"2 failures in a row";
    assert!(events.contains(&named) && events.contains(why), "{events}");
}

#[test]
fn a_name_that_does_not_exist_is_counted_and_logged() {
    let dns = TestDns::start();
    let attache = Attache::start(&format!(
        "dns: {{ servers: ['{}'], search: test, retry_interval: 100ms }}\n\
         listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ orders: 'http://none.test' }}",
        dns.address
    ));
    eventually("the look-up failed", || {
        attache.metric("attache_dns_lookups_total", &["upstream=\"orders\"", "outcome=\"dns-nxdomain\""])
            >= 2.0
    });
    let answer = text(&curl(["-H", "Accept: application/json", &attache.url("/")]));
    assert!(answer.contains("dns-nxdomain"), "{answer}");
    eventually("the request has the reason", || {
        attache.metric("attache_requests_total", &["reason=\"dns-nxdomain\""]) >= 1.0
    });
    dns.set("none.test", &["1 IN A 127.0.0.1"]);
    eventually("it is on the page", || {
        attache.metric("attache_dns_lookups_total", &["upstream=\"orders\"", "outcome=\"ok\""]) >= 1.0
    });
}

#[test]
fn the_application_s_metrics_and_endpoints_are_shown_beside_attache_s() {
    let (server, gone) = (local(free_port()), local(free_port()));
    let app = nginx(
        &format!(
            "server {{ listen {server};\n\
             location /metrics {{ default_type 'text/plain; version=0.0.4'; return 200 '# TYPE process_open_fds gauge\nprocess_open_fds 5\n# HELP jobs_total Jobs.\n# TYPE jobs_total counter\njobs_total{{kind=\"a\"}} 3\n'; }}\n\
             location /stats {{ default_type application/json; return 200 '{{\"queue\":{{\"depth\":7}},\"status\":\"UP\"}}'; }}\n\
             location /version {{ default_type text/css; return 203 v1; }} }}"
        ),
        server,
    );
    let attache = Attache::start(&format!(
        "metrics:\n  bind: 127.0.0.1:$METRICS\n  app: ['http://{server}/metrics', {{ from: 'http://{server}/stats', gauges: {{ app_queue_depth: /queue/depth }} }}, 'http://{gone}/metrics']\n  \
         adapt:\n    /app/ready: {{ from: 'http://{server}/stats', json: {{ /status: UP }} }}\n    /app/down: {{ from: 'http://{server}/stats', json: {{ /status: DOWN }}, failed: 500 }}\n    /app/version: {{ from: 'http://{server}/version' }}\n\
         listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams: {{ orders: 'http://{server}' }}"
    ));
    let (head, page) = page(&attache, "application/openmetrics-text;version=1.0.0");
    assert!(head.contains("text/plain"), "the application has only text: {head}");
    for line in
        ["jobs_total{kind=\"a\"} 3", "app_queue_depth 7", "process_open_fds 5", "attache_panics_total 0"]
    {
        assert!(page.lines().any(|known| known == line), "{line}\n{page}");
    }
    assert!(attache.metric("attache_process_open_fds", &[]) > 5.0, "attache's own, under another name");
    assert!(page.contains(&format!("attache_app_scrape_success{{from=\"{server}/metrics\"}} 1\n")));
    assert!(page.contains(&format!("attache_app_scrape_success{{from=\"{gone}/metrics\"}} 0\n")));
    let checked = piped(Command::new("/usr/bin/promtool").args(["check", "metrics"]), &page);
    // attache does not lint nginx's page: only a page that can't be parsed at all is an error of attache.
    assert_ne!(checked.status.code(), Some(1), "{}", String::from_utf8_lossy(&checked.stderr));

    let ask = |path: &str| http_get(local(attache.metrics), path);
    assert!(ask("/app/ready").starts_with("HTTP/1.1 200 "));
    let down = ask("/app/down");
    assert!(down.starts_with("HTTP/1.1 500 ") && down.contains("`/status` is \"UP\", not `DOWN`"), "{down}");
    let version = ask("/app/version");
    assert!(
        version.starts_with("HTTP/1.1 203 ") && version.contains("text/css") && version.ends_with("v1"),
        "{version}"
    );
    drop(app);
    assert!(ask("/app/ready").starts_with("HTTP/1.1 503 "), "the application is gone");
    assert!(attache.metric("attache_app_scrape_success", &[]) == 0.0);
    assert!(attache.metrics().contains("attache_panics_total 0"), "attache's own are still there");
    assert!(ask("/readyz").starts_with("HTTP/1.1 200 "));
}
