//! A section of the config, declared once: [`section!`] makes of one list of keys the type of the model, its defaults, the reader, the
//! schema (and from it the checker's rules and the reference) and what the effective config shows.
//!
//! A key is one line: its description, its bounds, its name, its type, how it is written ([`Notation`]), its default.
//!
//! ```ignore
//! section! {
//!     "`pool`"
//!     /// Connections kept for reuse, in each worker.
//!     pub struct Pool: Eq {
//!         /// An unused connection is closed after this.
//!         idle_timeout: Duration as Positive = Duration::from_mins(1),
//!         /// Connections opened ahead for each endpoint.
//!         #[schema(maximum = 1024)]
//!         preconnect: usize = 0,
//!     }
//! }
//! ```
//!
//! What one key says about another is checked where the section is used (`build`), with the place of each key
//! ([`At::key`](crate::shapes::At::key)).

use std::{borrow::Cow, marker::PhantomData, sync::Arc};

use http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, DeserializeOwned},
};
use serde_json::{Map, Value};

use crate::{
    shapes::{Off, OrOff, Txt, one_or_many},
    text::Unit,
};

/// A type that [`section!`] has made.
pub(crate) trait Section: Default {
    /// Sets the keys that are given, and leaves the others as they are.
    ///
    /// # Errors
    /// The checker has let through what it should not have.
    fn set(&mut self, given: Map<String, Value>) -> serde_json::Result<()>;
}

/// The keys of a section that the file gives, to be read over defaults that depend on where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Given<S> {
    keys: Map<String, Value>,
    section: PhantomData<S>,
}

impl<S: Section> Given<S> {
    /// Whether the file gives this key of this section within it.
    pub(crate) fn gives(&self, section: &str, key: &str) -> bool {
        self.keys.get(section).is_some_and(|section| section.get(key).is_some())
    }

    /// The section with these keys, and what `base` says of the others.
    pub(crate) fn over(self, mut base: S) -> S {
        // They were all read before, when this was made.
        let _ = base.set(self.keys);
        base
    }
}

impl<'de, S: Section> Deserialize<'de> for Given<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let keys = Map::deserialize(deserializer)?;
        S::default().set(keys.clone()).map_err(de::Error::custom)?;
        Ok(Self { keys, section: PhantomData })
    }
}

impl<S: JsonSchema> JsonSchema for Given<S> {
    fn inline_schema() -> bool {
        S::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        S::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        S::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        S::json_schema(generator)
    }
}

/// How a value of a key is written in the file.
pub(crate) trait Notation<T> {
    /// The schema of the value, with our own keywords for the checker.
    fn schema(generator: &mut SchemaGenerator) -> Schema;

    /// Reads a value that the checker has let through.
    ///
    /// # Errors
    /// The checker has let through what it should not have.
    fn read(value: Value) -> serde_json::Result<T>;

    /// Reads over what holds without the key. Of a section the keys that are not given stay as they are.
    ///
    /// # Errors
    /// As those of [`Self::read`].
    fn set(over: &mut T, value: Value) -> serde_json::Result<()> {
        *over = Self::read(value)?;
        Ok(())
    }

    /// The value as the file would write it; null is a key that is not set.
    fn show(value: &T) -> Value;
}

/// As serde reads and writes it: numbers, `true` and `false`, words, and sections that are always given as a whole.
pub(crate) struct Plain;

/// A section within a section.
pub(crate) struct Part;

impl<S: Section + Serialize + JsonSchema> Notation<S> for Part {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<S>()
    }

    fn read(value: Value) -> serde_json::Result<S> {
        let mut section = S::default();
        Self::set(&mut section, value)?;
        Ok(section)
    }

    fn set(over: &mut S, value: Value) -> serde_json::Result<()> {
        over.set(serde_json::from_value(value)?)
    }

    fn show(value: &S) -> Value {
        Plain::show_any(value)
    }
}

impl Plain {
    fn show_any<T: Serialize>(value: &T) -> Value {
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

    fn show(value: &T) -> Value {
        Self::show_any(value)
    }
}

impl<U: Unit> Notation<U::Value> for U {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Txt<U>>()
    }

    fn read(value: Value) -> serde_json::Result<U::Value> {
        serde_json::from_value::<Txt<U>>(value).map(|text| text.0.value())
    }

    fn show(value: &U::Value) -> Value {
        U::show(value).into()
    }
}

/// A key that may be left out, and then has no value.
pub(crate) struct Maybe<N>(N);

impl<T, N: Notation<T>> Notation<Option<T>> for Maybe<N> {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        N::schema(generator)
    }

    fn read(value: Value) -> serde_json::Result<Option<T>> {
        N::read(value).map(Some)
    }

    fn show(value: &Option<T>) -> Value {
        value.as_ref().map_or(Value::Null, N::show)
    }
}

/// A text; an empty one counts as none, so that it may come from a variable.
pub(crate) struct UnlessEmpty;

impl Notation<Option<Arc<str>>> for UnlessEmpty {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<String>()
    }

    fn read(value: Value) -> serde_json::Result<Option<Arc<str>>> {
        let text: String = serde_json::from_value(value)?;
        Ok((!text.is_empty()).then(|| text.into()))
    }

    fn show(value: &Option<Arc<str>>) -> Value {
        value.as_deref().map_or(Value::Null, Value::from)
    }
}

/// A status of HTTP, as its number.
pub(crate) struct Status;

impl Notation<StatusCode> for Status {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<u16>()
    }

    fn read(value: Value) -> serde_json::Result<StatusCode> {
        StatusCode::from_u16(serde_json::from_value(value)?).map_err(de::Error::custom)
    }

    fn show(value: &StatusCode) -> Value {
        value.as_u16().into()
    }
}

/// A value, or `off`.
pub(crate) struct OffOr<N>(N);

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

    fn show(value: &Option<T>) -> Value {
        value.as_ref().map_or_else(|| "off".into(), N::show)
    }
}

/// One value, or a list.
pub(crate) struct List<N>(N);

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

    fn show(value: &Vec<T>) -> Value {
        value.iter().map(N::show).collect()
    }
}

/// The schema of a key: that of its notation, its description, its default.
pub(crate) fn key(mut schema: Schema, description: &[&str], default: Value) -> Schema {
    schema.insert("description".into(), prose(description).into());
    // A section has the defaults of its keys, and an empty list none.
    let nothing = match &default {
        Value::Null | Value::Object(_) => true,
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    if !nothing {
        schema.insert("default".into(), default);
    }
    schema
}

/// Bounds, examples, or another default than the section's own; null is none to be shown.
pub(crate) fn extend(schema: &mut Schema, word: &str, value: Value) {
    match value {
        Value::Null => drop(schema.remove(word)),
        value => drop(schema.insert(word.into(), value)),
    }
}

/// A section with every default, as an example: `{}`.
#[derive(Serialize)]
pub(crate) struct Empty {}

/// The lines of a doc comment as one text.
pub(crate) fn prose(lines: &[&str]) -> String {
    lines.iter().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// The notation of a key: the one that is named, else [`Plain`].
macro_rules! notation {
    () => {
        $crate::section::Plain
    };
    ($notation:ty) => {
        $notation
    };
}
pub(crate) use notation;

/// Declares a section: its title in messages, its description, and its keys.
///
/// `#[schema(…)]` before a key adds bounds and examples. `then` names a function that is run over what was read, for a key whose default
/// depends on another; `requires` names a key that must be given.
macro_rules! section {
    (
        $title:literal
        $(#[doc = $about:literal])*
        pub struct $name:ident $(: $($derive:ident),+)? {
            $(
                $(#[doc = $doc:literal])*
                $(#[schema($($word:ident = $value:expr),+ $(,)?)])?
                $key:ident: $type:ty $(as $notation:ty)? = $default:expr
            ),+ $(,)?
        }
        $(requires $required:ident)?
        $(then $then:path)?
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq $($(, $derive)+)?)]
        pub struct $name {
            $(
                $(#[doc = $doc])*
                #[doc = concat!("\n\nDefault: `", stringify!($default), "`.")]
                pub $key: $type,
            )+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)+ }
            }
        }

        impl $crate::section::Section for $name {
            fn set(&mut self, given: serde_json::Map<String, serde_json::Value>) -> serde_json::Result<()> {
                use $crate::section::{Notation, notation};
                for (key, value) in given {
                    match key.as_str() {
                        $(stringify!($key) => {
                            <notation!($($notation)?) as Notation<$type>>::set(&mut self.$key, value)?;
                        })+
                        _ => return Err(serde::de::Error::unknown_field(&key, &[$(stringify!($key)),+])),
                    }
                }
                $($then(self);)?
                Ok(())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let mut section = Self::default();
                $crate::section::Section::set(&mut section, serde::Deserialize::deserialize(deserializer)?)
                    .map_err(serde::de::Error::custom)?;
                Ok(section)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use $crate::section::{Notation, notation};
                let mut shown = serde_json::Map::<String, serde_json::Value>::new();
                $(shown.insert(
                    stringify!($key).into(),
                    <notation!($($notation)?) as Notation<$type>>::show(&self.$key),
                );)+
                shown.serialize(serializer)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn schema_id() -> std::borrow::Cow<'static, str> {
                concat!(module_path!(), "::", stringify!($name)).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                use $crate::section::{Notation, key, notation, prose};
                let default = Self::default();
                let mut properties = serde_json::Map::new();
                $({
                    let written = <notation!($($notation)?) as Notation<$type>>::schema(generator);
                    let shown = <notation!($($notation)?) as Notation<$type>>::show(&default.$key);
                    #[allow(unused_mut, reason = "most keys have no bounds")]
                    let mut schema = key(written, &[$($doc),*], shown);
                    $($($crate::section::extend(&mut schema, stringify!($word), serde_json::json!($value));)+)?
                    properties.insert(stringify!($key).into(), schema.to_value());
                })+
                #[allow(unused_mut, reason = "most sections require no key")]
                let mut schema = schemars::json_schema!({
                    "title": $title,
                    "description": prose(&[$($about),*]),
                    "type": "object",
                    "properties": properties,
                    "additionalProperties": false,
                });
                $(schema.insert("required".into(), serde_json::json!([stringify!($required)]));)?
                schema
            }
        }
    };
}
pub(crate) use section;
