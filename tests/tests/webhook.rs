//! `attache webhook` from end to end: its certificates, its registration, and reviews over TLS as an API server sends them.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use attache_tests::{TestProcess, binary, eventually, free_port, local, text};

const NAME: &str = "attache-webhook.attache.svc";

fn review() -> String {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/kubernetes/tests/reviews/pod-create.json");
    format!("@{}", file.display())
}

fn certificates(folder: &Path) -> String {
    let output = Command::new(binary()).args(["webhook", "certificates"]).arg(folder).output().unwrap();
    text(&output);
    String::from_utf8(output.stderr).unwrap()
}

struct RunningWebhook {
    process: TestProcess,
    port: u16,
    certs: tempfile::TempDir,
}

impl RunningWebhook {
    fn start(arguments: &[&str]) -> Self {
        let (certs, port) = (tempfile::tempdir().unwrap(), free_port());
        certificates(certs.path());
        let mut command = Command::new(binary());
        command
            .args(["webhook", "--bind", &local(port).to_string()])
            .arg("--certificate")
            .arg(certs.path().join("tls.crt"))
            .arg("--key")
            .arg(certs.path().join("tls.key"))
            .args(arguments);
        let mut process = TestProcess::start(&mut command, tempfile::tempdir().unwrap());
        process.wait_for(local(port));
        Self { process, port, certs }
    }

    fn curl(&self, path: &str, arguments: &[&str]) -> Output {
        Command::new("curl")
            .args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "60"])
            .args(["--resolve", &format!("{NAME}:{}:127.0.0.1", self.port)])
            .arg("--cacert")
            .arg(self.certs.path().join("ca.crt"))
            .args(["--header", "Content-Type: application/json"])
            .args(arguments)
            .arg(format!("https://{NAME}:{}{path}", self.port))
            .output()
            .expect("curl (run `cargo xtask setup`)")
    }

    fn status(&self, path: &str, arguments: &[&str]) -> (String, String) {
        let output = text(&self.curl(path, &[&["--write-out", "\n%{http_code}"], arguments].concat()));
        let (body, status) = output.rsplit_once('\n').unwrap();
        (status.to_owned(), body.to_owned())
    }

    /// The certificate that a new connection gets.
    fn shown(&self) -> String {
        let output = Command::new("sh")
            .arg("-c")
            .arg(format!(
                "openssl s_client -connect 127.0.0.1:{} -servername {NAME} </dev/null 2>/dev/null | openssl x509",
                self.port
            ))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn a_review_is_answered_over_tls() {
    let webhook = RunningWebhook::start(&["--traffic", "http-proxy", "--config-map", "web"]);
    let answer = text(&webhook.curl("/mutate?timeout=5s", &["--data-binary", &review()]));
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let response = &answer["response"];
    assert_eq!(response["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
    assert_eq!((&response["allowed"], &response["patchType"]), (&true.into(), &"JSONPatch".into()));
    let mut decode = Command::new("openssl");
    decode
        .args(["base64", "-d", "-A"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut decode = decode.spawn().unwrap();
    let patch = response["patch"].as_str().unwrap().to_owned();
    std::io::Write::write_all(&mut decode.stdin.take().unwrap(), patch.as_bytes()).unwrap();
    let patch: serde_json::Value =
        serde_json::from_slice(&decode.wait_with_output().unwrap().stdout).unwrap();
    let paths: Vec<&str> = patch.as_array().unwrap().iter().map(|op| op["path"].as_str().unwrap()).collect();
    assert!(paths.contains(&"/spec/initContainers") && paths.contains(&"/metadata/annotations"), "{paths:?}");
    assert!(
        webhook.process.output().contains("Pod/web-7d9c5b6f8- in shop: injected"),
        "{}",
        webhook.process.output()
    );
}

#[test]
fn an_invalid_review_is_refused_with_the_reason() {
    let webhook = RunningWebhook::start(&[]);
    let large = webhook.certs.path().join("large");
    fs::write(&large, vec![b' '; 9 << 20]).unwrap();
    let large = format!("@{}", large.display());
    for (path, arguments, status, says) in [
        ("/mutate", &["--data-binary", "nonsense"][..], "400", "the body isn't JSON"),
        ("/mutate", &["--data-binary", "{}"], "400", "isn't an AdmissionReview of admission.k8s.io/v1"),
        ("/mutate", &["--data-binary", &large], "413", "larger than 8 MiB"),
        (
            "/mutate",
            &["--header", "Transfer-Encoding: chunked", "--data-binary", &large],
            "413",
            "larger than 8 MiB",
        ),
        ("/mutate", &[], "405", "POST"),
        ("/", &[], "404", "/mutate"),
        ("/healthz", &[], "200", "ok"),
        ("/readyz", &[], "200", "ok"),
    ] {
        let (got, body) = webhook.status(path, arguments);
        assert!(got == status && body.contains(says), "{path} {arguments:?}: {got} {body}");
    }
    assert_eq!(webhook.status("/mutate", &["--data-binary", &review()]).0, "200", "it continues");
    let plain = attache_tests::raw(local(webhook.port), b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(!plain.contains("200"), "nothing is sent in plaintext: {plain}");
}

#[test]
fn its_certificate_is_renewed_while_it_serves() {
    let mut webhook = RunningWebhook::start(&[]);
    let authority = fs::read_to_string(webhook.certs.path().join("ca.crt")).unwrap();
    let certificate = || fs::read_to_string(webhook.certs.path().join("tls.crt")).unwrap();
    let first = certificate();
    assert_eq!(webhook.shown(), first);

    let said = certificates(webhook.certs.path());
    assert!(said.contains("the existing authority"), "{said}");
    let second = certificate();
    assert_ne!(first, second);
    eventually("the new certificate is used, and every review is answered meanwhile", || {
        let (status, body) = webhook.status("/mutate", &["--data-binary", &review()]);
        assert_eq!(status, "200", "{body}");
        webhook.shown() == second
    });
    assert_eq!(
        fs::read_to_string(webhook.certs.path().join("ca.crt")).unwrap(),
        authority,
        "caBundle stays valid"
    );

    fs::write(webhook.certs.path().join("tls.crt"), "broken").unwrap();
    eventually("the invalid file was noticed", || webhook.process.output().contains("tls.crt"));
    assert_eq!(webhook.status("/mutate", &["--data-binary", &review()]).0, "200");
    assert_eq!(webhook.shown(), second, "the last good one stays in use");

    webhook.process.signal("TERM");
    assert_eq!(webhook.process.wait(), Some(0));
}

#[test]
fn only_the_owner_can_read_its_keys_and_its_registration_has_the_authority() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    for (file, mode) in [("ca.key", 0o600), ("tls.key", 0o600), ("ca.crt", 0o644), ("tls.crt", 0o644)] {
        let meta = fs::metadata(dir.path().join(file)).unwrap();
        let got = std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777;
        assert_eq!(got & !0o022, mode, "{file}");
    }
    let at = |file: &str| dir.path().join(file).display().to_string();
    let verified = Command::new("openssl")
        .args([
            "verify",
            "-verify_hostname",
            NAME,
            "-purpose",
            "sslserver",
            "-CAfile",
            &at("ca.crt"),
            &at("tls.crt"),
        ])
        .output()
        .unwrap();
    assert!(text(&verified).contains("OK"));

    let manifest = |arguments: &[&str]| {
        Command::new(binary()).args(["webhook", "manifest"]).args(arguments).output().unwrap()
    };
    let printed = text(&manifest(&["--ca", &at("ca.crt"), "--fail"]));
    let file = dir.path().join("webhook.yaml");
    fs::write(&file, &printed).unwrap();
    let deployed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/webhook.yaml");
    let checked = attache_tests::kubernetes_validate("1.29", &[file, deployed]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    let bundle = printed.lines().find_map(|line| line.trim().strip_prefix("caBundle: ")).unwrap();
    let encoded =
        text(&Command::new("openssl").args(["base64", "-A", "-in", &at("ca.crt")]).output().unwrap());
    assert_eq!(bundle.trim_matches('"'), encoded.trim());
    assert!(printed.contains("failurePolicy: Fail") && printed.contains("sideEffects: None"), "{printed}");

    let key = manifest(&["--ca", &at("ca.key")]);
    assert!(!key.status.success() && key.stdout.is_empty(), "a key is never printed");
}

/// The response to a GET of this path, on a connection of its own, within a second.
fn asked(webhook: &RunningWebhook) -> (String, std::time::Duration) {
    let begun = std::time::Instant::now();
    let (status, _) = webhook.status("/mutate", &["--data-binary", &review()]);
    (status, begun.elapsed())
}

#[test]
fn it_serves_until_no_client_asks_any_more() {
    let mut webhook = RunningWebhook::start(&["--shutdown-delay", "2s"]);
    webhook.process.signal("TERM");
    let begun = std::time::Instant::now();
    eventually("/readyz says that it ends", || webhook.status("/readyz", &[]).0 == "503");
    while begun.elapsed().as_millis() < 1500 {
        assert_eq!(asked(&webhook).0, "200", "{:?} after SIGTERM", begun.elapsed());
    }
    let answer = text(&webhook.curl("/healthz", &["--include"]));
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "clients use another one: {answer}");
    assert_eq!(webhook.process.wait(), Some(0));
    assert!(begun.elapsed().as_millis() >= 1900, "{:?}", begun.elapsed());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut webhook = RunningWebhook::start(&["--shutdown-delay", "60s"]);
    webhook.process.signal("TERM");
    eventually("/readyz says that it ends", || webhook.status("/readyz", &[]).0 == "503");
    webhook.process.signal("TERM");
    assert_eq!(webhook.process.wait(), Some(0));
}

#[test]
fn idle_clients_do_not_block_a_review() {
    let webhook = RunningWebhook::start(&[]);
    let silent: Vec<_> =
        (0..600).map(|_| std::net::TcpStream::connect(local(webhook.port)).unwrap()).collect();
    for _ in 0..3 {
        let (status, took) = asked(&webhook);
        assert_eq!(status, "200");
        assert!(took.as_secs() < 5, "the API server waits {took:?}");
    }
    drop(silent);
}

#[test]
fn unfinished_bodies_hold_limited_memory_and_do_not_block_a_review() {
    let webhook = RunningWebhook::start(&["--metrics", &local(free_port()).to_string()]);
    let script = "
import socket, ssl, sys, time
port, ca, pid = int(sys.argv[1]), sys.argv[2], sys.argv[3]
context = ssl.create_default_context(cafile=ca)
held = []
for _ in range(100):
    s = context.wrap_socket(socket.create_connection(('127.0.0.1', port), 5), server_hostname='attache-webhook.attache.svc')
    held.append(s)
    try:
        s.sendall(b'POST /mutate HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 8000000\\r\\n\\r\\n')
        for _ in range(100):
            s.sendall(b' ' * 65536)
    except OSError:
        pass
rss = [int(l.split()[1]) // 1024 for l in open(f'/proc/{pid}/status') if l.startswith('VmRSS')][0]
print('rss', rss)
";
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", script, &webhook.port.to_string()]);
    python.arg(webhook.certs.path().join("ca.crt")).arg(webhook.process.id().to_string());
    let said = text(&python.output().unwrap());
    let rss: u64 = said.trim().strip_prefix("rss ").unwrap().parse().unwrap();
    assert!(rss < 128, "{rss} MiB; 100 bodies have 650 MB");
    assert_eq!(asked(&webhook).0, "200");
}

#[test]
fn its_metrics_say_what_was_decided() {
    let at = free_port();
    let webhook = RunningWebhook::start(&["--metrics", &local(at).to_string()]);
    assert_eq!(asked(&webhook).0, "200");
    assert_eq!(webhook.status("/mutate", &["--data-binary", "{}"]).0, "400");
    let page = attache_tests::http_get(local(at), "/metrics");
    for line in [
        "attache_webhook_reviews_total{result=\"injected\"} 1",
        "attache_webhook_reviews_total{result=\"denied\"} 0",
        "attache_webhook_refused_total{why=\"no_review\"} 1",
        "attache_webhook_review_duration_seconds_count 1",
        "attache_webhook_certificate_expiry_timestamp_seconds ",
    ] {
        assert!(page.contains(line), "{line}: {page}");
    }
    assert!(attache_tests::http_get(local(at), "/readyz").starts_with("HTTP/1.1 200"));
    assert!(attache_tests::http_get(local(at), "/mutate").starts_with("HTTP/1.1 404"));
}
