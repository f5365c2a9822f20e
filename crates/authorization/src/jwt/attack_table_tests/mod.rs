//! The table of attacks in `docs/authorization.md`: each row is tried here in all its variants, and the table shows the
//! real answers. `UPDATE_DOCS=1` writes the table.

mod claims;

use std::{fmt::Write as _, fs, path::Path, sync::Arc};

use attache_wire::RequestHead;
use aws_lc_rs::{digest, hmac, signature::KeyPair};
use http::HeaderValue;
use serde_json::{Value, json};

use super::{
    Issuer, TokenError, TokenVerifier,
    attack_tests::{ISSUER, Signers, WANTED, b64, bearer, claims, now, provider, with, without},
};

/// A 1024-bit RSA modulus, and a token that its key has signed.
const WEAK: &str = "_YX0nt-Am8rUCPTMaAh4KFQV4JPOQZfstG-GJdQGSxpIaQDF5a6qokSEgBfWagzrZGs7a76vj84Q5YjEOlgAy-ov-bgCx5ksDxheSHLA03bbD-oefsDPGpp6mv5SRZWItRbh9hLUtuurcB6sENOCRM1p8PbmhT1gTNeQT0S3X6c";
const WEAK_TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6IndlYWsifQ.eyJpc3MiOiJodHRwczovL2lkLnNob3AudGVzdCIsImF1ZCI6InNob3AiLCJleHAiOjk5OTk5OTk5OTk5fQ.d0IgMW0jwD1HYl1FBC4ToatH1Hp5_h1tJvLtb5sdWi9ckZ6vPVlZdlVyyyA9HLqHKzVUscY5Y947Nq9rIS5nDMdH75PTERyK3knCm7Re-64fbRBn7Z84bPng7XqLoIxPXEFeF6kpCqe6TmK2MpWpE6yY9azGxslUST0d7YtHWVQ";

struct Attack {
    what: &'static str,
    why: &'static str,
    requests: Vec<RequestHead>,
    /// Another key set than the usual one.
    set: Option<Value>,
}

struct Attacks {
    ours: Signers,
    theirs: Signers,
    all: Vec<Attack>,
}

fn head(alg: &str, kid: &str) -> Value {
    json!({ "alg": alg, "kid": kid })
}

fn get(target: &str, headers: &[(&str, &[u8])]) -> RequestHead {
    let mut request = http::Request::get(target);
    for (name, value) in headers {
        request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
    }
    request.body(()).unwrap().into_parts().0.into()
}

/// The signature by an RSA key whose exponent is 1: the padded digest itself (RFC 8017 section 9.2).
fn padded(message: &[u8], size: usize) -> Vec<u8> {
    const SHA256: &[u8] = b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";
    let info = [SHA256, digest::digest(&digest::SHA256, message).as_ref()].concat();
    [&[0, 1][..], &vec![0xff; size - info.len() - 3], &[0], &info].concat()
}

impl Attacks {
    fn add(&mut self, what: &'static str, why: &'static str, requests: Vec<RequestHead>) {
        self.all.push(Attack { what, why, requests, set: None });
    }

    fn tokens(
        &mut self,
        what: &'static str,
        why: &'static str,
        tokens: impl IntoIterator<Item = impl AsRef<str>>,
    ) {
        self.add(what, why, tokens.into_iter().map(|token| bearer(token.as_ref())).collect());
    }

    fn with_set(&mut self, what: &'static str, why: &'static str, set: Value, token: &str) {
        self.all.push(Attack { what, why, requests: vec![bearer(token)], set: Some(set) });
    }

    fn algorithms(&mut self) {
        let payload = b64(claims().to_string());
        let none = ["none", "None", "NONE", "nOnE", ""].iter().flat_map(|alg| {
            ["", "AA"].map(|sig| format!("{}.{payload}.{sig}", b64(json!({ "alg": alg }).to_string())))
        });
        let none: Vec<_> = none.collect();
        self.tokens("`alg` is `none`, in any case, or empty", "no key is for this algorithm", none);
        let set = self.ours.set();
        let pem = b64(self.ours.rsa.public_key().as_ref()).into_bytes();
        let secrets = [
            self.ours.rsa.public_key().as_ref().to_vec(),
            self.ours.modulus().to_vec(),
            set["keys"][0].to_string().into_bytes(),
            [b"-----BEGIN PUBLIC KEY-----\n", &pem[..], b"\n-----END PUBLIC KEY-----\n"].concat(),
            b"a secret that anybody who reads this set has".to_vec(),
        ];
        let mut confused = Vec::new();
        for (alg, algorithm) in
            [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)]
        {
            for (secret, kid) in secrets.iter().flat_map(|secret| [(secret, "rsa"), (secret, "shared")]) {
                let message = format!("{}.{payload}", b64(head(alg, kid).to_string()));
                let tag = hmac::sign(&hmac::Key::new(algorithm, secret), message.as_bytes());
                confused.push(format!("{message}.{}", b64(tag)));
            }
        }
        let why = "attache never verifies HMAC, not even with a key of the set with `kty: oct`";
        self.tokens("`HS256` with the public key, or with a secret of the set, as the secret", why, confused);
        let renamed = [
            (head("PS256", "rsa"), "RS256"),
            (head("RS512", "rsa"), "RS256"),
            (head("ES256", "rsa"), "RS256"),
            (head("RS256", "p256"), "RS256"),
            (head("ES256", "p384"), "ES256"),
            (head("EdDSA", "rsa"), "EdDSA"),
        ]
        .map(|(head, signed)| {
            let message = format!("{}.{payload}", b64(head.to_string()));
            format!("{message}.{}", b64(self.ours.sign(signed, message.as_bytes())))
        });
        self.tokens(
            "a good signature under another algorithm's or key's name",
            "the key decides the algorithm",
            renamed,
        );
        let unknown = ["RS1", "ES256K", "ES512", "HS1", "A256KW", "dir", "RSA-OAEP"].map(|alg| {
            let message = format!("{}.{payload}", b64(head(alg, "rsa").to_string()));
            format!("{message}.{}", b64(self.ours.sign("RS256", message.as_bytes())))
        });
        self.tokens("an unknown algorithm", "attache supports only the algorithms listed above", unknown);
        let doubled = [
            r#"{"alg":"none","alg":"RS256"}"#,
            r#"{"alg":"RS256","kid":"ed","kid":"rsa"}"#,
            r#"{"alg":"RS256","kid":"rsa","x":1,"x":1}"#,
            r#"{"alg":"RS256","kid":"rsa","b64":false,"b64":true}"#,
            r#"{"alg":"RS256","kid":"rsa","x":{"y":[{"a":1,"a":2}]}}"#,
            r#"{"alg":["RS256"]}"#,
            r#"{"alg":null}"#,
            "{}",
            "[]",
            "RS256",
        ]
        .map(|head| {
            let message = format!("{}.{payload}", b64(head));
            format!("{message}.{}", b64(self.ours.sign("RS256", message.as_bytes())))
        });
        self.tokens(
            "a head with a member twice, at any depth, without `alg`, or that is no object",
            "such a head has more than one meaning, or none",
            doubled,
        );
    }

    fn keys(&mut self) {
        let key = self.theirs.set()["keys"][0].clone();
        let heads = [
            json!({ "alg": "RS256", "jwk": key }),
            json!({ "alg": "RS256", "kid": "rsa", "jwk": key }),
            json!({ "alg": "RS256", "kid": "rsa", "jku": "https://evil.test/keys" }),
            json!({ "alg": "RS256", "kid": "rsa", "x5u": "https://evil.test/cert" }),
            json!({ "alg": "RS256", "kid": "rsa", "x5c": ["MIIB"] }),
        ];
        let tokens = heads.map(|head| self.theirs.token(&head, &claims()));
        let why = "attache ignores keys that a token contains or names";
        self.tokens("the attacker's key in `jwk`, `jku`, `x5u`, `x5c`", why, tokens);
        let kids = ["../../../../dev/null", "' OR 1=1 --", "http://evil.test/", "", "RSA", "rsa "];
        let tokens = kids.map(|kid| self.theirs.token(&head("RS256", kid), &claims()));
        let why = "attache only compares the `kid` with those of the set";
        self.tokens("a `kid` that is a path, an address, SQL, or unknown", why, tokens);
        let doubled = {
            let mut set = self.ours.set();
            // The same `kid` for an encryption key, and for a key of another kind.
            let mut other = self.theirs.set()["keys"][0].clone();
            other["use"] = "enc".into();
            let mut oct = set["keys"][4].clone();
            oct["kid"] = "rsa".into();
            set["keys"].as_array_mut().unwrap().extend([other, oct]);
            set
        };
        let token = self.theirs.token(&head("RS256", "rsa"), &claims());
        let why = "a key with `use: enc`, without `key_ops: verify`, or with another `alg` verifies nothing";
        self.with_set(
            "signed by a key that the set has for encryption, under a `kid` that it has twice",
            why,
            doubled,
            &token,
        );
        let renamed = {
            let mut set = self.ours.set();
            set["keys"][0]["kty"] = "EC".into();
            set
        };
        let good = self.ours.good();
        self.with_set(
            "a key whose `kty` isn't that of its parameters",
            "attache ignores this key of the set",
            renamed,
            &good,
        );
        let set = |n: &str, e: &str| json!({ "keys": [{ "kty": "RSA", "kid": "weak", "n": n, "e": e }] });
        let why = "attache uses no RSA key below 2048 bits";
        self.with_set(
            "a token that is signed with an RSA key of 1024 bits",
            why,
            set(WEAK, "AQAB"),
            WEAK_TOKEN,
        );
        let message = format!("{}.{}", b64(head("RS256", "weak").to_string()), b64(claims().to_string()));
        let forged = format!("{message}.{}", b64(padded(message.as_bytes(), 256)));
        let n = b64(self.ours.modulus());
        let why = "with exponent 1 everybody can sign; an exponent of more than 33 bits only costs time";
        self.with_set("an RSA key with exponent 1", why, set(&n, "AQ"), &forged);
        let huge = b64([0xff; 256]);
        self.with_set("an RSA key with an exponent of 2048 bits", why, set(&n, &huge), &forged);
    }

    /// Invalid keys in the set.
    fn points(&mut self) {
        let message = format!("{}.{}", b64(head("ES256", "p256").to_string()), b64(claims().to_string()));
        let zeros = |size: usize| b64(vec![0; size]);
        let ours = self.ours.set()["keys"][1].clone();
        let other = self.theirs.set()["keys"][1].clone();
        let points = [
            (zeros(32), zeros(32)),
            // The coordinates of two points together are no point of the curve.
            (ours["x"].as_str().unwrap().to_owned(), other["y"].as_str().unwrap().to_owned()),
            (b64([0xff; 32]), b64([0xff; 32])),
            (zeros(0), zeros(0)),
            (zeros(31), zeros(32)),
        ];
        let mut signed = [0_u8; 64];
        (signed[31], signed[63]) = (1, 1);
        for (x, y) in points {
            let mut set = self.ours.set();
            (set["keys"][1]["x"], set["keys"][1]["y"]) = (x.into(), y.into());
            for signature in [b64(signed), b64(self.ours.sign("ES256", message.as_bytes()))] {
                let why = "aws-lc accepts no such point as a key";
                let what = "an EC key that is not a point of its curve";
                self.with_set(what, why, set.clone(), &format!("{message}.{signature}"));
            }
        }
        // With each of these points every fourth or eighth of such signatures is valid, whatever is signed.
        let mut signed = [0_u8; 64];
        signed[0] = 1;
        for (point, times) in [(zeros(32), 24), (b64([&[1_u8][..], &[0; 31]].concat()), 1)] {
            let mut set = self.ours.set();
            set["keys"][3]["x"] = point.into();
            for number in 0..times {
                let message = format!(
                    "{}.{}",
                    b64(head("EdDSA", "ed").to_string()),
                    b64(with("jti", number.into()).to_string())
                );
                let why = "with such a key everybody can sign; attache ignores it";
                let token = format!("{message}.{}", b64(signed));
                self.with_set("an Ed25519 key of small order", why, set.clone(), &token);
            }
        }
    }

    fn signatures(&mut self) {
        let good = self.ours.good();
        let [first, payload, signed]: [&str; 3] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
        let cut = &signed[..signed.len() - 4];
        self.tokens(
            "a signature that is missing, empty, cut, or longer",
            "attache verifies the whole signature",
            [
                format!("{first}.{payload}"),
                format!("{first}.{payload}."),
                format!("{first}.{payload}.{cut}"),
                format!("{good}AAAA"),
            ],
        );
        let other = b64(with("sub", "root".into()).to_string());
        let head_of = b64(json!({ "alg": "RS256", "kid": "rsa", "typ": "at+jwt" }).to_string());
        let changed = [format!("{first}.{other}.{signed}"), format!("{head_of}.{payload}.{signed}")];
        self.tokens(
            "other claims, or another head, under a good signature",
            "the signature is over exactly these bytes",
            changed,
        );
        let zeros =
            [("ES256", "p256", 64), ("ES384", "p384", 96), ("EdDSA", "ed", 64), ("RS256", "rsa", 256)].map(
                |(alg, kid, size)| {
                    format!("{}.{payload}.{}", b64(head(alg, kid).to_string()), b64(vec![0; size]))
                },
            );
        self.tokens("a signature of zeros (CVE-2022-21449)", "aws-lc checks `r` and `s`", zeros);
        let spellings = [
            format!("{good}="),
            format!("{good}%3D"),
            good.replacen('.', "%2E", 1),
            format!("{first}.{payload} .{signed}"),
            format!("{first}.{payload}.{}", signed.replace(['-', '_'], "+") + "/"),
            format!("\"{good}\""),
        ];
        self.tokens(
            "padding, blanks, quotes, `+`, `/` or `%` in a token",
            "a JWT has only one spelling",
            spellings,
        );
        let parts = [
            format!("{good}.{signed}"),
            format!(".{good}"),
            format!("{first}..{signed}"),
            format!("{first}.{payload}.AAAA.AAAA.AAAA"),
            json!({ "payload": payload, "signatures": [{ "protected": first, "signature": signed }] })
                .to_string(),
            "a.b.c".to_owned(),
            "null".to_owned(),
            String::new(),
        ];
        self.tokens(
            "four or five parts (JWE), JWS in JSON, an empty token",
            "only the compact form of a JWS is a token",
            parts,
        );
        let deep = format!(r#"{{"alg":"RS256","x":{}{}}}"#, "[".repeat(5000), "]".repeat(5000));
        let deep_claims = format!(r#"{{"x":{}{}}}"#, "[".repeat(3000), "]".repeat(3000));
        let deep = [
            format!("{}.{payload}.{signed}", b64(deep)),
            self.ours.text_token(&head("RS256", "rsa"), &deep_claims),
        ];
        self.tokens("JSON with a thousand levels", "attache reads JSON to a depth of 128", deep);
        let long = with("pad", "x".repeat(16 << 10).into());
        let long = self.ours.token(&head("RS256", "rsa"), &long);
        self.tokens("a token of more than 16 KiB", "attache refuses it before it reads it", [long]);
    }

    fn extensions(&mut self) {
        let heads = [
            json!({ "alg": "RS256", "kid": "rsa", "crit": ["exp"] }),
            json!({ "alg": "RS256", "kid": "rsa", "crit": ["b64"], "b64": true }),
            json!({ "alg": "RS256", "kid": "rsa", "crit": [] }),
            json!({ "alg": "RS256", "kid": "rsa", "crit": ["b64"], "b64": false }),
            json!({ "alg": "RS256", "kid": "rsa", "b64": false }),
            json!({ "alg": "RS256", "kid": "rsa", "crit": null }),
            json!({ "alg": "RS256", "kid": "rsa", "crit": "exp" }),
            json!({ "alg": "RS256", "kid": "rsa", "b64": "false" }),
        ];
        let tokens = heads.map(|head| self.ours.token(&head, &claims()));
        self.tokens(
            "`crit`, or `b64: false` (RFC 7797), signed well",
            "attache supports no extension",
            tokens,
        );
        let heads = [
            json!({ "alg": "RS256", "kid": "rsa", "zip": "DEF" }),
            json!({ "alg": "RS256", "kid": "rsa", "enc": "A256GCM" }),
            json!({ "alg": "RS256", "kid": "rsa", "zip": null }),
            json!({ "alg": "RS256", "kid": "rsa", "enc": null }),
        ];
        let tokens = heads.map(|head| self.ours.token(&head, &claims()));
        self.tokens(
            "`zip` or `enc` in the head of a JWS, signed well",
            "another program would unpack the claims first",
            tokens,
        );
        let nested = [
            self.ours.text_token(&json!({ "alg": "RS256", "kid": "rsa", "cty": "JWT" }), &self.ours.good()),
            self.ours.text_token(&head("RS256", "rsa"), "[]"),
            self.ours.text_token(&head("RS256", "rsa"), "\"sub\""),
        ];
        self.tokens(
            "a token in a token, or claims that are no object, signed well",
            "the payload must be the claims",
            nested,
        );
    }

    /// Every row, in the order of the table.
    fn rows() -> Vec<(&'static str, &'static str, &'static str)> {
        let mut attacks = Self { ours: Signers::new(), theirs: Signers::new(), all: Vec::new() };
        attacks.algorithms();
        attacks.keys();
        attacks.points();
        attacks.signatures();
        attacks.extensions();
        attacks.claims_and_times();
        attacks.places();
        let usual = attacks.ours.set();
        let good = bearer(&attacks.ours.good());
        attacks
            .all
            .iter()
            .map(|attack| {
                let mut set = attack.set.clone().unwrap_or_else(|| usual.clone());
                // A set without a usable key is invalid, so there is always a good key as well.
                set["keys"].as_array_mut().unwrap().push(attacks.theirs.set()["keys"][3].clone());
                let verifier = TokenVerifier::new(&[Arc::new(Issuer::new(provider(&set)).unwrap())]);
                if attack.set.is_none() {
                    assert!(verifier.verify(&WANTED(), &good).is_ok(), "the good one beside {}", attack.what);
                }
                let mut answers = attack.requests.iter().map(|request| {
                    let found = verifier.verify(&WANTED(), request);
                    let optional = verifier.verify(&super::JwtUse { required: false, ..WANTED() }, request);
                    match found {
                        Ok(_) => panic!("{} is accepted: {request:?}", attack.what),
                        Err(TokenError::Invalid(_)) => {
                            assert!(optional.is_err(), "{} passes where none is required", attack.what);
                            "401 `token-invalid`"
                        }
                        Err(TokenError::Missing) => "401 `token-missing`",
                        Err(TokenError::NoKeys(_)) => "503 `no-token-keys`",
                    }
                });
                let answer = answers.next().unwrap();
                assert!(answers.all(|other| other == answer), "variants of {} differ", attack.what);
                (attack.what, answer, attack.why)
            })
            .fold(Vec::new(), |mut rows, row| {
                // Attacks that need different sets are still one row.
                if rows.last() != Some(&row) {
                    rows.push(row);
                }
                rows
            })
    }
}

const BEGIN: &str = "<!-- ATTACKS -->\n";
const END: &str = "<!-- END OF ATTACKS -->\n";

#[test]
fn the_table_of_attacks_in_the_documentation_is_what_happens() {
    let mut table = "| attack | answer | why |\n| --- | --- | --- |\n".to_owned();
    for (what, answer, why) in Attacks::rows() {
        writeln!(table, "| {what} | {answer} | {why} |").unwrap();
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/authorization.md");
    let text = fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{BEGIN}{table}{END}{after}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, &expected).unwrap();
    } else {
        assert!(
            text == expected,
            "docs/authorization.md is stale: UPDATE_DOCS=1 cargo test -p attache-authorization"
        );
    }
}

/// Tokens that must be accepted, so that the table isn't true for a verifier that refuses everything.
#[test]
fn a_token_that_obeys_the_rules_is_accepted() {
    let signers = Signers::new();
    let verifier = TokenVerifier::new(&[Arc::new(Issuer::new(provider(&signers.set())).unwrap())]);
    for right in [
        claims(),
        with("exp", ((now() + 600) as f64 + 0.25).into()),
        with("exp", 1e15.into()),
        with("exp", (now() - 30).into()),
        with("nbf", (now() + 30).into()),
        with("aud", "shop".into()),
        with("aud", json!(["other", "shop"])),
        without("nbf"),
        without("sub"),
    ] {
        for head in
            [head("RS256", "rsa"), json!({ "alg": "RS256", "typ": "at+jwt", "x": [1, { "y": null }] })]
        {
            let request = bearer(&signers.token(&head, &right));
            let found = verifier.verify(&WANTED(), &request);
            assert!(found.is_ok(), "{right} {found:?}");
        }
    }
    // A set with unknown and invalid keys still has the others.
    let mut set = signers.set();
    let odd = json!([
        { "kty": "AKP", "alg": "ML-DSA-65", "kid": "pq", "pub": "AA" },
        { "kty": "EC", "crv": "secp256k1", "kid": "k", "x": "AA", "y": "AA" },
        { "kty": "OKP", "crv": "X25519", "kid": "x", "x": "AA" },
        { "kty": "RSA", "kid": 7, "n": "AA", "e": "AQAB" },
        { "kty": "RSA", "use": 1, "n": "AA", "e": "AQAB" },
        { "kty": "RSA", "n": "not base64!", "e": "AQAB" },
        {}, null, "key", 7,
    ]);
    let keys = set["keys"].as_array_mut().unwrap();
    keys.splice(0..0, odd.as_array().unwrap().iter().cloned());
    let verifier = TokenVerifier::new(&[Arc::new(Issuer::new(provider(&set)).unwrap())]);
    assert!(verifier.verify(&WANTED(), &bearer(&signers.good())).is_ok());
}
