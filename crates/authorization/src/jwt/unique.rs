//! JSON in which no object has a member twice.
//!
//! If an object has two members of one name, some readers use the first and others the last (RFC 8259 section 4). So
//! such a token has two meanings (RFC 7515 section 4, RFC 7519 section 4).

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

/// An object without duplicate members, at every depth.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Unique")]
pub(super) struct UniqueObject(pub(super) Map<String, Value>);

/// A value without duplicate members.
struct Unique(Value);

impl TryFrom<Unique> for UniqueObject {
    type Error = &'static str;

    fn try_from(value: Unique) -> Result<Self, &'static str> {
        match value.0 {
            Value::Object(members) => Ok(Self(members)),
            _ => Err("it is no object"),
        }
    }
}

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueKeys).map(Self)
    }
}

struct UniqueKeys;

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number has no value"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((name, Unique(value))) = members.next_entry::<String, _>()? {
            if all.insert(name, value).is_some() {
                // The client chose the member's name, so the log doesn't show it.
                return Err(de::Error::custom("a member is there twice"));
            }
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_unchanged_and_one_with_a_member_twice_is_refused() {
        for text in ["{}", r#"{"a":1,"b":[{"a":null},-1,1.5,18446744073709551615,true,"x"],"A":{"a":{}}}"#] {
            let UniqueObject(found) = serde_json::from_str(text).unwrap();
            assert_eq!(Value::Object(found), serde_json::from_str::<Value>(text).unwrap(), "{text}");
        }
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"{"b":{"a":1,"a":2}}"#,
            r#"{"b":[[{"a":1,"c":0,"a":2}]]}"#,
            "[]",
            "null",
            "\"a\"",
            r#"{"a":1}x"#,
            r#"{"a":1e400}"#,
        ] {
            assert!(serde_json::from_str::<UniqueObject>(text).is_err(), "{text}");
        }
    }
}
