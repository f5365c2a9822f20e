//! Only the signed token is accepted: no change of it is.

use std::{cell::RefCell, sync::Arc};

use attache_authorization::jwt::{Issuer, TokenVerifier};
use attache_config::model::JwtUse;
use attache_wire::{Fields, RequestHead};
use http::{HeaderValue, header::AUTHORIZATION};

/// Signed with a key that was deleted; it ends in 2100.
const GOOD: &str = include_str!("good.jwt");
const KEYS: &str = r#"{"keys": [{"kty": "RSA", "kid": "one", "alg": "RS256", "e": "AQAB", "n": "odq2jhlklqGGKZaVDDW2LnWQLbLLYYtOUpWfYC8wWhdW7Qpk6lXGdG3jtRWnRD2_bD4i4dtN5Te-uNAnbtGhVJ-M6SLDjVtwYGkszX21KYElN10KnHRewXu24VWyJnCi_5G_LYVyzAz51ffzOyKIYYR2GvqJxksTMZxLzQVfmjs170EzLCfWW-9j2y57gGAphbdNPRSnWNQiU6PflcXGhnS09gj6VUirE1FyS9cLQ1spt3lw4Alf4bMB_uxG6kWMLIk7_6oGdvFWIvqqFeQsiwhyZ_h3S6D1waj6HGcw9jz12E-2TitGeeTmBr9xuMsCVNb5iU5-VZyzRbyUvnghrQ"}]}"#;

thread_local! {
    static VERIFIER: RefCell<TokenVerifier> = RefCell::new(verifier());
}

fn verifier() -> TokenVerifier {
    let text = format!(
        "listeners: {{ in: {{ bind: ':1', to: a }} }}\nupstreams: {{ a: 'http://a' }}\n\
         jwt: {{ corp: {{ issuer: https://id.test, audiences: shop, keys: {{ inline: '{KEYS}' }} }} }}"
    );
    let config = attache_config::parse(&text, None, &|_| None).unwrap_or_else(|error| panic!("{error}"));
    TokenVerifier::new(&[Arc::new(Issuer::new(config.jwt[0].clone()).unwrap())])
}

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(&[b"Bearer ", data].concat()) else { return };
    let mut headers = Fields::new();
    headers.insert(AUTHORIZATION, &value);
    let request = RequestHead { headers, ..RequestHead::default() };
    let wanted = JwtUse { providers: vec![0], required: true };
    let accepted = VERIFIER.with_borrow(|verifier| verifier.verify(&wanted, &request).is_ok());
    let token = data.trim_ascii();
    assert_eq!(accepted, token == GOOD.as_bytes(), "{}", String::from_utf8_lossy(data));
}
