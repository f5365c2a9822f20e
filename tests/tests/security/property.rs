//! Random clients with random configs: every rule has checked what reaches an upstream with HTTP rules.
//!
//! Everything that a client can send is mixed: HTTP/1, HTTP/2, CONNECT, extended CONNECT, upgrades, opaque bytes, pauses, prefixes; in
//! plaintext, through mutual TLS with every ALPN, and on connections that the kernel redirected. Each ask carries its own mark in
//! everything that it would deliver. The upstream with the rules may have seen a mark only if the rules allow it: not below the closed path
//! or the path that an access rule denies, with the field that the route sets, and without the field that it removes. If the test fails, it
//! prints the seed.

use std::{net::SocketAddr, process::Command, thread};

use attache_tests::{Attache, TestProcess, eventually, free_port, http_get, local, pki::Pki, text};

use super::{LenientUpstream, doors::EntryPoint, frame, h2};

/// The identity that may use the listener with TLS.
const WEB: &str = "spiffe://shop/web";

/// xorshift64*: it is good enough for these tests.
struct RandomNumbers(u64);

impl RandomNumbers {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % sides
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.roll(all.len())]
    }
}

/// How clients connect.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ConnectMode {
    /// TCP.
    Plain,
    /// Mutual TLS; one identity is allowed.
    Tls,
    /// Redirected by the kernel: the upstream is the address that the client called.
    Redirected,
}

/// A listener whose upstream `app` has three HTTP rules, with routes for other traffic beside it.
fn config(dice: &mut RandomNumbers, form: ConnectMode, app: u16, raw: u16, pki: &Pki) -> String {
    let protocol = dice.of(&["auto", "auto", "auto", "http", "http1"]);
    let opaque = protocol == "auto";
    let beside = match dice.roll(3) {
        0 => String::new(),
        1 if opaque => "\n      - match: { sni: raw.test }\n        to: raw".to_owned(),
        _ => "\n      - match: { host: raw.test, methods: CONNECT }\n        to: raw".to_owned(),
    };
    let catch_all = if opaque && dice.roll(3) == 0 { "\n    to: raw" } else { "" };
    let (more, address) = match form {
        ConnectMode::Plain => (String::new(), format!("http://127.0.0.1:{app}")),
        ConnectMode::Tls => {
            let at = pki.dir().display();
            let tls = format!(
                "\n    tls: {{ certificate: {at}/api.crt, key: {at}/api.key, client_ca: {at}/ca.crt, allow: {WEB} }}"
            );
            (tls, format!("http://127.0.0.1:{app}"))
        }
        ConnectMode::Redirected => ("\n    transparent: true".to_owned(), "original-destination".to_owned()),
    };
    // Opaque bytes have no path, so such a rule refuses them all.
    let rules = dice.of(&["", "", "\n    authorization: { deny: [{ name: shut, path: /shut/* }] }"]);
    format!(
        "listeners:
  in:
    bind: 127.0.0.1:$PORT{rules}
    protocol: {protocol}
    detect_timeout: 100ms
    http: {{ header_timeout: 1s }}{more}
    routes:
      - match: {{ path: /closed/* }}
        respond: 403{beside}
      - match: {{ path: /* }}
        to: app
        headers: {{ request: {{ set: {{ x-seen: by-the-rule }}, remove: x-secret }} }}{catch_all}
upstreams: {{ app: '{address}', raw: 'tcp://127.0.0.1:{raw}' }}"
    )
}

/// One client: pieces with the pauses before them.
fn ask(dice: &mut RandomNumbers, mark: &str) -> Vec<(u64, Vec<u8>)> {
    let path = format!(
        "{}{mark}",
        dice.of(&[
            "/closed/",
            "/open/",
            "/open/",
            "/closed;x/",
            "/open/..;/closed/",
            "/open/../closed/",
            "/%63losed/",
            "/shut/",
            "//shut/",
            "/SHUT;x/",
            "/open/..%2fshut/",
            "/%73hut/",
        ])
    );
    let nominated = dice.of(&["close", "close, x-seen", "close, x-secret", "keep-alive"]);
    let secret = dice.of(&["X-Secret", "X_Secret", "x-secret", "X-SECRET"]);
    let fields = format!(
        "X-Seen: forged\r\nX_Seen: forged\r\n{secret}: 1\r\nX-Forwarded-Client-Cert: forged\r\nConnection: {nominated}\r\n"
    );
    let plain = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
    let old = format!("GET {path}\r\n\r\n").into_bytes();
    let prefix = dice
        .of(&["", "", "\r\n", "\r\n\r\n", "\n", " ", "\t", "\0", "*1\r\n", "\x16\x03\x01\0\x05hello"])
        .as_bytes()
        .to_vec();
    let pause = dice.of(&[0, 0, 0, 150, 250]);
    match dice.roll(7) {
        0 => vec![(pause, [prefix, plain].concat())],
        1 => {
            let at = 1 + dice.roll(plain.len() - 1);
            vec![(0, [prefix, plain[..at].to_vec()].concat()), (pause, plain[at..].to_vec())]
        }
        2 => vec![(pause, [prefix, old].concat())],
        3 => {
            let to = dice.of(&["a:80", "app:80", "127.0.0.1:1", "other.test:443"]);
            let head = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").into_bytes();
            vec![(pause, [prefix, head].concat()), (50, plain)]
        }
        4 => {
            let protocol = dice.of(&["foo", "h2c", "websocket, x", "websocket", "WebSocket"]);
            let mut bytes = h2(
                &[
                    (":method", "CONNECT"),
                    (":protocol", protocol),
                    (":scheme", "http"),
                    (":authority", "a"),
                    (":path", &path),
                ],
                false,
            );
            frame(&mut bytes, 0, 0, &plain);
            vec![(pause, bytes)]
        }
        5 => {
            let bytes = h2(
                &[
                    (":method", "GET"),
                    (":scheme", "http"),
                    (":authority", "a"),
                    (":path", &path),
                    ("x-seen", "forged"),
                    ("x_seen", "forged"),
                    ("x_secret", "1"),
                ],
                true,
            );
            vec![(pause, bytes)]
        }
        _ => {
            let protocol = dice.of(&["h2c", "foo", "HTTP/2.0", "websocket"]);
            let head = format!(
                "GET {path} HTTP/1.1\r\nHost: a\r\n{secret}: 1\r\nX_Seen: forged\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
            );
            vec![(pause, [prefix, head.into_bytes()].concat()), (50, plain)]
        }
    }
}

/// Sends 60 random asks with a random config. Returns how many requests reached `app`.
fn round(
    dice: &mut RandomNumbers,
    form: ConnectMode,
    number: usize,
    seed: u64,
    app: &LenientUpstream,
    pki: &Pki,
) -> usize {
    let other = LenientUpstream::start();
    let text = config(dice, form, app.port, other.port, pki);
    let attache = match form {
        ConnectMode::Redirected => redirected(&text, app.port),
        ConnectMode::Plain | ConnectMode::Tls => Attache::start(&text),
    };
    let asks: Vec<_> = (0..60)
        .map(|count| {
            let mark = format!("mark-{number}-{count}");
            match form {
                ConnectMode::Plain => (EntryPoint::Plain(local(attache.port)), ask(dice, &mark)),
                ConnectMode::Redirected => {
                    (EntryPoint::Plain(SocketAddr::from(([127, 0, 0, 9], app.port))), ask(dice, &mark))
                }
                ConnectMode::Tls => {
                    let certificate = dice.of(&[Some("web"), Some("web"), Some("web"), Some("other"), None]);
                    let name = dice.of(&["api.test", "api.test", "raw.test"]);
                    let alpn = dice.of(&["", "", "http/1.1", "h2", "h2,http/1.1", "http/1.0", "postgresql"]);
                    let denied = if certificate == Some("web") { "" } else { "-denied" };
                    let door = EntryPoint::Tls { port: attache.port, pki, name, alpn, certificate };
                    (door, ask(dice, &format!("{mark}{denied}")))
                }
            }
        })
        .collect();
    for some in asks.chunks(20) {
        thread::scope(|scope| {
            for (door, pieces) in some {
                scope.spawn(move || {
                    let sent: Vec<_> =
                        pieces.iter().map(|(pause, piece)| (*pause, piece.as_slice())).collect();
                    door.say(&sent);
                });
            }
        });
    }
    let about = |head: &str| format!("seed {seed}\n{text}\n{head:?}");
    let mut reached = 0;
    for seen in app.connections() {
        for head in seen.split("\r\n\r\n").filter(|head| !head.is_empty()) {
            let head = head.to_lowercase();
            let line = head.lines().next().unwrap_or_default();
            assert!(line.ends_with("http/1.1"), "not a request: {}", about(&head));
            assert!(!line.contains("/closed"), "past the closed path: {}", about(&head));
            assert!(
                !text.contains("shut") || !line.contains("shut"),
                "past the access rule: {}",
                about(&head)
            );
            assert!(!line.contains("-denied"), "past `allow`: {}", about(&head));
            assert!(head.contains("\r\nx-seen: by-the-rule"), "past the route: {}", about(&head));
            assert!(
                !head.contains("forged") && !head.contains("secret"),
                "what is removed: {}",
                about(&head)
            );
            reached += 1;
        }
    }
    app.forget();
    reached
}

fn seed() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64 | 1
}

/// `web` may use the listener of `api`; `other` has a certificate too.
fn pki() -> Pki {
    let pki = Pki::new();
    let ca = pki.ca("ca");
    pki.issue(&ca, "api", &["api.test", "raw.test"]);
    pki.issue(&ca, "web", &[WEB]);
    pki.issue(&ca, "other", &["spiffe://shop/other"]);
    pki
}

fn hold(form: ConnectMode, rounds: usize) {
    let (seed, pki) = (seed(), pki());
    let mut dice = RandomNumbers(seed);
    let reached: usize = (0..rounds)
        .map(|number| {
            let app = match form {
                ConnectMode::Redirected => LenientUpstream::start_at("127.0.0.9:0"),
                ConnectMode::Plain | ConnectMode::Tls => LenientUpstream::start(),
            };
            round(&mut dice, form, number, seed, &app, &pki)
        })
        .sum();
    assert!(reached > rounds, "almost nothing got through: seed {seed}");
}

#[test]
fn all_rules_have_checked_what_reaches_their_upstream() {
    hold(ConnectMode::Plain, 8);
}

#[test]
fn all_rules_have_checked_what_reaches_their_upstream_through_mutual_tls() {
    hold(ConnectMode::Tls, 5);
}

/// This needs root, for a network namespace of its own: the test runs itself inside it.
#[test]
fn all_rules_have_checked_what_reaches_their_upstream_after_a_redirect() {
    let ran = Command::new("unshare")
        .args(["--net", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "property::inside_of_a_network_namespace", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = text(&ran);
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "what_reaches_it_after_a_redirect runs it where the network is its own"]
fn inside_of_a_network_namespace() {
    text(&Command::new("ip").args(["link", "set", "lo", "up"]).output().unwrap());
    hold(ConnectMode::Redirected, 4);
}

/// attache under a user of its own. The kernel redirects connections of other users to 127.0.0.9 to its port.
fn redirected(config: &str, app: u16) -> Attache {
    const USER: u32 = attache_tests::pods::ATTACHE;
    let (dir, port, metrics) = (tempfile::tempdir().unwrap(), free_port(), free_port());
    let rules = format!(
        "add table ip redirected
delete table ip redirected
table ip redirected {{
  chain out {{
    type nat hook output priority -100;
    ip daddr 127.0.0.9 tcp dport {app} meta skuid != {USER} redirect to :{port}
  }}
}}"
    );
    let (file, nft) = (dir.path().join("attache.yaml"), dir.path().join("rules"));
    let config = config.replace("$PORT", &port.to_string());
    std::fs::write(&file, format!("metrics: 127.0.0.1:{metrics}\nadmin: off\n{config}")).unwrap();
    std::fs::write(&nft, rules).unwrap();
    attache_tests::pods::readable(dir.path());
    text(&Command::new("nft").arg("-f").arg(&nft).output().unwrap());
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={USER}"), &format!("--regid={USER}"), "--clear-groups"]);
    command.arg(attache_tests::binary()).args(["run", "-c"]).arg(&file);
    let mut process = TestProcess::start(&mut command, dir);
    process.wait_for(local(metrics));
    eventually("attache is ready", || http_get(local(metrics), "/readyz").starts_with("HTTP/1.1 200"));
    Attache { process, port, metrics, admin: 0 }
}
