//! Attacks by the claims of a token, by its times, and by where it stands.

use super::*;

impl Attacks {
    pub(super) fn claims_and_times(&mut self) {
        let tokens = |claims: &[Value]| -> Vec<String> {
            claims.iter().map(|claims| self.ours.token(&head("RS256", "rsa"), claims)).collect()
        };
        let ended = tokens(&[with("exp", (now() - 120).into()), with("exp", 0.into())]);
        let none = tokens(&[
            without("exp"),
            with("exp", "9999999999".into()),
            with("exp", (-1).into()),
            with("exp", Value::Null),
            with("exp", true.into()),
            with("exp", json!([9_999_999_999_u64])),
            with("exp", 1e300.into()),
            with("exp", json!({ "at": 9_999_999_999_u64 })),
            with("exp", json!([])),
            with("exp", "".into()),
            with("exp", "9999999999 ".into()),
            with("exp", (-0.5).into()),
        ]);
        let early = tokens(&[
            with("nbf", (now() + 120).into()),
            with("nbf", "never".into()),
            with("nbf", 1e300.into()),
            with("nbf", Value::Null),
            with("nbf", false.into()),
            with("nbf", (-1).into()),
            with("nbf", json!([0])),
            with("nbf", "0".into()),
        ]);
        let issuers = tokens(&[
            without("iss"),
            with("iss", format!("{ISSUER}/").into()),
            with("iss", format!("{ISSUER}.evil").into()),
            with("iss", ISSUER.to_uppercase().into()),
            with("iss", json!(["https://evil.test", ISSUER])),
            with("iss", json!([ISSUER])),
            with("iss", json!({ "iss": ISSUER })),
            with("iss", format!(" {ISSUER}").into()),
            with("iss", format!("{ISSUER}\0").into()),
        ]);
        let audiences = tokens(&[
            without("aud"),
            with("aud", "shop2".into()),
            with("aud", "SHOP".into()),
            with("aud", "shop other".into()),
            with("aud", json!([])),
            with("aud", json!({ "shop": true })),
            with("aud", json!([["shop"]])),
            with("aud", json!(["shop", ["shop"]])),
            with("aud", json!(["shop", null])),
            with("aud", json!([7, "shop"])),
            with("aud", "shop ".into()),
            with("aud", "shop\0".into()),
            with("aud", "shop,other".into()),
        ]);
        let text = |extra: &str| {
            self.ours.text_token(&head("RS256", "rsa"), &format!("{{{extra},{}", &claims().to_string()[1..]))
        };
        let twice = [
            text(r#""exp":1"#),
            text(r#""iss":"https://evil.test""#),
            text(r#""aud":"shop""#),
            text(r#""nbf":1"#),
            text(r#""sub":"root""#),
            text(r#""\u0073ub":"root""#),
            text(r#""role":"user","role":"admin""#),
            text(r#""realm2":{"roles":[{"a":1,"a":2}]}"#),
        ];
        let never = format!(r#"{{"iss":"{ISSUER}","aud":"shop","exp":1e400}}"#);
        let never = self.ours.text_token(&head("RS256", "rsa"), &never);
        self.tokens("`exp` in the past", "this also holds for a token that was verified before", ended);
        self.tokens(
            "no `exp`, or one that is text, negative, null, a list, or beyond any number",
            "`exp` must be present and be a time",
            none.into_iter().chain([never]),
        );
        self.tokens(
            "`nbf` in the future by more than `clock_skew`, or not a time",
            "the token isn't valid yet",
            early,
        );
        self.tokens(
            "another `iss`: `/` at its end, other case, a list that has the issuer",
            "attache compares the text exactly",
            issuers,
        );
        self.tokens(
            "another `aud`, in other case, as a part of a text, or none",
            "one `aud` must be one of `audiences`",
            audiences,
        );
        self.tokens(
            "a claim twice, also within another one",
            "two programs could read two different values",
            twice,
        );
    }

    pub(super) fn places(&mut self) {
        let good = self.ours.good();
        let other = self.ours.token(&head("RS256", "rsa"), &with("sub", "bob".into()));
        let (one, two) = (format!("Bearer {good}"), format!("Bearer {other}"));
        let (one, two) = (one.as_bytes(), two.as_bytes());
        let cookie = |token: &str| format!("session={token}").into_bytes();
        let both = [&cookie(&good)[..], b"; ", &cookie(&other)].concat();
        self.add(
            "two tokens: two lines, header and cookie, a cookie or parameter twice",
            "attache can't know which one the upstream uses",
            vec![
                get("/", &[("authorization", one), ("authorization", two)]),
                get("/", &[("authorization", one), ("cookie", &cookie(&other))]),
                get("/", &[("cookie", &both)]),
                get("/", &[("cookie", &cookie(&good)), ("cookie", &cookie(&other))]),
                get(&format!("/?access_token={good}&access_token={other}"), &[]),
                get(&format!("/?access_token={good}"), &[("authorization", two)]),
                get("/", &[("authorization", &[one, b", ", two].concat())]),
            ],
        );
        // Each of these would pass without verification if no token is required.
        let bad = "eyJhbGciOiJub25lIn0.e30.";
        self.add(
            "a bad token that only some readers find: ` session =`, `Session=`, `a=b, session=`, `access%5Ftoken=`, `a;access_token=`, `access.token=`, `access[token=`, `Access_Token=`, `access_token%00x=`; behind `Bearer` a tab, a no-break space, `:` or `=`; `Bearer` behind other credentials; bytes that are no text in the line",
            "attache verifies what some upstream would find, even if no token is required",
            vec![
                get("/", &[("cookie", format!("a=b;  session ={bad}").as_bytes())]),
                get("/", &[("cookie", format!("a=b, session={bad}").as_bytes())]),
                get("/", &[("cookie", &[&cookie(bad)[..], b"; a=\xff"].concat())]),
                get("/", &[("cookie", format!("session=\"{bad}\"").as_bytes())]),
                get(&format!("/?access%5Ftoken={bad}"), &[]),
                get(&format!("/?%61ccess_toke%6e={bad}"), &[]),
                get(&format!("/?a=1;access_token={bad}"), &[]),
                get(&format!("/?access.token={bad}"), &[]),
                get(&format!("/?+access+token={bad}"), &[]),
                get("/", &[("authorization", format!("Bearer\t{bad}").as_bytes())]),
                get("/", &[("authorization", format!("BEARER   {bad}").as_bytes())]),
                get("/", &[("authorization", format!("Basic eDp5, Bearer {bad}").as_bytes())]),
                get("/", &[("authorization", &[b"Bearer ", bad.as_bytes(), b"\xff"].concat())]),
                get("/", &[("authorization", b"Bearer")]),
                get(&format!("/?Access_Token={bad}"), &[]),
                get(&format!("/?access[token={bad}"), &[]),
                get(&format!("/?access%5Btoken={bad}"), &[]),
                get(&format!("/?access_token%00x={bad}"), &[]),
                get("/", &[("cookie", format!("SESSION={bad}").as_bytes())]),
                get("/", &[("authorization", &[b"Bearer\xa0", bad.as_bytes()].concat())]),
                get("/", &[("authorization", format!("Bearer\u{2003}{bad}").as_bytes())]),
                get("/", &[("authorization", format!("Bearer:{bad}").as_bytes())]),
                get("/", &[("authorization", format!("Bearer={bad}").as_bytes())]),
                get("/", &[("authorization", format!("Bearer \"{bad}\"").as_bytes())]),
                get("/", &[("authorization", format!("Bearer Bearer {bad}").as_bytes())]),
                get("/", &[("authorization", &[b"\xa0Bearer ", bad.as_bytes()].concat())]),
                get("/", &[("authorization", format!("Basic eDp5 Bearer {bad}").as_bytes())]),
                get("/", &[("authorization", format!("xBearer {bad}").as_bytes())]),
            ],
        );
        self.add(
            "a valid token in a place where attache looks for none: another scheme or header, `authorization_`, another cookie, a form's body",
            "only the places of `from` count",
            vec![
                get("/", &[]),
                get("/", &[("authorization", format!("Token {good}").as_bytes())]),
                get("/", &[("authorization", format!("Bearer{good}").as_bytes())]),
                get("/", &[("x-authorization", one)]),
                get("/", &[("authorization_", one)]),
                get("/", &[("proxy-authorization", one)]),
                get("/", &[("cookie", &[b"x", &cookie(&good)[..]].concat())]),
                get(&format!("/access_token={good}"), &[]),
            ],
        );
    }
}
