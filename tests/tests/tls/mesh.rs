//! Two proxies with mutual TLS between them.

use std::{
    fs,
    os::unix::net::UnixStream,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use attache_tests::{
    Attache, TestProcess, curl, eventually, free_port, local, nginx,
    pki::{CertificatePair, Pki, Validity, shown_serial_as},
    script, script_process, script_server, text,
};

use crate::{StopLoadOnDrop, ask, refused};

const WEB: &str = "spiffe://shop/ns/shop/sa/web";

struct TlsMesh {
    _pki: Pki,
    near: Attache,
    far: Attache,
}

/// Plaintext to `near`, mutual TLS to `far`, plaintext to `app`.
fn mesh(app: &str) -> TlsMesh {
    let pki = Pki::new();
    let ca = pki.ca("ca");
    pki.issue(&ca, "web", &[WEB]);
    pki.issue(&ca, "api", &["api.test"]);
    let at = pki.dir().display();
    let far = Attache::start(&format!(
        "listeners:
  inbound:
    bind: 127.0.0.1:$PORT
    tls: {{ certificate: {at}/api.crt, key: {at}/api.key, client_ca: {at}/ca.crt, allow: '{WEB}' }}
upstreams: {{ app: '{app}' }}"
    ));
    let near = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
upstreams:
  api:
    address: https://127.0.0.1:{}
    tls: {{ name: api.test, ca: {at}/ca.crt, certificate: {at}/web.crt, key: {at}/web.key }}",
        far.port
    ));
    TlsMesh { _pki: pki, near, far }
}

fn app(port: u16) -> TestProcess {
    nginx(
        &format!("server {{ listen 127.0.0.1:{port}; return 200 'client=$http_x_forwarded_client_cert'; }}"),
        local(port),
    )
}

#[test]
fn both_versions_of_http_carry_the_client_s_identity() {
    let port = free_port();
    let _app = app(port);
    let mesh = mesh(&format!("http://127.0.0.1:{port}"));
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let answer = text(&curl([version, "--fail", &mesh.near.url("/")]));
        assert!(answer.ends_with(&format!("URI={WEB}")), "{answer}");
    }
    let expiry = "attache_tls_certificate_expiry_timestamp_seconds";
    for (attache, side, name) in [(&mesh.near, "upstream", "api"), (&mesh.far, "listener", "inbound")] {
        let labels = [format!("side=\"{side}\""), format!("name=\"{name}\"")];
        let at = attache.metric(expiry, &[&labels[0], &labels[1]]);
        assert!(at > 6e10, "the year 4000, not {at}");
    }
}

#[test]
fn two_applications_verify_each_other_by_spiffe_alone() {
    let pki = Pki::new();
    let (ca, port) = (pki.ca("ca"), free_port());
    let _app = app(port);
    let agent = |name: &str| {
        let id = format!("spiffe://shop/{name}");
        pki.issue(&ca, name, &[&id]);
        let (socket, certificate) = (pki.at(&format!("{name}.sock")), pki.at(&format!("{name}.crt")));
        let key = pki.at(&format!("{name}.key"));
        let agent = script_process("spiffe_agent.py", &[&socket, &id, &certificate, &key, &pki.at("ca.crt")]);
        eventually("the agent listens", || pki.path(&format!("{name}.sock")).exists());
        (agent, format!("unix://{socket}"))
    };
    let ((_web, web), (_api, api)) = (agent("web"), agent("api"));
    let far = Attache::start_with(
        &format!(
            "listeners:
  inbound:
    bind: 127.0.0.1:$PORT
    tls: {{ spiffe: true, client_ca: spiffe, allow: 'spiffe://shop/web' }}
upstreams: {{ app: 'http://127.0.0.1:{port}' }}"
        ),
        &[("SPIFFE_ENDPOINT_SOCKET", &api)],
    );
    let near = |peer: &str| {
        Attache::start_with(
            &format!(
                "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
upstreams:
  api:
    address: https://127.0.0.1:{}
    tls: {{ spiffe: true, peers: 'spiffe://shop/{peer}' }}",
                far.port
            ),
            &[("SPIFFE_ENDPOINT_SOCKET", &web)],
        )
    };
    let answer = text(&curl(["--fail", &near("api").url("/")]));
    assert!(
        answer.contains("By=spiffe://shop/api;") && answer.ends_with("URI=spiffe://shop/web"),
        "{answer}"
    );
    refused(&ask(&[&near("payments").url("/")]), 502, "tls-name-mismatch");
}

#[test]
fn an_svid_is_rotated_under_load_and_outlives_its_agent() {
    let pki = Pki::new();
    let (ca, port) = (pki.ca("ca"), free_port());
    let _app = app(port);
    let id = "spiffe://shop/api";
    let issue = |serial: u64| {
        // The agent watches the certificate's file, so that file is replaced last.
        let CertificatePair { certificate, key } = ca.issue_at(&[id, "api.test"], Validity::Now, serial);
        fs::write(pki.path("api.key"), key).unwrap();
        fs::write(pki.path("new"), certificate).unwrap();
        fs::rename(pki.path("new"), pki.path("api.crt")).unwrap();
    };
    issue(1);
    let agent = || {
        let files = ["api.sock", "api.crt", "api.key", "ca.crt"].map(|file| pki.at(file));
        let agent = script_process("spiffe_agent.py", &[&files[0], id, &files[1], &files[2], &files[3]]);
        eventually("the agent listens", || UnixStream::connect(pki.path("api.sock")).is_ok());
        agent
    };
    let first = agent();
    let socket = format!("unix://{}", pki.at("api.sock"));
    let far = Attache::start_with(
        &format!(
            "watch_interval: 20ms
listeners:
  inbound:
    bind: 127.0.0.1:$PORT
    tls: {{ spiffe: true, client_ca: spiffe }}
upstreams: {{ app: 'http://127.0.0.1:{port}' }}"
        ),
        &[("SPIFFE_ENDPOINT_SOCKET", &socket)],
    );
    let near = Attache::start_with(
        &format!(
            "watch_interval: 20ms
listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
upstreams:
  api:
    address: https://127.0.0.1:{}
    protocol: http1
    pool: {{ max_requests: 5 }}
    retry: off
    tls: {{ spiffe: true, peers: 'spiffe://shop/api' }}",
            far.port
        ),
        &[("SPIFFE_ENDPOINT_SOCKET", &socket)],
    );
    let over = AtomicBool::new(false);
    let shown = |serial: &str| {
        let own = ["-cert", &pki.at("api.crt"), "-key", &pki.at("api.key")].map(ToOwned::to_owned);
        eventually(serial, || shown_serial_as(far.port, "api.test", &own) == serial);
    };
    thread::scope(|scope| {
        let _end = StopLoadOnDrop(&over);
        scope.spawn(|| {
            while !over.load(Relaxed) {
                let report =
                    Command::new("h2load").args(["--h1", "-n", "100", "-c", "2", &near.url("/")]).output();
                let report = text(&report.unwrap());
                assert!(report.contains("100 succeeded, 0 failed, 0 errored, 0 timeout"), "{report}");
            }
        });
        for serial in 2..=10 {
            issue(serial);
            shown(&format!("{serial:02X}"));
        }
        // The agent dies; its last response stays in use.
        drop(first);
        let _ = fs::remove_file(pki.path("api.sock"));
        issue(11);
        for _ in 0..20 {
            assert!(text(&curl(["--fail", &near.url("/")])).contains("URI=spiffe://shop/api"));
        }
        shown("0A");
        // It comes back with a new SVID.
        let _second = agent();
        shown("0B");
    });
    for attache in [&near, &far] {
        assert_eq!(attache.metric("attache_certificate_reloads_total", &["\"failed\""]), 0.0);
        assert_eq!(attache.metric("attache_requests_total", &["code=\"5xx\""]), 0.0);
    }
}

#[test]
fn every_kind_of_grpc_call_works() {
    let port = free_port();
    let _server = script_server("grpc_server.py", local(port), &[]);
    let mesh = mesh(&format!("h2c://127.0.0.1:{port}"));
    let report = text(&script("grpc_client.py", &[&format!("127.0.0.1:{}", mesh.near.port), "api.test"]));
    assert!(report.contains("deadline, cancellation: ok"), "{report}");
}
