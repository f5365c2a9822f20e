//! Tokens in the program itself: where their keys come from, what the upstream gets, and attacks on them.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use attache_tests::{Attache, eventually, free_port, local, nginx, pki::Pki};

use super::{app, ask, start, status};

/// A key, and tokens signed with it, made by OpenSSL.
pub(super) struct Signer(pub(super) Pki);

impl Signer {
    pub(super) fn new() -> Self {
        let pki = Pki::new();
        let made =
            Command::new("openssl").args(["genrsa", "-out", &pki.at("key.pem"), "2048"]).output().unwrap();
        assert!(made.status.success());
        Self(pki)
    }

    fn run(&self, script: &str) -> String {
        let output = Command::new("sh").arg("-c").arg(script).current_dir(self.0.dir()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(super) fn keys(&self, kid: &str) -> String {
        let n = self.run(
            "openssl rsa -in key.pem -noout -modulus | sed s/Modulus=// | xxd -r -p | base64 -w0 | tr '+/' '-_' | tr -d '='",
        );
        format!(r#"{{"keys":[{{"kty":"RSA","kid":"{kid}","n":"{n}","e":"AQAB"}}]}}"#)
    }

    pub(super) fn token(&self, kid: &str, claims: &str) -> String {
        let b64 = "base64 -w0 | tr '+/' '-_' | tr -d '='";
        let head = self.run(&format!(r#"printf '%s' '{{"alg":"RS256","kid":"{kid}"}}' | {b64}"#));
        let body = self.run(&format!("printf '%s' '{claims}' | {b64}"));
        let signed =
            self.run(&format!("printf '%s' '{head}.{body}' | openssl dgst -sha256 -sign key.pem | {b64}"));
        format!("{head}.{body}.{signed}")
    }
}

pub(super) fn claims(more: &str) -> String {
    let end = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 600;
    format!(r#"{{"iss":"https://id","aud":"shop","exp":{end},"sub":"ann"{more}}}"#)
}

#[test]
fn a_token_is_verified_with_keys_from_a_followed_file_and_its_claims_are_sent_to_the_upstream() {
    let (_app, port) = app();
    let (signer, next) = (Signer::new(), Signer::new());
    let file = signer.0.path("jwks.json");
    fs::write(&file, signer.keys("one")).unwrap();
    let attache = start(
        "authorization:
  jwt: { issuers: corp }
  allow: [{ name: writers, claims: { scope: write } }]
to: app",
        &format!(
            "jwt: {{ corp: {{ issuer: 'https://id', audiences: shop, keys: {{ file: '{}' }}, claim_headers: {{ x-user: sub }} }} }}",
            file.display()
        ),
        port,
    );
    let good = signer.token("one", &claims(r#","scope":"read write""#));
    let with = |token: &str| format!("Authorization: Bearer {token}\r\nX-User: root\r\nX_User: root\r\n");
    let answer = ask(&attache, "GET /a", &with(&good));
    assert!(status(&answer) == 200 && answer.contains("user=ann token=\n"), "{answer}");
    let missing = ask(&attache, "GET /a", "");
    assert!(status(&missing) == 401 && missing.contains("token-missing"), "{missing}");
    assert!(missing.to_lowercase().contains("www-authenticate: bearer\r\n"), "{missing}");
    let bad = ask(&attache, "GET /a", &with(&format!("{}x", &good[..good.len() - 1])));
    assert!(status(&bad) == 401 && bad.contains("invalid_token"), "{bad}");
    assert_eq!(status(&ask(&attache, "GET /a", &with(&signer.token("one", &claims(""))))), 403);
    // The keys are rotated.
    let new = next.token("two", &claims(r#","scope":"write""#));
    assert_eq!(status(&ask(&attache, "GET /a", &with(&new))), 401);
    fs::write(&file, next.keys("two")).unwrap();
    eventually("the new keys are in use", || status(&ask(&attache, "GET /a", &with(&new))) == 200);
    assert_eq!(status(&ask(&attache, "GET /a", &with(&good))), 401, "the old ones are not");
    // A file that isn't a key set changes nothing.
    fs::write(&file, "<html>").unwrap();
    eventually("it is counted", || attache.metric("attache_jwt_keys_total", &["corp", "failed"]) >= 1.0);
    assert_eq!(status(&ask(&attache, "GET /a", &with(&new))), 200);
}

#[test]
fn keys_are_requested_from_an_upstream_and_without_them_no_request_is_allowed() {
    let (_app, port) = app();
    let signer = Signer::new();
    let idp = free_port();
    let config = format!(
        "listeners:
  in:
    bind: 127.0.0.1:$PORT
    authorization: {{ jwt: {{ issuers: corp }} }}
    to: app
jwt: {{ corp: {{ issuer: 'https://id', audiences: shop, keys: {{ upstream: idp, path: /keys }} }} }}
upstreams:
  app: 'http://127.0.0.1:{port}'
  idp: 'http://127.0.0.1:{idp}'
"
    );
    let attache = Attache::start(&config);
    let token = signer.token("one", &claims(""));
    let with = format!("Authorization: Bearer {token}\r\n");
    let early = ask(&attache, "GET /a", &with);
    assert!(status(&early) == 503 && early.contains("no-token-keys"), "{early}");
    let keys = signer.keys("one");
    let server = format!("server {{ listen 127.0.0.1:{idp}; location = /keys {{ return 200 '{keys}'; }} }}");
    let idp_server = nginx(&server, local(idp));
    eventually("the keys are there", || status(&ask(&attache, "GET /a", &with)) == 200);
    drop(idp_server);
    assert_eq!(status(&ask(&attache, "GET /a", &with)), 200, "the last good set stays in use");
}

/// A server of keys that counts its requests.
fn counting(keys: String) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut space = [0; 4096];
            let _ = stream.read(&mut space);
            count.fetch_add(1, Relaxed);
            let length = keys.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{keys}"
            );
        }
    });
    (port, asked)
}

#[test]
fn no_attack_on_tokens_succeeds_and_unknown_keys_cause_few_requests_for_sets() {
    let (_app, port) = app();
    let signer = Signer::new();
    let (idp, asked) = counting(signer.keys("one"));
    let attache = Attache::start(&format!(
        "listeners:
  in:
    bind: 127.0.0.1:$PORT
    authorization: {{ jwt: {{ issuers: corp }} }}
    to: app
jwt: {{ corp: {{ issuer: 'https://id', audiences: shop, keys: {{ upstream: idp, path: /keys }}, claim_headers: {{ x-user: sub }} }} }}
upstreams:
  app: 'http://127.0.0.1:{port}'
  idp: 'http://127.0.0.1:{idp}'
"
    ));
    let with = |token: &str| ask(&attache, "GET /a", &format!("Authorization: Bearer {token}\r\n"));
    let good = signer.token("one", &claims(""));
    eventually("the keys are there", || status(&with(&good)) == 200);
    let b64 = "base64 -w0 | tr '+/' '-_' | tr -d '='";
    let encoded = |text: &str| signer.run(&format!("printf '%s' '{text}' | {b64}"));
    let parts: Vec<&str> = good.split('.').collect();
    let hmac = {
        let head = encoded(r#"{"alg":"HS256","kid":"one"}"#);
        let signed = signer.run(&format!(
            "openssl rsa -in key.pem -pubout -out pub.pem 2>/dev/null; printf '%s' '{head}.{}' | openssl dgst -sha256 -hmac \"$(cat pub.pem)\" -binary | {b64}",
            parts[1]
        ));
        format!("{head}.{}.{signed}", parts[1])
    };
    let none = |alg: &str| format!("{}.{}.", encoded(&format!(r#"{{"alg":"{alg}","kid":"one"}}"#)), parts[1]);
    let end = |seconds: i64| {
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
        now + seconds
    };
    let claiming = |claims: String| signer.token("one", &claims);
    let attacks = [
        ("none", none("none")),
        ("None", none("NoNe")),
        ("no algorithm", none("")),
        ("HS256 with the public key", hmac),
        (
            "RS512 on the signature of RS256",
            format!("{}.{}.{}", encoded(r#"{"alg":"RS512","kid":"one"}"#), parts[1], parts[2]),
        ),
        ("other claims", format!("{}.{}.{}", parts[0], encoded(&claims(r#","admin":true"#)), parts[2])),
        ("no signature", format!("{}.{}", parts[0], parts[1])),
        ("an empty signature", format!("{}.{}.", parts[0], parts[1])),
        ("four parts", format!("{good}.x")),
        ("padding", format!("{good}=")),
        ("oversized", format!("{good}{}", "A".repeat(20_000))),
        ("expired", claiming(format!(r#"{{"iss":"https://id","aud":"shop","exp":{}}}"#, end(-600)))),
        ("no end", claiming(r#"{"iss":"https://id","aud":"shop"}"#.to_owned())),
        (
            "an expiry that is text",
            claiming(format!(r#"{{"iss":"https://id","aud":"shop","exp":"{}"}}"#, end(600))),
        ),
        (
            "not yet",
            claiming(format!(r#"{{"iss":"https://id","aud":"shop","exp":{},"nbf":{}}}"#, end(900), end(600))),
        ),
        (
            "another issuer",
            claiming(format!(r#"{{"iss":"https://id.evil","aud":"shop","exp":{}}}"#, end(600))),
        ),
        ("another audience", claiming(format!(r#"{{"iss":"https://id","aud":"shops","exp":{}}}"#, end(600)))),
        (
            "an audience twice",
            claiming(format!(r#"{{"iss":"https://id","aud":"evil","aud":"shop","exp":{}}}"#, end(600))),
        ),
    ];
    for (what, token) in &attacks {
        let answer = with(token);
        // A header of that size may be too large for the listener itself.
        assert!(status(&answer) == 401 || status(&answer) == 431, "{what}: {answer}");
    }
    for fields in [
        format!("Authorization: Bearer {good}\r\nAuthorization: Bearer {}\r\n", none("none")),
        format!("Authorization: Basic {good}\r\n"),
        format!("authorization_: Bearer {good}\r\n"),
    ] {
        assert_eq!(status(&ask(&attache, "GET /a", &fields)), 401, "{fields}");
    }
    // However the claims' header is spelt, the upstream gets the value of the token.
    let answer = ask(
        &attache,
        "GET /a",
        &format!("Authorization: bearer {good}\r\nX-User: root\r\nX_User: root\r\nConnection: x-user\r\n"),
    );
    assert!(answer.contains("user=ann token=\n"), "{answer}");
    // Unknown keys cause new requests for the set, but few of them.
    let before = (asked.load(Relaxed), Instant::now());
    for count in 0..100 {
        assert_eq!(status(&with(&signer.token(&format!("unknown-{count}"), &claims("")))), 401);
    }
    thread::sleep(Duration::from_millis(1_500));
    let most = 1 + before.1.elapsed().as_secs() as usize / 10;
    let more = asked.load(Relaxed) - before.0;
    assert!(more <= most, "asked {more} times in {:?}", before.1.elapsed());
    assert_eq!(status(&with(&good)), 200);
}

/// A server that answers with the request that it got.
fn echoing() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Everything that arrives within a short time: trailers follow the head.
            let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
            let (mut all, mut space) = (Vec::new(), [0; 8192]);
            while let Ok(read @ 1..) = stream.read(&mut space) {
                all.extend_from_slice(&space[..read]);
            }
            let said = all.escape_ascii().to_string();
            let length = said.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{said}"
            );
        }
    });
    port
}

#[test]
fn a_token_that_only_some_upstreams_would_find_is_not_passed_on_unverified() {
    let port = echoing();
    let signer = Signer::new();
    let file = signer.0.path("jwks.json");
    fs::write(&file, signer.keys("one")).unwrap();
    let attache = start(
        "authorization: { jwt: { issuers: corp, required: false }, allow: [{ client: 127.0.0.0/8 }] }\nto: app",
        &format!(
            "jwt: {{ corp: {{ issuer: 'https://id', audiences: shop, forward: true, keys: {{ file: '{}' }}, from: ['header:authorization', 'header:x-jwt', 'cookie:session', 'query:access_token'] }} }}",
            file.display()
        ),
        port,
    );
    let forged = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0.";
    for (target, fields) in [
        ("/", format!("Authorization: Bearer {forged}\r\n")),
        ("/", format!("Authorization: Bearer\t{forged}\r\n")),
        ("/", format!("Authorization: Basic eDp5, Bearer {forged}\r\n")),
        ("/", format!("Authorization: Basic eDp5\r\nAuthorization: Bearer {forged}\r\n")),
        ("/", format!("X-Jwt: {forged}\r\n")),
        ("/", format!("Cookie: a=b;  session ={forged}\r\n")),
        ("/", format!("Cookie: a=b, session={forged}\r\n")),
        ("/", format!("Cookie: a=b\r\nCookie: session=\"{forged}\"\r\n")),
        (&format!("/?access%5Ftoken={forged}"), String::new()),
        (&format!("/?a=b;access_token={forged}"), String::new()),
        (&format!("/?access.token={forged}"), String::new()),
    ] {
        let answer = ask(&attache, &format!("GET {target}"), &fields);
        assert!(status(&answer) == 401 && !answer.contains(forged), "{target} {fields}: {answer}");
    }
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nCookie: session={forged}; a=");
    let odd = [head.as_bytes(), b"\xff\r\n\r\n"].concat();
    let answer = attache_tests::raw(local(attache.port), &odd);
    assert!(!answer.contains(forged), "{answer}");
    // Another spelling of a token's header, or a token in a trailer, is not passed on.
    for fields in [
        format!("X_Jwt: {forged}\r\n"),
        format!("Transfer-Encoding: chunked\r\nTrailer: x-jwt\r\n\r\n0\r\nx-jwt: {forged}\r\n"),
        format!(
            "Transfer-Encoding: chunked\r\n\r\n0\r\nx_jwt: {forged}\r\nAuthorization: Bearer {forged}\r\n"
        ),
    ] {
        let answer = ask(&attache, "POST /", &fields);
        assert!(status(&answer) == 200 && !answer.contains(forged), "{fields}: {answer}");
    }
    let good = signer.token("one", &claims(""));
    let answer = ask(&attache, "GET /", &format!("Authorization: Bearer {good}\r\n"));
    assert!(status(&answer) == 200 && answer.contains(&good), "{answer}");
    assert_eq!(status(&ask(&attache, "GET /", "Authorization: Basic eDp5\r\n")), 200, "no token is required");
}
