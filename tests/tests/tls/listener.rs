//! attache as the server.

use std::fs;

use attache_tests::{
    Attache, TestProcess, curl, eventually, free_port, local, nginx,
    pki::{CertificateAuthority, Pki, Validity, shown_serial},
    text,
};

use crate::{ask, ask_tls, counted, refused};

const API: &str = "api.test";
const WEB: &str = "spiffe://shop/ns/shop/sa/web";

/// A listener that terminates TLS for `api.test`, and an application that answers with what it was told about the client.
struct TlsListener {
    pki: Pki,
    ca: CertificateAuthority,
    attache: Attache,
    _app: TestProcess,
}

impl TlsListener {
    /// `tls` are more keys of the listener's `tls`; `PKI` in it stands for the folder.
    fn new(tls: &str) -> Self {
        let pki = Pki::new();
        let ca = pki.ca("ca");
        pki.issue_at(&ca, "api", &[API, "spiffe://shop/ns/shop/sa/api"], Validity::Now, 0xA1);
        pki.issue_at(&ca, "other", &["other.test"], Validity::Now, 0xB2);
        pki.issue(&ca, "web", &[WEB, "web.test"]);
        pki.issue_at(&ca, "revoked", &["revoked.test"], Validity::Now, 66);
        pki.issue(&pki.ca("stranger-ca"), "stranger", &[WEB]);
        fs::write(pki.path("ca.crl"), ca.revoke(66)).unwrap();
        let port = free_port();
        let app = nginx(
            &format!(
                "server {{ listen 127.0.0.1:{port}; return 200 'client=$http_x_forwarded_client_cert proto=$http_x_forwarded_proto'; }}"
            ),
            local(port),
        );
        let attache = Attache::start(
            &format!(
                "listeners:
  inbound:
    bind: 127.0.0.1:$PORT
    tls: {{ certificate: PKI/api.crt, key: PKI/api.key, {tls} }}
upstreams: {{ app: 'http://127.0.0.1:{port}' }}",
            )
            .replace("PKI", &pki.dir().display().to_string()),
        );
        Self { pki, ca, attache, _app: app }
    }

    fn url(&self, name: &str) -> String {
        format!("https://{name}:{}/", self.attache.port)
    }

    /// Calls it with curl as this client, with more arguments.
    fn ask(&self, client: Option<&str>, more: &[&str]) -> String {
        ask_tls(&self.pki, (API, self.attache.port), "/", client, more)
    }
}

#[test]
fn the_application_gets_the_verified_client_and_nothing_that_the_client_claims() {
    let site = TlsListener::new("client_ca: PKI/ca.crt");
    let forged = ["-H", "x-forwarded-client-cert: URI=spiffe://shop/admin"];
    for version in ["--http1.1", "--http2"] {
        let answer = site.ask(Some("web"), &[&[version][..], &forged].concat());
        assert!(answer.starts_with("HTTP/") && answer.contains(" 200"), "{answer}");
        assert!(answer.contains(&format!("URI={WEB};DNS=web.test proto=https")), "{answer}");
        assert!(answer.contains("client=By=spiffe://shop/ns/shop/sa/api;Hash="), "{answer}");
        assert!(!answer.contains("admin"), "{answer}");
    }
    let open = TlsListener::new("client_ca: PKI/ca.crt, client_optional: true");
    let answer = open.ask(None, &forged);
    assert!(answer.ends_with("client= proto=https"), "{answer}");
}

#[test]
fn clients_without_a_valid_certificate_are_closed_and_counted_with_their_reason() {
    for version in ["--tls-max 1.2", "--tlsv1.3"] {
        let version: Vec<_> = version.split(' ').collect();
        let site = TlsListener::new("client_ca: PKI/ca.crt, crls: PKI/ca.crl");
        assert!(site.ask(None, &version).contains("curl: ("));
        counted(&site.attache, "tls-no-client-certificate");
        assert!(site.ask(Some("stranger"), &version).contains("curl: ("));
        counted(&site.attache, "tls-untrusted");
        assert!(site.ask(Some("revoked"), &version).contains("curl: ("));
        counted(&site.attache, "tls-revoked");
        assert!(site.ask(Some("web"), &version).contains(WEB), "still serves");
    }
}

#[test]
fn a_denied_identity_gets_an_http_answer() {
    for tls in [
        "client_ca: PKI/ca.crt, allow: 'spiffe://shop/ns/shop/sa/admin'",
        "client_ca: PKI/ca.crt, deny: 'spiffe://shop/ns/*/sa/web'",
    ] {
        let site = TlsListener::new(tls);
        for version in ["--http1.1", "--http2"] {
            refused(&site.ask(Some("web"), &[version]), 403, "denied-identity");
        }
        counted(&site.attache, "denied-identity");
    }
    let allowed = TlsListener::new("client_ca: PKI/ca.crt, allow: 'spiffe://shop/**'");
    assert!(allowed.ask(Some("web"), &[]).contains(WEB));
    refused(&allowed.ask(Some("revoked"), &[]), 403, "denied-identity");
}

#[test]
fn permissive_accepts_both_and_strict_refuses_plaintext_with_a_reason() {
    let permissive = TlsListener::new("mode: permissive, client_ca: PKI/ca.crt");
    let forged = ["-H", "x-forwarded-client-cert: URI=spiffe://shop/admin"];
    let plain = ask(&[&forged[..], &[&permissive.attache.url("/")]].concat());
    assert!(plain.ends_with("client= proto=http"), "{plain}");
    assert!(permissive.ask(Some("web"), &[]).contains(WEB));
    let strict = TlsListener::new("");
    refused(&ask(&[&strict.attache.url("/")]), 403, "plaintext-denied");
    assert!(strict.ask(None, &[]).ends_with("client= proto=https"));
}

#[test]
fn the_server_name_selects_the_certificate() {
    let site = TlsListener::new("certificates: [{ certificate: PKI/other.crt, key: PKI/other.key }]");
    let port = site.attache.port;
    assert_eq!(shown_serial(port, API), "A1");
    assert_eq!(shown_serial(port, "other.test"), "B2");
    assert_eq!(shown_serial(port, "unknown.test"), "A1", "the first if none matches");
    let resolve = format!("other.test:{port}:127.0.0.1");
    text(&curl([
        "--fail",
        "--cacert",
        &site.pki.at("ca.crt"),
        "--resolve",
        &resolve,
        &site.url("other.test"),
    ]));
}

#[test]
fn a_client_that_is_revoked_at_run_time_is_closed_from_then_on() {
    let site = TlsListener::new("client_ca: PKI/ca.crt, crls: PKI/ca.crl");
    assert!(site.ask(Some("web"), &[]).contains(WEB));
    // The whole list is replaced by a rename; `web` has the serial number 1.
    fs::write(site.pki.path("new.crl"), site.ca.revoke(1)).unwrap();
    fs::rename(site.pki.path("new.crl"), site.pki.path("ca.crl")).unwrap();
    eventually("the list is in use", || {
        site.attache.metric("attache_certificate_reloads_total", &["outcome=\"ok\""]) >= 1.0
    });
    assert!(site.ask(Some("web"), &[]).contains("curl: ("));
    counted(&site.attache, "tls-revoked");
    assert!(site.ask(Some("revoked"), &[]).contains("DNS=revoked.test"), "no longer on the list");
}

#[test]
fn a_client_that_supports_only_an_old_version_is_refused() {
    let site = TlsListener::new("");
    let answer = site.ask(None, &["--tls-max", "1.1", "--ciphers", "ALL:@SECLEVEL=0"]);
    assert!(answer.contains("curl: ("), "{answer}");
    counted(&site.attache, "tls-version");
}
