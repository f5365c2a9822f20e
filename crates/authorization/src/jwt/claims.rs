//! What a verified token claims.

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
    /// The value of `name`, or of `part.part`; a name with dots of its own (a URL) comes first.
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

    /// Whether the claim has one of the values. A claim that isn't there has none.
    pub(crate) fn holds(&self, wanted: &ClaimCondition) -> Truth {
        let one = |pattern: &ValuePattern| {
            self.any(&wanted.name, |text| matches(pattern, text.as_bytes()) == Truth::Yes).unwrap_or(false)
        };
        wanted.any.iter().any(|(pattern, not)| one(pattern) != *not).into()
    }

    /// Each of the claim's values as a text: of a list its items, of a text its words too.
    fn any(&self, name: &str, mut holds: impl FnMut(&str) -> bool) -> Option<bool> {
        // An object among the items has no text.
        fn one(value: &Value, holds: &mut dyn FnMut(&str) -> bool) -> bool {
            match value {
                Value::String(text) => holds(text) || (text.contains(' ') && text.split(' ').any(holds)),
                Value::Bool(_) | Value::Number(_) => holds(&value.to_string()),
                Value::Array(items) => items.iter().any(|item| !item.is_array() && one(item, holds)),
                Value::Null | Value::Object(_) => false,
            }
        }
        self.get(name).filter(|value| !value.is_null()).map(|value| one(value, &mut holds))
    }

    /// The claim as a header's value; `None` where there is none, or it is no text.
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
        // A line break in a claim is none in a header.
        HeaderValue::from_str(&text).ok()
    }
}
