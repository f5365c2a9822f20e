//! Secrets from files, in the requests of an application that doesn't have the secrets.

use std::{
    fs,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
};

use attache_tests::{
    Attache, TestProcess, binary, eventually, free_port, local, nginx,
    pki::{Pki, Validity},
    text,
};

use crate::{StopLoadOnDrop, ask, refused};

const NAME: &str = "orders.test";
const SECRET: &str = "s3cr3t-of-the-first-day";

/// A folder with a server's certificate and a token.
fn folder() -> Pki {
    let pki = Pki::new();
    pki.issue_at(&pki.ca("ca"), "orders", &[NAME], Validity::Now, 1);
    fs::write(pki.path("token"), format!("{SECRET}\n")).unwrap();
    pki
}

/// An https server that answers with the request that it got, over HTTP/2 if `http2` is set.
fn server(pki: &Pki, http2: bool) -> (u16, TestProcess) {
    let (port, listen) = (free_port(), if http2 { "ssl http2" } else { "ssl" });
    let server = nginx(
        &format!(
            "server {{ listen 127.0.0.1:{port} {listen}; ssl_certificate {}; ssl_certificate_key {};
             location /only-with {{ if ($http_authorization = '') {{ return 401; }} return 200 with; }}
             location / {{ return 200 'authorization=$http_authorization key=$http_x_key'; }} }}",
            pki.at("orders.crt"),
            pki.at("orders.key"),
        ),
        local(port),
    );
    (port, server)
}

fn config(pki: &Pki, port: u16, credential: &str, more: &str) -> String {
    format!(
        "watch_interval: 20ms
access_log: {{ to: stdout, format: json }}
listeners:
  outbound:
    bind: 127.0.0.1:$PORT
    to: orders
    {more}
upstreams:
  orders:
    address: https://127.0.0.1:{port}
    tls: {{ name: {NAME}, ca: PKI/ca.crt }}
    credential: {credential}"
    )
    .replace("PKI", &pki.dir().display().to_string())
}

/// Everything that can be logged is logged.
const TRACE: [(&str, &str); 1] = [("ATTACHE_LOG", "trace")];

#[test]
fn a_request_has_the_secret_instead_of_the_application_s_value_and_no_log_has_it() {
    let pki = folder();
    for http2 in [false, true] {
        let (port, _server) = server(&pki, http2);
        let routes = "routes:
      - { match: { path: /off/* }, to: orders, credential: off }
      - { match: { path: /keep/* }, to: orders, credential: { bearer: { file: PKI/token }, existing: keep } }
      - { match: { path: /basic/* }, to: orders, credential: { basic: { user: shop, password_file: PKI/token } } }
      - { match: { path: /header/* }, to: orders, credential: { header: { name: x-key, file: PKI/token } } }";
        let attache =
            Attache::start_with(&config(&pki, port, "{ bearer: { file: PKI/token } }", routes), &TRACE);
        let own = "authorization: Bearer its-own";
        let get = |path: &str, more: &[&str]| {
            let url = attache.url(path);
            ask(&[&[url.as_str()][..], more].concat())
        };
        for client in ["--http1.1", "--http2-prior-knowledge"] {
            let answer = get("/", &[client, "-H", own]);
            assert!(answer.ends_with(&format!("authorization=Bearer {SECRET} key=")), "{answer}");
        }
        assert!(get("/off/", &[]).ends_with("authorization= key="));
        assert!(get("/off/", &["-H", own]).ends_with("authorization=Bearer its-own key="));
        assert!(get("/keep/", &["-H", own]).ends_with("authorization=Bearer its-own key="));
        assert!(get("/keep/", &[]).ends_with(&format!("authorization=Bearer {SECRET} key=")));
        // printf 'shop:s3cr3t-of-the-first-day' | base64
        let basic = "c2hvcDpzM2NyM3Qtb2YtdGhlLWZpcnN0LWRheQ==";
        assert!(get("/basic/", &["-H", own]).ends_with(&format!("authorization=Basic {basic} key=")));
        let own_key = "x-key: forged";
        assert!(get("/header/", &["-H", own_key]).ends_with(&format!("authorization= key={SECRET}")));
        eventually("it is logged", || attache.process.output().contains("\"path\":\"/header/\""));
        for text in [attache.process.output(), attache.metrics()] {
            assert!(!text.contains(SECRET) && !text.contains(basic));
        }
    }
}

#[test]
fn a_rotated_secret_is_used_without_a_request_that_fails_and_a_bad_file_changes_nothing() {
    let pki = folder();
    let (port, _server) = server(&pki, true);
    let attache = Attache::start(&config(&pki, port, "{ bearer: { file: PKI/token } }", ""));
    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let sent = || ask(&[&attache.url("/")]);
    thread::scope(|scope| {
        let _end = StopLoadOnDrop(&over);
        scope.spawn(|| {
            while !over.load(Relaxed) {
                let url = attache.url("/only-with");
                let report =
                    text(&Command::new("h2load").args(["-n", "200", "-c", "4", &url]).output().unwrap());
                assert!(report.contains("status codes: 200 2xx"), "{report}");
                asked.fetch_add(200, Relaxed);
            }
        });
        for day in 0..20 {
            // As agents do it: a new file is renamed over the old one.
            fs::write(pki.path("new"), format!("token-of-day-{day}\n")).unwrap();
            fs::rename(pki.path("new"), pki.path("token")).unwrap();
            eventually("the new secret is sent", || sent().contains(&format!("Bearer token-of-day-{day} ")));
        }
        for bad in ["", "\n", "Bearer token", "two\nlines"] {
            fs::write(pki.path("token"), bad).unwrap();
            eventually("the failure is noticed", || {
                attache.metric("attache_credentials_failing", &[]) >= 1.0
            });
            assert!(sent().contains("Bearer token-of-day-19 "), "{bad:?}");
            fs::write(pki.path("token"), "token-of-day-19\n").unwrap();
            eventually("it is repaired", || attache.metric("attache_credentials_failing", &[]) == 0.0);
        }
        fs::remove_file(pki.path("token")).unwrap();
        eventually("its absence is noticed", || attache.metric("attache_credentials_failing", &[]) >= 1.0);
        assert!(sent().contains("Bearer token-of-day-19 "));
    });
    assert!(asked.into_inner() > 200);
    assert_eq!(attache.metric("attache_credential_reloads_total", &["\"ok\""]), 20.0);
    assert!(!attache.process.output().contains("token-of-day"));
}

#[test]
fn without_the_secret_nothing_is_sent() {
    let pki = folder();
    fs::remove_file(pki.path("token")).unwrap();
    let (port, _server) = server(&pki, false);
    let file = pki.path("attache.yaml");
    fs::write(&file, config(&pki, port, "{ bearer: { file: PKI/token } }", "").replace("$PORT", "0"))
        .unwrap();
    let refused_to_start = Command::new(binary()).arg("run").arg("-c").arg(&file).output().unwrap();
    let error = String::from_utf8_lossy(&refused_to_start.stderr).into_owned();
    assert!(!refused_to_start.status.success() && error.contains(&pki.at("token")), "{error}");

    let late = "{ bearer: { file: PKI/token }, may_come_late: true }";
    let attache = Attache::start(&config(&pki, port, late, ""));
    let answer = ask(&[&attache.url("/only-with")]);
    refused(&answer, 503, "no-credential");
    assert!(answer.contains(&pki.at("token")) || attache.process.output().contains(&pki.at("token")));
    fs::write(pki.path("token"), SECRET).unwrap();
    eventually("the secret exists now", || ask(&[&attache.url("/only-with")]).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_mirror_has_only_its_own_secret_and_a_health_check_has_one_only_if_configured() {
    let pki = folder();
    let (port, _server) = server(&pki, false);
    let shadow = free_port();
    let server = nginx(
        &format!(
            "log_format sent '$request_uri [$http_authorization]';
             server {{ listen 127.0.0.1:{shadow}; access_log $DIR/seen sent; location / {{ return 204; }} }}"
        ),
        local(shadow),
    );
    let seen = || fs::read_to_string(server.dir().join("seen")).unwrap_or_default();
    let routes = "routes:
      - { match: { path: /copied/* }, to: orders, mirror: shadow }
      - { match: { path: /given/* }, to: orders, mirror: shadow-with-its-own }
      - { match: { path: /shadow }, to: shadow }";
    let config = format!(
        "{}
  shadow: http://127.0.0.1:{shadow}
  shadow-with-its-own:
    address: http://127.0.0.1:{shadow}
    health_check: {{ path: /alive, interval: 100ms }}
    credential: {{ basic: {{ user: shadow, password_file: PKI/token }}, health_checks: true, insecure_send_in_clear: true }}",
        config(&pki, port, "{ bearer: { file: PKI/token } }", routes)
    );
    let attache = Attache::start(&config.replace("PKI", &pki.dir().display().to_string()));
    assert!(ask(&[&attache.url("/copied/1")]).contains(SECRET));
    assert!(ask(&[&attache.url("/given/1")]).contains(SECRET));
    // printf 'shadow:s3cr3t-of-the-first-day' | base64
    let own = "Basic c2hhZG93OnMzY3IzdC1vZi10aGUtZmlyc3QtZGF5";
    eventually("both were copied", || seen().contains("/copied/1") && seen().contains("/given/1"));
    eventually("it was probed", || seen().contains("/alive"));
    assert!(seen().contains("/copied/1 [-]\n"), "{}", seen());
    assert!(seen().contains(&format!("/given/1 [{own}]\n")), "{}", seen());
    assert!(seen().contains(&format!("/alive [{own}]\n")), "{}", seen());
}
