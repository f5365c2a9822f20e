//! The identities that peers have proven: in routes, headers, logs and metrics.

use std::process::Command;

use attache_tests::{Attache, TestProcess, eventually, free_port, local, nginx, pki::Pki, text};

use crate::{ask, ask_tls, refused};

const WEB: &str = "spiffe://shop/ns/shop/sa/web";
const CRON: &str = "spiffe://shop/ns/batch/sa/cron";

struct IdentityListener {
    pki: Pki,
    attache: Attache,
    _app: TestProcess,
}

/// mTLS in front of an application that answers with the headers that it got. `tls` and `rest` are more keys of `tls` and of the listener.
fn site(tls: &str, rest: &str) -> IdentityListener {
    let pki = Pki::new();
    let ca = pki.ca("ca");
    pki.issue(&ca, "api", &["api.test", "spiffe://shop/ns/shop/sa/api"]);
    pki.issue(&ca, "web", &[WEB, "web.test"]);
    pki.issue(&ca, "cron", &[CRON]);
    let port = free_port();
    let app = nginx(
        &format!(
            "server {{ listen 127.0.0.1:{port}; return 200 'path=$uri who=$http_x_who client=$http_x_forwarded_client_cert'; }}"
        ),
        local(port),
    );
    let config = format!(
        "access_log: {{ to: stdout, format: json }}
listeners:
  inbound:
    bind: 127.0.0.1:$PORT
    tls: {{ certificate: PKI/api.crt, key: PKI/api.key, client_ca: PKI/ca.crt, {tls} }}
    {rest}
upstreams: {{ app: 'http://127.0.0.1:{port}' }}"
    );
    let attache = Attache::start(&config.replace("PKI", &pki.dir().display().to_string()));
    IdentityListener { pki, attache, _app: app }
}

impl IdentityListener {
    fn ask(&self, client: Option<&str>, path: &str, more: &[&str]) -> String {
        ask_tls(&self.pki, ("api.test", self.attache.port), path, client, more)
    }

    fn logged(&self, parts: &[&str]) {
        eventually(&parts.join(" "), || {
            self.attache.process.output().lines().any(|line| parts.iter().all(|part| line.contains(part)))
        });
    }

    fn clients(&self, outcome: &str) -> f64 {
        self.attache.metric("attache_tls_clients_total", &[&format!("outcome=\"{outcome}\"")])
    }
}

#[test]
fn a_route_can_match_the_client_s_proven_identity() {
    let site = site(
        "client_optional: true",
        "routes:
      - { match: { path: /admin/*, identity: 'spiffe://shop/ns/batch/**' }, to: app, rewrite: { path: /batch } }
      - { match: { path: /admin/*, identity: ['subject:CN=web.tes*', '*.test'] }, respond: 418,
          headers: { response: { set: { x-who: '%{client.identity}' } } } }
      - { match: { path: /admin/* }, respond: 403 }
    to: app",
    );
    for version in ["--http1.1", "--http2"] {
        assert!(site.ask(Some("cron"), "/admin/x", &[version]).contains("path=/batch"));
        let web = site.ask(Some("web"), "/admin/x", &[version]);
        assert!(web.contains(" 418") && web.contains(&format!("x-who: {WEB}")), "{web}");
        let nobody = site.ask(None, "/admin/x", &[version]);
        assert!(nobody.lines().next().is_some_and(|line| line.contains(" 403")), "{nobody}");
        assert!(site.ask(None, "/", &[version]).contains("path=/ "));
    }
    site.logged(&["\"path\":\"/admin/x\"", "\"status\":418", &format!("\"identity\":\"{WEB}\"")]);
    site.logged(&["\"path\":\"/\"", "\"identity\":null"]);
    assert_eq!((site.clients("allowed"), site.clients("anonymous"), site.clients("denied")), (4.0, 4.0, 0.0));
}

#[test]
fn the_application_can_get_the_identity_in_a_header_of_its_choice() {
    let site =
        site("", "routes: [{ to: app, headers: { request: { set: { x-who: '%{client.identity}' } } } }]");
    let answer = site.ask(Some("web"), "/", &["-H", "x-who: forged"]);
    assert!(answer.contains(&format!("who={WEB} ")), "{answer}");
}

#[test]
fn a_denied_identity_is_in_the_answer_the_log_and_the_metrics() {
    for tls in ["allow: 'subject:CN=*cron'", "deny: ['subject:CN=*sa/web']"] {
        let site = site(tls, "");
        for version in ["--http1.1", "--http2"] {
            let answer = site.ask(Some("web"), "/", &[version]);
            refused(&answer, 403, "denied-identity");
            assert!(answer.contains(WEB), "{answer}");
            assert!(site.ask(Some("cron"), "/", &[version]).contains(&format!("URI={CRON}")));
        }
        site.logged(&["denied-identity", &format!("\"identity\":\"{WEB}\""), "\"detail\":\"The identity"]);
        assert_eq!((site.clients("allowed"), site.clients("denied")), (2.0, 2.0));
    }
}

#[test]
fn the_log_has_the_upstream_s_verified_identity() {
    let inner = site("", "");
    let at = inner.pki.dir().display();
    let outer = Attache::start(&format!(
        "access_log: {{ to: stdout, format: json }}
listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
upstreams:
  api:
    address: https://127.0.0.1:{}
    tls: {{ name: api.test, ca: {at}/ca.crt, certificate: {at}/web.crt, key: {at}/web.key }}",
        inner.attache.port
    ));
    assert!(ask(&[&outer.url("/")]).contains(WEB));
    eventually("it is logged", || {
        outer.process.output().contains("\"peer\":\"spiffe://shop/ns/shop/sa/api\"")
    });
    let group = ["side=\"upstream\"", "version=\"1.3\"", "kind=\"full\"", "key_exchange=\"X25519MLKEM768\""];
    assert_eq!(outer.metric("attache_tls_handshakes_total", &group), 1.0, "{}", outer.metrics());
}

#[test]
fn a_chain_of_proxies_is_trusted_only_if_the_config_says_so() {
    let claim = "URI=spiffe://shop/ns/edge/sa/user";
    let header = format!("x-forwarded-client-cert: {claim}");
    let client = |http: &str, who: Option<&str>| {
        let site = site("client_optional: true", &format!("http: {{ {http} }}"));
        let answer = site.ask(who, "/", &["-H", &header]);
        answer.rsplit("client=").next().unwrap_or_default().to_owned()
    };
    let appended = client("forward_client_cert_details: append-forward", Some("web"));
    assert!(appended.starts_with(&format!("{claim},By=spiffe://shop/ns/shop/sa/api;Hash=")), "{appended}");
    assert!(appended.ends_with("URI=spiffe://shop/ns/shop/sa/web;DNS=web.test"), "{appended}");
    assert_eq!(client("forward_client_cert_details: append-forward", None), "");
    assert_eq!(client("forward_client_cert_details: forward-only", Some("web")), claim);
    assert_eq!(client("forward_client_cert_details: sanitize", Some("web")), "");
    assert_eq!(client("forward_client_cert_details: always-forward-only", None), claim);
    let few = client("set_current_client_cert_details: [dns]", Some("web"));
    assert!(few.ends_with(";DNS=web.test") && !few.contains("URI") && !few.contains("Subject"), "{few}");
}

#[test]
fn a_connection_ends_at_its_maximum_age_without_a_failed_request() {
    let site = site("", "http: { max_connection_age: 1s }");
    let at = site.pki.dir().display();
    for protocol in ["http1", "http2"] {
        let near = Attache::start(&format!(
            "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
workers: 1
upstreams:
  api:
    address: https://127.0.0.1:{}
    protocol: {protocol}
    retry: off
    tls: {{ name: api.test, ca: {at}/ca.crt, certificate: {at}/web.crt, key: {at}/web.key }}",
            site.attache.port
        ));
        // Five times the age, two requests at a time, on kept connections.
        let report = Command::new("h2load").args(["--h1", "-D", "5", "-c", "2", &near.url("/")]).output();
        let report = text(&report.unwrap());
        assert!(report.contains(" 0 failed, 0 errored, 0 timeout"), "{report}");
        assert_eq!(near.metric("attache_requests_total", &["code=\"5xx\""]), 0.0, "{report}");
        let opened = near.metric("attache_upstream_connections_opened_total", &["api"]);
        // Two connections of HTTP/1, or one of HTTP/2, each replaced four to six times.
        let least = if protocol == "http1" { 8.0 } else { 4.0 };
        assert!((least..=16.0).contains(&opened), "{protocol}: {opened} connections: {report}");
    }
}
