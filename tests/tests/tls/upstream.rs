//! attache as the client.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use attache_tests::{
    Attache, free_port, local, nginx,
    pki::{Pki, Validity, openssl_server},
};

use crate::{ask, refused};

const NAME: &str = "orders.test";

/// A proxy with a plaintext listener in front of `https://127.0.0.1:port`.
fn in_front_of(pki: &Pki, port: u16, tls: &str, more: &str) -> Attache {
    Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
upstreams:
  orders:
    address: https://127.0.0.1:{port}
    tls: {{ name: {NAME}, {} }}
    {more}",
        tls.replace("PKI", &pki.dir().display().to_string())
    ))
}

const CA: &str = "ca: PKI/ca.crt";

fn serve(pki: &Pki, certificate: &str, listen: &str) -> (u16, attache_tests::TestProcess) {
    let port = free_port();
    let server = nginx(
        &format!(
            "server {{ listen 127.0.0.1:{port} {listen}; ssl_certificate {}; ssl_certificate_key {}; return 200 'I am $ssl_server_name over $server_protocol'; }}",
            pki.at(&format!("{certificate}.crt")),
            pki.at(&format!("{certificate}.key")),
        ),
        local(port),
    );
    (port, server)
}

#[test]
fn attache_speaks_the_protocol_that_a_verified_upstream_chooses_by_alpn() {
    let pki = Pki::new();
    pki.issue(&pki.ca("ca"), "orders", &[NAME]);
    for (listen, version) in [("ssl", "HTTP/1.1"), ("ssl http2", "HTTP/2.0")] {
        let (port, _server) = serve(&pki, "orders", listen);
        let attache = in_front_of(&pki, port, CA, "");
        for client in ["--http1.1", "--http2-prior-knowledge"] {
            let answer = ask(&[client, &attache.url("/")]);
            assert!(answer.ends_with(&format!("I am {NAME} over {version}")), "{answer}");
        }
    }
}

#[test]
fn an_upstream_that_can_not_be_verified_gets_nothing_and_the_reason_says_why() {
    let pki = Pki::new();
    let (ca, other) = (pki.ca("ca"), pki.ca("other"));
    pki.issue(&other, "untrusted", &[NAME]);
    pki.issue(&ca, "misnamed", &["payments.test"]);
    pki.issue_at(&ca, "expired", &[NAME], Validity::Past, 1);
    pki.issue_at(&ca, "early", &[NAME], Validity::Future, 1);
    for (certificate, reason) in [
        ("untrusted", "tls-untrusted"),
        ("misnamed", "tls-name-mismatch"),
        ("expired", "tls-expired"),
        ("early", "tls-not-yet-valid"),
    ] {
        let (port, _server) = serve(&pki, certificate, "ssl http2");
        let attache = in_front_of(&pki, port, CA, "");
        refused(&ask(&[&attache.url("/")]), 502, reason);
    }
}

#[test]
fn a_missing_or_refused_client_certificate_is_distinguished_from_a_reset_in_both_versions() {
    let pki = Pki::new();
    let (ca, other) = (pki.ca("ca"), pki.ca("other"));
    pki.issue(&ca, "orders", &[NAME]);
    pki.issue(&ca, "app", &["app.test"]);
    pki.issue(&other, "stranger", &["app.test"]);
    for version in ["-tls1_2", "-tls1_3"] {
        // The second one speaks no HTTP/2, but its alert comes before attache could notice that.
        for alpn in ["", "-alpn h2"] {
            let port = free_port();
            let more = format!("{version} {alpn} -Verify 1 -verify_return_error -CAfile PKI/ca.crt");
            let _server = openssl_server(&pki, "orders", port, &more);
            let attache = in_front_of(&pki, port, CA, "");
            for _ in 0..5 {
                refused(&ask(&[&attache.url("/")]), 502, "tls-no-client-certificate");
            }
            let stranger = format!("{CA}, certificate: PKI/stranger.crt, key: PKI/stranger.key");
            let attache = in_front_of(&pki, port, &stranger, "");
            for _ in 0..5 {
                refused(&ask(&[&attache.url("/")]), 502, "tls-no-client-certificate");
            }
            if alpn.is_empty() {
                let app = format!("{CA}, certificate: PKI/app.crt, key: PKI/app.key");
                let answer = ask(&[&in_front_of(&pki, port, &app, "").url("/")]);
                assert!(answer.starts_with("HTTP/1.1 200"), "{version}: {answer}");
            }
        }
    }
}

#[test]
fn old_versions_and_other_protocols_have_their_reasons() {
    let pki = Pki::new();
    pki.issue(&pki.ca("ca"), "orders", &[NAME]);
    let port = free_port();
    let _old = openssl_server(&pki, "orders", port, "-tls1_1 -cipher ALL:@SECLEVEL=0");
    refused(&ask(&[&in_front_of(&pki, port, CA, "").url("/")]), 502, "tls-version");
    let port = free_port();
    let _two = openssl_server(&pki, "orders", port, "-tls1_2");
    let attache = in_front_of(&pki, port, &format!("{CA}, min_version: '1.3'"), "");
    refused(&ask(&[&attache.url("/")]), 502, "tls-version");
    // One sends nothing by ALPN, the other refuses.
    let (port, _one) = serve(&pki, "orders", "ssl");
    refused(&ask(&[&in_front_of(&pki, port, CA, "protocol: http2").url("/")]), 502, "tls-alpn");
    let port = free_port();
    let _silent = openssl_server(&pki, "orders", port, "");
    refused(&ask(&[&in_front_of(&pki, port, CA, "protocol: http2").url("/")]), 502, "tls-alpn");
    let (port, _plain) = serve(&pki, "orders", "");
    refused(&ask(&[&in_front_of(&pki, port, CA, "").url("/")]), 502, "tls-handshake-failed");
}

#[test]
fn nothing_but_tls_is_ever_written_to_a_tls_upstream() {
    let pki = Pki::new();
    pki.ca("ca");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let seen = thread::spawn(move || {
        let mut all = Vec::new();
        for connection in socket.incoming() {
            let mut connection = connection.unwrap();
            let mut first = [0; 4096];
            let count = connection.read(&mut first).unwrap_or(0);
            if first.starts_with(b"stop") {
                return all;
            }
            all.push(first.get(..count).unwrap_or_default().to_vec());
            let _ = connection.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        }
        all
    });
    let attache = in_front_of(&pki, port, CA, "retry: { attempts: 3 }");
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        refused(&ask(&[version, &attache.url("/secret")]), 502, "tls-handshake-failed");
    }
    std::net::TcpStream::connect(local(port)).unwrap().write_all(b"stop").unwrap();
    let seen = seen.join().unwrap();
    assert!(seen.len() >= 2, "{}", seen.len());
    for bytes in &seen {
        assert!(bytes.starts_with(&[0x16, 3]), "{}", String::from_utf8_lossy(bytes));
        assert!(!bytes.windows(6).any(|part| part == b"secret"));
    }
}

#[test]
fn an_upstream_that_is_not_verified_is_shown_in_the_metrics() {
    let pki = Pki::new();
    pki.ca("ca");
    pki.issue(&pki.ca("other"), "orders", &["payments.test"]);
    let (port, _server) = serve(&pki, "orders", "ssl");
    let attache = in_front_of(&pki, port, "insecure_skip_verify: true", "");
    assert!(ask(&[&attache.url("/")]).contains("I am"));
    assert!(attache.metrics().contains("attache_tls_insecure_upstreams{upstream=\"orders\"} 1\n"));
    let verified = in_front_of(&pki, port, CA, "");
    assert!(!verified.metrics().contains("attache_tls_insecure_upstreams"));
}
