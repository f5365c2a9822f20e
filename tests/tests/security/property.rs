//! Random clients at random configs: what reaches an upstream with rules about HTTP was seen by every one of them.
//!
//! Everything that a client can ask for is mixed: HTTP/1, HTTP/2, CONNECT, extended CONNECT, upgrades, opaque bytes, pauses, prefixes.
//! Each ask carries a mark of its own in whatever it would deliver. The upstream behind the rules must have seen a mark only if the
//! rules let it: below another path than the closed one, with the field that the route sets and without the one that it removes. The
//! seed is printed when it fails.

use std::thread;

use attache_tests::{Attache, local};

use super::{Upstream, frame, h2, say};

/// xorshift64*: the tests need no more.
struct Dice(u64);

impl Dice {
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

/// A listener whose upstream `app` has three rules about HTTP, with routes for something else beside it.
fn config(dice: &mut Dice, app: u16, raw: u16) -> String {
    let protocol = dice.of(&["auto", "auto", "auto", "http", "http1"]);
    let opaque = protocol == "auto";
    let beside = match dice.roll(3) {
        0 => String::new(),
        1 if opaque => "\n      - match: { sni: raw.test }\n        to: raw".to_owned(),
        _ => "\n      - match: { host: raw.test, methods: CONNECT }\n        to: raw".to_owned(),
    };
    let catch_all = if opaque && dice.roll(3) == 0 { "\n    to: raw" } else { "" };
    format!(
        "listeners:
  in:
    bind: 127.0.0.1:$PORT
    protocol: {protocol}
    detect_timeout: 100ms
    http: {{ header_timeout: 1s }}
    routes:
      - match: {{ path: /closed/* }}
        respond: 403{beside}
      - match: {{ path: /* }}
        to: app
        headers: {{ request: {{ set: {{ x-seen: by-the-rule }}, remove: x-secret }} }}{catch_all}
upstreams: {{ app: 'http://127.0.0.1:{app}', raw: 'tcp://127.0.0.1:{raw}' }}"
    )
}

/// One client: pieces with the pauses before them.
fn ask(dice: &mut Dice, mark: &str) -> Vec<(u64, Vec<u8>)> {
    let path = format!(
        "{}{mark}",
        dice.of(&["/closed/", "/open/", "/closed;x/", "/open/..;/closed/", "/open/../closed/", "/%63losed/"])
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

#[test]
fn what_reaches_an_upstream_with_rules_was_seen_by_all_of_them() {
    let seed =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    let mut dice = Dice(seed);
    let mut reached = 0;
    for round in 0..8 {
        let (app, other) = (Upstream::start(), Upstream::start());
        let text = config(&mut dice, app.port, other.port);
        let attache = Attache::start(&text);
        let address = local(attache.port);
        let asks: Vec<Vec<(u64, Vec<u8>)>> =
            (0..60).map(|count| ask(&mut dice, &format!("mark-{round}-{count}-end"))).collect();
        thread::scope(|scope| {
            for pieces in &asks {
                scope.spawn(move || {
                    let sent: Vec<_> =
                        pieces.iter().map(|(pause, piece)| (*pause, piece.as_slice())).collect();
                    say(address, &sent);
                });
            }
        });
        let about = |head: &str| format!("seed {seed}\n{text}\n{head:?}");
        for seen in app.connections() {
            for head in seen.split("\r\n\r\n").filter(|head| !head.is_empty()) {
                let head = head.to_lowercase();
                let line = head.lines().next().unwrap_or_default();
                assert!(line.ends_with("http/1.1"), "not a request: {}", about(&head));
                assert!(!line.contains("/closed"), "past the closed path: {}", about(&head));
                assert!(head.contains("\r\nx-seen: by-the-rule"), "past the route: {}", about(&head));
                assert!(
                    !head.contains("forged") && !head.contains("secret"),
                    "what is removed: {}",
                    about(&head)
                );
                reached += 1;
            }
        }
    }
    assert!(reached > 10, "almost nothing got through: seed {seed}");
}
