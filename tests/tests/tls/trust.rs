//! Which peers attache trusts, while that changes: authorities, revocation lists, pins; and stapled responses.

use std::{
    fs,
    process::{Command, Stdio},
};

use attache_tests::{
    Attache, TestProcess, eventually, free_port, local, nginx,
    pki::{Pki, Validity},
    script_server, text,
};

use crate::{ask, counted, refused};

const NAME: &str = "orders.test";

/// A TLS server with the certificate `NAME.crt`, and attache in front of it with these keys of `tls`. Every request has a handshake.
fn to_server(pki: &Pki, certificate: &str, tls: &str) -> (Attache, TestProcess) {
    let port = free_port();
    let (crt, key) = (pki.at(&format!("{certificate}.crt")), pki.at(&format!("{certificate}.key")));
    let server = nginx(
        &format!(
            "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {crt}; ssl_certificate_key {key}; ssl_session_tickets off; return 200 hello; }}"
        ),
        local(port),
    );
    let config = format!(
        "watch_interval: 20ms
listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
upstreams:
  orders:
    address: https://127.0.0.1:{port}
    pool: {{ max_requests: 1 }}
    tls: {{ name: {NAME}, {tls} }}"
    );
    (Attache::start(&config.replace("PKI", &pki.dir().display().to_string())), server)
}

fn reloads(attache: &Attache, outcome: &str) -> f64 {
    attache.metric("attache_certificate_reloads_total", &[&format!("outcome=\"{outcome}\"")])
}

/// Replaces a file as a mounted secret is replaced.
fn replace(pki: &Pki, file: &str, content: impl AsRef<[u8]>) {
    fs::write(pki.path("new"), content).unwrap();
    fs::rename(pki.path("new"), pki.path(file)).unwrap();
}

#[test]
fn an_authority_is_replaced_while_requests_run() {
    let pki = Pki::new();
    let (_, new) = (pki.ca("old"), pki.ca("new-ca"));
    fs::copy(pki.path("old.crt"), pki.path("ca.crt")).unwrap();
    pki.issue(&new, "orders", &[NAME]);
    let (attache, _server) = to_server(&pki, "orders", "ca: PKI/ca.crt");
    let get = || ask(&[&attache.url("/")]);
    refused(&get(), 502, "tls-untrusted");
    // Half a bundle changes nothing; the complete one is trusted from then on.
    let bundle = fs::read_to_string(pki.path("old.crt")).unwrap()
        + &fs::read_to_string(pki.path("new-ca.crt")).unwrap();
    replace(&pki, "ca.crt", bundle.get(..bundle.len() - 40).unwrap());
    eventually("the bad bundle is noticed", || reloads(&attache, "failed") >= 1.0);
    refused(&get(), 502, "tls-untrusted");
    replace(&pki, "ca.crt", &bundle);
    eventually("both are trusted", || get().ends_with("hello"));
    // First the old authority is removed, then the new one too.
    fs::copy(pki.path("new-ca.crt"), pki.path("ca.crt")).unwrap();
    eventually("it is in use", || reloads(&attache, "ok") >= 2.0);
    assert!(get().ends_with("hello"));
    replace(&pki, "ca.crt", fs::read(pki.path("old.crt")).unwrap());
    eventually("the new one is no longer trusted", || get().contains("tls-untrusted"));
}

#[test]
fn the_client_s_authority_is_replaced_at_run_time() {
    let pki = Pki::new();
    let (old, new) = (pki.ca("old"), pki.ca("new-ca"));
    fs::copy(pki.path("old.crt"), pki.path("ca.crt")).unwrap();
    pki.issue(&old, "api", &["api.test"]);
    pki.issue(&old, "before", &["before.test"]);
    pki.issue(&new, "after", &["after.test"]);
    let at = pki.dir().display();
    let attache = Attache::start(&format!(
        "watch_interval: 20ms
listeners:
  inbound:
    bind: 127.0.0.1:$PORT
    tls: {{ certificate: {at}/api.crt, key: {at}/api.key, client_ca: {at}/ca.crt }}
    routes: [{{ respond: 204 }}]"
    ));
    let get = |client: &str| {
        let (certificate, key) = (pki.at(&format!("{client}.crt")), pki.at(&format!("{client}.key")));
        let url = format!("https://127.0.0.1:{}/", attache.port);
        ask(&["-k", "--cert", &certificate, "--key", &key, &url])
    };
    assert!(get("before").contains(" 204") && get("after").contains("curl: ("));
    replace(&pki, "ca.crt", "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n");
    eventually("the bad bundle is noticed", || reloads(&attache, "failed") >= 1.0);
    assert!(get("before").contains(" 204") && get("after").contains("curl: ("));
    replace(&pki, "ca.crt", fs::read(pki.path("new-ca.crt")).unwrap());
    eventually("the new one is trusted", || get("after").contains(" 204"));
    assert!(get("before").contains("curl: ("));
    counted(&attache, "tls-untrusted");
}

#[test]
fn a_revoked_upstream_gets_nothing() {
    let pki = Pki::new();
    let ca = pki.ca("ca");
    pki.issue_at(&ca, "orders", &[NAME, "spiffe://shop/orders"], Validity::Now, 7);
    fs::write(pki.path("ca.crl"), ca.revoke(66)).unwrap();
    for tls in ["", "peers: 'spiffe://shop/orders', "] {
        replace(&pki, "ca.crl", ca.revoke(66));
        let (attache, _server) = to_server(&pki, "orders", &format!("{tls}ca: PKI/ca.crt, crls: PKI/ca.crl"));
        assert!(ask(&[&attache.url("/")]).ends_with("hello"));
        replace(&pki, "ca.crl", ca.revoke(7));
        eventually("the list is in use", || reloads(&attache, "ok") >= 1.0);
        refused(&ask(&[&attache.url("/")]), 502, "tls-revoked");
    }
}

#[test]
fn a_pin_matches_the_server_s_own_key() {
    let pki = Pki::new();
    pki.issue(&pki.ca("ca"), "orders", &[NAME]);
    // The command for a pin in docs/tls.md.
    let pin = Command::new("sh")
        .arg("-c")
        .arg("openssl x509 -pubkey -noout -in \"$1\" | openssl pkey -pubin -outform der | sha256sum | cut -d' ' -f1")
        .args(["sh", &pki.at("orders.crt")])
        .output()
        .unwrap();
    let (right, wrong) = (text(&pin).trim().to_owned(), "ab".repeat(32));
    let (attache, _server) =
        to_server(&pki, "orders", &format!("ca: PKI/ca.crt, pins: ['{wrong}', '{right}']"));
    assert!(ask(&[&attache.url("/")]).ends_with("hello"));
    let (attache, _server) = to_server(&pki, "orders", &format!("ca: PKI/ca.crt, pins: '{wrong}'"));
    refused(&ask(&[&attache.url("/")]), 502, "tls-pin-mismatch");
    // A pin is checked even if nothing else is.
    let insecure = format!("insecure_skip_verify: true, pins: '{wrong}'");
    let (attache, _server) = to_server(&pki, "orders", &insecure);
    refused(&ask(&[&attache.url("/")]), 502, "tls-pin-mismatch");
}

#[test]
fn an_ocsp_response_is_stapled_and_replaced_with_its_file() {
    let pki = Pki::new();
    let ca = pki.ca("ca");
    pki.issue_at(&ca, "api", &["api.test"], Validity::Now, 0xA1);
    let respond = |status: &str| {
        // The database of openssl: status, expiry, revocation, serial, file, subject.
        let revoked = if status == "R" { "210101000000Z" } else { "" };
        fs::write(
            pki.path("index"),
            format!("{status}\t391231000000Z\t{revoked}\tA1\tunknown\t/CN=api.test\n"),
        )
        .unwrap();
        let mut ocsp = Command::new("openssl");
        ocsp.args(["ocsp", "-ndays", "7", "-issuer", &pki.at("ca.crt"), "-cert", &pki.at("api.crt")]);
        for (flag, file) in [
            ("-index", "index"),
            ("-rsigner", "ca.crt"),
            ("-rkey", "ca.key"),
            ("-CA", "ca.crt"),
            ("-respout", "new.der"),
        ] {
            ocsp.args([flag, &pki.at(file)]);
        }
        let output = ocsp.output().unwrap();
        assert!(pki.path("new.der").exists(), "{output:?}");
        fs::rename(pki.path("new.der"), pki.path("ocsp.der")).unwrap();
    };
    respond("V");
    let at = pki.dir().display();
    let attache = Attache::start(&format!(
        "watch_interval: 20ms
listeners:
  inbound:
    bind: 127.0.0.1:$PORT
    tls: {{ certificate: {at}/api.crt, key: {at}/api.key, ocsp: {at}/ocsp.der }}
    routes: [{{ respond: 204 }}]"
    ));
    let status = |version: &str| {
        let output = Command::new("openssl")
            .args(["s_client", "-status", version, "-connect", &format!("127.0.0.1:{}", attache.port)])
            .args(["-servername", "api.test", "-CAfile", &pki.at("ca.crt")])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let shown = status(version);
        assert!(shown.contains("OCSP Response Status: successful"), "{shown}");
        assert!(shown.contains("Cert Status: good"), "{shown}");
    }
    respond("R");
    eventually("the new response is stapled", || status("-tls1_3").contains("Cert Status: revoked"));
}

#[test]
fn a_connection_that_is_cut_without_close_notify_is_not_a_complete_body() {
    let pki = Pki::new();
    pki.issue(&pki.ca("ca"), "orders", &[NAME]);
    let port = free_port();
    let _server =
        script_server("tls_cut_server.py", local(port), &[&pki.at("orders.crt"), &pki.at("orders.key")]);
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
upstreams:
  orders:
    address: https://127.0.0.1:{port}
    protocol: http1
    retry: off
    tls: {{ name: {NAME}, ca: {} }}",
        pki.at("ca.crt")
    ));
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        // The length says where the body ends; so does close_notify.
        for path in ["/whole", "/ended"] {
            let answer = ask(&["--fail", version, &attache.url(path)]);
            assert!(answer.ends_with("body"), "{path}: {answer}");
        }
        // A body that was cut is cut for the client too, so that the client can't take it for complete.
        for path in ["/short", "/cut", "/chunked"] {
            let answer = ask(&["--fail", version, &attache.url(path)]);
            assert!(answer.contains("curl: ("), "{path}: {answer}");
        }
    }
    counted(&attache, "upstream-closed-mid-body");
    let cut = attache.metric("attache_requests_total", &["reason=\"upstream-closed-mid-body\""]);
    assert_eq!(cut, 6.0, "{}", attache.metrics());
}

#[test]
fn sessions_are_resumed_across_connections_and_workers_in_both_versions() {
    let pki = Pki::new();
    pki.issue(&pki.ca("ca"), "api", &["api.test"]);
    let at = pki.dir().display();
    let far = Attache::start(&format!(
        "workers: 2
listeners:
  inbound:
    bind: 127.0.0.1:$PORT
    tls: {{ certificate: {at}/api.crt, key: {at}/api.key }}
    routes: [{{ respond: 204 }}]"
    ));
    let count = |attache: &Attache, labels: &[&str]| attache.metric("attache_tls_handshakes_total", labels);
    // openssl connects five more times with the session of the first connection; only TLS 1.2 gets it within the handshake.
    let output = Command::new("openssl")
        .args(["s_client", "-reconnect", "-tls1_2", "-connect", &format!("127.0.0.1:{}", far.port)])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(shown.lines().filter(|line| line.starts_with("Reused, TLSv1.2")).count(), 5, "{shown}");
    assert_eq!(count(&far, &["version=\"1.2\"", "kind=\"full\""]), 1.0);
    assert_eq!(count(&far, &["version=\"1.2\"", "kind=\"resumed\""]), 5.0);
    for version in ["1.2", "1.3"] {
        let server = free_port();
        let (low, high) = (format!("TLSv{version}"), server.to_string());
        let _server = nginx(
            &format!(
                "server {{ listen 127.0.0.1:{high} ssl; ssl_protocols {low}; ssl_certificate {at}/api.crt; ssl_certificate_key {at}/api.key;
                 return 200 $ssl_session_reused; }}"
            ),
            local(server),
        );
        let near = Attache::start(&format!(
            "workers: 2
listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
upstreams:
  api:
    address: https://127.0.0.1:{server}
    pool: {{ max_requests: 1 }}
    tls: {{ name: api.test, ca: {at}/ca.crt }}"
        ));
        let answers: Vec<String> = (0..20).map(|_| ask(&[&near.url("/")])).collect();
        assert!(answers.iter().skip(1).all(|answer| answer.ends_with("\r\n\r\nr")), "{version}: {answers:?}");
        let labels = ["side=\"upstream\"", &format!("version=\"{version}\"")];
        assert_eq!(count(&near, &[labels[0], labels[1], "kind=\"full\""]), 1.0);
        assert_eq!(count(&near, &[labels[0], labels[1], "kind=\"resumed\""]), 19.0);
    }
}

#[test]
fn mode_off_means_plaintext_as_without_tls() {
    let pki = Pki::new();
    pki.issue(&pki.ca("ca"), "api", &["api.test"]);
    let at = pki.dir().display();
    let attache = Attache::start(&format!(
        "listeners:
  inbound:
    bind: 127.0.0.1:$PORT
    tls: {{ certificate: {at}/api.crt, key: {at}/api.key, mode: off }}
    routes: [{{ respond: 204 }}]"
    ));
    assert!(ask(&[&attache.url("/")]).starts_with("HTTP/1.1 204"));
    assert!(ask(&["-k", &format!("https://127.0.0.1:{}/", attache.port)]).contains("curl: ("));
}
