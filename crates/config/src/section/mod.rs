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
//! A key has one of four forms:
//!
//! | form | meaning |
//! | --- | --- |
//! | `key: Type as Notation = default` | the value of the field `key` |
//! | `key in field: Type as Notation = default` | the same for a field with another name |
//! | `key(Written): Type = default` | the field is set by `build`, from what the file gives, read as `Written` |
//! | `key(Written)` | the same for a key without a field |
//!
//! `..field: Section` includes the keys of another section, and `..field(Section)` keys that only `build` uses. After
//! the keys may follow: `holds { … }` lists fields that are not keys; `requires` names keys that must be given;
//! `or key` lets a value without a mapping stand for this key; `then` names a function that changes the section after
//! it was read, for a key whose default depends on another; `shows` names a function that completes what the effective
//! config shows; `rules` says which keys may stand together ([`crate::relations`]).
//!
//! Rules about the values of two keys are checked where the section is used (`build`), with the place of each key
//! ([`Spanned::key`](crate::shapes::Spanned::key)).

mod declare;
mod notation;

use std::{borrow::Cow, fmt::Debug, marker::PhantomData, ops::Deref};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value, json};

pub(crate) use declare::{default_of, keys, property, put, section, show, written};
pub(crate) use notation::*;

use crate::{relations::SectionRules, shapes::Spanned};

/// A type that [`section!`] has made.
pub(crate) trait Section: Default {
    /// The file's values of the keys that `build` processes.
    type Rest: Default + Debug;

    /// There are such keys: the section is read as [`ParsedSection`], never alone.
    const BUILT: bool;

    /// The key that a value without a mapping stands for.
    const SHORT: Option<&'static str>;

    /// Which of its keys may stand together.
    const RULES: SectionRules;

    /// Sets the keys that are given, and leaves the others as they are.
    ///
    /// # Errors
    /// The checker has let through what it should not have.
    fn set(&mut self, rest: &mut Self::Rest, given: Map<String, Value>) -> serde_json::Result<()>;

    /// Sets one key. Returns the value if the key doesn't belong to this section.
    ///
    /// # Errors
    /// As those of [`Self::set`].
    fn put(&mut self, rest: &mut Self::Rest, key: &str, value: Value) -> serde_json::Result<Option<Value>>;

    /// Each key with its schema, in the order of the declaration.
    fn properties(generator: &mut SchemaGenerator) -> Map<String, Value>;

    /// What the effective config shows.
    fn show(&self) -> Map<String, Value>;
}

/// A section after reading: its fields, and the file's values of the keys that `build` processes.
#[derive(Debug)]
pub(crate) struct ParsedSection<S: Section> {
    pub(crate) section: S,
    pub(crate) rest: S::Rest,
}

impl<S: Section> Default for ParsedSection<S> {
    fn default() -> Self {
        Self { section: S::default(), rest: S::Rest::default() }
    }
}

impl<S: Section> ParsedSection<S> {
    fn of(keys: Map<String, Value>) -> serde_json::Result<Self> {
        let mut read = Self::default();
        read.section.set(&mut read.rest, keys)?;
        Ok(read)
    }
}

impl<'de, S: Section> Deserialize<'de> for ParsedSection<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of(Map::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// The schema of a section, for a type that only reads it in another way.
macro_rules! schema_of_section {
    ($($type:ident),+) => {
        $(impl<S: Section + JsonSchema> JsonSchema for $type<S> {
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
        })+
    };
}

schema_of_section!(ParsedSection, GivenKeys);

/// The keys of a section that the file gives, to be read over defaults that depend on where it stands.
#[derive(Clone, Debug)]
pub(crate) struct GivenKeys<S> {
    keys: Map<String, Value>,
    section: PhantomData<S>,
}

impl<S: Section> GivenKeys<S> {
    /// Whether the file gives this key of this section within it.
    pub(crate) fn gives(&self, section: &str, key: &str) -> bool {
        self.keys.get(section).is_some_and(|section| section.get(key).is_some())
    }

    /// The section with these keys; the others keep their values in `base`.
    pub(crate) fn over(self, mut base: S) -> S {
        const { assert!(!S::BUILT, "a section whose keys `build` has to see is read by `Read`") };
        // All of them were already read once without an error, when this value was made.
        let _ = base.set(&mut S::Rest::default(), self.keys);
        base
    }
}

impl<'de, S: Section> Deserialize<'de> for GivenKeys<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let keys = Map::deserialize(deserializer)?;
        ParsedSection::<S>::of(keys.clone()).map_err(de::Error::custom)?;
        Ok(Self { keys, section: PhantomData })
    }
}

/// A section, or a value that stands for the one key that its declaration names after `or`.
#[derive(Debug)]
pub(crate) struct Shorthand<S: Section>(pub(crate) Spanned<ParsedSection<S>>);

impl<S: Section> Deref for Shorthand<S> {
    type Target = Spanned<ParsedSection<S>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<'de, S: Section> Deserialize<'de> for Shorthand<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { at, wrong, mut keys, value } = Spanned::<Value>::deserialize(deserializer)?;
        let read = match (value, S::SHORT) {
            (Value::Object(map), _) => ParsedSection::of(map),
            (value, key) => {
                let key = key.unwrap_or_default();
                keys.insert(key.to_owned(), at);
                let with = |value: Value| ParsedSection::<S>::of(Map::from_iter([(key.to_owned(), value)]));
                // Some keys need their place as well.
                let placed = json!({ "at": at, "wrong": wrong, "keys": {}, "value": value });
                with(value).or_else(|error| with(placed).map_err(|_| error))
            }
        };
        Ok(Self(Spanned { at, wrong, keys, value: read.map_err(de::Error::custom)? }))
    }
}

impl<S: Section + JsonSchema> JsonSchema for Shorthand<S> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{}_or_short", S::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let full = generator.subschema_for::<S>();
        let key = S::SHORT.and_then(|key| S::properties(generator).shift_remove(key)).unwrap_or_default();
        let mut schema = json_schema!({ "anyOf": [short(key), full] });
        schema.insert("x-at".into(), true.into());
        schema
    }
}

/// The schema of a key's value without its description; the first of several alternatives.
fn short(mut key: Value) -> Value {
    if let Some(first) = key.get("anyOf").and_then(|all| all.get(0)) {
        return short(first.clone());
    }
    if let Some(key) = key.as_object_mut() {
        key.retain(|word, _| !matches!(word.as_str(), "x-at" | "description" | "default"));
    }
    key
}

/// Bounds, examples, or another default than the section's own; `null` shows no default.
pub(crate) fn extend(schema: &mut Schema, word: &str, value: Value) {
    match value {
        Value::Null => drop(schema.remove(word)),
        value => drop(schema.insert(word.into(), value)),
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

/// The schema of a section.
pub(crate) fn schema<S: Section>(
    generator: &mut SchemaGenerator,
    title: &str,
    about: &[&str],
    required: &[&str],
) -> Schema {
    let mut properties = S::properties(generator);
    let mut schema = json_schema!({ "title": title, "description": prose(about), "type": "object" });
    for key in required {
        // A required key has no default.
        let property = properties.get_mut(*key).and_then(Value::as_object_mut);
        property.map(|property| property.remove("default"));
    }
    schema.insert("properties".into(), properties.into());
    schema.insert("additionalProperties".into(), false.into());
    if !required.is_empty() {
        schema.insert("required".into(), required.into());
    }
    if !S::RULES.rows.is_empty() {
        schema.insert("x-rules".into(), json!(S::RULES));
    }
    schema
}

/// The name of a key as the file writes it: `match` is a word of Rust's.
pub(crate) fn name(written: &'static str) -> &'static str {
    written.strip_prefix("r#").unwrap_or(written)
}

/// The lines of a doc comment as one text.
pub(crate) fn prose(lines: &[&str]) -> String {
    lines.iter().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
}
