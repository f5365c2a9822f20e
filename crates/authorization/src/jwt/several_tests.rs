//! Tokens of several issuers in one request.

use std::{sync::Arc, time::Duration};

use attache_config::model::{JwtProvider, JwtUse, TokenPlace};
use attache_wire::RequestHead;
use serde_json::json;

use super::{
    Issuer, TokenError, TokenVerifier,
    attack_tests::{Signers, claims, now, provider, with},
};

const PARTNER: &str = "https://id.partner.test";

fn request(headers: &[(&str, &str)]) -> RequestHead {
    let mut request = http::Request::get("/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0.into()
}

/// Two issuers, of which the second one's tokens stand in `places`.
fn verifier(signers: [&Signers; 2], places: Vec<TokenPlace>) -> TokenVerifier {
    let corp = provider(&signers[0].set());
    let partner = JwtProvider {
        name: "partner".into(),
        issuer: PARTNER.into(),
        from: places,
        forward: true,
        ..provider(&signers[1].set())
    };
    TokenVerifier::new(&[corp, partner].map(|config| Arc::new(Issuer::new(config).unwrap())))
}

#[test]
fn a_token_that_no_issuer_accepts_does_not_pass_beside_a_good_one() {
    let (ours, theirs) = (Signers::new(), Signers::new());
    let (good, evil) = (format!("Bearer {}", ours.good()), Signers::new().good());
    let partner = theirs.token(&json!({ "alg": "RS256", "kid": "rsa" }), &with("iss", PARTNER.into()));
    let place = TokenPlace::Header(http::HeaderName::from_static("x-partner"), "".into());
    let verifier = verifier([&ours, &theirs], vec![place]);
    for providers in [vec![0, 1], vec![1, 0]] {
        for required in [true, false] {
            let wanted = JwtUse { providers: providers.clone(), required };
            let ask = |headers: &[(&str, &str)]| verifier.verify(&wanted, &request(headers));
            assert!(ask(&[("authorization", &good)]).unwrap().is_some());
            assert!(ask(&[("x-partner", &partner)]).unwrap().is_some());
            assert!(ask(&[("authorization", &good), ("x-partner", &partner)]).unwrap().is_some());
            for bad in [&*evil, "a.b.c", "", &good[7..]] {
                let found = ask(&[("authorization", &good), ("x-partner", bad)]);
                // Here the place of the other issuer has the same token, which was verified.
                if bad == &good[7..] {
                    assert!(found.is_ok(), "{found:?}");
                } else {
                    assert!(matches!(found, Err(TokenError::Invalid(_))), "{bad}: {found:?}");
                }
            }
            let found = ask(&[("authorization", "Bearer a.b.c"), ("x-partner", &partner)]);
            assert!(matches!(found, Err(TokenError::Invalid(_))), "{found:?}");
        }
    }
}

#[test]
fn a_second_token_is_valid_only_in_a_place_of_its_own_issuer() {
    let (ours, theirs) = (Signers::new(), Signers::new());
    let place = TokenPlace::Header(http::HeaderName::from_static("x-partner"), "".into());
    let verifier = verifier([&ours, &theirs], vec![place]);
    let second = ours.token(&json!({ "alg": "RS256", "kid": "rsa" }), &with("sub", "bob".into()));
    let good = format!("Bearer {}", ours.good());
    for providers in [vec![0, 1], vec![1, 0]] {
        let wanted = JwtUse { providers, required: true };
        let found = verifier.verify(&wanted, &request(&[("authorization", &good), ("x-partner", &second)]));
        assert!(matches!(found, Err(TokenError::Invalid(_))), "{found:?}");
    }
}

#[test]
fn the_skew_of_the_config_decides_for_both_ends_of_a_tokens_time() {
    let signers = Signers::new();
    for (skew, good) in [(0, false), (10, false), (60, true)] {
        let config = JwtProvider { clock_skew: Duration::from_secs(skew), ..provider(&signers.set()) };
        let verifier = TokenVerifier::new(&[Arc::new(Issuer::new(config).unwrap())]);
        let wanted = JwtUse { providers: vec![0], required: true };
        for claims in [with("nbf", (now() + 30).into()), with("exp", (now() - 30).into())] {
            let token = signers.token(&json!({ "alg": "EdDSA", "kid": "ed" }), &claims);
            let found = verifier.verify(&wanted, &request(&[("authorization", &format!("Bearer {token}"))]));
            assert_eq!(found.is_ok(), good, "{skew}: {found:?}");
        }
    }
}

#[test]
fn the_remembered_tokens_are_bounded_in_number_and_bytes() {
    let signers = Signers::new();
    let verifier = TokenVerifier::new(&[Arc::new(Issuer::new(provider(&signers.set())).unwrap())]);
    let wanted = JwtUse { providers: vec![0], required: true };
    let send = |text: String| {
        let token = signers.token(&json!({ "alg": "EdDSA", "kid": "ed" }), &with("sub", text.into()));
        let found = verifier.verify(&wanted, &request(&[("authorization", &format!("Bearer {token}"))]));
        assert!(found.unwrap().is_some());
    };
    let kept = || {
        let remembered = verifier.issuers[0].1.borrow();
        let bytes = remembered.tokens.keys().map(|token| token.len()).sum::<usize>();
        assert_eq!(bytes, remembered.bytes);
        (remembered.tokens.len(), bytes)
    };
    for n in 0..1024 {
        send(format!("{n:04}"));
    }
    assert_eq!(kept().0, 1024);
    send("one more".into());
    assert_eq!(kept().0, 1);
    let mut most = 0;
    for n in 0..400 {
        send(format!("{n:04}{}", "x".repeat(4000)));
        most = most.max(kept().1);
    }
    assert!(most <= 1 << 20 && most > (1 << 20) - 6000, "{most}");
}

#[test]
fn a_key_that_names_its_algorithm_verifies_no_other() {
    let signers = Signers::new();
    let mut set = signers.set();
    set["keys"][0]["alg"] = "RS256".into();
    let verifier = TokenVerifier::new(&[Arc::new(Issuer::new(provider(&set)).unwrap())]);
    let wanted = JwtUse { providers: vec![0], required: true };
    for (alg, good) in [("RS256", true), ("RS512", false), ("PS256", false)] {
        let token = signers.token(&json!({ "alg": alg, "kid": "rsa" }), &claims());
        let found = verifier.verify(&wanted, &request(&[("authorization", &format!("Bearer {token}"))]));
        assert_eq!(found.is_ok(), good, "{alg}: {found:?}");
    }
}

#[test]
fn issuers_that_read_the_same_place_share_its_token() {
    let (ours, theirs) = (Signers::new(), Signers::new());
    let partner = theirs.token(&json!({ "alg": "RS256", "kid": "rsa" }), &with("iss", PARTNER.into()));
    let place = TokenPlace::Header(http::header::AUTHORIZATION, "Bearer ".into());
    let verifier = verifier([&ours, &theirs], vec![place]);
    let wanted = JwtUse { providers: vec![0, 1], required: true };
    for token in [&ours.good(), &partner] {
        let request = request(&[("authorization", &format!("Bearer {token}"))]);
        assert!(verifier.verify(&wanted, &request).unwrap().is_some());
        // The cookie has a second token, which only the first issuer reads.
        let headers = [("authorization", &*format!("Bearer {partner}")), ("cookie", "session=a.b.c")];
        assert!(verifier.verify(&wanted, &self::request(&headers)).is_err());
    }
}
