//! TLS in both directions with other people's peers: openssl, nginx, curl, h2load, gRPC.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test may panic, and counters are whole numbers")]

mod credential;
mod identity;
mod listener;
mod mesh;
mod rotation;
mod trust;
mod upstream;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use attache_tests::{Attache, curl, eventually, pki::Pki};

/// Waits until this reason was counted for an exchange.
fn counted(attache: &Attache, reason: &str) {
    let label = format!("reason=\"{reason}\"");
    eventually(reason, || attache.metric("attache_requests_total", &[&label]) >= 1.0);
}

/// The whole response, including its head, whatever its status is.
fn ask(arguments: &[&str]) -> String {
    let output = curl(["-i"].iter().chain(arguments));
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The same, for `path` on `port` of this machine as `host`. `client` names the client's certificate in `pki`, whose
/// `ca.crt` is trusted.
fn ask_tls(pki: &Pki, (host, port): (&str, u16), path: &str, client: Option<&str>, more: &[&str]) -> String {
    let resolve = format!("{host}:{port}:127.0.0.1");
    let (ca, url) = (pki.at("ca.crt"), format!("https://{host}:{port}{path}"));
    let mut arguments = vec!["--cacert", &ca, "--resolve", &resolve];
    let files = client.map(|name| (pki.at(&format!("{name}.crt")), pki.at(&format!("{name}.key"))));
    if let Some((certificate, key)) = &files {
        arguments.extend(["--cert", certificate, "--key", key]);
    }
    arguments.extend(more);
    arguments.push(&url);
    ask(&arguments)
}

/// Checks that the answer has this status and reason, and says why.
fn refused(answer: &str, status: u16, reason: &str) {
    let first = answer.lines().next().unwrap_or_default();
    assert!(first.contains(&format!(" {status}")), "{reason}: {answer}");
    assert!(answer.contains(&format!("x-attache-reason: {reason}\r\n")), "{reason}: {answer}");
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    assert!(body.len() > reason.len(), "no explanation: {answer}");
}

/// Ends the load, even if the rotation failed.
struct StopLoadOnDrop<'a>(&'a AtomicBool);

impl Drop for StopLoadOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
