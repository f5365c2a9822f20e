//! Tokens that are accepted, and those that must not be: every known attack on tokens, against keys of every kind.
//!
//! Tokens are signed with `aws-lc-rs` itself and assembled by hand, so that no library refuses to make a bad one.

use std::{sync::Arc, time::Duration};

use attache_config::model::{JwtKeys, JwtProvider, JwtUse, TokenPlace};
use attache_wire::RequestHead;
use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair},
};
use http::HeaderValue;
use serde_json::{Value, json};

use super::{Issuer, KeySet, TokenError, TokenVerifier};

pub(super) const ISSUER: &str = "https://id.shop.test";

/// Keys of every kind, and the set of their public keys.
pub(super) struct Signers {
    pub(super) rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

pub(super) fn b64(bytes: impl AsRef<[u8]>) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.as_ref().chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            out.push(char::from(LETTERS[(bits >> (18 - 6 * at)) as usize & 63]));
        }
    }
    out
}

impl Signers {
    pub(super) fn new() -> Self {
        let p256 = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let p384 = EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            p256,
            p384,
            ed: Ed25519KeyPair::generate().unwrap(),
        }
    }

    /// The modulus: DER's `SEQUENCE { INTEGER n, INTEGER e }` of a 2048-bit key has it here.
    pub(super) fn modulus(&self) -> &[u8] {
        &self.rsa.public_key().as_ref()[9..265]
    }

    pub(super) fn set(&self) -> Value {
        let point = |key: &EcdsaKeyPair| {
            let public = key.public_key().as_ref()[1..].to_vec();
            let (x, y) = public.split_at(public.len() / 2);
            (b64(x), b64(y))
        };
        let ((x, y), (x384, y384)) = (point(&self.p256), point(&self.p384));
        json!({ "keys": [
            { "kty": "RSA", "kid": "rsa", "n": b64(self.modulus()), "e": "AQAB" },
            { "kty": "EC", "crv": "P-256", "kid": "p256", "x": x, "y": y },
            { "kty": "EC", "crv": "P-384", "kid": "p384", "x": x384, "y": y384 },
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": b64(self.ed.public_key()) },
            { "kty": "oct", "kid": "shared", "k": b64(b"a secret that anybody who reads this set has") },
        ]})
    }

    pub(super) fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let rsa = |padding: &'static dyn signature::RsaEncoding| {
            let mut out = vec![0; self.rsa.public_modulus_len()];
            self.rsa.sign(padding, &random, message, &mut out).unwrap();
            out
        };
        match alg {
            "RS256" => rsa(&signature::RSA_PKCS1_SHA256),
            "RS384" => rsa(&signature::RSA_PKCS1_SHA384),
            "RS512" => rsa(&signature::RSA_PKCS1_SHA512),
            "PS256" => rsa(&signature::RSA_PSS_SHA256),
            "PS384" => rsa(&signature::RSA_PSS_SHA384),
            "PS512" => rsa(&signature::RSA_PSS_SHA512),
            "ES256" => self.p256.sign(&random, message).unwrap().as_ref().to_vec(),
            "ES384" => self.p384.sign(&random, message).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed.sign(message).as_ref().to_vec(),
            other => panic!("{other}"),
        }
    }

    pub(super) fn token(&self, head: &Value, claims: &Value) -> String {
        self.text_token(head, &claims.to_string())
    }

    pub(super) fn text_token(&self, head: &Value, claims: &str) -> String {
        let message = format!("{}.{}", b64(head.to_string()), b64(claims));
        let signed = self.sign(head["alg"].as_str().unwrap(), message.as_bytes());
        format!("{message}.{}", b64(signed))
    }

    pub(super) fn good(&self) -> String {
        self.token(&json!({ "alg": "RS256", "kid": "rsa" }), &claims())
    }
}

pub(super) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

pub(super) fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": ["other", "shop"], "sub": "ann", "exp": now() + 600, "nbf": now() - 600,
        "scope": "read write", "realm": { "roles": ["staff", "admin"] },
    })
}

pub(super) fn with(key: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[key] = value;
    claims
}

pub(super) fn without(key: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(key);
    claims
}

pub(super) fn provider(set: &Value) -> JwtProvider {
    JwtProvider {
        name: "corp".into(),
        issuer: ISSUER.into(),
        audiences: vec!["shop".into()],
        keys: JwtKeys::Inline(set.to_string().into()),
        clock_skew: Duration::from_secs(60),
        from: vec![
            TokenPlace::Header(http::header::AUTHORIZATION, "Bearer ".into()),
            TokenPlace::Cookie("session".into()),
            TokenPlace::Query("access_token".into()),
        ],
        claim_headers: vec![
            (http::HeaderName::from_static("x-user"), "sub".into()),
            (http::HeaderName::from_static("x-roles"), "realm.roles".into()),
        ],
        forward: false,
    }
}

pub(super) const WANTED: fn() -> JwtUse = || JwtUse { providers: vec![0], required: true };

fn verifier(signers: &Signers) -> TokenVerifier {
    TokenVerifier::new(&[Arc::new(Issuer::new(provider(&signers.set())).unwrap())])
}

pub(super) fn bearer(token: &str) -> RequestHead {
    let request =
        http::Request::get("http://shop.test/x?a=1").header("authorization", format!("Bearer {token}"));
    request.body(()).unwrap().into_parts().0.into()
}

fn refused(verifier: &TokenVerifier, what: &str, request: &RequestHead) {
    match verifier.verify(&WANTED(), request) {
        Err(TokenError::Invalid(why)) => {
            assert!(why.starts_with("corp") || why.contains("two"), "{what}: {why}");
        }
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn every_kind_of_signature_is_verified() {
    let signers = Signers::new();
    let verifier = verifier(&signers);
    for (alg, kid) in [
        ("RS256", "rsa"),
        ("RS384", "rsa"),
        ("RS512", "rsa"),
        ("PS256", "rsa"),
        ("PS384", "rsa"),
        ("PS512", "rsa"),
        ("ES256", "p256"),
        ("ES384", "p384"),
        ("EdDSA", "ed"),
    ] {
        for head in [json!({ "alg": alg, "kid": kid }), json!({ "alg": alg })] {
            let token = signers.token(&head, &claims());
            let found =
                verifier.verify(&WANTED(), &bearer(&token)).unwrap_or_else(|e| panic!("{alg}: {e:?}"));
            assert!(found.is_some(), "{alg}");
        }
    }
}

#[test]
fn the_algorithm_is_the_keys_and_never_the_tokens() {
    let signers = Signers::new();
    let verifier = verifier(&signers);
    let payload = b64(claims().to_string());
    for none in ["none", "None", "NONE", "nOnE", ""] {
        for signature in ["", "AA"] {
            let token = format!("{}.{payload}.{signature}", b64(json!({ "alg": none }).to_string()));
            refused(&verifier, none, &bearer(&token));
        }
    }
    // HS256 with every form of the public keys that could be used as a secret.
    let set = signers.set();
    let secrets: [&[u8]; 4] = [
        signers.rsa.public_key().as_ref(),
        signers.modulus(),
        &set["keys"][0].to_string().into_bytes(),
        b"a secret that anybody who reads this set has",
    ];
    for (alg, algorithm) in [("HS256", hmac::HMAC_SHA256), ("HS512", hmac::HMAC_SHA512)] {
        for secret in secrets {
            for kid in ["rsa", "shared"] {
                let message = format!("{}.{payload}", b64(json!({ "alg": alg, "kid": kid }).to_string()));
                let tag = hmac::sign(&hmac::Key::new(algorithm, secret), message.as_bytes());
                refused(&verifier, alg, &bearer(&format!("{message}.{}", b64(tag))));
            }
        }
    }
    // A good signature under another algorithm's or key's name.
    for (head, signed) in [
        (json!({ "alg": "PS256", "kid": "rsa" }), "RS256"),
        (json!({ "alg": "ES256", "kid": "rsa" }), "RS256"),
        (json!({ "alg": "RS256", "kid": "p256" }), "RS256"),
        (json!({ "alg": "ES256", "kid": "p384" }), "ES256"),
        (json!({ "alg": "EdDSA", "kid": "rsa" }), "EdDSA"),
        (json!({ "alg": "RS1", "kid": "rsa" }), "RS256"),
    ] {
        let message = format!("{}.{payload}", b64(head.to_string()));
        let token = format!("{message}.{}", b64(signers.sign(signed, message.as_bytes())));
        refused(&verifier, &head.to_string(), &bearer(&token));
    }
}

#[test]
fn a_token_brings_no_key_of_its_own() {
    let (signers, attacker) = (Signers::new(), Signers::new());
    let verifier = verifier(&signers);
    let key = &attacker.set()["keys"][0];
    for head in [
        json!({ "alg": "RS256", "kid": "rsa" }),
        json!({ "alg": "RS256", "jwk": key }),
        json!({ "alg": "RS256", "kid": "rsa", "jku": "https://evil.test/keys" }),
        json!({ "alg": "RS256", "kid": "rsa", "x5u": "https://evil.test/cert" }),
        json!({ "alg": "RS256", "kid": "../../../../dev/null" }),
        json!({ "alg": "RS256", "kid": "' OR 1=1 --" }),
    ] {
        refused(&verifier, &head.to_string(), &bearer(&attacker.token(&head, &claims())));
    }
}

#[test]
fn a_signature_is_whole_and_over_these_bytes() {
    let signers = Signers::new();
    let verifier = verifier(&signers);
    let good = signers.good();
    let parts: Vec<&str> = good.split('.').collect();
    let other = b64(with("sub", "root".into()).to_string());
    let zeros = |alg: &str, kid: &str, size: usize| {
        let head = b64(json!({ "alg": alg, "kid": kid }).to_string());
        format!("{head}.{}.{}", parts[1], b64(vec![0; size]))
    };
    for token in [
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.{other}.{}", parts[0], parts[2]),
        format!("{}.{}.{}", parts[0], parts[1], &parts[2][..parts[2].len() - 4]),
        format!("{good}AAAA"),
        format!("{good}.{}", parts[2]),
        format!("{good}=="),
        format!(".{good}"),
        format!("{}..{}", parts[0], parts[2]),
        format!("{}.{}.AAAA.AAAA.AAAA", parts[0], parts[1]),
        "a.b.c".to_owned(),
        "null".to_owned(),
        String::new(),
        // A verifier that doesn't check r and s accepts this signature (CVE-2022-21449).
        zeros("ES256", "p256", 64),
        zeros("ES384", "p384", 96),
        zeros("EdDSA", "ed", 64),
        zeros("RS256", "rsa", 256),
    ] {
        refused(&verifier, &token, &bearer(&token));
    }
}

#[test]
fn a_token_is_for_us_from_the_issuer_and_now() {
    let signers = Signers::new();
    let verifier = verifier(&signers);
    let head = json!({ "alg": "RS256", "kid": "rsa" });
    for wrong in [
        with("exp", (now() - 120).into()),
        with("exp", "9999999999".into()),
        with("exp", (-1).into()),
        with("exp", Value::Null),
        with("exp", json!([9_999_999_999_u64])),
        without("exp"),
        with("nbf", (now() + 120).into()),
        with("nbf", "never".into()),
        with("iss", "https://id.shop.test.evil".into()),
        with("iss", "https://id.shop.test/".into()),
        with("iss", json!(["https://evil.test", ISSUER])),
        without("iss"),
        with("aud", "shop2".into()),
        with("aud", json!([])),
        with("aud", json!({ "shop": true })),
        without("aud"),
    ] {
        refused(&verifier, &wrong.to_string(), &bearer(&signers.token(&head, &wrong)));
    }
    // Within the skew of the clocks.
    for right in
        [with("exp", (now() - 30).into()), with("nbf", (now() + 30).into()), with("aud", "shop".into())]
    {
        assert!(verifier.verify(&WANTED(), &bearer(&signers.token(&head, &right))).is_ok(), "{right}");
    }
    // Of two equal claims one reader uses the last, and another the first.
    let doubled = format!(r#"{{"exp":1,{}"#, &claims().to_string()[1..]);
    refused(&verifier, "two exp", &bearer(&signers.text_token(&head, &doubled)));
    refused(&verifier, "no object", &bearer(&signers.text_token(&head, "[]")));
}

#[test]
fn a_token_that_is_not_understood_or_too_long_is_refused() {
    let signers = Signers::new();
    let verifier = verifier(&signers);
    let head = json!({ "alg": "RS256", "kid": "rsa", "crit": ["b64"], "b64": false });
    refused(&verifier, "crit", &bearer(&signers.token(&head, &claims())));
    let long = with("pad", "x".repeat(JwtProvider::MAX_TOKEN_BYTES).into());
    let token = signers.token(&json!({ "alg": "RS256", "kid": "rsa" }), &long);
    refused(&verifier, "long", &bearer(&token));
}

#[test]
fn two_tokens_are_refused_and_one_is_found_in_each_place() {
    let signers = Signers::new();
    let verifier = verifier(&signers);
    let (good, other) =
        (signers.good(), signers.token(&json!({ "alg": "RS256" }), &with("sub", "bob".into())));
    let get = |target: &str, headers: &[(&str, String)]| -> RequestHead {
        let mut request = http::Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        request.body(()).unwrap().into_parts().0.into()
    };
    for request in [
        get("/", &[("authorization", format!("Bearer {good}"))]),
        get("/", &[("authorization", format!("bearer {good}"))]),
        get("/", &[("cookie", format!("a=b; session={good}; c=d"))]),
        get(&format!("/?a=1&access_token={good}"), &[]),
        get("/", &[("authorization", format!("Bearer {good}")), ("cookie", format!("session={good}"))]),
        get("/", &[("authorization", "Basic eDp5".into()), ("cookie", format!("session={good}"))]),
    ] {
        assert!(verifier.verify(&WANTED(), &request).is_ok(), "{:?}", request.uri);
    }
    for request in [
        get(
            "/",
            &[("authorization", format!("Bearer {good}")), ("authorization", format!("Bearer {other}"))],
        ),
        get("/", &[("authorization", format!("Bearer {good}")), ("cookie", format!("session={other}"))]),
        get(&format!("/?access_token={good}&access_token={other}"), &[]),
        get("/", &[("authorization", format!("Bearer {good}, Bearer {other}"))]),
    ] {
        refused(&verifier, "two", &request);
    }
    for request in [
        get("/", &[]),
        get("/", &[("authorization", format!("Token {good}"))]),
        get("/", &[("x-authorization", format!("Bearer {good}"))]),
    ] {
        assert_eq!(verifier.verify(&WANTED(), &request).err(), Some(TokenError::Missing));
    }
    let optional = JwtUse { required: false, ..WANTED() };
    assert!(verifier.verify(&optional, &get("/", &[])).unwrap().is_none());
    let bad = get("/", &[("authorization", "Bearer a.b.c".into())]);
    assert!(verifier.verify(&optional, &bad).is_err(), "a bad token is not a missing token");
}

#[test]
fn a_remembered_token_ends_on_time_and_with_its_keys() {
    let signers = Signers::new();
    let issuer = Arc::new(Issuer::new(provider(&signers.set())).unwrap());
    let verifier = TokenVerifier::new(std::slice::from_ref(&issuer));
    let request = bearer(&signers.good());
    assert!(verifier.verify(&WANTED(), &request).is_ok());
    assert!(verifier.verify(&WANTED(), &request).is_ok());
    let end = Duration::from_secs(now() + 600 + 60);
    assert!(verifier.verify_at(&WANTED(), &request, end.saturating_sub(Duration::from_secs(5))).is_ok());
    assert!(verifier.verify_at(&WANTED(), &request, end + Duration::from_secs(5)).is_err());
    assert!(verifier.verify(&WANTED(), &request).is_ok());
    issuer.keys.put(KeySet::parse(Signers::new().set().to_string().as_bytes()).unwrap());
    refused(&verifier, "rotated", &request);
}

#[test]
fn an_unknown_key_makes_attache_load_the_set_again_and_without_keys_tokens_are_refused() {
    let signers = Signers::new();
    let issuer = Arc::new(Issuer::new(provider(&signers.set())).unwrap());
    let verifier = TokenVerifier::new(std::slice::from_ref(&issuer));
    assert!(!issuer.keys.take_wanted());
    let token = signers.token(&json!({ "alg": "RS256", "kid": "next" }), &claims());
    refused(&verifier, "kid", &bearer(&token));
    assert!(issuer.keys.take_wanted());
    let remote = JwtKeys::Remote(attache_config::model::RemoteKeys::default());
    let config = JwtProvider { keys: remote, ..provider(&signers.set()) };
    let issuer = Arc::new(Issuer::new(config).unwrap());
    let verifier = TokenVerifier::new(std::slice::from_ref(&issuer));
    assert!(matches!(verifier.verify(&WANTED(), &bearer(&token)), Err(TokenError::NoKeys(_))));
    assert!(issuer.keys.take_wanted());
}

#[test]
fn a_set_without_a_usable_key_is_invalid() {
    let keys = Signers::new().set()["keys"].clone();
    let (rsa, shared) = (keys[0].clone(), keys[4].clone());
    let set = |keys: Value| KeySet::parse(json!({ "keys": keys }).to_string().as_bytes());
    assert!(set(json!([rsa])).is_ok());
    let changed = |key: &str, value: Value| {
        let mut changed = rsa.clone();
        changed[key] = value;
        changed
    };
    assert!(set(json!([])).is_err());
    assert!(set(json!([shared])).is_err(), "a secret is not a public key");
    assert!(set(json!([changed("use", "enc".into())])).is_err());
    assert!(set(json!([changed("key_ops", json!(["encrypt"]))])).is_err());
    assert!(set(json!([changed("alg", "HS256".into())])).is_err());
    for text in ["", "{}", "[]", "<html>", "{\"keys\": {}}"] {
        assert!(KeySet::parse(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn the_upstream_gets_the_claims_and_never_the_clients_own_headers() {
    let signers = Signers::new();
    let verifier = verifier(&signers);
    // One token: two that are made in different seconds differ.
    let good = signers.good();
    let mut request = bearer(&good);
    request.uri = format!("http://shop.test/x?a=1&access_token={good}&b=2").parse().unwrap();
    let cookie = format!("a=b; session={good}; c=d");
    request.headers.try_insert("cookie", cookie.as_bytes()).unwrap();
    for name in ["x-user", "x_user", "X-Roles", "x-roles"] {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers.append(name, HeaderValue::from_static("root"));
    }
    let claims = verifier.verify(&WANTED(), &request).unwrap();
    verifier.pass_on(&WANTED(), &mut request, claims.as_deref());
    assert_eq!(request.uri.to_string(), "http://shop.test/x?a=1&b=2");
    let mut headers: Vec<_> =
        request.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    headers.sort();
    assert_eq!(headers, ["cookie: a=b; c=d", "x-roles: staff,admin", "x-user: ann"]);
    // The fields that no trailer may have.
    let mut claimed: Vec<_> = verifier.claim_headers(&WANTED()).map(http::HeaderName::as_str).collect();
    claimed.sort_unstable();
    assert_eq!(claimed, ["x-roles", "x-user"]);
}

#[test]
fn rules_read_claims_by_path_by_item_and_by_word() {
    use crate::{Facts, testing};
    let signers = Signers::new();
    let verifier = verifier(&signers);
    let request = bearer(&signers.good());
    let claims = verifier.verify(&WANTED(), &request).unwrap();
    let client = testing::client("192.0.2.7:1", "");
    let allowed = |rule: &str, known: bool| {
        let policy = testing::policy(&format!("jwt: {{ issuers: corp, required: false }}\n{rule}"));
        let claims = claims.as_deref().filter(|_| known);
        policy.decide(&Facts::of_request(&request, &client).with_claims(claims)).is_allowed()
    };
    for rule in ["sub: ann", "scope: write", "realm.roles: admin", "sub: [bob, 'a*']", "sub: '*'"] {
        assert!(allowed(&format!("allow: [{{ claims: {{ {rule} }} }}]"), true), "{rule}");
        assert!(!allowed(&format!("allow: [{{ claims: {{ {rule} }} }}]"), false), "{rule}");
        assert!(!allowed(&format!("deny: [{{ claims: {{ {rule} }} }}]"), true), "{rule}");
    }
    for rule in ["sub: bob", "scope: writ", "roles: admin", "realm: admin", "realm.roles: 'staff,admin'"] {
        assert!(!allowed(&format!("allow: [{{ claims: {{ {rule} }} }}]"), true), "{rule}");
    }
}
