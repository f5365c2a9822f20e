//! The dashboard in a real browser, with traffic running: it works, it loads nothing from other origins, it can be used by keyboard, and
//! text from clients stays text. `UPDATE_DOCS=1` writes the screenshots to `docs/images/`.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use attache_tests::{Attache, free_port_on, local, nginx, raw, script, text};
use serde_json::Value;

const UPSTREAM: Ipv4Addr = Ipv4Addr::new(127, 0, 16, 1);
/// Markup whose execution the test would notice.
const MARKUP: &str = "<img%20src=x%20onerror=console.error(1)>";

fn start() -> (Attache, Vec<attache_tests::TestProcess>) {
    let server = |location: &str| {
        let at = SocketAddr::from((UPSTREAM, free_port_on(UPSTREAM)));
        (at, nginx(&format!("server {{ listen {at}; {location} }}"), at))
    };
    let answer = "location / { return 200 hello; }";
    let servers = [
        server(answer),
        server(answer),
        server("location / { return 503; } location /v1/items { return 200 hello; }"),
        server(answer),
    ];
    let at: Vec<_> = servers.iter().map(|(at, _)| at.to_string()).collect();
    let config = format!(
        "admin: 127.0.0.1:$ADMIN
listeners:
  outbound:
    bind: 127.0.0.1:$PORT
    routes:
      - {{ name: users, match: {{ path: /users/* }}, to: users }}
      - {{ name: reports, match: {{ path: /reports/* }}, to: reports, retry: {{ attempts: 1 }} }}
      - {{ name: orders, match: {{ path: /v1/* }}, to: orders, retry: {{ attempts: 2, on: [5xx, connect-failure] }} }}
upstreams:
  orders: {{ address: ['http://{}', 'http://{}', 'http://{}'] }}
  users: {{ address: 'http://{}' }}
  reports: {{ address: 'http://{UPSTREAM}:9' }}
",
        at[0], at[1], at[2], at[3]
    );
    (Attache::start(&config), servers.into_iter().map(|(_, server)| server).collect())
}

/// Calls a small application: mostly with success, sometimes with failures.
fn call(attache: &Attache, turn: usize) {
    let path = match turn % 20 {
        0 => format!("/nowhere/{MARKUP}"), // refused
        10 => "/nowhere/%3Cimg%20src=x%20onerror=console.error(1)%3E".to_owned(),
        1 => "/reports/today".to_owned(),
        2 | 3 => "/v1/export".to_owned(),
        4..8 => format!("/users/{turn}"),
        _ => format!("/v1/items/{turn}"),
    };
    let request = format!("GET {path} HTTP/1.1\r\nhost: orders.internal\r\nconnection: close\r\n\r\n");
    raw(local(attache.port), request.as_bytes());
}

#[test]
fn the_dashboard_works_in_a_browser_by_keyboard_on_a_phone_and_in_the_dark() {
    let (attache, _servers) = start();
    let folder = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let said = thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0.. {
                if stop.load(Relaxed) {
                    break;
                }
                call(&attache, turn);
                thread::sleep(Duration::from_millis(3));
            }
        });
        // The charts need some steps of history.
        thread::sleep(Duration::from_secs(if std::env::var_os("UPDATE_DOCS").is_some() { 90 } else { 6 }));
        let url = format!("http://localhost:{}/", attache.admin);
        // A reload with a change, for the events and the diff.
        let file = attache.process.dir().join("attache.yaml");
        let config = fs::read_to_string(&file).unwrap();
        fs::write(&file, config.replace("retry: { attempts: 1 }", "retry: { attempts: 3 }")).unwrap();
        let output = browser(&url, folder.path(), &[]);
        stop.store(true, Relaxed);
        let said: Value = serde_json::from_str(&text(&output)).unwrap();
        said
    });

    assert_eq!(said["errors"], Value::Array(Vec::new()), "the console");
    let own = format!("http://localhost:{}/", attache.admin);
    let asked: Vec<_> = said["requests"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(asked.len() > 8 && asked.iter().all(|url| url.starts_with(&own)), "{asked:?}");

    assert_eq!(said["axe"], Value::Array(Vec::new()), "axe-core");
    assert_eq!(said["hour"], true);

    let order = said["tab_order"].as_array().unwrap();
    assert_eq!(order[0]["text"], "Skip to content");
    assert_eq!(order[1]["id"], "pause");
    let at = |tag: &str| order.iter().position(|focus| focus["tag"] == tag);
    assert!(at("a") < at("svg") && at("svg") < at("summary"), "{order:?}");
    assert!(
        order.iter().filter(|focus| focus["tag"] != "body").all(|focus| focus["ring"] == true),
        "{order:?}"
    );

    let reason = said["reason"].as_str().unwrap();
    assert!(reason.contains("What to do.") && !reason.contains("not known"), "{reason}");
    assert!(said["tapped"].as_str().unwrap().contains("orders.internal"), "{}", said["tapped"]);
    let page = said["page"].as_str().unwrap();
    for part in [
        "calls fail",
        "orders",
        "reports",
        "connect-refused",
        "no-route",
        "bad-request",
        "127.0.16.1",
        "calls fail: connect-refused",
        "loaded",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert_eq!(said["marked_up"], 0, "text from a client became markup");
    assert!(said["phone_overflow"].as_i64().unwrap() <= 0, "the page is wider than a phone");

    for name in [
        "dashboard",
        "dashboard-dark",
        "dashboard-phone",
        "dashboard-phone-dark",
        "dashboard-failures",
        "dashboard-events",
        "dashboard-clients",
        "dashboard-config",
    ] {
        keep(folder.path(), name);
    }
}

/// Checks the page with `browser.py`.
fn browser(url: &str, folder: &Path, more: &[&str]) -> std::process::Output {
    let axe =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/judges-node/node_modules/axe-core/axe.min.js");
    assert!(axe.exists(), "{} is missing: run `cargo xtask setup`", axe.display());
    let (folder, axe) = (folder.display().to_string(), axe.display().to_string());
    let arguments: Vec<&str> =
        ["/usr/bin/chromium", url, &folder, &axe].into_iter().chain(more.iter().copied()).collect();
    script("browser.py", &arguments)
}

/// Checks that the screenshot is not empty. With `UPDATE_DOCS` it is written to `docs/images/`, with `SCREENSHOTS` to that folder.
fn keep(folder: &Path, name: &str) {
    let from = folder.join(format!("{name}.png"));
    let size = fs::metadata(&from).unwrap().len();
    assert!(size > 5_000, "{name} is empty: {size} bytes");
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images");
    let update = std::env::var_os("UPDATE_DOCS").map(|_| images);
    for to in update.into_iter().chain(std::env::var_os("SCREENSHOTS").map(Into::into)) {
        fs::create_dir_all(&to).unwrap();
        fs::copy(&from, to.join(format!("{name}.png"))).unwrap();
    }
}

#[test]
fn fifty_upstreams_fit_on_one_screen_and_failing_ones_come_first() {
    let at = SocketAddr::from((UPSTREAM, free_port_on(UPSTREAM)));
    let _server = nginx(&format!("server {{ listen {at}; location / {{ return 200 hello; }} }}"), at);
    let mut upstreams: Vec<String> = (0..50).map(|n| format!("  service-{n:02}: 'http://{at}'\n")).collect();
    upstreams[42] = format!("  service-42: 'http://{UPSTREAM}:9'\n");
    let config = format!(
        "admin: 127.0.0.1:$ADMIN\nlisteners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams:\n{}",
        upstreams.concat()
    );
    let attache = Attache::start(&config);
    for n in 0..50 {
        let request = format!("GET / HTTP/1.1\r\nhost: service-{n:02}\r\nconnection: close\r\n\r\n");
        raw(local(attache.port), request.as_bytes());
    }
    let folder = tempfile::tempdir().unwrap();
    let output = browser(&format!("http://localhost:{}/", attache.admin), folder.path(), &["many"]);
    let said: Value = serde_json::from_str(&text(&output)).unwrap();
    assert!(said["height"].as_u64().is_some_and(|height| (300..850).contains(&height)), "{said}");
    assert!(said["first"].as_str().is_some_and(|first| first.starts_with("service-42")), "{said}");
    assert_eq!(said["found"], serde_json::json!(["service-07"]));
    assert_eq!((&said["axe"], &said["errors"]), (&Value::Array(Vec::new()), &Value::Array(Vec::new())));
    keep(folder.path(), "dashboard-many");
    keep(folder.path(), "dashboard-many-phone");
}

#[test]
fn a_total_outage_is_at_the_top_and_no_part_of_it_is_green() {
    let config = format!(
        "admin: 127.0.0.1:$ADMIN\nlisteners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams:\n  orders: 'http://{UPSTREAM}:9'\n"
    );
    let attache = Attache::start(&config);
    for _ in 0..50 {
        raw(local(attache.port), b"GET /v1/items HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n");
    }
    let folder = tempfile::tempdir().unwrap();
    let output = browser(&format!("http://localhost:{}/", attache.admin), folder.path(), &["outage"]);
    let said: Value = serde_json::from_str(&text(&output)).unwrap();
    assert_eq!(said["trouble"], "upstream orders: calls fail", "{said}");
    assert!(said["state"].as_str().is_some_and(|state| state.starts_with("calls fail")), "{said}");
    assert_eq!((&said["title"], &said["green"]), (&Value::from("calls fail – attache"), &Value::from(0)));
    assert_eq!((&said["axe"], &said["errors"]), (&Value::Array(Vec::new()), &Value::Array(Vec::new())));
    keep(folder.path(), "dashboard-outage");
}

#[test]
fn an_upstream_that_answers_all_calls_with_a_4xx_is_at_the_top_too() {
    let at = SocketAddr::from((UPSTREAM, free_port_on(UPSTREAM)));
    let _server = nginx(&format!("server {{ listen {at}; location / {{ return 421; }} }}"), at);
    let attache = Attache::start(&format!(
        "admin: 127.0.0.1:$ADMIN\nlisteners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}\nupstreams:\n  orders: 'http://{at}'\n"
    ));
    for _ in 0..20 {
        raw(local(attache.port), b"GET /v1/items HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n");
    }
    let folder = tempfile::tempdir().unwrap();
    let output = browser(&format!("http://localhost:{}/", attache.admin), folder.path(), &["outage"]);
    let said: Value = serde_json::from_str(&text(&output)).unwrap();
    assert_eq!(said["trouble"], "upstream orders: every answer is a 4xx", "{said}");
    assert_eq!((&said["axe"], &said["errors"]), (&Value::Array(Vec::new()), &Value::Array(Vec::new())));
}
