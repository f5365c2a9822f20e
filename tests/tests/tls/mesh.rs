//! Two proxies with mutual TLS between them.

use attache_tests::{
    Attache, Process, curl, eventually, free_port, local, nginx, pki::Pki, script, script_process,
    script_server, text,
};

use crate::{ask, refused};

const WEB: &str = "spiffe://shop/ns/shop/sa/web";

struct Mesh {
    _pki: Pki,
    near: Attache,
    far: Attache,
}

/// Plaintext to `near`, mutual TLS to `far`, plaintext to `app`.
fn mesh(app: &str) -> Mesh {
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
    Mesh { _pki: pki, near, far }
}

fn app(port: u16) -> Process {
    nginx(
        &format!("server {{ listen 127.0.0.1:{port}; return 200 'client=$http_x_forwarded_client_cert'; }}"),
        local(port),
    )
}

#[test]
fn both_versions_of_http_cross_with_the_callers_identity() {
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
fn two_workloads_know_each_other_by_spiffe_alone() {
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
fn grpc_crosses_with_every_kind_of_call() {
    let port = free_port();
    let _server = script_server("grpc_server.py", local(port), &[]);
    let mesh = mesh(&format!("h2c://127.0.0.1:{port}"));
    let report = text(&script("grpc_client.py", &[&format!("127.0.0.1:{}", mesh.near.port), "api.test"]));
    assert!(report.contains("deadline, cancellation: ok"), "{report}");
}
