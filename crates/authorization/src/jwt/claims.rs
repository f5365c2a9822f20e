//! The claims of a verified token, for rules and headers.

use std::{borrow::Cow, sync::Arc};

use attache_config::model::{ClaimCondition, ValuePattern};
use http::HeaderValue;
use serde_json::{Map, Value};

use super::Issuer;
use crate::{truth::Truth, value::matches};

/// The claims of a verified token.
#[derive(Debug)]
pub struct Claims {
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) all: Map<String, Value>,
}

impl Claims {
    /// The value of `name`, or of `part.part`; a claim whose own name has dots (a URL) takes precedence.
    fn get(&self, name: &str) -> Option<&Value> {
        fn inside<'v>(map: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
            map.get(name).or_else(|| {
                name.match_indices('.').find_map(|(dot, _)| {
                    let (outer, inner) = (name.get(..dot)?, name.get(dot + 1..)?);
                    inside(map.get(outer)?.as_object()?, inner)
                })
            })
        }
        inside(&self.all, name)
    }

    /// Whether the claim has one of the values. A missing claim has none.
    pub(crate) fn holds(&self, wanted: &ClaimCondition, form: ClaimForm) -> Truth {
        wanted.any.iter().fold(Truth::No, |found, (pattern, not)| {
            let holds = match form {
                ClaimForm::Any => self.has(&wanted.name, pattern),
                ClaimForm::Text => self.get(&wanted.name).map_or(Truth::No, |value| whole(value, pattern)),
                ClaimForm::Item => {
                    let items = self.get(&wanted.name).and_then(Value::as_array);
                    let items = items.into_iter().flatten();
                    items.map(|item| whole(item, pattern)).fold(Truth::No, Truth::or)
                }
            };
            found.or(if *not { holds.not() } else { holds })
        })
    }

    /// Whether the claim, an item of its list, or one of its words matches.
    fn has(&self, name: &str, pattern: &ValuePattern) -> Truth {
        let word = if is_of_words(name) { Truth::Yes } else { Truth::Unsure };
        let is_word = |part: &str| matches(pattern, part.as_bytes()) == Truth::Yes;
        // Some issuers separate words by another character, and some readers accept it like a space.
        let separates = |char: char| char.is_whitespace() || matches!(char, ',' | ';' | '|');
        let text = |text: &str| match matches(pattern, text.as_bytes()) {
            Truth::No if text.contains(' ') && text.split(' ').any(is_word) => word,
            Truth::No if text.contains(separates) && text.split(separates).any(is_word) => Truth::Unsure,
            whole => whole,
        };
        // A list or an object among the items is not a text.
        let one = |value: &Value| match value {
            Value::String(value) => text(value),
            Value::Bool(_) | Value::Number(_) => text(&value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => Truth::No,
        };
        match self.get(name) {
            Some(Value::Array(items)) => items.iter().map(one).fold(Truth::No, Truth::or),
            Some(value) => one(value),
            None => Truth::No,
        }
    }

    /// The claim as a header's value; `None` if there is none, or it is not a text.
    pub(crate) fn header(&self, name: &str) -> Option<HeaderValue> {
        let text = match self.get(name)? {
            Value::String(text) => Cow::Borrowed(text.as_str()),
            Value::Null => return None,
            Value::Array(items) if items.iter().all(Value::is_string) => {
                let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                Cow::Owned(items.join(","))
            }
            value => Cow::Owned(value.to_string()),
        };
        // A claim with a line break can't be a header's value.
        HeaderValue::from_str(&text).ok()
    }
}

/// What kind of value a claim must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClaimForm {
    /// Any: a text, a word of `scope`, a number, or an item of a list.
    Any,
    /// A text, as a whole.
    Text,
    /// A list, of which one item is a text that matches as a whole.
    Item,
}

/// Whether the value is a text that matches as a whole.
fn whole(value: &Value, pattern: &ValuePattern) -> Truth {
    value.as_str().map_or(Truth::No, |text| matches(pattern, text.as_bytes()))
}

/// Claims that are lists of words in one text: RFC 8693 section 4.2, and the same under other names.
/// In other texts a single word has no meaning of its own: the user chooses `name: "not admin"`.
fn is_of_words(name: &str) -> bool {
    matches!(name.rsplit('.').next(), Some("scope" | "scp" | "permission"))
}

#[cfg(test)]
mod tests {
    use attache_config::model::AccessConditions;

    use super::super::attack_tests::{Signers, provider};
    use super::*;
    use crate::{conditions::CompiledConditions, facts::Facts, networks::Networks};

    fn asked(claims: Value, name: &str, values: &[(ValuePattern, bool)]) -> Truth {
        asked_as(claims, name, values, ClaimForm::Any)
    }

    fn asked_as(claims: Value, name: &str, values: &[(ValuePattern, bool)], form: ClaimForm) -> Truth {
        let wanted = ClaimCondition { name: name.into(), any: values.to_vec() };
        of(claims).holds(&wanted, form)
    }

    fn of(claims: Value) -> Claims {
        let issuer = Arc::new(Issuer::new(provider(&Signers::new().set())).unwrap());
        let Value::Object(all) = claims else { panic!("claims are an object") };
        Claims { issuer, all }
    }

    #[test]
    fn each_key_of_a_rule_takes_its_own_form_of_a_claim() {
        let (client, request) = (attache_http::Client::default(), attache_wire::RequestHead::default());
        let admin = vec![ClaimCondition {
            name: "role".into(),
            any: vec![(ValuePattern::Exact("admin".into()), false)],
        }];
        let any = AccessConditions { claims: admin.clone(), ..AccessConditions::default() };
        let texts = AccessConditions { claim_texts: admin.clone(), ..AccessConditions::default() };
        let items = AccessConditions { claim_items: admin, ..AccessConditions::default() };
        for (claims, expected) in [
            (serde_json::json!({ "role": "admin" }), [Truth::Yes, Truth::Yes, Truth::No]),
            (serde_json::json!({ "role": ["admin", "user"] }), [Truth::Yes, Truth::No, Truth::Yes]),
            (serde_json::json!({ "role": "not admin" }), [Truth::Unsure, Truth::No, Truth::No]),
            (serde_json::json!({}), [Truth::No, Truth::No, Truth::No]),
        ] {
            let text = claims.to_string();
            let claims = of(claims);
            let facts = Facts::of_request(&request, &client).with_claims(Some(&claims));
            let found = [&any, &texts, &items]
                .map(|config| CompiledConditions::new(config).all(&facts, &Networks::new(&[])));
            assert_eq!(found, expected, "{text}");
            assert!([&any, &texts, &items].iter().all(|config| config.needs_token()));
        }
    }

    #[test]
    fn a_text_is_no_item_of_a_list_and_no_item_is_a_text() {
        let admin = [(ValuePattern::Exact("admin".into()), false)];
        for (claims, text, item) in [
            (serde_json::json!({ "role": "admin" }), Truth::Yes, Truth::No),
            (serde_json::json!({ "role": ["user", "admin"] }), Truth::No, Truth::Yes),
            (serde_json::json!({ "role": ["admin", "user"] }), Truth::No, Truth::Yes),
            (serde_json::json!({ "role": ["not admin"] }), Truth::No, Truth::No),
            (serde_json::json!({ "role": "not admin" }), Truth::No, Truth::No),
            (serde_json::json!({ "role": [["admin"]] }), Truth::No, Truth::No),
            (serde_json::json!({ "role": { "admin": "admin" } }), Truth::No, Truth::No),
            (serde_json::json!({}), Truth::No, Truth::No),
        ] {
            assert_eq!(asked_as(claims.clone(), "role", &admin, ClaimForm::Text), text, "{claims}");
            assert_eq!(asked_as(claims.clone(), "role", &admin, ClaimForm::Item), item, "{claims}");
        }
        let five = [(ValuePattern::Exact("5".into()), false)];
        assert_eq!(asked_as(serde_json::json!({ "level": 5 }), "level", &five, ClaimForm::Text), Truth::No);
        assert_eq!(asked(serde_json::json!({ "level": 5 }), "level", &five), Truth::Yes);
    }

    #[test]
    fn a_word_of_a_text_that_is_no_list_of_words_is_in_doubt() {
        let admin = [(ValuePattern::Exact("admin".into()), false)];
        let not_admin = [(ValuePattern::Exact("admin".into()), true)];
        for (claims, name, expected) in [
            (serde_json::json!({ "name": "admin" }), "name", Truth::Yes),
            (serde_json::json!({ "name": "not admin" }), "name", Truth::Unsure),
            (serde_json::json!({ "name": ["x", "not admin"] }), "name", Truth::Unsure),
            (serde_json::json!({ "name": ["not admin", "admin"] }), "name", Truth::Yes),
            (serde_json::json!({ "name": "administrator x" }), "name", Truth::No),
            (serde_json::json!({ "scope": "read admin" }), "scope", Truth::Yes),
            (serde_json::json!({ "scp": "read admin" }), "scp", Truth::Yes),
            (serde_json::json!({ "scope": "read,admin" }), "scope", Truth::Unsure),
            (serde_json::json!({ "scope": "read\tadmin" }), "scope", Truth::Unsure),
            (serde_json::json!({ "scope": "read write, admin" }), "scope", Truth::Yes),
            (serde_json::json!({ "scope": "read write; admin|x" }), "scope", Truth::Unsure),
            (serde_json::json!({ "name": "x\u{a0}admin" }), "name", Truth::Unsure),
            (serde_json::json!({ "name": ["x,admin"] }), "name", Truth::Unsure),
            (serde_json::json!({ "name": "x,administrator" }), "name", Truth::No),
            (serde_json::json!({ "realm": { "scope": "read admin" } }), "realm.scope", Truth::Yes),
            (serde_json::json!({ "my_scope": "read admin" }), "my_scope", Truth::Unsure),
            (serde_json::json!({ "name": { "admin": "admin" } }), "name", Truth::No),
            (serde_json::json!({ "name": [["admin"]] }), "name", Truth::No),
            (serde_json::json!({ "name": null }), "name", Truth::No),
            (serde_json::json!({}), "name", Truth::No),
        ] {
            assert_eq!(asked(claims.clone(), name, &admin), expected, "{claims}");
            assert_eq!(asked(claims.clone(), name, &not_admin), expected.not(), "{claims}");
        }
    }
}
