//! Certificates that change under load as Kubernetes changes a mounted secret: a link to a folder is replaced.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
};

use attache_tests::{
    Attache, curl, eventually, free_port, local, nginx,
    pki::{CertificateAuthority, CertificatePair, Pki, Validity, shown_serial},
    text,
};

use crate::StopLoadOnDrop;

const ROTATIONS: u64 = 50;

/// `DIR/tls.crt` and `tls.key` lead through `..data` to the newest folder.
fn rotate(dir: &Path, ca: &CertificateAuthority, names: &[&str], serial: u64) {
    let folder = format!("..{serial}");
    fs::create_dir_all(dir.join(&folder)).unwrap();
    let CertificatePair { certificate, key } = ca.issue_at(names, Validity::Now, serial);
    fs::write(dir.join(&folder).join("tls.crt"), certificate).unwrap();
    fs::write(dir.join(&folder).join("tls.key"), key).unwrap();
    symlink(&folder, dir.join("..new")).unwrap();
    fs::rename(dir.join("..new"), dir.join("..data")).unwrap();
    for file in ["tls.crt", "tls.key"] {
        let _ = symlink(Path::new("..data").join(file), dir.join(file));
    }
    if serial > 1 {
        fs::remove_dir_all(dir.join(format!("..{}", serial - 1))).unwrap();
    }
}

#[test]
fn fifty_rotations_of_both_sides_under_load_fail_no_request() {
    let pki = Pki::new();
    let ca = pki.ca("ca");
    let (server, client) = (pki.path("server"), pki.path("client"));
    pki.issue(&ca, "curl", &["curl.test"]);
    let port = free_port();
    let _app = nginx(&format!("server {{ listen 127.0.0.1:{port}; return 200 ok; }}"), local(port));
    rotate(&server, &ca, &["api.test"], 1);
    rotate(&client, &ca, &["web.test"], 1);
    let at = pki.dir().display();
    let far = Attache::start(&format!(
        "watch_interval: 20ms
listeners:
  inbound:
    bind: 127.0.0.1:$PORT
    tls: {{ certificate: {at}/server/tls.crt, key: {at}/server/tls.key, client_ca: {at}/ca.crt }}
upstreams: {{ app: 'http://127.0.0.1:{port}' }}"
    ));
    // Every request opens a new connection, so there are handshakes all the time.
    let near = Attache::start(&format!(
        "watch_interval: 20ms
listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
upstreams:
  api:
    address: https://127.0.0.1:{}
    protocol: http1
    pool: {{ max_requests: 5 }}
    retry: off
    tls: {{ name: api.test, ca: {at}/ca.crt, certificate: {at}/client/tls.crt, key: {at}/client/tls.key }}",
        far.port
    ));
    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let reloads = |attache: &Attache| attache.metric("attache_certificate_reloads_total", &["\"ok\""]);
    thread::scope(|scope| {
        let _end = StopLoadOnDrop(&over);
        scope.spawn(|| {
            while !over.load(Relaxed) {
                let output =
                    Command::new("h2load").args(["--h1", "-n", "200", "-c", "4", &near.url("/")]).output();
                let report = text(&output.unwrap());
                assert!(report.contains("200 succeeded, 0 failed, 0 errored, 0 timeout"), "{report}");
                asked.fetch_add(200, Relaxed);
            }
        });
        scope.spawn(|| {
            let resolve = format!("api.test:{}:127.0.0.1", far.port);
            let (ca, cert, key) = (pki.at("ca.crt"), pki.at("curl.crt"), pki.at("curl.key"));
            let url = format!("https://api.test:{}/", far.port);
            while !over.load(Relaxed) {
                let arguments =
                    ["--fail", "--cacert", &ca, "--cert", &cert, "--key", &key, "--resolve", &resolve, &url];
                assert_eq!(text(&curl(arguments)), "ok");
                asked.fetch_add(1, Relaxed);
            }
        });
        for serial in 2..=ROTATIONS + 1 {
            rotate(&server, &ca, &["api.test"], serial);
            rotate(&client, &ca, &["web.test"], serial);
            let expected = (serial - 1) as f64;
            eventually("both have the new certificate", || {
                reloads(&far) >= expected && reloads(&near) >= expected
            });
        }
    });
    assert_eq!(u64::from_str_radix(&shown_serial(far.port, "api.test"), 16), Ok(ROTATIONS + 1));
    assert!(asked.into_inner() > 1000);
    for attache in [&near, &far] {
        assert_eq!(attache.metric("attache_certificate_reloads_total", &["\"failed\""]), 0.0);
        assert_eq!(attache.metric("attache_requests_total", &["code=\"5xx\""]), 0.0);
    }
}

#[test]
fn a_key_that_does_not_match_is_counted_and_the_last_good_pair_stays_in_use() {
    let pki = Pki::new();
    let ca = pki.ca("ca");
    pki.issue_at(&ca, "api", &["api.test"], Validity::Now, 0xA1);
    let at = pki.dir().display();
    let attache = Attache::start(&format!(
        "listeners:
  inbound:
    bind: 127.0.0.1:$PORT
    tls: {{ certificate: {at}/api.crt, key: {at}/api.key }}
upstreams: {{ app: 'http://127.0.0.1:1' }}"
    ));
    let CertificatePair { certificate, key } = ca.issue_at(&["api.test"], Validity::Now, 0xB2);
    fs::write(pki.path("api.crt"), certificate).unwrap();
    eventually("the failure is counted", || attache.metric("attache_certificates_failing", &[]) >= 1.0);
    assert_eq!(attache.metric("attache_certificate_reloads_total", &["\"failed\""]), 1.0);
    assert_eq!(shown_serial(attache.port, "api.test"), "A1");
    fs::write(pki.path("api.key"), key).unwrap();
    eventually("the repaired pair is presented", || shown_serial(attache.port, "api.test") == "B2");
    assert_eq!(attache.metric("attache_certificates_failing", &[]), 0.0);
}
