//! How values are written in the file.

use std::sync::Arc;

use http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Serialize,
    de::{self, DeserializeOwned},
};
use serde_json::{Value, json};

use super::{Section, Shorthand};
use crate::{
    shapes::{NamedEntry, Off, OrOff, Text, free_keys, one_or_many},
    text::Unit,
};

/// How a value is shown.
pub(crate) trait Show<T> {
    /// The value as the file would write it; null is a key that is not set.
    fn show(value: &T) -> Value;
}

/// How a value of a key is written in the file.
pub(crate) trait Notation<T>: Show<T> {
    /// The schema of the value, with our own keywords for the checker.
    fn schema(generator: &mut SchemaGenerator) -> Schema;

    /// Reads a value that the checker has let through.
    ///
    /// # Errors
    /// The checker has let through what it should not have.
    fn read(value: Value) -> serde_json::Result<T>;

    /// Reads a value over the default. In a section, keys that are not given keep their values.
    ///
    /// # Errors
    /// As those of [`Self::read`].
    fn set(over: &mut T, value: Value) -> serde_json::Result<()> {
        *over = Self::read(value)?;
        Ok(())
    }
}

/// As serde reads and writes it: numbers, `true` and `false`, words, and sections that are always given as a whole.
pub(crate) struct Plain;

/// A section within a section.
pub(crate) struct Nested;

impl<S: Section> Show<S> for Nested {
    fn show(value: &S) -> Value {
        Value::Object(value.show())
    }
}

impl<S: Section + JsonSchema> Notation<S> for Nested {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<S>()
    }

    fn read(value: Value) -> serde_json::Result<S> {
        let mut section = S::default();
        Self::set(&mut section, value)?;
        Ok(section)
    }

    fn set(over: &mut S, value: Value) -> serde_json::Result<()> {
        const { assert!(!S::BUILT, "a section whose keys `build` has to see is read by `Read`") };
        over.set(&mut S::Rest::default(), serde_json::from_value(value)?)
    }
}

/// A section within a section, or a value that stands for the key which its declaration names after `or`.
pub(crate) struct NestedOrShort;

impl<S: Section> Show<S> for NestedOrShort {
    fn show(value: &S) -> Value {
        Nested::show(value)
    }
}

impl<S: Section + JsonSchema> Notation<S> for NestedOrShort {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = generator.subschema_for::<Shorthand<S>>();
        schema.remove("x-at");
        schema
    }

    fn read(value: Value) -> serde_json::Result<S> {
        let key = S::SHORT.unwrap_or_default();
        Nested::read(if value.is_object() { value } else { json!({ key: value }) })
    }
}

impl<T: Serialize> Show<T> for Plain {
    fn show(value: &T) -> Value {
        // Only a map whose keys are no texts could fail, and no section has one.
        serde_json::to_value(value).unwrap_or_default()
    }
}

impl<T: DeserializeOwned + Serialize + JsonSchema> Notation<T> for Plain {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }

    fn read(value: Value) -> serde_json::Result<T> {
        serde_json::from_value(value)
    }
}

impl<U: Unit> Show<U::Value> for U {
    fn show(value: &U::Value) -> Value {
        <U as Unit>::show(value).into()
    }
}

impl<U: Unit> Notation<U::Value> for U {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Text<U>>()
    }

    fn read(value: Value) -> serde_json::Result<U::Value> {
        serde_json::from_value::<Text<U>>(value).map(|text| text.0)
    }
}

/// A key that may be left out, and then has no value.
pub(crate) struct Optional<N>(N);

impl<T, N: Show<T>> Show<Option<T>> for Optional<N> {
    fn show(value: &Option<T>) -> Value {
        value.as_ref().map_or(Value::Null, N::show)
    }
}

impl<T, N: Notation<T>> Notation<Option<T>> for Optional<N> {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        N::schema(generator)
    }

    fn read(value: Value) -> serde_json::Result<Option<T>> {
        N::read(value).map(Some)
    }
}

/// A text; an empty one counts as none, so that it may come from a variable.
pub(crate) struct UnlessEmpty;

impl Show<Option<Arc<str>>> for UnlessEmpty {
    fn show(value: &Option<Arc<str>>) -> Value {
        value.as_deref().map_or(Value::Null, Value::from)
    }
}

impl Notation<Option<Arc<str>>> for UnlessEmpty {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<String>()
    }

    fn read(value: Value) -> serde_json::Result<Option<Arc<str>>> {
        let text: String = serde_json::from_value(value)?;
        Ok((!text.is_empty()).then(|| text.into()))
    }
}

/// A text of any kind, an empty one too.
pub(crate) struct AnyText;

impl Show<Arc<[u8]>> for AnyText {
    fn show(value: &Arc<[u8]>) -> Value {
        String::from_utf8_lossy(value).into()
    }
}

impl Notation<Arc<[u8]>> for AnyText {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<String>()
    }

    fn read(value: Value) -> serde_json::Result<Arc<[u8]>> {
        serde_json::from_value::<String>(value).map(|text| text.into_bytes().into())
    }
}

/// A status of HTTP, as its number.
pub(crate) struct StatusNumber;

impl Show<StatusCode> for StatusNumber {
    fn show(value: &StatusCode) -> Value {
        value.as_u16().into()
    }
}

impl Notation<StatusCode> for StatusNumber {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<u16>()
    }

    fn read(value: Value) -> serde_json::Result<StatusCode> {
        StatusCode::from_u16(serde_json::from_value(value)?).map_err(de::Error::custom)
    }
}

/// A value, or `off`.
pub(crate) struct OffOr<N>(N);

impl<T, N: Show<T>> Show<Option<T>> for OffOr<N> {
    fn show(value: &Option<T>) -> Value {
        value.as_ref().map_or_else(|| "off".into(), N::show)
    }
}

impl<T, N: Notation<T>> Notation<Option<T>> for OffOr<N> {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [generator.subschema_for::<Off>(), N::schema(generator)] })
    }

    fn read(value: Value) -> serde_json::Result<Option<T>> {
        match serde_json::from_value::<OrOff<Value>>(value)? {
            OrOff::Off(_) => Ok(None),
            OrOff::On(value) => N::read(value).map(Some),
        }
    }
}

/// A section that does nothing where the file says `off`.
pub(crate) struct NestedOrOff;

/// A section that can do nothing.
pub(crate) trait HasOff: Section {
    /// It does nothing.
    fn off() -> Self;
}

impl<S: HasOff> Show<S> for NestedOrOff {
    fn show(value: &S) -> Value {
        Nested::show(value)
    }
}

impl<S: HasOff + JsonSchema> Notation<S> for NestedOrOff {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        <OffOr<Nested> as Notation<Option<S>>>::schema(generator)
    }

    fn read(value: Value) -> serde_json::Result<S> {
        Ok(<OffOr<Nested> as Notation<Option<S>>>::read(value)?.unwrap_or_else(S::off))
    }
}

/// A value that is kept once and shared by all its users.
pub(crate) struct SharedValue<N>(N);

impl<T, N: Show<T>> Show<Arc<T>> for SharedValue<N> {
    fn show(value: &Arc<T>) -> Value {
        N::show(value)
    }
}

impl<T, N: Notation<T>> Notation<Arc<T>> for SharedValue<N> {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        N::schema(generator)
    }

    fn read(value: Value) -> serde_json::Result<Arc<T>> {
        N::read(value).map(Arc::new)
    }
}

/// Shown by the type's own `Display`. `build` makes the value from what the file gives.
pub(crate) struct Written;

impl<T: std::fmt::Display> Show<T> for Written {
    fn show(value: &T) -> Value {
        value.to_string().into()
    }
}

/// A mapping with free keys, in the order of the file.
pub(crate) struct Pairs<K, N>(K, N);

impl<K: Unit, T, N: Show<T>> Show<Vec<(K::Value, T)>> for Pairs<K, N> {
    fn show(value: &Vec<(K::Value, T)>) -> Value {
        Value::Object(value.iter().map(|(key, value)| (<K as Unit>::show(key), N::show(value))).collect())
    }
}

impl<K: Unit, T, N: Notation<T>> Notation<Vec<(K::Value, T)>> for Pairs<K, N> {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        free_keys::<K>(&N::schema(generator))
    }

    fn read(value: Value) -> serde_json::Result<Vec<(K::Value, T)>> {
        let entries: Vec<NamedEntry<Value>> = serde_json::from_value(value)?;
        let pair = |entry: NamedEntry<Value>| {
            let key = K::parse(&entry.key).map_err(|wrong| de::Error::custom(wrong.what))?;
            Ok((key, N::read(entry.value)?))
        };
        entries.into_iter().map(pair).collect()
    }
}

/// Sections by the names that the user gave them. `build` makes them from what the file gives.
pub(crate) struct NamedSections;

/// A section whose key in the file is a name that the user chose.
pub(crate) trait HasName: Section {
    /// Its name.
    fn name(&self) -> &str;
}

impl<S: HasName> Show<Vec<S>> for NamedSections {
    fn show(value: &Vec<S>) -> Value {
        Value::Object(
            value.iter().map(|section| (section.name().to_owned(), Nested::show(section))).collect(),
        )
    }
}

/// One value, or a list.
pub(crate) struct List<N>(N);

impl<T, N: Show<T>> Show<Vec<T>> for List<N> {
    fn show(value: &Vec<T>) -> Value {
        value.iter().map(N::show).collect()
    }
}

impl<T, N: Notation<T>> Notation<Vec<T>> for List<N> {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        one_or_many(&N::schema(generator))
    }

    fn read(value: Value) -> serde_json::Result<Vec<T>> {
        match value {
            Value::Array(items) => items.into_iter().map(N::read).collect(),
            one => N::read(one).map(|one| vec![one]),
        }
    }
}
