//! What a schema accepts: shapes, types, words, and a description for people.

use serde_json::Value;

use crate::{
    suggest,
    yaml::{Scalar, YamlKind, YamlNode},
};

/// The three shapes of YAML.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum YamlShape {
    Scalar,
    Sequence,
    Mapping,
}

impl YamlShape {
    pub(crate) fn of(node: &YamlNode) -> Option<Self> {
        match node.kind {
            YamlKind::Scalar(_) => Some(Self::Scalar),
            YamlKind::Sequence(_) => Some(Self::Sequence),
            YamlKind::Mapping(_) => Some(Self::Mapping),
            YamlKind::Broken => None,
        }
    }
}

/// Follows `$ref`.
pub(crate) fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#')) {
        Some(pointer) => root.pointer(pointer).unwrap_or(schema),
        None => schema,
    }
}

pub(crate) fn shapes(root: &Value, schema: &Value) -> Vec<YamlShape> {
    match list(schema, "anyOf") {
        Some(alternatives) => {
            alternatives.iter().flat_map(|alternative| shapes(root, resolve(root, alternative))).collect()
        }
        None => [YamlShape::Scalar, YamlShape::Sequence, YamlShape::Mapping]
            .into_iter()
            .filter(|shape| accepts(schema, *shape))
            .collect(),
    }
}

pub(crate) fn accepts(schema: &Value, shape: YamlShape) -> bool {
    match type_of(schema) {
        "object" => shape == YamlShape::Mapping,
        "array" => shape == YamlShape::Sequence,
        _ => shape == YamlShape::Scalar,
    }
}

/// The first type of a schema; words (`enum`, `const`, `oneOf`) are strings.
pub(crate) fn type_of(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(one)) => one,
        Some(Value::Array(several)) => several.first().and_then(Value::as_str).unwrap_or("string"),
        _ => "string",
    }
}

/// The words of an enumeration.
pub(crate) fn words(schema: &Value) -> Vec<&str> {
    let mut words: Vec<&str> =
        list(schema, "enum").unwrap_or_default().iter().filter_map(Value::as_str).collect();
    words.extend(schema.get("const").and_then(Value::as_str));
    for one in list(schema, "oneOf").unwrap_or_default() {
        words.extend(self::words(one));
    }
    words
}

/// The values that a schema accepts, in words.
pub(crate) fn describe(root: &Value, schema: &Value) -> String {
    let schema = resolve(root, schema);
    if let Some(alternatives) = list(schema, "anyOf") {
        let mut all: Vec<String> = Vec::new();
        for alternative in alternatives {
            let list = type_of(resolve(root, alternative)) == "array" && !all.is_empty();
            let one = if list { "a list of these".to_owned() } else { describe(root, alternative) };
            if !all.contains(&one) {
                all.push(one);
            }
        }
        return all.join(", or ");
    }
    let words = words(schema);
    if !words.is_empty() {
        return suggest::list(words, "or");
    }
    if let Some(what) = schema.get("x-what").and_then(Value::as_str) {
        let example =
            list(schema, "examples").and_then(<[Value]>::first).and_then(Value::as_str).unwrap_or_default();
        return if example.is_empty() { what.to_owned() } else { format!("{what} such as `{example}`") };
    }
    match type_of(schema) {
        "boolean" => "`true` or `false`".to_owned(),
        "integer" => "a whole number".to_owned(),
        "array" => {
            let of = schema.get("items").map_or_else(String::new, |of| describe(root, of));
            format!("a list of {of}")
        }
        "object" if flag(schema, "x-map") => {
            let of = schema.get("additionalProperties").map_or_else(String::new, |of| describe(root, of));
            format!("a mapping with {of} for each key")
        }
        "object" => format!("a mapping ({})", title(schema)),
        _ => "a text".to_owned(),
    }
}

pub(crate) fn title(schema: &Value) -> String {
    schema.get("title").and_then(Value::as_str).unwrap_or("this mapping").to_owned()
}

pub(crate) fn list<'a>(schema: &'a Value, key: &str) -> Option<&'a [Value]> {
    schema.get(key).and_then(Value::as_array).map(Vec::as_slice)
}

pub(crate) fn flag(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// A scalar for a message; content of a file is never shown.
pub(crate) fn quoted(scalar: &Scalar) -> String {
    if scalar.secret {
        return "the file's content".to_owned();
    }
    format!("`{}`", shown(scalar))
}

/// The beginning of its first line.
pub(crate) fn shown(scalar: &Scalar) -> String {
    let mut short: String = scalar.text.lines().next().unwrap_or_default().chars().take(60).collect();
    if short.len() < scalar.text.len() {
        short.push('…');
    }
    short
}
