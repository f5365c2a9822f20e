//! Tests of the admin API and the commands that use it.

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Output, Stdio},
};

use attache_tests::{
    Attache, TestProcess, binary, curl, eventually, free_port_on, http_get, local, nginx, raw, text,
};
use serde_json::Value;

const UPSTREAM: Ipv4Addr = Ipv4Addr::new(127, 0, 15, 1);

/// An upstream that answers, one where nothing listens, and a header that must stay secret.
fn start() -> (Attache, TestProcess) {
    let (port, dead) = (free_port_on(UPSTREAM), free_port_on(UPSTREAM));
    let at = SocketAddr::from((UPSTREAM, port));
    let server = nginx(&format!("server {{ listen {at}; location / {{ return 200 hello; }} }}"), at);
    let config = format!(
        "admin: 127.0.0.1:$ADMIN
listeners:
  outbound:
    bind: 127.0.0.1:$PORT
    routes:
      - name: dead
        match: {{ path: /dead/* }}
        to: dead
        retry: {{ attempts: 1 }}
      - name: good
        match: {{ path: /* }}
        to: good
        headers: {{ request: {{ set: {{ authorization: Bearer config-secret }} }} }}
upstreams:
  good: http://{at}
  dead: {{ address: 'http://{UPSTREAM}:{dead}', adaptive_concurrency: {{}}, queue: {{}} }}
"
    );
    (Attache::start(&config), server)
}

fn json(attache: &Attache, path: &str) -> Value {
    let answer = http_get(local(attache.admin), path);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{path}: {answer:?}"));
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
}

fn command(attache: &Attache, arguments: &[&str]) -> Output {
    let at = attache.admin.to_string();
    Command::new(binary()).args(arguments).args(["--admin", &at]).output().unwrap()
}

fn post(attache: &Attache, path: &str) -> String {
    raw(local(attache.admin), format!("POST {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").as_bytes())
}

#[test]
fn the_admin_api_shows_calls_and_their_results() {
    let (attache, _server) = start();
    for _ in 0..5 {
        assert_eq!(text(&curl([attache.url("/a")])), "hello");
    }
    curl([attache.url("/dead/x?token=query-secret")]);

    let config = json(&attache, "/config");
    assert_eq!(config["upstreams"]["good"]["pool"]["idle_timeout"], "1m", "a default");
    assert!(!config.to_string().contains("config-secret"), "{config}");
    let upstreams = json(&attache, "/upstreams");
    let endpoint = &upstreams[0]["endpoints"][0];
    assert_eq!((&endpoint["state"], &endpoint["active_requests"]), (&"healthy".into(), &0.into()));
    assert_eq!(upstreams[0]["breaker"]["state"], "off");
    let admission = &upstreams[1]["admission"];
    assert_eq!((&admission["limit"], &admission["adaptive"]["measuring"]), (&3.into(), &true.into()));
    assert!(upstreams[0]["admission"].is_null(), "{upstreams}");
    let dead = &upstreams[1]["endpoints"][0];
    assert_eq!(dead["last_failure"]["reason"], "connect-refused", "{upstreams}");
    assert_eq!(json(&attache, "/routes")[0]["routes"][0]["name"], "dead");
    assert_eq!(json(&attache, "/listeners")[0]["name"], "outbound");
    assert_eq!(json(&attache, "/certificates")["certificates"].as_array().unwrap().len(), 0);

    let stats = json(&attache, "/stats.json");
    assert_eq!((&stats["total"]["requests"], &stats["total"]["failed"]), (&6.into(), &1.into()), "{stats}");
    let good = stats["upstreams"].as_array().unwrap().iter().find(|row| row["upstream"] == "good").unwrap();
    assert!(good["last_10s"]["p50_ms"].is_number() && good["last_10s"]["success_rate"] == 1.0, "{good}");
    let failures = json(&attache, "/failures");
    let failure = &failures["failures"][0];
    assert_eq!((&failure["reason"], &failure["path"]), (&"connect-refused".into(), &"/dead/x".into()));
    assert_eq!((&failure["attempts"], &failure["upstream"]), (&2.into(), &"dead".into()));
    assert!(!failures.to_string().contains("query-secret"), "{failures}");

    // Endpoints are counted from the first request for them on.
    text(&curl([attache.url("/a")]));
    let endpoints = json(&attache, "/stats.json")["endpoints"].clone();
    assert_eq!((&endpoints[0]["upstream"], &endpoints[0]["requests"]), (&"good".into(), &1.into()));
}

#[test]
fn a_web_page_of_another_site_learns_and_changes_nothing() {
    let (attache, _server) = start();
    for request in [
        "GET /config HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n",
        "GET /tap HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: cross-site\r\nconnection: close\r\n\r\n",
        "POST /quitquitquit HTTP/1.1\r\nhost: localhost\r\norigin: http://evil.example\r\nconnection: close\r\n\r\n",
    ] {
        let answer = raw(local(attache.admin), request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 403"), "{request}: {answer}");
    }
    assert_eq!(text(&curl([attache.url("/a")])), "hello");
}

#[test]
fn a_tap_shows_requests_as_they_end_without_their_credentials() {
    let (attache, _server) = start();
    let mut tap = Command::new(binary())
        .args(["tap", "--admin", &attache.admin.to_string(), "--path", "/a", "-o", "json", "-n", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(tap.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        out.read_line(&mut line).unwrap();
        line
    });
    // When the tap is open is known only from its first record.
    eventually("a request is shown", || {
        curl([attache.url("/other")]);
        curl([
            "-H",
            "authorization: Bearer app-secret",
            "-H",
            "x-shown: yes",
            &attache.url("/a?q=query-secret"),
        ]);
        reader.is_finished()
    });
    let line = reader.join().unwrap();
    assert!(tap.wait().unwrap().success());
    let record: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&record["path"], &record["status"]), (&"/a".into(), &200.into()));
    assert!(
        line.contains(r#"["x-shown","yes"]"#) && line.contains(r#"["authorization","(hidden)"]"#),
        "{line}"
    );
    assert!(!line.contains("secret"), "{line}");
    assert!(record["response_headers"].as_array().is_some_and(|headers| !headers.is_empty()), "{line}");
}

#[test]
fn status_and_top_show_the_state_and_status_also_by_its_exit_code() {
    let (attache, _server) = start();
    text(&curl([attache.url("/a")]));
    let status = command(&attache, &["status"]);
    let page = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(page.contains("ready") && page.contains("outbound") && page.contains("good"), "{page}");
    assert_eq!(status.status.code(), Some(0), "{page}");
    let top = text(&command(&attache, &["top", "--once", "--view", "routes"]));
    assert!(top.contains("route") && top.contains("good") && !top.contains('\u{1b}'), "{top}");
    let nobody = Command::new(binary()).args(["status", "--admin", "127.0.0.1:9"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("--admin"));
}

#[test]
fn after_drain_it_is_not_ready_and_stays_until_quit() {
    let (mut attache, _server) = start();
    assert!(command(&attache, &["drain"]).status.success());
    assert!(http_get(local(attache.metrics), "/readyz").starts_with("HTTP/1.1 503"));
    eventually("no new work is accepted", || !curl([attache.url("/a")]).status.success());
    let status = command(&attache, &["status"]);
    assert_eq!(status.status.code(), Some(2), "it has a problem and still answers");
    assert!(command(&attache, &["quit"]).status.success());
    assert_eq!(attache.process.wait(), Some(0));
}

#[test]
fn quitquitquit_ends_it_with_success() {
    let (mut attache, _server) = start();
    assert!(post(&attache, "/quitquitquit").starts_with("HTTP/1.0 202"));
    assert_eq!(attache.process.wait(), Some(0));
}

#[test]
fn the_log_level_changes_while_it_runs() {
    let (attache, _server) = start();
    assert!(post(&attache, "/log?level=debug").ends_with("debug\n"));
    assert!(http_get(local(attache.admin), "/log").ends_with("\r\n\r\ndebug\n"));
    assert!(post(&attache, "/log?level=loud").starts_with("HTTP/1.0 400"));
}

#[test]
fn a_reload_by_the_admin_api_returns_its_result_and_a_bad_config_changes_nothing() {
    let (attache, _server) = start();
    let file = attache.process.dir().join("attache.yaml");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, good.replace("path: /dead/*", "path: /gone/*")).unwrap();
    let reload = command(&attache, &["reload"]);
    assert!(text(&reload).contains("generation 2"), "{reload:?}");
    std::fs::write(&file, good.replace("listeners:", "listners:")).unwrap();
    let reload = command(&attache, &["reload"]);
    let said = String::from_utf8_lossy(&reload.stderr).into_owned();
    assert!(!reload.status.success() && said.contains("listners") && said.contains("did you mean"), "{said}");
    let reload = command(&attache, &["reload", "-o", "json"]);
    let refused: Value = serde_json::from_slice(&reload.stdout).unwrap();
    assert!(!reload.status.success() && refused["ok"] == false && refused["status"] == 422, "{refused}");
    assert!(refused["said"].to_string().contains("listners"), "{refused}");
    let status: Value = serde_json::from_slice(&command(&attache, &["status", "-o", "json"]).stdout).unwrap();
    let events = status["events"].to_string();
    assert!(
        events.contains("refused; the one before stays in use") && events.contains("last_ago_seconds"),
        "{events}"
    );
    assert_eq!(text(&curl([attache.url("/a")])), "hello");
    let reloads = json(&attache, "/reloads");
    let newest: Vec<_> = reloads.as_array().unwrap().iter().map(|reload| reload["ok"] == true).collect();
    assert_eq!(newest.first(), Some(&false), "{reloads}");
    assert!(reloads.as_array().unwrap().iter().any(|reload| reload["trigger"] == "admin"), "{reloads}");
    assert_eq!(command(&attache, &["status"]).status.code(), Some(2), "a refused config is a problem");
}

#[test]
fn a_unix_socket_of_the_own_user_is_another_way_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let at = format!("unix:{}", path.display());
    let _attache = Attache::start(&format!(
        "# $ADMIN\nadmin: '{at}'\nlisteners: {{ outbound: {{ bind: 127.0.0.1:$PORT, to: none }} }}\n\
         upstreams: {{ none: http://127.0.0.1:9 }}\n"
    ));
    let status = Command::new(binary()).args(["status", "--json", "--admin", &at]).output().unwrap();
    let seen: Value = serde_json::from_str(&text(&status)).unwrap();
    assert_eq!(seen["upstreams"][0]["name"], "none");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}
