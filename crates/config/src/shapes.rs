//! The shapes that keys are made of: a text with its syntax, a value with its place, one or many, free keys, `off`.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::{self, Debug},
    marker::PhantomData,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use crate::{
    diagnostic::Place,
    text::{NumberTexts, TextNotation},
};

/// The value of a text in the notation `T`.
pub(crate) struct Text<T: TextNotation>(pub(crate) T::Value);

impl<T: TextNotation<Value: Clone>> Clone for Text<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: TextNotation<Value: Debug>> Debug for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de, T: TextNotation> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        T::parse(&text).map(Self).map_err(|wrong| de::Error::custom(wrong.what))
    }
}

impl<T: TextNotation> JsonSchema for Text<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::SYNTAX.format.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let syntax = T::SYNTAX;
        let types: &[&str] =
            if syntax.numbers == NumberTexts::None { &["string"] } else { &["string", "number"] };
        let mut schema = json_schema!({ "type": types, "format": syntax.format, "x-what": syntax.what });
        if !syntax.examples.is_empty() {
            schema.insert("examples".into(), syntax.examples.into());
        }
        schema
    }
}

/// A value with its place.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Spanned<T> {
    pub(crate) at: Place,
    /// Keys with something wrong in them. They may have been left out, and are not reported as missing. One empty key
    /// if this is not a mapping.
    pub(crate) wrong: Vec<String>,
    /// Where the values of a mapping's keys are, for those that the file gives.
    pub(crate) keys: BTreeMap<String, Place>,
    pub(crate) value: T,
}

impl<T> Spanned<T> {
    /// True if nothing in it is wrong.
    pub(crate) fn whole(&self) -> bool {
        self.wrong.is_empty()
    }

    /// A value without keys, at this place.
    pub(crate) fn new(at: Place, wrong: Vec<String>, value: T) -> Self {
        Self { at, wrong, keys: BTreeMap::new(), value }
    }

    /// Where the value of this key is, if the file gives it.
    pub(crate) fn key(&self, key: &str) -> Option<Place> {
        self.keys.get(key).copied()
    }

    /// Where the value of this key is; where all of it is, if the file doesn't give the key.
    pub(crate) fn place(&self, key: &str) -> Place {
        self.key(key).unwrap_or(self.at)
    }

    /// True if something is wrong with this key.
    pub(crate) fn is_wrong(&self, key: &str) -> bool {
        self.wrong.iter().any(|wrong| wrong == key)
    }

    /// The value, and separately its place.
    pub(crate) fn open(self) -> (Spanned<()>, T) {
        (Spanned { at: self.at, wrong: self.wrong, keys: self.keys, value: () }, self.value)
    }

    /// Another value at the same place.
    pub(crate) fn map<U>(self, map: impl FnOnce(T) -> U) -> Spanned<U> {
        Spanned { at: self.at, wrong: self.wrong, keys: self.keys, value: map(self.value) }
    }
}

impl<T: JsonSchema> JsonSchema for Spanned<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = generator.subschema_for::<T>();
        schema.insert("x-at".into(), true.into());
        schema
    }
}

/// One, or a list.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    pub(crate) fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{}_or_list", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        one_or_many(&generator.subschema_for::<T>())
    }
}

/// The schema of one value or a list of such.
pub(crate) fn one_or_many(one: &Schema) -> Schema {
    // Alternatives of alternatives would hide which of them is a scalar: one flat list.
    let mut alternatives = match one.get("anyOf").and_then(serde_json::Value::as_array) {
        Some(alternatives) if one.get("x-at").is_none() => alternatives.clone(),
        _ => vec![one.clone().to_value()],
    };
    alternatives.push(serde_json::json!({ "type": "array", "items": one, "minItems": 1 }));
    json_schema!({ "anyOf": alternatives })
}

/// A mapping with free keys, in the order of the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent, bound = "V: Deserialize<'de>")]
pub(crate) struct Mapping<K, V> {
    pub(crate) entries: Vec<NamedEntry<V>>,
    #[serde(skip)]
    syntax: PhantomData<K>,
}

/// A free key, its place, its value.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct NamedEntry<V> {
    pub(crate) at: Place,
    pub(crate) key: String,
    pub(crate) value: V,
}

impl<K: TextNotation, V: JsonSchema> JsonSchema for Mapping<K, V> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Map_of_{}", V::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let of = generator.subschema_for::<V>();
        free_keys::<K>(&of)
    }
}

/// The schema of a mapping with free keys.
pub(crate) fn free_keys<K: TextNotation>(of: &Schema) -> Schema {
    let names = serde_json::json!({ "format": K::SYNTAX.format });
    json_schema!({ "type": "object", "x-map": true, "propertyNames": names, "additionalProperties": of })
}

/// The word `off`.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum Off {
    Off,
}

/// `off`, or something.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum OrOff<T> {
    Off(Off),
    On(T),
}
